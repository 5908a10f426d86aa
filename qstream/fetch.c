#include "qstream/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/file_bytes.h"
#include "common/hub/cache.h"
#include "common/hub/cache_listing.h"
#include "common/hub/download.h"
#include "common/hub/file_lock.h"
#include "common/hub/local_folder.h"
#include "common/hub/partial.h"
#include "common/hub/wildcard.h"
#include "common/interrupt.h"
#include "common/name_table.h"
#include "common/progress.h"
#include "common/source.h"

/* ---- where things are ---- */

static char *blob_path(const struct fetch *fetch, const struct hub_file *file) {
    char etag[HUB_ETAG_HEX];
    return hub_cache_blob(&fetch->hub.environment, &fetch->listing.reference, hub_file_etag(file, etag));
}

static char *snapshot_path(const struct fetch *fetch, const char *path) {
    return hub_cache_snapshot(&fetch->hub.environment, &fetch->listing.reference, fetch->listing.commit, path);
}

/* ---- what is chosen ---- */

/* The index, from where it lies already or from the Hub. */
static enum status index_read(struct fetch *fetch, const struct hub_file *file, char **bytes, size_t *length,
                              struct error *error) {
    enum { INDEX_BYTES_MAX = 64 << 20 };
    char *cached = snapshot_path(fetch, file->path), *placed = NULL;
    enum status status = cached ? STATUS_OK : error_set_memory(error);
    bool has = false, noted = false;
    if (status == STATUS_OK && fetch->folder) {
        placed = local_folder_path(fetch->folder, file);
        status = placed ? local_folder_has(fetch->folder, fetch->listing.commit, file, &has, &noted, error)
                        : error_set_memory(error);
    }
    if (status == STATUS_OK && (has || file_has_size(cached, file->size)))
        status = file_read(has ? placed : cached, INDEX_BYTES_MAX, bytes, length, error);
    else if (status == STATUS_OK)
        status = hub_file_read(&fetch->hub, &fetch->listing, file, INDEX_BYTES_MAX, bytes, length, error);
    free(placed);
    free(cached);
    return status;
}

static enum status choose(struct fetch *fetch, const struct selection_rules *rules, struct error *error) {
    const struct hub_file *index = selection_index(&fetch->listing, rules);
    char *bytes = NULL;
    size_t length = 0;
    fetch->reasons = calloc(fetch->listing.count + 1, sizeof *fetch->reasons);
    enum status status = fetch->reasons ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && index)
        status = index_read(fetch, index, &bytes, &length, error);
    if (status == STATUS_OK)
        status = selection_make(&fetch->listing, rules, bytes, length, fetch->reasons, error);
    free(bytes);
    return status;
}

/* ---- what is there ---- */

/* Fills what tells where a file goes, and whether it is there. */
static enum status file_look(struct fetch *fetch, struct fetch_file *chosen, struct error *error) {
    const struct hub_file *file = chosen->file;
    char etag[HUB_ETAG_HEX], *blob = blob_path(fetch, file), *snapshot = snapshot_path(fetch, file->path);
    hub_file_etag(file, etag);
    enum status status = blob && snapshot ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && fetch->folder) {
        chosen->target = local_folder_target(fetch->folder, file);
        chosen->lock = local_folder_lock(fetch->folder, file);
        status = local_folder_has(fetch->folder, fetch->listing.commit, file, &chosen->there, &chosen->noted, error);
    } else if (status == STATUS_OK) {
        chosen->target = strdup(blob);
        chosen->lock = hub_cache_lock(&fetch->hub.environment, &fetch->listing.reference, etag);
        chosen->there = chosen->noted = file_has_size(snapshot, file->size);
    }
    if (status == STATUS_OK && (!chosen->target || !chosen->lock))
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        const struct download_item item = {.file = file, .target = chosen->target};
        chosen->present = chosen->there ? file->size : download_present(&item);
        chosen->copied = fetch->folder && chosen->present < file->size && *etag && file_has_size(blob, file->size);
    }
    free(snapshot);
    free(blob);
    return status;
}

/* Bytes that a file still takes on the disk. */
static uint64_t file_needs(const struct fetch_file *chosen) {
    if (chosen->twin || chosen->present == chosen->file->size)
        return 0;
    char *path = text_format("%s.partial", chosen->target);
    uint64_t present, taken = 0;
    if (path)
        partial_look(path, chosen->file, &present, &taken);
    free(path);
    const uint64_t size = file_disk_bytes(chosen->file->size);
    return size > taken ? size - taken : 0;
}

/* Free bytes where `path` is, or will be. */
static enum status room_look(const char *path, uint64_t *available, struct error *error) {
    struct statvfs space;
    char *copy = strdup(path), *at = copy;
    int problem = copy ? ENOENT : ENOMEM;
    while (problem == ENOENT) {
        problem = statvfs(at, &space) == 0 ? 0 : errno;
        if (problem == ENOENT && (strcmp(at, ".") == 0 || strcmp(at, "/") == 0))
            break;
        if (problem == ENOENT)
            at = dirname(at);
    }
    free(copy);
    if (problem)
        return error_set_errno(error, STATUS_IO, problem, "cannot look at '%s'", path);
    *available = (uint64_t)space.f_bavail * space.f_frsize;
    return STATUS_OK;
}

static enum status files_look(struct fetch *fetch, struct error *error) {
    struct name_table targets = {0};
    enum status status = STATUS_OK;
    fetch->files = calloc(fetch->listing.count + 1, sizeof *fetch->files);
    if (!fetch->files)
        return error_set_memory(error);
    for (size_t i = 0; i < fetch->listing.count && status == STATUS_OK; i++) {
        if (fetch->reasons[i] != SELECTION_TAKEN)
            continue;
        struct fetch_file *chosen = &fetch->files[fetch->count++];
        bool first = true;
        chosen->file = &fetch->listing.files[i];
        status = file_look(fetch, chosen, error);
        if (status == STATUS_OK && !name_table_add(&targets, chosen->target, strlen(chosen->target), 0, &first))
            status = error_set_memory(error);
        chosen->twin = !first;
        fetch->bytes += chosen->file->size;
        fetch->present += chosen->present;
        if (status == STATUS_OK)
            fetch->needed += file_needs(chosen);
    }
    name_table_free(&targets);
    if (status == STATUS_OK)
        status = room_look(fetch->where, &fetch->available, error);
    return status;
}

/* Whether a pattern of --include has a file. */
static bool pattern_has_file(const struct fetch *fetch, const char *pattern) {
    for (size_t i = 0; i < fetch->count; i++)
        if (wildcard_matches(pattern, fetch->files[i].file->path))
            return true;
    return false;
}

/* Whether what is there can be told to be all that was asked for, where the cache has no list of the repository's files. */
static bool whole_without_list(const struct fetch *fetch, const struct selection_rules *rules) {
    for (size_t i = 0; i < rules->include_count; i++)
        if (!pattern_has_file(fetch, rules->include[i]))
            return false;
    if (rules->include_count > 0)
        return true;
    return !rules->all && !fetch->listing.reference.dataset && pattern_has_file(fetch, "*.safetensors");
}

/* Offline everything has to be there. */
static enum status complete_check(const struct fetch *fetch, const struct selection_rules *rules, struct error *error) {
    const char *repository = fetch->listing.reference.repository;
    size_t missing = 0;
    const struct fetch_file *first = NULL;
    for (size_t i = 0; i < fetch->count; i++)
        if (fetch->files[i].present < fetch->files[i].file->size && !fetch->files[i].copied) {
            first = first ? first : &fetch->files[i];
            missing++;
        }
    if (missing > 0)
        return error_set(error, STATUS_IO, "HF_HUB_OFFLINE is set, and the cache lacks '%s'%s of '%s'",
                         first->file->path, missing > 1 ? " and other files" : "", repository);
    if (!fetch->listed && !whole_without_list(fetch, rules))
        return error_set(
            error, STATUS_IO,
            "HF_HUB_OFFLINE is set, and the cache does not know whether it has all that is asked for of '%s': "
            "it has no list of its files",
            repository);
    return STATUS_OK;
}

enum status fetch_open(const struct hub_reference *reference, const struct selection_rules *rules, const char *folder,
                       struct fetch *fetch, struct error *error) {
    *fetch = (struct fetch){.folder = folder, .listed = true};
    enum status status = hub_open(&fetch->hub, error);
    if (status != STATUS_OK)
        return status;
    const bool offline = fetch->hub.environment.offline;
    status = offline ? hub_cache_listing(&fetch->hub.environment, reference, &fetch->listing, &fetch->listed, error)
                     : hub_listing_read(&fetch->hub, reference, &fetch->listing, error);
    if (status == STATUS_OK)
        status = choose(fetch, rules, error);
    if (status == STATUS_OK && !(fetch->where = folder ? strdup(folder) : snapshot_path(fetch, NULL)))
        status = error_set_memory(error);
    if (status == STATUS_OK)
        status = files_look(fetch, error);
    if (status == STATUS_OK && fetch->count == 0)
        return error_set(error, STATUS_USAGE, "no file of '%s' is chosen: none of its %zu matches",
                         fetch->listing.reference.repository, fetch->listing.count);
    return status == STATUS_OK && offline ? complete_check(fetch, rules, error) : status;
}

void fetch_close(struct fetch *fetch) {
    for (size_t i = 0; i < fetch->count; i++) {
        free(fetch->files[i].target);
        free(fetch->files[i].lock);
    }
    free(fetch->files);
    free(fetch->reasons);
    free(fetch->where);
    hub_listing_free(&fetch->listing);
    hub_close(&fetch->hub);
    *fetch = (struct fetch){0};
}

enum status fetch_room_check(const struct fetch *fetch, struct error *error) {
    char need[TEXT_SIZE_MAX], have[TEXT_SIZE_MAX];
    if (fetch->needed <= fetch->available)
        return STATUS_OK;
    return error_set(error, STATUS_IO, "'%s' needs %s more, but only %s are free there; nothing was written",
                     fetch->where, text_size(fetch->needed, need), text_size(fetch->available, have));
}

/* ---- from the cache into a folder ---- */

/* Copies a blob, if it has the right hash, to the file `path`. *right false: it has not. */
static enum status blob_copy(const struct fetch *fetch, const struct hub_file *file, const char *path, bool *right,
                             struct progress *progress, uint64_t *done, struct error *error) {
    enum { PIECE = 1 << 20 };
    char *blob = blob_path(fetch, file), *buffer = malloc(PIECE);
    struct byte_source *source = NULL;
    struct hub_check *check = hub_check_new(file);
    int fd = -1;
    enum status status =
        blob && buffer && check ? byte_source_open_file(blob, &source, error) : error_set_memory(error);
    if (status == STATUS_OK && (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666)) < 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot create '%s'", path);
    for (uint64_t at = 0; status == STATUS_OK && at < file->size;) {
        const size_t size = file->size - at < PIECE ? (size_t)(file->size - at) : PIECE;
        status = byte_source_read_at(source, at, buffer, size, error);
        if (status != STATUS_OK)
            break;
        hub_check_add(check, buffer, size);
        if (!file_bytes_write(fd, buffer, size, at))
            status = error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", path);
        if (status == STATUS_OK && interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
        at += size;
        *done += size;
        progress_update(progress, *done);
    }
    *right = status == STATUS_OK && hub_check_end(check);
    if (*right && fsync(fd) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot sync '%s'", path);
    if (fd >= 0)
        close(fd);
    byte_source_close(source);
    hub_check_free(check);
    free(buffer);
    free(blob);
    return status;
}

/* Brings what the cache has to its target; what is damaged there, or worked on by others, is left to the download. */
static enum status copies_make(const struct fetch *fetch, bool quiet, struct error *error) {
    struct progress progress;
    uint64_t total = 0, done = 0;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < fetch->count; i++)
        total += fetch->files[i].copied ? fetch->files[i].file->size : 0;
    progress_start(&progress, "copying from the cache", total, 0, quiet);
    for (size_t i = 0; i < fetch->count && status == STATUS_OK; i++) {
        const struct fetch_file *chosen = &fetch->files[i];
        int lock = -1;
        bool right = false;
        if (chosen->copied)
            status = file_lock_try(chosen->lock, &lock, error);
        if (lock < 0)
            continue;
        char *copy = text_format("%s.copy", chosen->target);
        status = copy ? blob_copy(fetch, chosen->file, copy, &right, &progress, &done, error) : error_set_memory(error);
        if (status == STATUS_OK && right && rename(copy, chosen->target) != 0)
            status = error_set_errno(error, STATUS_IO, errno, "cannot rename '%s'", copy);
        if (copy && (!right || status != STATUS_OK))
            unlink(copy);
        free(copy);
        close(lock);
    }
    progress_end(&progress);
    return status;
}

/* ---- fetching ---- */

/* Another process may have brought a file to its place meanwhile. */
static bool item_present(void *context, const struct download_item *item) {
    const struct fetch *fetch = context;
    bool has = false, noted = false;
    return fetch->folder &&
           local_folder_has(fetch->folder, fetch->listing.commit, item->file, &has, &noted, NULL) == STATUS_OK && has;
}

static enum status item_place(void *context, const struct download_item *item, struct error *error) {
    const struct fetch *fetch = context;
    const struct hub_listing *listing = &fetch->listing;
    if (fetch->folder)
        return local_folder_place(fetch->folder, listing->commit, item->file, error);
    return hub_cache_link(&fetch->hub.environment, &listing->reference, listing->commit, item->file, error);
}

/* Makes the folders for what is to be done. */
static enum status folders_prepare(const struct fetch *fetch, struct error *error) {
    if (!fetch->folder)
        return hub_cache_prepare(&fetch->hub.environment, &fetch->listing.reference, error);
    enum status status = local_folder_prepare(fetch->folder, error);
    for (size_t i = 0; i < fetch->count && status == STATUS_OK; i++)
        status = local_folder_prepare_file(fetch->folder, fetch->files[i].file, error);
    return status;
}

/* What is noted of the whole once all files are there. */
static enum status whole_note(const struct fetch *fetch, struct error *error) {
    const struct hub_environment *environment = &fetch->hub.environment;
    const struct hub_listing *listing = &fetch->listing;
    enum status status = STATUS_OK;
    if (!fetch->folder)
        status = hub_cache_reference_write(environment, &listing->reference, listing->commit, error);
    if (status != STATUS_OK || !fetch->listed || fetch->count < listing->count)
        return status;
    char *notes = fetch->folder ? text_format("%s/.cache/huggingface", fetch->folder)
                                : hub_cache_repository(environment, &listing->reference);
    if (notes)
        hub_cache_listing_write(notes, listing, NULL); /* all is there without it: the cache may be read-only */
    free(notes);
    return STATUS_OK;
}

enum status fetch_run(struct fetch *fetch, unsigned connections, bool quiet, struct error *error) {
    const struct download_options options = {
        .connections = connections, .quiet = quiet, .present = item_present, .finish = item_place, .context = fetch};
    struct download_item *items = calloc(fetch->count + 1, sizeof *items);
    enum status status = items ? STATUS_OK : error_set_memory(error);
    size_t count = 0;
    for (size_t i = 0; i < fetch->count && items; i++)
        if (!fetch->files[i].noted)
            items[count++] = (struct download_item){
                .file = fetch->files[i].file, .target = fetch->files[i].target, .lock = fetch->files[i].lock};
    if (status == STATUS_OK && count > 0)
        status = folders_prepare(fetch, error);
    if (status == STATUS_OK && count > 0)
        status = copies_make(fetch, quiet, error);
    if (status == STATUS_OK && count > 0)
        status = download(&fetch->hub, &fetch->listing, items, count, &options, error);
    if (status == STATUS_OK)
        status = whole_note(fetch, error);
    free(items);
    return status;
}
