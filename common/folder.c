#include "common/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/array.h"
#include "common/hub/cache.h"
#include "common/hub/range_source.h"
#include "common/hub/repository.h"
#include "common/text.h"

/* libcurl, its connections and TLS, and pieces on their way: measured at up to 27 MiB. */
static const uint64_t client_bytes = (uint64_t)40 << 20;

struct folder {
    char *name;
    char *path;                     /* of a folder of this machine */
    char *id;                       /* of a repository on the Hub */
    const struct repository *there; /* what is asked there; NULL with `path` */
};

/* ---- opening ---- */

static enum status local_open(const char *where, struct folder *folder, struct error *error) {
    struct stat found;
    if (stat(where, &found) != 0)
        return error_set_errno(error, errno == ENOENT ? STATUS_BAD_INPUT : STATUS_IO, errno, "cannot open '%s'", where);
    if (!S_ISDIR(found.st_mode))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is not a folder; a checkpoint is a folder with config.json and .safetensors files",
                         where);
    folder->path = strdup(where);
    return folder->path ? STATUS_OK : error_set_memory(error);
}

/* Offline, the cache says what a revision is, and its snapshot is the folder. */
static enum status cached_open(const struct hub *hub, const struct hub_reference *reference, struct folder *folder,
                               struct error *error) {
    const struct hub_environment *environment = &hub->environment;
    char commit[HUB_OID_HEX];
    struct stat found;
    bool known = hub_cache_commit(environment, reference, commit);
    if (known) {
        folder->id = hub_reference_text(reference, commit);
        folder->path = hub_cache_snapshot(environment, reference, commit, NULL);
        if (!folder->id || !folder->path)
            return error_set_memory(error);
    }
    return known && stat(folder->path, &found) == 0 && S_ISDIR(found.st_mode)
               ? STATUS_OK
               : error_set(error, STATUS_IO,
                           "'%s' is not in the cache '%s', and the Hub is not asked while HF_HUB_OFFLINE is set",
                           folder->name, environment->cache);
}

static enum status hub_folder_open(const char *where, struct folder *folder, struct error *error) {
    struct hub_reference reference;
    struct hub *hub;
    enum status status = hub_reference_parse(where, &reference, error);
    if (status == STATUS_OK)
        status = hub_shared(&hub, error);
    if (status == STATUS_OK && hub->environment.offline)
        status = cached_open(hub, &reference, folder, error);
    else if (status == STATUS_OK)
        status = repository_open(hub, &reference, &folder->there, error);
    if (status == STATUS_OK && folder->there) {
        folder->id = hub_reference_text(&reference, folder->there->listing.commit);
        status = folder->id ? STATUS_OK : error_set_memory(error);
    }
    hub_reference_free(&reference);
    return status;
}

enum status folder_open(const char *where, struct folder **out, struct error *error) {
    struct folder *folder = calloc(1, sizeof *folder);
    *out = NULL;
    if (!folder)
        return error_set_memory(error);
    folder->name = strdup(where);
    enum status status = !folder->name             ? error_set_memory(error)
                         : hub_reference_is(where) ? hub_folder_open(where, folder, error)
                                                   : local_open(where, folder, error);
    if (status == STATUS_OK)
        *out = folder;
    else
        folder_close(folder);
    return status;
}

void folder_close(struct folder *folder) {
    if (!folder)
        return;
    free(folder->name);
    free(folder->path);
    free(folder->id);
    free(folder);
}

const char *folder_name(const struct folder *folder) { return folder->name; }

const char *folder_path(const struct folder *folder) { return folder->path; }

const char *folder_repository(const struct folder *folder) { return folder->id; }

const struct hub_listing *folder_listing(const struct folder *folder) {
    return folder->there ? &folder->there->listing : NULL;
}

uint64_t folders_memory(const struct folder *const *folders, size_t count) {
    uint64_t files = 0;
    bool any = false;
    for (size_t i = 0; i < count; i++)
        if (folders[i] && folders[i]->there) {
            any = true;
            files += repository_file_most(folders[i]->there);
        }
    return any ? client_bytes + (uint64_t)RANGE_BLOCKS * RANGE_BLOCK_BYTES + files : 0;
}

/* ---- files ---- */

/* The caller frees; NULL without memory. */
static char *path_of(const struct folder *folder, const char *file) { return text_format("%s/%s", folder->path, file); }

/*
 * A file of a snapshot in the cache: it is a link to BLOBS/SHA256 where it is a large one, and bears the name that the
 * user knows.
 */
static enum status cached_identify(const struct folder *folder, const char *file, const char *path,
                                   struct byte_source *source, struct error *error) {
    char target[PATH_MAX], *name = text_format("%s/%s (%s)", folder->name, file, path);
    if (!name)
        return error_set_memory(error);
    free(source->name);
    source->name = name;
    const ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = '\0';
    const char *slash = strrchr(target, '/');
    source->identity.hashed = slash && sha256_from_hex(slash + 1, source->identity.sha256);
    return STATUS_OK;
}

enum status folder_file_open(const struct folder *folder, const char *file, struct byte_source **source,
                             struct error *error) {
    *source = NULL;
    if (folder->there)
        return repository_file_open(folder->there, folder->name, file, source, error);
    char *path = path_of(folder, file);
    enum status status = path ? byte_source_open_file(path, source, error) : error_set_memory(error);
    if (status == STATUS_OK && folder->id)
        status = cached_identify(folder, file, path, *source, error);
    if (status != STATUS_OK) {
        byte_source_close(*source);
        *source = NULL;
    }
    free(path);
    return status;
}

enum status folder_file_read(const struct folder *folder, const char *file, size_t limit, char **bytes, size_t *length,
                             struct error *error) {
    if (folder->there)
        return repository_file_read(folder->there, folder->name, file, limit, bytes, length, error);
    *bytes = NULL;
    *length = 0;
    char *path = path_of(folder, file);
    enum status status = path ? file_read(path, limit, bytes, length, error) : error_set_memory(error);
    free(path);
    return status;
}

bool folder_has(const struct folder *folder, const char *file) {
    struct folder_entry entry;
    if (folder->there)
        return repository_look(folder->there, file, &entry);
    char *path = path_of(folder, file);
    struct stat found;
    bool has = path && stat(path, &found) == 0;
    free(path);
    return has;
}

/* ---- entries ---- */

/* What `name` in the open folder `at` (or AT_FDCWD) is; errno when there is nothing that can be looked at. */
static int entry_look(int at, const char *name, struct folder_entry *entry) {
    struct stat found;
    if (fstatat(at, name, &found, AT_SYMLINK_NOFOLLOW) != 0)
        return entry->problem = errno;
    entry->link = S_ISLNK(found.st_mode);
    if (entry->link && fstatat(at, name, &found, 0) != 0) {
        entry->problem = errno;
        return 0;
    }
    if (S_ISREG(found.st_mode)) {
        entry->kind = FOLDER_FILE;
        entry->size = (uint64_t)found.st_size;
    } else if (S_ISDIR(found.st_mode)) {
        entry->kind = FOLDER_FOLDER;
    }
    return 0;
}

enum status folder_look(const struct folder *folder, const char *file, struct folder_entry *entry, bool *found,
                        struct error *error) {
    *entry = (struct folder_entry){.kind = FOLDER_OTHER};
    *found = folder->there && repository_look(folder->there, file, entry);
    if (folder->there)
        return STATUS_OK;
    char *path = path_of(folder, file);
    if (!path)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    int problem = entry_look(AT_FDCWD, path, entry);
    *found = problem == 0;
    /* a part of the name that is no folder, or too long for this file system: not there either */
    if (entry->problem == EACCES || entry->problem == EIO)
        status = error_set_errno(error, STATUS_IO, entry->problem, "cannot look at '%s'", path);
    free(path);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct folder_entry *)a)->name, ((const struct folder_entry *)b)->name);
}

/* The entries of an open folder, in no order; after an error, those that were read. */
static enum status entries_read(DIR *list, const char *path, struct folder_entry **entries, size_t *count,
                                struct error *error) {
    size_t capacity = 0;
    const struct dirent *found;
    while ((errno = 0, found = readdir(list))) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (!array_reserve(*entries, *count + 1, &capacity))
            return error_set_memory(error);
        struct folder_entry *entry = &(*entries)[*count];
        *entry = (struct folder_entry){.name = strdup(found->d_name), .kind = FOLDER_OTHER};
        if (!entry->name)
            return error_set_memory(error);
        (*count)++;
        entry_look(dirfd(list), entry->name, entry);
    }
    return errno ? error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", path) : STATUS_OK;
}

static enum status local_list(const char *folder, const char *inside, struct folder_entry **entries, size_t *count,
                              struct error *error) {
    char *path = *inside ? text_format("%s/%s", folder, inside) : strdup(folder);
    if (!path)
        return error_set_memory(error);
    if (*inside)
        path[strlen(path) - 1] = '\0'; /* its '/' */
    DIR *list = opendir(path);
    enum status status = list ? entries_read(list, path, entries, count, error)
                              : error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", path);
    if (list)
        closedir(list);
    free(path);
    return status;
}

enum status folder_list(const struct folder *folder, const char *inside, struct folder_entry **entries, size_t *count,
                        struct error *error) {
    *entries = NULL;
    *count = 0;
    const enum status status = folder->there ? repository_list(folder->there, inside, entries, count, error)
                                             : local_list(folder->path, inside, entries, count, error);
    if (status != STATUS_OK) {
        folder_entries_free(*entries, *count);
        *entries = NULL;
        *count = 0;
    } else if (*count > 0) {
        qsort(*entries, *count, sizeof **entries, by_name);
    }
    return status;
}

void folder_entries_free(struct folder_entry *entries, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(entries[i].name);
    free(entries);
}
