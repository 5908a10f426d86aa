#include "common/hub/cache.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/new_file.h"
#include "common/source.h"

/* ---- where things are ---- */

/* "models--org--name"; NULL without memory. */
static char *repository_folder(const struct hub_reference *reference) {
    const char *slash = strchr(reference->repository, '/'), *kind = reference->dataset ? "datasets" : "models";
    if (!slash)
        return text_format("%s--%s", kind, reference->repository);
    return text_format("%s--%.*s--%s", kind, (int)(slash - reference->repository), reference->repository, slash + 1);
}

/* CACHE/[.locks/]models--org--name[/FOLDER/NAME[/REST]]; parts that are NULL are left out. */
static char *path_make(const struct hub_environment *environment, const char *locks,
                       const struct hub_reference *reference, const char *folder, const char *name, const char *rest) {
    char *own = repository_folder(reference);
    char *path =
        own ? text_format("%s/%s%s%s%s%s%s%s%s", environment->cache, locks, own, folder ? "/" : "",
                          folder ? folder : "", name ? "/" : "", name ? name : "", rest ? "/" : "", rest ? rest : "")
            : NULL;
    free(own);
    return path;
}

char *hub_cache_repository(const struct hub_environment *environment, const struct hub_reference *reference) {
    return path_make(environment, "", reference, NULL, NULL, NULL);
}

char *hub_cache_snapshot(const struct hub_environment *environment, const struct hub_reference *reference,
                         const char *commit, const char *path) {
    return path_make(environment, "", reference, "snapshots", commit, path);
}

char *hub_cache_blob(const struct hub_environment *environment, const struct hub_reference *reference,
                     const char *etag) {
    return path_make(environment, "", reference, "blobs", etag, NULL);
}

char *hub_cache_lock(const struct hub_environment *environment, const struct hub_reference *reference,
                     const char *etag) {
    char *path = path_make(environment, ".locks/", reference, NULL, etag, NULL);
    char *lock = path ? text_format("%s.lock", path) : NULL;
    free(path);
    return lock;
}

/* ---- revisions ---- */

/* refs/REVISION; a revision is a path there (refs/refs/pr/1), which must not lead elsewhere: NULL, as without memory. */
static char *reference_path(const struct hub_environment *environment, const struct hub_reference *reference) {
    for (const char *part = reference->revision; part; part = strchr(part, '/')) {
        part += *part == '/';
        const size_t length = strcspn(part, "/");
        if (length == 0 || (length <= 2 && strncmp(part, "..", length) == 0))
            return NULL;
    }
    return path_make(environment, "", reference, "refs", reference->revision, NULL);
}

bool hub_cache_commit(const struct hub_environment *environment, const struct hub_reference *reference,
                      char commit[HUB_OID_HEX]) {
    char *path = NULL, *bytes = NULL;
    const char *found = reference->revision;
    size_t length = 0;
    if (!hub_is_commit(found)) {
        path = reference_path(environment, reference);
        if (path && file_read(path, HUB_OID_HEX + 1, &bytes, &length, NULL) == STATUS_OK)
            bytes[strcspn(bytes, "\r\n")] = '\0'; /* written by hand */
        found = bytes;
    }
    const bool known = found && hub_is_commit(found);
    if (known)
        memcpy(commit, found, HUB_OID_HEX);
    free(bytes);
    free(path);
    return known;
}

enum status hub_cache_reference_write(const struct hub_environment *environment, const struct hub_reference *reference,
                                      const char *commit, struct error *error) {
    char now[HUB_OID_HEX];
    if (hub_cache_commit(environment, reference, now) && strcmp(now, commit) == 0)
        return STATUS_OK;
    if (hub_is_commit(reference->revision))
        return STATUS_OK;
    char *path = reference_path(environment, reference);
    if (!path)
        return error_set(error, STATUS_IO, "the revision '%s' has no place in the cache", reference->revision);
    enum status status = folder_above_make(path, error);
    if (status == STATUS_OK)
        status = new_file_write(path, commit, strlen(commit), error); /* no newline: readers take the file as it is */
    free(path);
    return status;
}

/* ---- folders and links ---- */

enum status hub_cache_tag(const char *folder, struct error *error) {
    static const char tag[] = "Signature: 8a477f597d28d172789f06886806bc55\n"
                              "# What is below can be downloaded again: backups need not have it.\n"
                              "# https://bford.info/cachedir/\n";
    char *path = text_format("%s/CACHEDIR.TAG", folder);
    enum status status = path ? STATUS_OK : error_set_memory(error);
    if (path && access(path, F_OK) != 0)
        status = new_file_write(path, tag, sizeof tag - 1, error);
    free(path);
    return status;
}

enum status hub_cache_prepare(const struct hub_environment *environment, const struct hub_reference *reference,
                              struct error *error) {
    char *const folders[] = {
        path_make(environment, "", reference, "blobs", NULL, NULL),
        path_make(environment, "", reference, "snapshots", NULL, NULL),
        path_make(environment, "", reference, "refs", NULL, NULL),
        path_make(environment, ".locks/", reference, NULL, NULL, NULL),
    };
    enum { FOLDERS = sizeof folders / sizeof *folders };
    enum status status = STATUS_OK;
    for (int i = 0; i < FOLDERS; i++) {
        if (status == STATUS_OK)
            status = folders[i] ? folder_make(folders[i], error) : error_set_memory(error);
        free(folders[i]);
    }
    return status == STATUS_OK ? hub_cache_tag(environment->cache, error) : status;
}

/* "../../blobs/ETAG" for a file of the root, one "../" more for each folder that it is in; NULL without memory. */
static char *link_text(const char *path, const char *etag) {
    struct text text = {0};
    text_append_string(&text, "../../");
    for (const char *slash = path; (slash = strchr(slash, '/')); slash++)
        text_append_string(&text, "../");
    text_printf(&text, "blobs/%s", etag);
    if (!text.failed)
        return text.bytes;
    text_free(&text);
    return NULL;
}

/* Whether `path` is a link that says `wanted`. */
static bool link_is(const char *path, const char *wanted) {
    char now[PATH_MAX];
    const ssize_t length = readlink(path, now, sizeof now);
    return length == (ssize_t)strlen(wanted) && memcmp(now, wanted, (size_t)length) == 0;
}

/* Makes the link in place of whatever else is there; another process may do the same at the same time. */
static enum status link_make(const char *path, const char *wanted, struct error *error) {
    enum { ATTEMPTS = 3 };
    int problem = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        if (link_is(path, wanted) || symlink(wanted, path) == 0)
            return STATUS_OK;
        problem = errno;
        if (problem != EEXIST || (unlink(path) != 0 && (problem = errno) != ENOENT))
            break;
    }
    return error_set_errno(error, STATUS_IO, problem, "cannot make the link '%s'", path);
}

enum status hub_cache_link(const struct hub_environment *environment, const struct hub_reference *reference,
                           const char *commit, const struct hub_file *file, struct error *error) {
    char etag[HUB_ETAG_HEX];
    char *path = hub_cache_snapshot(environment, reference, commit, file->path);
    char *wanted = link_text(file->path, hub_file_etag(file, etag));
    enum status status = path && wanted ? folder_above_make(path, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = link_make(path, wanted, error);
    free(wanted);
    free(path);
    return status;
}
