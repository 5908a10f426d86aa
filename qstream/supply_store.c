#include "qstream/supply_store.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/hub/cache.h"
#include "common/hub/download.h"
#include "common/hub/partial.h"
#include "common/text.h"

enum { CONNECTIONS = 8 };

static const struct hub_reference *reference_of(const struct supply_store *store) { return &store->listing->reference; }

/* Where a shard goes. The caller frees; NULL without memory. */
static char *target_path(const struct supply_store *store, const struct hub_file *file) {
    char etag[HUB_ETAG_HEX];
    return store->keep ? hub_cache_blob(&store->hub->environment, reference_of(store), hub_file_etag(file, etag))
                       : text_format("%s/%s", store->folder, file->path);
}

/* ---- room ---- */

uint64_t store_bytes(const struct hub_file *file) { return file_disk_bytes(partial_bytes(file)); }

uint64_t store_taken(const struct supply_store *store, const struct hub_file *file) {
    char *target = target_path(store, file), *partial = target ? text_format("%s.partial", target) : NULL;
    uint64_t taken = 0;
    struct stat found;
    if (target && stat(target, &found) == 0)
        taken += (uint64_t)found.st_blocks * 512;
    if (partial && stat(partial, &found) == 0)
        taken += (uint64_t)found.st_blocks * 512;
    free(target);
    free(partial);
    return taken;
}

enum status store_room(const struct supply_store *store, uint64_t beside, uint64_t *room, struct error *error) {
    struct stat here, cache;
    const char *path = store->hub->environment.cache;
    *room = beside;
    if (!store->keep)
        return STATUS_OK;
    if (stat(store->folder, &here) != 0 || stat(path, &cache) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot look at '%s' and '%s'", store->folder, path);
    struct statvfs space;
    if (here.st_dev == cache.st_dev)
        return STATUS_OK;
    if (statvfs(path, &space) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot look at '%s'", path);
    *room = (uint64_t)space.f_bavail * space.f_frsize;
    return STATUS_OK;
}

/* ---- the folder ---- */

enum status store_prepare(const struct supply_store *store, struct error *error) {
    char *folder = strdup(store->folder);
    enum status status = folder ? folder_make(folder, error) : error_set_memory(error);
    if (status == STATUS_OK) /* what is recorded in it must not vanish with it */
        status = folder_above_sync(folder, error);
    free(folder);
    if (status == STATUS_OK && store->keep)
        status = hub_cache_prepare(&store->hub->environment, reference_of(store), error);
    if (status == STATUS_OK && store->keep)
        status =
            hub_cache_reference_write(&store->hub->environment, reference_of(store), store->listing->commit, error);
    return status;
}

/* The shard that an entry of the folder is, or what there is of it; NULL when it is none. */
static const struct hub_file *file_of(const struct supply_store *store, const char *entry) {
    static const char ending[] = ".partial";
    size_t length = strlen(entry);
    if (text_ends_with(entry, ending))
        length -= strlen(ending);
    char *path = strndup(entry, length);
    const struct hub_file *file = path ? hub_listing_find(store->listing, path) : NULL;
    free(path);
    return file;
}

enum status store_clean(const struct supply_store *store, bool (*kept)(void *context, const struct hub_file *file),
                        void *context, const char *other, struct error *error) {
    DIR *folder = opendir(store->folder);
    if (!folder)
        return errno == ENOENT ? STATUS_OK
                               : error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", store->folder);
    enum status status = STATUS_OK;
    struct dirent *entry;
    while (status == STATUS_OK && (entry = readdir(folder))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (other && strcmp(name, other) == 0))
            continue;
        const struct hub_file *file = store->keep ? NULL : file_of(store, name);
        if (!(file && kept(context, file)) && unlinkat(dirfd(folder), name, 0) != 0 && errno != ENOENT)
            status = error_set_errno(error, STATUS_IO, errno, "cannot remove '%s/%s'", store->folder, name);
    }
    closedir(folder);
    return status;
}

static bool kept_none(void *context, const struct hub_file *file) {
    (void)context;
    (void)file;
    return false;
}

void store_remove(const struct supply_store *store) {
    if (store_clean(store, kept_none, NULL, NULL, NULL) == STATUS_OK)
        rmdir(store->folder);
}

/* ---- shards ---- */

bool store_has(const struct supply_store *store, const struct hub_file *file) {
    char *target = target_path(store, file);
    bool has = target && file_has_size(target, file->size);
    free(target);
    return has;
}

uint64_t store_present(const struct supply_store *store, const struct hub_file *file) {
    const struct download_item item = {.file = file, .target = target_path(store, file)};
    uint64_t present = item.target ? download_present(&item) : 0;
    free(item.target);
    return present;
}

struct fetching {
    struct supply_store *store;
    const struct store_watch *watch;
    struct download_item *items;
};

static bool item_admit(void *context, const struct download_item *item) {
    const struct fetching *fetching = context;
    const struct store_watch *watch = fetching->watch;
    return !watch || watch->admit(watch->context, (size_t)(item - fetching->items));
}

static enum status item_finish(void *context, const struct download_item *item, struct error *error) {
    const struct fetching *fetching = context;
    const struct store_watch *watch = fetching->watch;
    const struct supply_store *store = fetching->store;
    enum status status = STATUS_OK;
    if (store->keep)
        status =
            hub_cache_link(&store->hub->environment, reference_of(store), store->listing->commit, item->file, error);
    if (status == STATUS_OK && watch)
        status = watch->arrived(watch->context, (size_t)(item - fetching->items), error);
    return status;
}

enum status store_fetch(struct supply_store *store, const struct hub_file *const *files, size_t count,
                        const struct store_watch *watch, struct error *error) {
    struct fetching fetching = {store, watch, calloc(count + 1, sizeof *fetching.items)};
    enum status status = fetching.items ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        struct download_item *item = &fetching.items[i];
        char etag[HUB_ETAG_HEX];
        *item = (struct download_item){.file = files[i], .target = target_path(store, files[i])};
        if (store->keep)
            item->lock = hub_cache_lock(&store->hub->environment, reference_of(store), hub_file_etag(files[i], etag));
        if (!item->target || (store->keep && !item->lock))
            status = error_set_memory(error);
    }
    const struct download_options options = {.connections = CONNECTIONS,
                                             .quiet = true,
                                             .finish = item_finish,
                                             .admit = item_admit,
                                             .context = &fetching,
                                             .stop = &store->stop,
                                             .fetched = &store->fetched};
    if (status == STATUS_OK)
        status = download(store->hub, store->listing, fetching.items, count, &options, error);
    for (size_t i = 0; fetching.items && i < count; i++) {
        free(fetching.items[i].target);
        free(fetching.items[i].lock);
    }
    free(fetching.items);
    return status;
}

enum status store_shard_open(const struct supply_store *store, const struct hub_file *file, struct byte_source **source,
                             struct error *error) {
    char *target = target_path(store, file);
    enum status status = target ? byte_source_open_file(target, source, error) : error_set_memory(error);
    free(target);
    return status;
}

enum status store_shard_drop(const struct supply_store *store, const struct hub_file *file, struct error *error) {
    if (store->keep)
        return STATUS_OK;
    char *target = target_path(store, file);
    enum status status = target ? STATUS_OK : error_set_memory(error);
    if (target && unlink(target) != 0 && errno != ENOENT)
        status = error_set_errno(error, STATUS_IO, errno, "cannot remove '%s'", target);
    free(target);
    return status;
}
