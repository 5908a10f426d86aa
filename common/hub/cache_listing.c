#include "common/hub/cache_listing.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/hub/tree.h"
#include "common/new_file.h"
#include "common/source.h"

enum { TREE_BYTES_MAX = 64 << 20, FOLDER_DEPTH_MAX = 64 };

/* Notes the hash that a file of the cache is named after; it stays without one when the name is none. */
static void etag_take(struct hub_file *file, const char *etag) {
    file->lfs = sha256_from_hex(etag, file->sha256);
    if (!file->lfs && hub_is_commit(etag))
        memcpy(file->oid, etag, HUB_OID_HEX);
}

/* ---- the list of the repository ---- */

/* Whether `info` describes a file in the way of huggingface_hub's list. */
static bool tree_entry(const char *path, const json_t *info, struct hub_file *file) {
    const json_t *size = json_object_get(info, "size");
    const char *oid = json_string_value(json_object_get(info, "blob_id"));
    const char *sha256 = json_string_value(json_object_get(info, "lfs_sha256"));
    *file = (struct hub_file){.size = (uint64_t)json_integer_value(size), .lfs = sha256 != NULL};
    if (!hub_tree_path_is_safe(path) || !json_is_integer(size) || json_integer_value(size) < 0 || !oid ||
        !hub_is_commit(oid) || (sha256 && !sha256_from_hex(sha256, file->sha256)))
        return false;
    file->path = strdup(path);
    memcpy(file->oid, oid, HUB_OID_HEX);
    return true;
}

/* Reads trees/COMMIT.json. *whole stays false when there is none that can be used. */
static enum status tree_file_read(const char *path, struct hub_listing *listing, bool *whole, struct error *error) {
    enum { FORMAT = 1 };
    char *bytes = NULL;
    size_t length = 0;
    json_t *root = NULL, *info;
    const char *name;
    enum status status = STATUS_OK;
    if (file_read(path, TREE_BYTES_MAX, &bytes, &length, NULL) == STATUS_OK)
        root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, NULL);
    free(bytes);
    json_t *files = json_object_get(root, "files");
    *whole = json_is_object(files) && json_integer_value(json_object_get(root, "format_version")) == FORMAT;
    if (*whole)
        json_object_foreach(files, name, info) {
            struct hub_file file;
            *whole = *whole && status == STATUS_OK && tree_entry(name, info, &file);
            if (*whole)
                status = hub_listing_add(listing, &file, error);
        }
    json_decref(root);
    return status;
}

enum status hub_cache_listing_write(const char *folder, const struct hub_listing *listing, struct error *error) {
    struct text json = {0};
    char hex[SHA256_HEX];
    char *trees = text_format("%s/trees", folder), *path = text_format("%s/trees/%s.json", folder, listing->commit);
    text_append_string(&json, "{\n \"format_version\": 1,\n \"files\": {");
    for (size_t i = 0; i < listing->count; i++) {
        const struct hub_file *file = &listing->files[i];
        text_append_string(&json, i ? ",\n  " : "\n  ");
        text_append_json_ascii(&json, file->path);
        text_printf(&json, ": {\"size\": %" PRIu64 ", \"blob_id\": \"%s\"", file->size, file->oid);
        if (file->lfs)
            text_printf(&json, ", \"lfs_sha256\": \"%s\", \"lfs_size\": %" PRIu64, sha256_hex(file->sha256, hex),
                        file->size);
        text_append_string(&json, "}");
    }
    text_append_string(&json, "\n }\n}");
    enum status status = json.failed || !trees || !path ? error_set_memory(error) : STATUS_OK;
    if (status == STATUS_OK && access(path, F_OK) != 0) {
        status = folder_make(trees, error);
        if (status == STATUS_OK)
            status = new_file_write(path, json.bytes, json.length, error);
    }
    free(path);
    free(trees);
    text_free(&json);
    return status;
}

/* ---- what lies in the snapshot ---- */

static enum status folder_walk(const char *snapshot, const char *inside, unsigned depth, struct hub_listing *listing,
                               struct error *error);

/* `inside` is a path in the snapshot. */
static enum status entry_walk(const char *snapshot, const char *inside, unsigned depth, struct hub_listing *listing,
                              struct error *error) {
    char *path = text_format("%s/%s", snapshot, inside), link[PATH_MAX] = "";
    struct stat file, own;
    struct hub_file found = {0};
    enum status status = path ? STATUS_OK : error_set_memory(error);
    if (status != STATUS_OK || !hub_tree_path_is_safe(inside) || lstat(path, &own) != 0) {
        free(path);
        return status;
    }
    const bool there = stat(path, &file) == 0;
    if (S_ISDIR(own.st_mode)) {
        status = folder_walk(snapshot, inside, depth + 1, listing, error);
    } else if (S_ISLNK(own.st_mode) || S_ISREG(own.st_mode)) {
        const ssize_t length = readlink(path, link, sizeof link - 1);
        link[length > 0 ? length : 0] = '\0';
        found = (struct hub_file){.path = strdup(inside), .size = there ? (uint64_t)file.st_size : 1};
        const char *slash = strrchr(link, '/');
        etag_take(&found, slash ? slash + 1 : link);
        status = hub_listing_add(listing, &found, error);
    }
    free(path);
    return status;
}

/* `inside` is "" or a folder of the snapshot. */
static enum status folder_walk(const char *snapshot, const char *inside, unsigned depth, struct hub_listing *listing,
                               struct error *error) {
    char *path = text_format("%s/%s", snapshot, inside);
    DIR *folder = path && depth < FOLDER_DEPTH_MAX ? opendir(path) : NULL;
    enum status status = STATUS_OK;
    struct dirent *entry;
    if (!path)
        status = error_set_memory(error);
    else if (!folder)
        status = error_set_errno(error, STATUS_IO, depth < FOLDER_DEPTH_MAX ? errno : ELOOP, "cannot list '%s'", path);
    while (status == STATUS_OK && (entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char *below = text_format("%s%s%s", inside, *inside ? "/" : "", entry->d_name);
        status = below ? entry_walk(snapshot, below, depth, listing, error) : error_set_memory(error);
        free(below);
    }
    if (folder)
        closedir(folder);
    free(path);
    return status;
}

/* ---- either ---- */

static void files_forget(struct hub_listing *listing) {
    for (size_t i = 0; i < listing->count; i++)
        free(listing->files[i].path);
    listing->count = 0;
}

enum status hub_cache_listing(const struct hub_environment *environment, const struct hub_reference *reference,
                              struct hub_listing *listing, bool *whole, struct error *error) {
    *whole = false;
    enum status status = hub_listing_begin(reference, listing, error);
    if (status != STATUS_OK)
        return status;
    const bool known = hub_cache_commit(environment, reference, listing->commit);
    char *folder = hub_cache_repository(environment, reference);
    char *snapshot = hub_cache_snapshot(environment, reference, listing->commit, NULL);
    char *tree = folder ? text_format("%s/trees/%s.json", folder, listing->commit) : NULL;
    status = folder && snapshot && tree ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && (!known || access(snapshot, F_OK) != 0))
        status =
            error_set(error, STATUS_IO, "'%s' at the revision '%s' is not in the cache '%s', and HF_HUB_OFFLINE is set",
                      reference->repository, reference->revision, environment->cache);
    if (status == STATUS_OK)
        status = tree_file_read(tree, listing, whole, error);
    if (status == STATUS_OK && !*whole) {
        files_forget(listing);
        status = folder_walk(snapshot, "", 0, listing, error);
    }
    if (status == STATUS_OK)
        status = hub_tree_finish(listing, error);
    free(tree);
    free(snapshot);
    free(folder);
    return status;
}
