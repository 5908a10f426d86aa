#include "qstream/supply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "qstream/late_source.h"
#include "qstream/supply_inside.h"

static bool same_tensor(const struct tensor_info *a, const struct tensor_info *b) {
    return strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->rank == b->rank && a->offset == b->offset &&
           a->size == b->size && memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) == 0;
}

/* Whether the tensors of a shard are what the plan takes them to be, where it takes them to be. */
static bool header_is(const struct checkpoint *checkpoint, uint32_t number, const struct safetensors *file) {
    size_t at = 0;
    for (size_t i = 0; i < checkpoint->tensor_count; i++) {
        if (checkpoint->tensors[i].shard != number)
            continue;
        if (at == file->count || !same_tensor(&checkpoint->tensors[i].info, &file->tensors[at]))
            return false;
        at++;
    }
    return at == file->count;
}

static enum status header_compare(const struct supply *supply, uint32_t number, struct byte_source *file,
                                  struct error *error) {
    struct safetensors header;
    enum status status = safetensors_read(file, &header, error);
    if (status == STATUS_OK && !header_is(supply->checkpoint, number, &header))
        status =
            error_set(error, STATUS_CHECK_FAILED, "the header of '%s', as it was read by itself, is not the shard's",
                      supply->checkpoint->shards[number].file);
    safetensors_free(&header);
    return status;
}

enum status supply_shard_compare(struct supply *supply, uint32_t number, struct byte_source *file,
                                 struct error *error) {
    struct error why = {0};
    enum status status = header_compare(supply, number, file, &why);
    if (status == STATUS_OK && supply->companions)
        status = companions_compare(supply->companions, number, file, &why);
    if (status == STATUS_OK)
        return status;
    *error = why;
    if (status == STATUS_IO)
        return status;
    pthread_mutex_lock(&supply->lock);
    supply->spoiled = true;
    pthread_mutex_unlock(&supply->lock);
    return error_set(error, STATUS_IO,
                     "%s: what was made of it cannot be trusted. Its journal was removed, and the same command starts "
                     "anew",
                     why.message);
}

enum status supply_shard_take(struct supply *supply, uint32_t number, struct error *error) {
    struct supply_shard *shard = &supply->shards[number];
    struct byte_source *file = NULL;
    enum status status = store_shard_open(&supply->store, shard->file, &file, error);
    if (status == STATUS_OK)
        status = supply_shard_compare(supply, number, file, error);
    if (status == STATUS_OK)
        late_source_set(supply->checkpoint->shards[number].source, file);
    else
        byte_source_close(file);
    pthread_mutex_lock(&supply->lock);
    shard->there = status == STATUS_OK;
    pthread_cond_broadcast(&supply->changed);
    pthread_mutex_unlock(&supply->lock);
    return status;
}

/* ---- the thread that downloads ---- */

static void wait_a_while(struct supply *supply) {
    static const long nanoseconds = 100000000; /* for signals */
    condition_wait(&supply->changed, &supply->lock, CLOCK_REALTIME, nanoseconds);
}

static bool is_stopped(const struct supply *supply) { return atomic_load(&supply->store.stop) || interrupt_pending(); }

/* Takes room for a shard beside the others, if there is some. */
static bool shard_admit(void *context, size_t number) {
    struct supply *supply = context;
    struct supply_shard *shard = &supply->shards[supply->coming[number]];
    uint64_t bytes = store_bytes(shard->file);
    pthread_mutex_lock(&supply->lock);
    if (!shard->counted && bytes <= supply->limit - supply->used) {
        shard->counted = true;
        supply->used += bytes;
    }
    supply->room_wanted = !shard->counted;
    bool counted = shard->counted;
    pthread_mutex_unlock(&supply->lock);
    return counted;
}

static enum status shard_arrived(void *context, size_t number, struct error *error) {
    struct supply *supply = context;
    return supply_shard_take(supply, supply->coming[number], error);
}

static void supply_main(void *context, unsigned number) {
    struct supply *supply = context;
    const struct store_watch watch = {shard_admit, shard_arrived, supply};
    struct error error = {0};
    enum status status = STATUS_OK;
    (void)number;
    if (supply->coming_count > 0)
        status = store_fetch(&supply->store, supply->coming_files, supply->coming_count, &watch, &error);
    pthread_mutex_lock(&supply->lock);
    if (status == STATUS_IO && !supply->spoiled)
        status =
            error_set(&supply->error, STATUS_IO, "%s; what is done is kept, the same command goes on", error.message);
    else
        supply->error = error;
    supply->status = status;
    supply->ended = true;
    supply->room_wanted = false;
    pthread_cond_broadcast(&supply->changed);
    pthread_mutex_unlock(&supply->lock);
}

enum status supply_start(struct supply *supply, struct error *error) {
    size_t most = supply->schedule.order_count;
    supply->coming = calloc(most + 1, sizeof *supply->coming);
    supply->coming_files = calloc(most + 1, sizeof(const struct hub_file *));
    if (!supply->coming || !supply->coming_files)
        return error_set_memory(error);
    for (size_t i = 0; i < most; i++) {
        uint32_t number = supply->schedule.order[i];
        if (supply->shards[number].there)
            continue;
        supply->coming[supply->coming_count] = number;
        supply->coming_files[supply->coming_count++] = supply->shards[number].file;
    }
    supply->begun = seconds_now();
    return thread_team_start(&supply->thread, 1, supply_main, supply, error);
}

/* ---- during a run ---- */

static struct supply_shard *home_of(struct supply *supply, uint32_t tile) {
    const struct plan *plan = supply->plan;
    return &supply->shards[supply->schedule.homes[plan_job_of_tile(plan, tile) - plan->jobs]];
}

enum status supply_await(struct supply *supply, uint32_t tile, struct error *error) {
    struct supply_shard *shard = supply ? home_of(supply, tile) : NULL;
    if (!shard || !shard->file)
        return STATUS_OK;
    enum status status = STATUS_OK;
    pthread_mutex_lock(&supply->lock);
    supply->waiting++;
    while (!shard->there && !supply->ended && !is_stopped(supply))
        wait_a_while(supply);
    supply->waiting--;
    if (!shard->there && supply->status != STATUS_OK) {
        status = supply->status;
        *error = supply->error;
    } else if (!shard->there) {
        status = is_stopped(supply) ? error_set(error, STATUS_INTERRUPTED,
                                                "interrupted; what is done is kept, run the same command to go on")
                                    : error_set(error, STATUS_IO, "'%s' was not downloaded: this is a bug in qstream",
                                                shard->file->path);
    }
    pthread_mutex_unlock(&supply->lock);
    return status;
}

void supply_tile_made(struct supply *supply, uint32_t tile) {
    if (!supply)
        return;
    pthread_mutex_lock(&supply->lock);
    struct supply_shard *shard = home_of(supply, tile);
    shard->unmade -= shard->file != NULL;
    pthread_mutex_unlock(&supply->lock);
}

bool supply_wants_commit(struct supply *supply) {
    if (!supply)
        return false;
    pthread_mutex_lock(&supply->lock);
    bool wants = false;
    for (size_t s = 0; s < supply->checkpoint->shard_count && supply->room_wanted && !wants; s++) {
        const struct supply_shard *shard = &supply->shards[s];
        wants = shard->there && shard->unmade == 0 && shard->undurable > 0;
    }
    pthread_mutex_unlock(&supply->lock);
    return wants;
}

/* Nobody reads the shard any more. */
static enum status shard_drop(struct supply *supply, struct supply_shard *shard, struct error *error) {
    size_t number = (size_t)(shard - supply->shards);
    byte_source_close(late_source_set(supply->checkpoint->shards[number].source, NULL));
    enum status status = store_shard_drop(&supply->store, shard->file, error);
    pthread_mutex_lock(&supply->lock);
    shard->there = shard->counted = false;
    supply->used -= supply->options.keep ? 0 : store_bytes(shard->file);
    pthread_cond_broadcast(&supply->changed);
    pthread_mutex_unlock(&supply->lock);
    return status;
}

enum status supply_tiles_durable(struct supply *supply, const uint32_t *tiles, size_t count, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && supply && status == STATUS_OK; i++) {
        struct supply_shard *shard = home_of(supply, tiles[i]);
        pthread_mutex_lock(&supply->lock);
        bool last = shard->file && --shard->undurable == 0;
        pthread_mutex_unlock(&supply->lock);
        if (last)
            status = shard_drop(supply, shard, error);
    }
    return status;
}

void supply_cancel(struct supply *supply) {
    if (!supply)
        return;
    pthread_mutex_lock(&supply->lock);
    atomic_store(&supply->store.stop, true);
    pthread_cond_broadcast(&supply->changed);
    pthread_mutex_unlock(&supply->lock);
}

bool supply_spoiled(struct supply *supply) {
    if (!supply)
        return false;
    pthread_mutex_lock(&supply->lock);
    bool spoiled = supply->spoiled;
    pthread_mutex_unlock(&supply->lock);
    return spoiled;
}

uint64_t supply_fetched(const struct supply *supply) { return atomic_load(&supply->store.fetched); }

void supply_progress(struct supply *supply, struct progress *progress) {
    if (!supply || supply->total == 0)
        return;
    pthread_mutex_lock(&supply->lock);
    bool waited = supply->waiting > 0;
    pthread_mutex_unlock(&supply->lock);
    uint64_t fetched = supply_fetched(supply), left = supply->total > fetched ? supply->total - fetched : 0;
    double seconds = seconds_now() - supply->begun, rate = seconds > 0 ? (double)fetched / seconds : 0;
    char done[TEXT_SIZE_MAX], total[TEXT_SIZE_MAX], rate_text[TEXT_SIZE_MAX];
    snprintf(progress->note, sizeof progress->note, "; downloaded %s of %s, %s/s%s", text_size(fetched, done),
             text_size(supply->total, total), text_size((uint64_t)rate, rate_text), waited ? ", waited for" : "");
    progress->seconds_left = rate > 0 ? (double)left / rate : 0;
}

/* ---- the end ---- */

void supply_end(struct supply *supply, bool complete) {
    if (!supply)
        return;
    supply_cancel(supply);
    if (supply->thread.members)
        thread_team_join(&supply->thread);
    for (size_t s = 0; s < supply->checkpoint->shard_count; s++)
        if (supply->shards[s].there) {
            byte_source_close(late_source_set(supply->checkpoint->shards[s].source, NULL));
            supply->shards[s].there = false;
        }
    if (supply->spoiled)
        unlink(supply->companions_path);
    if (complete)
        store_remove(&supply->store);
}

void supply_close(struct supply *supply) {
    if (!supply)
        return;
    companions_close(supply->companions);
    schedule_free(&supply->schedule);
    pthread_mutex_destroy(&supply->lock);
    pthread_cond_destroy(&supply->changed);
    free(supply->store.folder);
    free(supply->companions_path);
    free(supply->coming);
    free((void *)supply->coming_files);
    free(supply->shards);
    free(supply);
}
