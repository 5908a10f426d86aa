#include "common/hub/repository.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/cache.h"
#include "common/hub/range_source.h"
#include "common/source.h"
#include "common/text.h"

/* Of files with up to so many bytes all is read, and their hash checked: tokenizers are among them. */
static const uint64_t whole_most = (uint64_t)32 << 20;

/* ---- repositories of this process ---- */

static struct repository *opened;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

static bool same_reference(const struct hub_reference *a, const struct hub_reference *b) {
    return a->dataset == b->dataset && strcmp(a->repository, b->repository) == 0 &&
           strcmp(a->revision, b->revision) == 0;
}

static enum status repository_ask(struct hub *hub, const struct hub_reference *reference, const struct repository **out,
                                  struct error *error) {
    struct repository *repository = calloc(1, sizeof *repository);
    if (!repository)
        return error_set_memory(error);
    repository->hub = hub;
    enum status status = hub_listing_read(hub, reference, &repository->listing, error);
    if (status != STATUS_OK) {
        hub_listing_free(&repository->listing);
        free(repository);
        return status;
    }
    repository->next = opened;
    *out = opened = repository;
    return STATUS_OK;
}

enum status repository_open(struct hub *hub, const struct hub_reference *reference, const struct repository **out,
                            struct error *error) {
    enum status status = STATUS_OK;
    pthread_mutex_lock(&opening);
    const struct repository *repository = opened;
    while (repository && !same_reference(&repository->listing.reference, reference))
        repository = repository->next;
    *out = repository;
    if (!repository)
        status = repository_ask(hub, reference, out, error);
    pthread_mutex_unlock(&opening);
    return status;
}

/* ---- files ---- */

/* Where the cache has the file; NULL where it has not (or without memory: the Hub has it, too). The caller frees. */
static char *cached_path(const struct repository *repository, const struct hub_file *file) {
    const struct hub_environment *environment = &repository->hub->environment;
    const struct hub_listing *listing = &repository->listing;
    char etag[HUB_ETAG_HEX], *found = NULL;
    char *const paths[] = {
        hub_cache_blob(environment, &listing->reference, hub_file_etag(file, etag)),
        hub_cache_snapshot(environment, &listing->reference, listing->commit,
                           file->path), /* of a cache without links */
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (!found && paths[i] && file_has_size(paths[i], file->size))
            found = paths[i];
        else
            free(paths[i]);
    }
    return found;
}

static enum status file_find(const struct repository *repository, const char *name, const char *path,
                             const struct hub_file **file, struct error *error) {
    *file = hub_listing_find(&repository->listing, path);
    return *file ? STATUS_OK : error_set_errno(error, STATUS_BAD_INPUT, ENOENT, "cannot open '%s/%s'", name, path);
}

/* Shards are read by ranges whatever their size: mostly, their header is all that is wanted. */
static bool is_read_whole(const struct hub_file *file) {
    return file->size <= whole_most && !text_ends_with(file->path, ".safetensors");
}

/* Has *source say what the Hub says of it, under a name of ours, which is taken over. */
static enum status source_name_set(struct byte_source **source, const struct hub_file *file, char *name,
                                   struct error *error) {
    if (!name) {
        byte_source_close(*source);
        *source = NULL;
        return error_set_memory(error);
    }
    free((*source)->name);
    (*source)->name = name;
    (*source)->identity.hashed = file->lfs;
    if (file->lfs)
        memcpy((*source)->identity.sha256, file->sha256, SHA256_SIZE);
    return STATUS_OK;
}

enum status repository_file_open(const struct repository *repository, const char *name, const char *path,
                                 struct byte_source **source, struct error *error) {
    const struct hub_file *file;
    *source = NULL;
    enum status status = file_find(repository, name, path, &file, error);
    if (status != STATUS_OK)
        return status;
    char *cached = cached_path(repository, file), *bytes;
    size_t length;
    if (cached) {
        status = byte_source_open_file(cached, source, error);
    } else if (is_read_whole(file)) {
        status = hub_file_read(repository->hub, &repository->listing, file, whole_most, &bytes, &length, error);
        if (status == STATUS_OK)
            status = byte_source_of_bytes(path, bytes, length, source, error);
    } else {
        status = range_source_open(repository->hub, &repository->listing, file, source, error);
    }
    if (status == STATUS_OK)
        status = source_name_set(
            source, file, cached ? text_format("%s/%s (%s)", name, path, cached) : text_format("%s/%s", name, path),
            error);
    free(cached);
    return status;
}

enum status repository_file_read(const struct repository *repository, const char *name, const char *path, size_t limit,
                                 char **bytes, size_t *length, struct error *error) {
    const struct hub_file *file;
    *bytes = NULL;
    *length = 0;
    enum status status = file_find(repository, name, path, &file, error);
    if (status != STATUS_OK)
        return status;
    char *cached = cached_path(repository, file);
    if (file->size > limit)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s/%s' has %" PRIu64 " bytes, more than the %zu that such a file may have", name, path,
                           file->size, limit);
    else if (cached)
        status = file_read(cached, limit, bytes, length, error);
    else
        status = hub_file_read(repository->hub, &repository->listing, file, limit, bytes, length, error);
    free(cached);
    return status;
}

uint64_t repository_file_most(const struct repository *repository) {
    uint64_t most = 0;
    for (size_t i = 0; i < repository->listing.count; i++) {
        const struct hub_file *file = &repository->listing.files[i];
        if (is_read_whole(file) && file->size > most)
            most = file->size;
    }
    return most;
}

/* ---- entries ---- */

/* The first file whose path is not below `prefix` in the order of bytes. */
static size_t files_from(const struct hub_listing *listing, const char *prefix) {
    size_t low = 0, high = listing->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(listing->files[middle].path, prefix) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool repository_look(const struct repository *repository, const char *path, struct folder_entry *entry) {
    const struct hub_listing *listing = &repository->listing;
    const struct hub_file *file = hub_listing_find(listing, path);
    *entry = (struct folder_entry){.kind = FOLDER_OTHER};
    if (file) {
        entry->kind = FOLDER_FILE;
        entry->size = file->size;
        return true;
    }
    char *below = text_format("%s/", path);
    const size_t first = below ? files_from(listing, below) : listing->count;
    if (first < listing->count && strncmp(listing->files[first].path, below, strlen(below)) == 0)
        entry->kind = FOLDER_FOLDER;
    free(below);
    return entry->kind == FOLDER_FOLDER;
}

enum status repository_list(const struct repository *repository, const char *inside, struct folder_entry **entries,
                            size_t *count, struct error *error) {
    const struct hub_listing *listing = &repository->listing;
    const size_t first = files_from(listing, inside), length = strlen(inside);
    size_t end = first;
    while (end < listing->count && strncmp(listing->files[end].path, inside, length) == 0)
        end++;
    *count = 0;
    *entries = calloc(end - first + 1, sizeof **entries);
    enum status status = *entries ? STATUS_OK : error_set_memory(error);
    for (size_t i = first; i < end && status == STATUS_OK; i++) {
        const struct hub_file *file = &listing->files[i];
        const char *rest = file->path + length;
        const size_t part = strcspn(rest, "/");
        const bool below = rest[part] == '/';
        /* the files of a folder follow each other */
        if (below && *count > 0 && strncmp((*entries)[*count - 1].name, rest, part) == 0 &&
            (*entries)[*count - 1].name[part] == '\0' && (*entries)[*count - 1].kind == FOLDER_FOLDER)
            continue;
        struct folder_entry *entry = &(*entries)[*count];
        entry->name = strndup(rest, part);
        entry->kind = below ? FOLDER_FOLDER : FOLDER_FILE;
        entry->size = below ? 0 : file->size;
        if (!entry->name)
            status = error_set_memory(error);
        else
            (*count)++;
    }
    return status;
}
