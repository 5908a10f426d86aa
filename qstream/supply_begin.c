#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/file_range.h"
#include "qstream/late_source.h"
#include "qstream/supply_inside.h"

static const char companions_file[] = "companions";

/* ---- before a run ---- */

/* NULL of one that was opened as a file: the cache has it, and only files have a time. */
static const struct hub_file *file_of(const struct supply *supply, const struct shard *shard) {
    return shard->source->identity.mtime_ns != 0 ? NULL : hub_listing_find(supply->store.listing, shard->file);
}

/* The schedule of what `state` leaves to be done. */
static enum status schedule_look(struct supply *supply, const struct run_state *state, struct error *error) {
    size_t count = supply->checkpoint->shard_count;
    uint64_t *bytes = calloc(count + 1, sizeof *bytes);
    if (!bytes)
        return error_set_memory(error);
    for (size_t s = 0; s < count; s++)
        bytes[s] = supply->shards[s].file ? store_bytes(supply->shards[s].file) : 0;
    schedule_free(&supply->schedule);
    enum status status = schedule_make(supply->plan, supply->options.first_shard, supply->options.end_shard, bytes,
                                       state, &supply->schedule, error);
    free(bytes);
    return status;
}

static uint64_t companions_disk(const struct schedule *schedule) {
    return file_disk_bytes(companions_file_bytes(schedule));
}

/* Bytes of the shards without a home that companions are taken from; they are there together. */
static uint64_t loose_bytes(const struct supply *supply) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < supply->schedule.loose_count; i++)
        bytes += store_bytes(supply->shards[supply->schedule.loose[i]].file);
    return bytes;
}

/*
 * The least disk for the schedule; *usual: the disk with which the next shard comes while one is quantized. `loose`: of
 * shards that are there before.
 */
static uint64_t disk_least(const struct supply *supply, uint64_t loose, uint64_t *usual) {
    const struct schedule *schedule = &supply->schedule;
    uint64_t companions = schedule->companions_needed ? companions_disk(schedule) : 0;
    uint64_t largest = 0, all = 0, least = loose > schedule->least ? loose : schedule->least;
    for (size_t i = 0; i < schedule->order_count; i++) {
        uint64_t bytes = schedule->shards[schedule->order[i]].bytes;
        largest = bytes > largest ? bytes : largest;
        all += bytes;
    }
    *usual = least + largest < all ? least + largest : all > least ? all : least;
    *usual += companions;
    return least + companions;
}

static bool is_loose(const struct schedule *schedule, uint32_t shard) {
    for (size_t i = 0; i < schedule->loose_count; i++)
        if (schedule->loose[i] == shard)
            return true;
    return false;
}

static void needs_sum(struct supply *supply) {
    const struct schedule *schedule = &supply->schedule;
    struct supply_needs *needs = &supply->needs;
    *needs = (struct supply_needs){.shards = schedule->order_count + schedule->loose_count,
                                   .companions = companions_disk(schedule)};
    for (size_t i = 0; i < schedule->order_count; i++)
        needs->download += supply->shards[schedule->order[i]].file->size;
    for (size_t i = 0; i < schedule->loose_count; i++)
        needs->download += supply->shards[schedule->loose[i]].file->size;
    for (size_t i = 0; i < schedule->companion_count; i++) {
        const struct tensor *tensor = &supply->checkpoint->tensors[schedule->companions[i]];
        if (supply->shards[tensor->shard].file && !is_loose(schedule, tensor->shard))
            needs->download += tensor->info.size;
    }
    if (!supply->options.keep)
        needs->least = disk_least(supply, loose_bytes(supply), &needs->usual);
}

enum status supply_open(const struct plan *plan, struct checkpoint *checkpoint, const struct supply_options *options,
                        struct supply **out, struct error *error) {
    *out = NULL;
    if (!folder_listing(checkpoint->folder))
        return STATUS_OK;
    struct supply *supply = calloc(1, sizeof *supply);
    if (!supply)
        return error_set_memory(error);
    pthread_mutex_init(&supply->lock, NULL);
    pthread_cond_init(&supply->changed, NULL);
    supply->plan = plan;
    supply->checkpoint = checkpoint;
    supply->options = *options;
    supply->store.listing = folder_listing(checkpoint->folder);
    supply->store.keep = options->keep;
    supply->store.folder = strdup(options->folder);
    supply->companions_path = text_format("%s/%s", options->folder, companions_file);
    supply->shards = calloc(checkpoint->shard_count + 1, sizeof *supply->shards);
    enum status status = supply->store.folder && supply->companions_path && supply->shards
                             ? hub_shared(&supply->store.hub, error)
                             : error_set_memory(error);
    for (size_t s = 0; s < checkpoint->shard_count && status == STATUS_OK; s++)
        supply->shards[s].file = file_of(supply, &checkpoint->shards[s]);
    if (status == STATUS_OK)
        status = schedule_look(supply, NULL, error);
    if (status == STATUS_OK) {
        needs_sum(supply);
        *out = supply;
    } else {
        supply_close(supply);
    }
    return status;
}

struct supply_needs supply_needs(const struct supply *supply) {
    return supply->needs;
}

void supply_settle(struct supply *supply, uint64_t most, uint64_t beside) {
    supply->most = most;
    supply->beside = beside;
}

/* ---- companions ---- */

struct companion_source {
    struct supply *supply;
    struct hub_place *places;   /* [shard_count] */
    struct byte_source **files; /* [shard_count] of those that are there */
};

static enum status companion_fetch(void *context, uint32_t shard, uint64_t offset, void *buffer, size_t size,
                                   struct error *error) {
    struct companion_source *source = context;
    struct supply_store *store = &source->supply->store;
    if (source->files[shard])
        return byte_source_read_at(source->files[shard], offset, buffer, size, error);
    enum status status = hub_range_read_buffer(store->hub, &source->places[shard], offset, buffer, size, error);
    if (status == STATUS_OK)
        atomic_fetch_add(&store->fetched, size);
    return status;
}

/* Has the shards that nobody would come for, so that companions are taken from them. */
static enum status loose_fetch(struct supply *supply, struct byte_source **files, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < supply->schedule.loose_count && status == STATUS_OK; i++) {
        uint32_t shard = supply->schedule.loose[i];
        status = store_fetch(&supply->store, &supply->shards[shard].file, 1, NULL, error);
        if (status == STATUS_OK)
            status = store_shard_open(&supply->store, supply->shards[shard].file, &files[shard], error);
        if (status == STATUS_OK)
            status = supply_shard_compare(supply, shard, files[shard], error);
    }
    return status;
}

/* Fetches the companions: from shards that are there, which are dropped again unless they were at hand, else by ranges. */
static enum status companions_fetch(struct supply *supply, const uint8_t source[SHA256_SIZE], struct error *error) {
    size_t count = supply->checkpoint->shard_count;
    struct companion_source context = {supply, calloc(count + 1, sizeof *context.places),
                                       calloc(count + 1, sizeof(struct byte_source *))};
    enum status status = context.places && context.files ? STATUS_OK : error_set_memory(error);
    for (size_t s = 0; s < count && status == STATUS_OK; s++)
        if (supply->shards[s].file)
            hub_place_init(&context.places[s], supply->store.listing, supply->shards[s].file);
        else
            context.files[s] = supply->checkpoint->shards[s].source;
    bool begun = status == STATUS_OK;
    if (status == STATUS_OK)
        status = loose_fetch(supply, context.files, error);
    if (status == STATUS_OK)
        status = companions_make(supply->companions_path, &supply->schedule, source, companion_fetch, &context, error);
    for (size_t s = 0; s < count && begun; s++) {
        if (!supply->shards[s].file)
            continue;
        hub_place_free(&context.places[s]);
        bool drop = context.files[s] && status == STATUS_OK;
        byte_source_close(context.files[s]);
        if (drop)
            status = store_shard_drop(&supply->store, supply->shards[s].file, error);
    }
    free(context.places);
    free((void *)context.files);
    return status;
}

/* Opens the file of an earlier run. *missing when there is none that can be used, and none was. */
static enum status companions_find(struct supply *supply, const uint8_t source[SHA256_SIZE], bool *missing,
                                   struct error *error) {
    *missing = false;
    if (!supply->schedule.companions_needed)
        return STATUS_OK;
    enum status status =
        companions_open(supply->companions_path, &supply->schedule, source, &supply->companions, error);
    *missing = status == STATUS_OK && !supply->companions;
    if (*missing && supply->schedule.companions_used)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s', of which a part of the output was made, is missing or damaged; remove the output "
                           "folder to start anew",
                           supply->companions_path);
    return status;
}

/* ---- room ---- */

/* Bytes that all shards to be downloaded take on the disk; *there: that they take already. */
static uint64_t order_bytes(const struct supply *supply, uint64_t *there) {
    uint64_t bytes = 0;
    *there = 0;
    for (size_t i = 0; i < supply->schedule.order_count; i++) {
        const struct hub_file *file = supply->shards[supply->schedule.order[i]].file;
        bytes += store_bytes(file);
        *there += store_taken(&supply->store, file);
    }
    return bytes;
}

/* Settles the limit. `make`: the companions are still to be fetched. */
static enum status limit_settle(struct supply *supply, bool make, struct error *error) {
    uint64_t there, room, usual, loose = make ? loose_bytes(supply) : 0, all = order_bytes(supply, &there) + loose;
    uint64_t least = disk_least(supply, loose, &usual);
    enum status status = store_room(&supply->store, supply->beside, &room, error);
    if (status != STATUS_OK)
        return status;
    if (supply->companions)
        there += companions_disk(&supply->schedule);
    room += there;
    if (supply->options.keep)
        least = all;
    char need[TEXT_SIZE_MAX], have[TEXT_SIZE_MAX];
    if (supply->most && least > supply->most) /* once cached shards are gone, more may be needed than for the whole */
        return error_set(error, STATUS_USAGE, "--disk is too small: to go on takes at least %" PRIu64 " bytes (%s)",
                         least, text_size(least, need));
    if (least > room)
        return error_set(error, STATUS_IO,
                         "the source needs %s of disk at once, but only %s are free for it%s; make room, the same "
                         "command goes on",
                         text_size(least, need), text_size(room, have),
                         supply->options.keep ? "" : " beside what is missing of the output");
    supply->limit = supply->most ? supply->most : usual;
    supply->limit = supply->limit < room ? supply->limit : room;
    if (supply->options.keep)
        supply->limit = UINT64_MAX;
    return STATUS_OK;
}

/* Of what earlier runs left, as many shards stay as fit along with all that are needed before them. */
static void leftovers_count(struct supply *supply) {
    const struct schedule *schedule = &supply->schedule;
    supply->used = schedule->companions_needed ? companions_disk(schedule) : 0;
    uint64_t before = supply->used;
    for (size_t i = 0; i < schedule->order_count && !supply->options.keep; i++) {
        struct supply_shard *shard = &supply->shards[schedule->order[i]];
        uint64_t bytes = store_bytes(shard->file);
        before += bytes;
        shard->counted = before <= supply->limit && store_taken(&supply->store, shard->file) > 0;
        supply->used += shard->counted ? bytes : 0;
    }
}

static bool leftover_is_kept(void *context, const struct hub_file *file) {
    const struct supply *supply = context;
    const struct schedule *schedule = &supply->schedule;
    bool loose = schedule->companions_needed && !supply->companions; /* they are still to be read from there */
    for (uint32_t s = 0; s < supply->checkpoint->shard_count; s++)
        if (supply->shards[s].file == file)
            return supply->shards[s].counted || (loose && is_loose(schedule, s));
    return false;
}

static enum status sources_replace(struct supply *supply, struct error *error) {
    enum status status = STATUS_OK;
    for (uint32_t s = 0; s < supply->checkpoint->shard_count && status == STATUS_OK; s++) {
        struct shard *shard = &supply->checkpoint->shards[s];
        struct byte_source *source = NULL;
        if (!supply->shards[s].file)
            continue;
        status = late_source_new(shard->source, s, supply->companions, &source, error);
        if (status != STATUS_OK)
            break;
        byte_source_close(shard->source);
        shard->source = source;
    }
    return status;
}

/* ---- beginning ---- */

/* What can be used of earlier runs is told from what has to go, and goes; then the companions are had. */
static enum status folder_ready(struct supply *supply, const uint8_t source[SHA256_SIZE], struct error *error) {
    bool make = false, missing = false;
    enum status status = store_prepare(&supply->store, error);
    if (status == STATUS_OK)
        status = companions_find(supply, source, &make, error);
    if (status == STATUS_OK)
        status = limit_settle(supply, make, error);
    if (status != STATUS_OK)
        return status;
    if (!make || supply->schedule.loose_count == 0) /* else the room is for those without a home, first */
        leftovers_count(supply);
    status = store_clean(&supply->store, leftover_is_kept, supply, supply->companions ? companions_file : NULL, error);
    if (status != STATUS_OK || !make)
        return status;
    status = companions_fetch(supply, source, error);
    if (status == STATUS_OK)
        status = companions_find(supply, source, &missing, error);
    leftovers_count(supply);
    return missing ? error_set(error, STATUS_IO, "'%s' does not hold what was written to it", supply->companions_path)
                   : status;
}

/* Shards at hand are compared, too: companions may have come before they were. */
static enum status at_hand_compare(struct supply *supply, struct error *error) {
    enum status status = STATUS_OK;
    for (uint32_t s = 0; s < supply->checkpoint->shard_count && supply->companions && status == STATUS_OK; s++)
        if (!supply->shards[s].file)
            status = supply_shard_compare(supply, s, supply->checkpoint->shards[s].source, error);
    return status;
}

enum status supply_begin(struct supply *supply, const struct run_state *state, const uint8_t source[SHA256_SIZE],
                         struct error *error) {
    enum status status = schedule_look(supply, state, error);
    const struct schedule *schedule = &supply->schedule;
    if (status != STATUS_OK || (schedule->order_count == 0 && !schedule->companions_needed))
        return status;
    status = folder_ready(supply, source, error);
    if (status == STATUS_OK)
        status = at_hand_compare(supply, error);
    if (status == STATUS_OK)
        status = sources_replace(supply, error);
    uint64_t missing = 0;
    for (size_t i = 0; i < schedule->order_count && status == STATUS_OK; i++) {
        struct supply_shard *shard = &supply->shards[schedule->order[i]];
        shard->unmade = shard->undurable = schedule->shards[schedule->order[i]].tiles;
        if (store_has(&supply->store, shard->file))
            status = supply_shard_take(supply, schedule->order[i], error);
        else
            missing += shard->file->size - store_present(&supply->store, shard->file);
    }
    supply->total = supply_fetched(supply) + missing;
    return status == STATUS_OK ? supply_start(supply, error) : status;
}
