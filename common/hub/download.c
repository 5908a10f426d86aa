#include "common/hub/download.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/hub/file_lock.h"
#include "common/hub/file_range.h"
#include "common/hub/partial.h"
#include "common/interrupt.h"
#include "common/progress.h"
#include "common/source.h"
#include "common/thread_team.h"

enum {
    HASH_BYTES = 1 << 20,         /* hashed at a time */
    HASH_THREADS = 4,             /* at most */
    POLL_NANOSECONDS = 100000000, /* for signals, progress, and locks of other processes */
    LOCK_PATIENCE = 2,            /* seconds until it is told that a lock is waited for */
};

/* An item under way. Everything but its bytes is guarded by the download's mutex. */
struct slot {
    struct download_item *item; /* NULL: the slot is free */
    bool open;                  /* what follows is there */
    struct partial *partial;
    struct hub_place place;
    struct hub_check *check;
    int lock;         /* -1: none */
    bool *taken;      /* for each chunk: a connection has it */
    unsigned at_work; /* connections */
    uint64_t hashed;  /* bytes */
    bool hashing;     /* a thread has it */
    bool ending;      /* which does what follows the last byte */
    bool again;       /* begun anew after a wrong hash */
    bool whole;       /* the server ignores ranges: one connection reads from the beginning */
};

struct download {
    struct hub *hub;
    const struct hub_listing *listing;
    const struct download_options *options;
    struct download_item *items;
    size_t count, finished;
    size_t new_next;   /* the first item that was not looked at yet */
    bool *busy;        /* for each item: another process has its lock */
    size_t busy_count; /* of them */
    size_t busy_next;  /* the item whose lock is tried next */
    double busy_tried; /* when one was tried last */
    struct slot *slots;
    size_t slot_count;
    struct progress progress;
    uint64_t bytes_done; /* of items that are finished */
    double locked_since; /* nothing but locks is waited for */
    bool told;           /* that it waits */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* anything that threads wait for */
    pthread_cond_t grown;   /* there is something to hash */
    enum status status;     /* the first failure's */
    struct error error;
};

/* ---- common to all threads; the mutex is held ---- */

/* Tells all threads that something is other than before; a failure, of `item` unless it is NULL, ends the download. */
static void change_tell(struct download *download, enum status status, const struct download_item *item,
                        const struct error *error) {
    if (download->status == STATUS_OK && status != STATUS_OK) {
        download->status = status;
        if (status == STATUS_INTERRUPTED)
            error_write(&download->error, 0, "interrupted; what came is kept, run the same command to go on");
        else if (!item || strstr(error->message, item->file->path))
            download->error = *error;
        else
            error_write(&download->error, 0, "'%s': %s", item->file->path, error->message);
    }
    pthread_cond_broadcast(&download->changed);
    pthread_cond_broadcast(&download->grown);
}

static void wait_a_while(struct download *download, pthread_cond_t *condition) {
    condition_wait(condition, &download->mutex, CLOCK_MONOTONIC, POLL_NANOSECONDS);
}

/* ---- an item begins and ends ---- */

static bool at_target(const struct download_item *item) { return file_has_size(item->target, item->file->size); }

static char *partial_path(const struct download_item *item) { return text_format("%s.partial", item->target); }

uint64_t download_present(const struct download_item *item) {
    if (at_target(item))
        return item->file->size;
    char *path = partial_path(item);
    uint64_t present = 0, taken;
    if (path)
        partial_look(path, item->file, &present, &taken);
    free(path);
    return present;
}

static void slot_free(struct slot *slot) {
    partial_close(slot->partial);
    hub_check_free(slot->check);
    if (slot->place.file)
        hub_place_free(&slot->place);
    if (slot->lock >= 0)
        close(slot->lock);
    free(slot->taken);
    *slot = (struct slot){.lock = -1};
}

/* With the mutex. */
static void item_count(struct download *download, const struct download_item *item) {
    download->finished++;
    download->bytes_done += item->file->size;
}

/* The item has its name, or is elsewhere. */
static enum status item_finish(const struct download *download, struct download_item *item, struct error *error) {
    const struct download_options *how = download->options;
    const enum status status = how->finish ? how->finish(how->context, item, error) : STATUS_OK;
    item->done = status == STATUS_OK;
    return status;
}

/*
 * Takes the item's lock and opens its partial file; *busy when another process has them. Of an item that is there the slot's
 * partial stays NULL. Without the mutex.
 */
static enum status slot_open(struct download *download, struct slot *slot, bool *busy, struct error *error) {
    struct download_item *item = slot->item;
    const struct download_options *options = download->options;
    *busy = false;
    enum status status = STATUS_OK;
    if (item->lock) {
        status = file_lock_try(item->lock, &slot->lock, error);
        *busy = status == STATUS_OK && slot->lock < 0;
    }
    if (status != STATUS_OK || *busy)
        return status;
    if ((options->present && options->present(options->context, item)) || at_target(item))
        return item_finish(download, item, error);
    char *path = partial_path(item);
    status = path ? partial_open(path, item->file, &slot->partial, error) : error_set_memory(error);
    free(path);
    *busy = status == STATUS_OK && !slot->partial;
    if (status != STATUS_OK || *busy)
        return status;
    hub_place_init(&slot->place, download->listing, item->file);
    slot->check = hub_check_new(item->file);
    slot->taken = calloc(partial_chunk_count(slot->partial) + 1, sizeof *slot->taken);
    return slot->check && slot->taken ? STATUS_OK : error_set_memory(error);
}

/* The next item to begin, those whose lock was held before in turn and one at a time; `count` when there is none. */
static size_t item_next(struct download *download) {
    if (download->new_next < download->count)
        return download->new_next;
    const double now = seconds_now();
    if (download->busy_count == 0 || now - download->busy_tried < POLL_NANOSECONDS * 1e-9)
        return download->count;
    download->busy_tried = now;
    size_t item = download->busy_next % download->count;
    while (!download->busy[item])
        item = (item + 1) % download->count;
    return item;
}

/* Begins an item, if there is one and a slot is free; waits for no lock. False: there was nothing that could begin. */
static bool item_begin(struct download *download) {
    struct slot *slot = NULL;
    const size_t next = item_next(download);
    for (size_t i = 0; i < download->slot_count && !slot; i++)
        slot = download->slots[i].item ? NULL : &download->slots[i];
    if (!slot || next == download->count)
        return false;
    struct error error = {0};
    bool busy;
    const bool new = next == download->new_next;
    const struct download_options *options = download->options;
    if (new && options->admit && !options->admit(options->context, &download->items[next]))
        return false;
    slot->item = &download->items[next];
    download->new_next += new;
    download->busy_count -= !new;
    download->busy[next] = false;
    pthread_mutex_unlock(&download->mutex);
    const enum status status = slot_open(download, slot, &busy, &error);
    pthread_mutex_lock(&download->mutex);
    slot->open = status == STATUS_OK && !busy && !slot->item->done;
    if (busy) {
        download->busy[next] = true;
        download->busy_count++;
        download->busy_next = next + 1;
    }
    if (status == STATUS_OK && slot->item->done)
        item_count(download, slot->item);
    if (!busy)
        change_tell(download, status, slot->item, &error);
    if (!slot->open)
        slot_free(slot);
    return !busy || new;
}

/* ---- connections ---- */

/* What a connection has to do. */
struct task {
    struct download *download;
    struct slot *slot;
    size_t chunk;
    bool whole;         /* all that is missing from this chunk on */
    uint64_t at;        /* of the next byte that comes, in the file */
    uint64_t told;      /* up to where hashing was told */
    enum status status; /* of what was done with the bytes */
    struct error error;
};

/* Takes a part of a file that is under way. */
static bool part_take(struct download *download, struct task *task) {
    for (size_t i = 0; i < download->slot_count; i++) {
        struct slot *slot = &download->slots[i];
        if (!slot->open || slot->ending || (slot->whole && slot->at_work > 0))
            continue;
        const size_t count = partial_chunk_count(slot->partial);
        for (size_t chunk = 0; chunk < count; chunk++) {
            if (slot->taken[chunk] ||
                partial_chunk_here(slot->partial, chunk) == partial_chunk_end(slot->partial, chunk))
                continue;
            slot->taken[chunk] = true;
            if (slot->whole) /* nobody else uses the place now */
                slot->place.skip_most = UINT64_MAX;
            slot->at_work++;
            *task = (struct task){.download = download, .slot = slot, .chunk = chunk, .whole = slot->whole};
            return true;
        }
    }
    return false;
}

/* Waits for something to do; false at the end. */
static bool task_take(struct download *download, struct task *task) {
    while (download->status == STATUS_OK && download->finished < download->count) {
        if (part_take(download, task))
            return true;
        if (!item_begin(download))
            wait_a_while(download, &download->changed);
    }
    return false;
}

static bool is_stopped(const struct download_options *options) {
    return interrupt_pending() || (options->stop && atomic_load(options->stop));
}

/* On the client's thread. */
static bool data_take(void *context, const void *bytes, size_t size) {
    struct task *task = context;
    struct download *download = task->download;
    if (is_stopped(download->options)) {
        task->status = error_set(&task->error, STATUS_INTERRUPTED, "interrupted");
        return false;
    }
    if (download->options->fetched)
        atomic_fetch_add(download->options->fetched, size);
    task->status = partial_write(task->slot->partial, task->at, bytes, size, &task->error);
    task->at += size;
    if (task->status != STATUS_OK || task->at - task->told < HASH_BYTES)
        return task->status == STATUS_OK;
    task->told = task->at;
    pthread_mutex_lock(&download->mutex);
    const bool ended = download->status != STATUS_OK;
    pthread_cond_signal(&download->grown);
    pthread_mutex_unlock(&download->mutex);
    return !ended;
}

/* Without the mutex. */
static void part_fetch(struct task *task) {
    struct slot *slot = task->slot;
    struct error error = {0};
    const uint64_t end = task->whole ? slot->item->file->size : partial_chunk_end(slot->partial, task->chunk);
    task->at = task->told = partial_chunk_here(slot->partial, task->chunk);
    const enum status status =
        hub_range_read(task->download->hub, &slot->place, task->at, end - task->at, data_take, task, &error);
    if (task->status != STATUS_OK || status == STATUS_OK)
        return;
    if (status == STATUS_IO && !task->whole && hub_place_is_unranged(&slot->place))
        return; /* this part comes with the rest of the file */
    task->status = status;
    task->error = error;
}

static void connection_run(void *context, unsigned number) {
    struct download *download = context;
    struct task task;
    (void)number;
    pthread_mutex_lock(&download->mutex);
    while (task_take(download, &task)) {
        struct slot *slot = task.slot;
        pthread_mutex_unlock(&download->mutex);
        part_fetch(&task);
        const bool unranged = hub_place_is_unranged(&slot->place);
        pthread_mutex_lock(&download->mutex);
        slot->taken[task.chunk] = false;
        slot->at_work--;
        slot->whole = slot->whole || unranged;
        change_tell(download, task.status, slot->item, &task.error);
    }
    pthread_mutex_unlock(&download->mutex);
}

/* ---- hashing ---- */

/* Whether there is enough of a file to hash: HASH_BYTES, or what is left of it; or, all being hashed, nobody at work. */
static bool is_hashable(const struct slot *slot) {
    const uint64_t size = slot->item->file->size;
    if (slot->hashed == size)
        return slot->at_work == 0;
    const uint64_t frontier = partial_frontier(slot->partial, slot->hashed);
    return frontier == size || frontier - slot->hashed >= HASH_BYTES;
}

/* A file to hash a part of, or to end. */
static struct slot *hash_take(struct download *download) {
    for (size_t i = 0; i < download->slot_count; i++) {
        struct slot *slot = &download->slots[i];
        if (!slot->open || slot->hashing || !is_hashable(slot))
            continue;
        slot->hashing = true;
        slot->ending = slot->hashed == slot->item->file->size;
        return slot;
    }
    return NULL;
}

static enum status hash_wrong(const struct download *download, struct slot *slot, struct error *error) {
    char wanted[HUB_ETAG_HEX];
    partial_remove(slot->partial);
    return error_set(
        error, STATUS_IO,
        "'%s' of '%s' came with the hash %s twice, but the Hub lists %s: nothing of it was kept; something "
        "between here and there changes it, or the Hub is wrong",
        slot->item->file->path, download->listing->reference.repository, hub_check_hex(slot->check),
        hub_file_etag(slot->item->file, wanted));
}

/* All bytes were hashed. *again when they have to be fetched again. */
static enum status hash_end(const struct download *download, struct slot *slot, bool *again, struct error *error) {
    *again = false;
    if (hub_check_end(slot->check)) {
        enum status status = partial_finish(slot->partial, slot->item->target, error);
        return status == STATUS_OK ? item_finish(download, slot->item, error) : status;
    }
    if (slot->again)
        return hash_wrong(download, slot, error);
    hub_place_free(&slot->place); /* another server may be better */
    hub_place_init(&slot->place, download->listing, slot->item->file);
    hub_check_free(slot->check);
    *again = (slot->check = hub_check_new(slot->item->file)) != NULL;
    return *again ? partial_restart(slot->partial, error) : error_set_memory(error);
}

/* Hashes what is there of a file, at most HASH_BYTES. Without the mutex. */
static enum status hash_some(struct slot *slot, uint64_t hashed, void *buffer, size_t *size, struct error *error) {
    const uint64_t there = partial_frontier(slot->partial, hashed) - hashed;
    *size = there < HASH_BYTES ? (size_t)there : HASH_BYTES;
    const enum status status = partial_read(slot->partial, hashed, buffer, *size, error);
    if (status == STATUS_OK)
        hub_check_add(slot->check, buffer, *size);
    return status;
}

static void hash_run(void *context, unsigned number) {
    struct download *download = context;
    struct error error = {0};
    void *buffer = malloc(HASH_BYTES);
    (void)number;
    pthread_mutex_lock(&download->mutex);
    if (!buffer)
        change_tell(download, error_set_memory(&error), NULL, &error);
    while (download->status == STATUS_OK && download->finished < download->count) {
        struct slot *slot = hash_take(download);
        if (!slot) {
            wait_a_while(download, &download->grown);
            continue;
        }
        const uint64_t hashed = slot->hashed, all = slot->item->file->size;
        size_t size = 0;
        bool again = false;
        pthread_mutex_unlock(&download->mutex);
        const enum status status =
            hashed < all ? hash_some(slot, hashed, buffer, &size, &error) : hash_end(download, slot, &again, &error);
        pthread_mutex_lock(&download->mutex);
        slot->hashed = again ? 0 : hashed + size;
        slot->again = slot->again || again;
        slot->hashing = slot->ending = false;
        if (status != STATUS_OK || hashed == all)
            change_tell(download, status, slot->item, &error);
        if (status == STATUS_OK && hashed == all && !again) {
            item_count(download, slot->item);
            slot_free(slot);
        }
    }
    pthread_mutex_unlock(&download->mutex);
    free(buffer);
}

/* ---- the whole ---- */

static void progress_show(struct download *download) {
    struct progress_part parts[32];
    size_t count = 0, under_way = 0;
    uint64_t done = download->bytes_done;
    for (size_t i = 0; i < download->slot_count; i++) {
        const struct slot *slot = &download->slots[i];
        if (!slot->open)
            continue;
        under_way++;
        const uint64_t present = partial_present(slot->partial);
        done += present;
        if (count < sizeof parts / sizeof *parts)
            parts[count++] = (struct progress_part){slot->item->file->path, present, slot->item->file->size};
    }
    const double now = seconds_now();
    if (download->busy_count == 0 || under_way > 0)
        download->locked_since = now;
    if (!download->told && !download->options->quiet && now - download->locked_since > LOCK_PATIENCE) {
        progress_end(&download->progress);
        fprintf(stderr, "qstream: waiting for another process that fetches %zu of the files\n", download->busy_count);
        download->told = true;
    }
    progress_update_parts(&download->progress, done, parts, count);
}

/* Runs the threads, and waits for them. */
static void all_run(struct download *download) {
    struct thread_team connections = {0}, hashing = {0};
    struct error error = {0};
    const unsigned processors = processor_count();
    enum status status =
        thread_team_start(&hashing, processors < HASH_THREADS ? processors : HASH_THREADS, hash_run, download, &error);
    if (status == STATUS_OK)
        status = thread_team_start(&connections, download->options->connections, connection_run, download, &error);
    pthread_mutex_lock(&download->mutex);
    change_tell(download, status, NULL, &error);
    while (download->status == STATUS_OK && download->finished < download->count) {
        wait_a_while(download, &download->changed);
        if (is_stopped(download->options))
            change_tell(download, error_set(&error, STATUS_INTERRUPTED, "interrupted"), NULL, &error);
        progress_show(download);
    }
    pthread_mutex_unlock(&download->mutex);
    thread_team_join(&connections);
    thread_team_join(&hashing);
    progress_end(&download->progress);
}

static void conditions_init(struct download *download) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&download->mutex, NULL);
    pthread_cond_init(&download->changed, &attributes);
    pthread_cond_init(&download->grown, &attributes);
    pthread_condattr_destroy(&attributes);
}

enum status download(struct hub *hub, const struct hub_listing *listing, struct download_item *items, size_t count,
                     const struct download_options *options, struct error *error) {
    struct download all = {.hub = hub, .listing = listing, .options = options, .items = items, .count = count};
    uint64_t total = 0, present = 0;
    for (size_t i = 0; i < count; i++) {
        items[i].done = false;
        total += items[i].file->size;
        present += download_present(&items[i]);
    }
    conditions_init(&all);
    progress_start(&all.progress, "fetching", total, present, options->quiet);
    all.locked_since = seconds_now();
    all.slot_count = 2 * (size_t)options->connections; /* files whose bytes are all there are hashed and synced */
    all.slots = calloc(all.slot_count, sizeof *all.slots);
    all.busy = calloc(count + 1, sizeof *all.busy);
    if (!all.slots || !all.busy)
        all.status = error_set_memory(&all.error);
    for (size_t i = 0; all.slots && i < all.slot_count; i++)
        all.slots[i].lock = -1;
    if (all.status == STATUS_OK)
        all_run(&all);
    for (size_t i = 0; all.slots && i < all.slot_count; i++)
        slot_free(&all.slots[i]);
    free(all.slots);
    free(all.busy);
    pthread_cond_destroy(&all.grown);
    pthread_cond_destroy(&all.changed);
    pthread_mutex_destroy(&all.mutex);
    *error = all.error;
    return all.status;
}
