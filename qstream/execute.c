#include "qstream/execute.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/array.h"
#include "common/file_bytes.h"
#include "common/interrupt.h"
#include "common/progress.h"
#include "common/thread_team.h"
#include "qstream/tile.h"

/* Output bytes, or seconds, after which finished tiles are synced and journaled. */
static const uint64_t commit_bytes = (uint64_t)512 << 20;
static const double commit_seconds = 5;
enum { PREFETCH_TILES = 8 };
#define NO_TILE UINT32_MAX

/* ---- a run ---- */

struct shard_run {
    pthread_mutex_t hashing; /* held by the one worker that hashes */
    int fd;                  /* -1: not open yet, or complete */
    struct sha256 *hash;
    uint32_t output;    /* the frontier: this output of the shard ... */
    uint32_t tile;      /* ... up to this tile of its job */
    atomic_bool hashed; /* the digest is known */
    bool begun;         /* an earlier run's journal speaks of it: its file must be there */
    bool dirty;         /* written to since the last sync; under run.lock */
};

/* Numbers of tiles or jobs. */
struct number_list {
    uint32_t *numbers;
    size_t count, capacity;
};

/*
 * What is to be done next. Of each shard first the weights that need their amax are read, then its tiles are made: what
 * has to be read twice is read twice in a short time.
 */
struct cursor {
    uint32_t shard, job, tile; /* the tile counts from the job's first */
    bool amax_done;            /* of the shard */
};

struct run {
    const struct plan *plan;
    const struct execute_options *options;
    struct run_state *state;
    struct shard_run *shards;
    _Atomic uint8_t *finished; /* [tile_count] written, not necessarily synced */
    uint32_t end_tile;
    atomic_uint *amax;      /* [job_count] running maxima */
    atomic_uint *amax_left; /* [job_count] tiles of a job that are still to be read for its amax */
    atomic_bool stop;
    atomic_uint_fast64_t bytes_done; /* of the output */
    pthread_mutex_t lock;            /* guards what follows */
    pthread_cond_t changed;
    pthread_cond_t amax_found;
    struct cursor next;
    struct number_list pending_tiles, pending_amax; /* to be journaled */
    uint64_t pending_bytes;
    bool folder_dirty;  /* files were created or renamed in the folder since it was synced */
    unsigned running;   /* workers that have not ended */
    enum status status; /* the first failure */
    struct error error;
};

/* Lets workers end, those that wait too. */
static void run_stop(struct run *run) {
    pthread_mutex_lock(&run->lock);
    atomic_store(&run->stop, true);
    pthread_cond_broadcast(&run->amax_found);
    pthread_mutex_unlock(&run->lock);
    supply_cancel(run->options->supply);
}

static void run_fail(struct run *run, enum status status, const struct error *error) {
    pthread_mutex_lock(&run->lock);
    if (run->status == STATUS_OK) {
        run->status = status;
        run->error = *error;
    }
    pthread_cond_signal(&run->changed);
    pthread_mutex_unlock(&run->lock);
    run_stop(run);
}

static enum status write_at(int fd, const char *name, const uint8_t *bytes, size_t size, uint64_t offset,
                            struct error *error) {
    return file_bytes_write(fd, bytes, size, offset)
               ? STATUS_OK
               : error_set_errno(error, STATUS_IO, errno,
                                 "cannot write '%s.partial'; what is done is kept, run the same command to go on",
                                 name);
}

/* Opens a shard's file: a new one, or the one that an earlier run left, maybe under its final name already. */
static int shard_file_open(struct run *run, uint32_t number, const char *path) {
    struct shard_run *shard = &run->shards[number];
    if (!shard->begun) {
        run->folder_dirty = true;
        return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    }
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd >= 0 || errno != ENOENT)
        return fd;
    char *final = shard_final_path(run->plan, number, run->options->folder);
    if (final && rename(final, path) == 0) {
        run->folder_dirty = true;
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    free(final);
    return fd;
}

/* Opens the shard's file, of its full size and with its header, unless it is open. Under run.lock. */
static enum status shard_open(struct run *run, uint32_t number, struct error *error) {
    struct shard_run *shard = &run->shards[number];
    const struct plan_shard *planned = &run->plan->shards[number];
    if (shard->fd >= 0)
        return STATUS_OK;
    char *path = shard_partial_path(run->plan, number, run->options->folder);
    struct text header = {0};
    int fd = -1;
    enum status status = path ? plan_shard_header(run->plan, number, &header, error) : error_set_memory(error);
    if (status == STATUS_OK) {
        fd = shard_file_open(run, number, path);
        if (fd < 0 || ftruncate(fd, (off_t)planned->size) != 0)
            status = error_set_errno(error, STATUS_IO, errno, "cannot create '%s'", path);
    }
    if (status == STATUS_OK)
        status = write_at(fd, planned->file, (const uint8_t *)header.bytes, header.length, 0, error);
    if (status == STATUS_OK && !(shard->hash = sha256_new()))
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        sha256_update(shard->hash, header.bytes, header.length);
        shard->fd = fd;
        shard->dirty = true;
    } else if (fd >= 0) {
        close(fd);
    }
    text_free(&header);
    free(path);
    return status;
}

/* ---- hashing ---- */

/* The tile that the frontier of a shard waits for; NO_TILE at its end. Under shard.hashing. */
static uint32_t frontier_tile(const struct run *run, uint32_t number) {
    const struct shard_run *shard = &run->shards[number];
    const struct plan_shard *planned = &run->plan->shards[number];
    if (shard->output == planned->output_count)
        return NO_TILE;
    const struct plan_output *output = &run->plan->outputs[planned->first_output + shard->output];
    return run->plan->jobs[output->job].first_tile + shard->tile;
}

static bool tile_ready(const struct run *run, uint32_t tile) {
    return tile != NO_TILE && atomic_load(&run->finished[tile]) && !atomic_load(&run->stop);
}

static enum status hash_range(struct run *run, uint32_t number, uint64_t offset, uint64_t size, uint8_t *buffer,
                              struct error *error) {
    struct shard_run *shard = &run->shards[number];
    while (size > 0) {
        size_t wanted = size < TILE_SCRATCH_BYTES ? (size_t)size : TILE_SCRATCH_BYTES;
        ssize_t got = pread(shard->fd, buffer, wanted, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_set_errno(error, STATUS_IO, got < 0 ? errno : EIO, "cannot read back '%s.partial'",
                                   run->plan->shards[number].file);
        sha256_update(shard->hash, buffer, (size_t)got);
        offset += (uint64_t)got;
        size -= (uint64_t)got;
    }
    return STATUS_OK;
}

/* Moves the frontier of a shard over all tiles that are finished. Under shard.hashing. */
static enum status frontier_advance(struct run *run, uint32_t number, uint8_t *buffer, struct error *error) {
    struct shard_run *shard = &run->shards[number];
    const struct plan_shard *planned = &run->plan->shards[number];
    while (tile_ready(run, frontier_tile(run, number))) {
        const struct plan_output *output = &run->plan->outputs[planned->first_output + shard->output];
        const struct plan_job *job = &run->plan->jobs[output->job];
        uint64_t first, count, row_bytes = plan_output_row_bytes(job, output);
        plan_tile_rows(job, job->first_tile + shard->tile, &first, &count);
        uint64_t offset = first * row_bytes, size = count * row_bytes;
        if (row_bytes == 0)
            size = shard->tile == 0 ? output->info.size : 0;
        enum status status = hash_range(run, number, output->info.offset + offset, size, buffer, error);
        if (status != STATUS_OK)
            return status;
        if (++shard->tile == job->tile_count) {
            shard->tile = 0;
            shard->output++;
        }
    }
    if (shard->output == planned->output_count && !atomic_load(&shard->hashed)) {
        sha256_digest(shard->hash, run->state->digests[number]);
        atomic_store(&shard->hashed, true);
    }
    return STATUS_OK;
}

/* Hashes what is ready, unless another worker is at it. Nobody's finished tile is left behind. */
static enum status shard_hash(struct run *run, uint32_t number, uint8_t *buffer, struct error *error) {
    struct shard_run *shard = &run->shards[number];
    enum status status = STATUS_OK;
    uint32_t awaited;
    do {
        if (pthread_mutex_trylock(&shard->hashing) != 0)
            break;
        status = frontier_advance(run, number, buffer, error);
        awaited = frontier_tile(run, number);
        pthread_mutex_unlock(&shard->hashing);
        /* Between the last look and the unlock a worker may have finished this tile and found us here. */
    } while (status == STATUS_OK && tile_ready(run, awaited));
    return status;
}

/* ---- workers ---- */

static bool number_add(struct number_list *list, uint32_t number) {
    if (!array_reserve(list->numbers, list->count + 1, &list->capacity))
        return false;
    list->numbers[list->count++] = number;
    return true;
}

/*
 * Notes that a tile is finished. Its shard becomes dirty at the same moment: marked earlier, a sync could clear the mark
 * before the data is written.
 */
static enum status journal_later(struct run *run, uint32_t tile, struct shard_run *shard, uint64_t bytes,
                                 struct error *error) {
    pthread_mutex_lock(&run->lock);
    shard->dirty = true;
    enum status status = number_add(&run->pending_tiles, tile) ? STATUS_OK : error_set_memory(error);
    run->pending_bytes += bytes;
    if (run->pending_bytes >= commit_bytes)
        pthread_cond_signal(&run->changed);
    pthread_mutex_unlock(&run->lock);
    return status;
}

static enum status tile_run(struct run *run, struct tile_worker *worker, uint32_t tile, struct error *error) {
    const struct plan_job *job = plan_job_of_tile(run->plan, tile);
    size_t job_number = (size_t)(job - run->plan->jobs);
    uint32_t number = run->plan->outputs[job->outputs[0]].shard;
    struct shard_run *shard = &run->shards[number];
    struct tile_result result;
    uint16_t amax = (uint16_t)atomic_load(&run->amax[job_number]);
    enum status status = tile_convert(worker, job, tile, amax, &result, error);
    if (status == STATUS_OK && run->state->sources)
        status = sha256_of(worker->source, result.source_size, run->state->sources[tile], error);
    if (status != STATUS_OK)
        return status;

    pthread_mutex_lock(&run->lock);
    status = shard_open(run, number, error);
    pthread_mutex_unlock(&run->lock);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < job->output_count && status == STATUS_OK; i++) {
        uint64_t offset = run->plan->outputs[job->outputs[i]].info.offset + result.offset[i];
        status = write_at(shard->fd, run->plan->shards[number].file, result.bytes[i], result.size[i], offset, error);
        bytes += result.size[i];
    }
    if (status != STATUS_OK)
        return status;
    atomic_store(&run->finished[tile], 1);
    atomic_fetch_add(&run->bytes_done, bytes);
    status = journal_later(run, tile, shard, bytes, error);
    supply_tile_made(run->options->supply, tile);
    if (status == STATUS_OK)
        status = shard_hash(run, number, worker->source, error);
    return status;
}

/* Reads a tile of a weight that needs one scale for all of its elements. */
static enum status amax_run(struct run *run, struct tile_worker *worker, uint32_t tile, struct error *error) {
    const struct plan_job *job = plan_job_of_tile(run->plan, tile);
    size_t number = (size_t)(job - run->plan->jobs);
    uint16_t largest;
    enum status status = tile_amax(worker, job, tile, &largest, error);
    if (status != STATUS_OK)
        return status;
    unsigned seen = atomic_load(&run->amax[number]);
    while (largest > seen && !atomic_compare_exchange_weak(&run->amax[number], &seen, largest)) {
    }
    pthread_mutex_lock(&run->lock);
    if (atomic_fetch_sub(&run->amax_left[number], 1) == 1) {
        pthread_cond_broadcast(&run->amax_found);
        if (!number_add(&run->pending_amax, (uint32_t)number))
            status = error_set_memory(error);
    }
    pthread_mutex_unlock(&run->lock);
    return status;
}

/* What other workers read is needed for this tile. False when the run ends before it is there. */
static bool amax_await(struct run *run, uint32_t tile) {
    size_t number = (size_t)(plan_job_of_tile(run->plan, tile) - run->plan->jobs);
    if (atomic_load(&run->amax_left[number]) == 0)
        return true;
    pthread_mutex_lock(&run->lock);
    while (atomic_load(&run->amax_left[number]) > 0 && !atomic_load(&run->stop))
        pthread_cond_wait(&run->amax_found, &run->lock);
    pthread_mutex_unlock(&run->lock);
    return atomic_load(&run->amax_left[number]) == 0;
}

/* Takes the next tile; *amax: it is to be read only. False when there is none left. */
static bool work_take(struct run *run, uint32_t *tile, bool *amax) {
    const struct plan *plan = run->plan;
    struct cursor *next = &run->next;
    bool found = false;
    pthread_mutex_lock(&run->lock);
    while (!found && next->shard < run->options->end_shard) {
        const struct plan_shard *planned = &plan->shards[next->shard];
        if (next->job == planned->first_job + planned->job_count) {
            next->shard += next->amax_done;
            next->amax_done = !next->amax_done;
            if (next->shard < run->options->end_shard)
                next->job = plan->shards[next->shard].first_job;
            continue;
        }
        const struct plan_job *job = &plan->jobs[next->job];
        *amax = !next->amax_done;
        const bool left = run->options->left && run->options->left[next->job];
        if (left || next->tile == job->tile_count || (*amax && atomic_load(&run->amax_left[next->job]) == 0)) {
            next->job++;
            next->tile = 0;
            continue;
        }
        *tile = job->first_tile + next->tile++;
        found = *amax || !atomic_load(&run->finished[*tile]); /* it may be by an earlier run */
    }
    pthread_mutex_unlock(&run->lock);
    return found;
}

static void worker_main(void *context, unsigned number) {
    struct run *run = context;
    struct tile_worker worker;
    struct error error;
    enum status status = tile_worker_init(run->plan, run->options->cpu, &worker, &error);
    uint32_t tile;
    bool amax;
    (void)number;
    while (status == STATUS_OK && !atomic_load(&run->stop) && work_take(run, &tile, &amax)) {
        status = supply_await(run->options->supply, tile, &error);
        if (tile + PREFETCH_TILES < run->end_tile)
            tile_prefetch(run->plan, tile + PREFETCH_TILES);
        if (status == STATUS_OK && amax)
            status = amax_run(run, &worker, tile, &error);
        else if (status == STATUS_OK && amax_await(run, tile))
            status = tile_run(run, &worker, tile, &error);
    }
    /* Tiles of an earlier run may still have to be hashed. */
    for (uint32_t s = run->options->first_shard; s < run->options->end_shard && status == STATUS_OK; s++)
        if (!atomic_load(&run->shards[s].hashed) && !atomic_load(&run->stop)) {
            pthread_mutex_lock(&run->lock);
            if (!atomic_load(&run->shards[s].hashed)) /* one that is may have been closed for good meanwhile */
                status = shard_open(run, s, &error);
            pthread_mutex_unlock(&run->lock);
            if (status == STATUS_OK)
                status = shard_hash(run, s, worker.source, &error);
        }
    tile_worker_free(&worker);
    if (status != STATUS_OK)
        run_fail(run, status, &error);
    pthread_mutex_lock(&run->lock);
    run->running--;
    pthread_cond_signal(&run->changed);
    pthread_mutex_unlock(&run->lock);
}

/* ---- the coordinating thread ---- */

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Syncs every shard that was written to since the last time. */
static enum status shards_sync(struct run *run, struct error *error) {
    for (uint32_t s = run->options->first_shard; s < run->options->end_shard; s++) {
        struct shard_run *shard = &run->shards[s];
        pthread_mutex_lock(&run->lock);
        bool dirty = shard->dirty;
        shard->dirty = false;
        pthread_mutex_unlock(&run->lock);
        if (dirty && fdatasync(shard->fd) != 0)
            return error_set_errno(error, STATUS_IO, errno, "cannot sync '%s.partial'", run->plan->shards[s].file);
    }
    pthread_mutex_lock(&run->lock);
    bool folder_dirty = run->folder_dirty;
    run->folder_dirty = false;
    pthread_mutex_unlock(&run->lock);
    return folder_dirty ? folder_sync(run->options->folder, error) : STATUS_OK;
}

/* The records of finished tiles, and of jobs whose amax is known. */
static size_t pending_records(const struct run *run, struct number_list *tiles, const struct number_list *amax,
                              struct journal_record *records) {
    size_t made = 0;
    for (size_t i = 0; i < amax->count; i++)
        records[made++] = (struct journal_record){
            .type = JOURNAL_AMAX, .first = amax->numbers[i], .last = atomic_load(&run->amax[amax->numbers[i]])};
    for (size_t i = 0; i < tiles->count && run->state->sources; i++) {
        struct journal_record record = {.type = JOURNAL_SOURCE, .first = tiles->numbers[i]};
        memcpy(record.payload, run->state->sources[tiles->numbers[i]], SHA256_SIZE);
        records[made++] = record;
    }
    if (tiles->count > 0)
        qsort(tiles->numbers, tiles->count, sizeof *tiles->numbers, by_number);
    for (size_t i = 0; i < tiles->count;) {
        size_t end = i + 1;
        while (end < tiles->count && tiles->numbers[end] == tiles->numbers[end - 1] + 1)
            end++;
        records[made++] =
            (struct journal_record){.type = JOURNAL_TILES, .first = tiles->numbers[i], .last = tiles->numbers[end - 1]};
        i = end;
    }
    return made;
}

/* The records of shards that were `hashed` before the last sync and whose tiles are all journaled. */
static size_t shard_records(const struct run *run, const bool *hashed, struct journal_record *records) {
    size_t made = 0;
    for (uint32_t s = run->options->first_shard; s < run->options->end_shard; s++) {
        const struct plan_shard *planned = &run->plan->shards[s];
        bool complete = hashed[s - run->options->first_shard] && !run->state->shards[s];
        for (uint32_t j = planned->first_job; complete && j < planned->first_job + planned->job_count; j++)
            for (uint32_t t = 0; complete && t < run->plan->jobs[j].tile_count; t++)
                complete = run->state->tiles[run->plan->jobs[j].first_tile + t];
        if (!complete)
            continue;
        records[made] = (struct journal_record){.type = JOURNAL_SHARD, .first = s};
        memcpy(records[made++].payload, run->state->digests[s], SHA256_SIZE);
    }
    return made;
}

/* Syncs and journals these tiles and amax, then the shards that became complete. The order is the promise: data, sync,
 * record, sync. */
static enum status records_commit(struct run *run, struct journal *journal, struct number_list *tiles,
                                  const struct number_list *amax, struct error *error) {
    size_t shard_count = run->options->end_shard - run->options->first_shard;
    struct journal_record *records = calloc(2 * tiles->count + amax->count + shard_count + 1, sizeof *records);
    bool *hashed = calloc(shard_count + 1, sizeof *hashed);
    enum status status = records && hashed ? STATUS_OK : error_set_memory(error);
    /* Digests are read before the sync: a shard hashed now has all of its tiles among those synced below. */
    for (size_t i = 0; i < shard_count && status == STATUS_OK; i++)
        hashed[i] = atomic_load(&run->shards[run->options->first_shard + i].hashed);
    if (status == STATUS_OK)
        status = shards_sync(run, error);
    size_t made = status == STATUS_OK ? pending_records(run, tiles, amax, records) : 0;
    if (status == STATUS_OK)
        status = journal_append(journal, records, made, error);
    for (size_t i = 0; i < made && status == STATUS_OK; i++)
        run_state_visit(run->state, &records[i]);
    made = status == STATUS_OK ? shard_records(run, hashed, records) : 0;
    if (status == STATUS_OK)
        status = journal_append(journal, records, made, error);
    for (size_t i = 0; i < made && status == STATUS_OK; i++) {
        struct shard_run *shard = &run->shards[records[i].first];
        run->state->shards[records[i].first] = 1;
        pthread_mutex_lock(&run->lock);
        close(shard->fd);
        shard->fd = -1;
        sha256_free(shard->hash);
        shard->hash = NULL;
        pthread_mutex_unlock(&run->lock);
    }
    free(hashed);
    free(records);
    return status;
}

/* Makes what was finished so far durable and journals it. */
static enum status commit(struct run *run, struct journal *journal, struct error *error) {
    pthread_mutex_lock(&run->lock);
    struct number_list tiles = run->pending_tiles, amax = run->pending_amax;
    run->pending_tiles = run->pending_amax = (struct number_list){0};
    run->pending_bytes = 0;
    pthread_mutex_unlock(&run->lock);
    enum status status = records_commit(run, journal, &tiles, &amax, error);
    if (status == STATUS_OK)
        status = supply_tiles_durable(run->options->supply, tiles.numbers, tiles.count, error);
    free(tiles.numbers);
    free(amax.numbers);
    return status;
}

/* Waits until something is to be done, or a while; true while workers run. */
static bool wait_for_workers(struct run *run) {
    static const long nanoseconds = 100000000;
    pthread_mutex_lock(&run->lock);
    if (run->running > 0 && run->pending_bytes < commit_bytes && run->status == STATUS_OK)
        condition_wait(&run->changed, &run->lock, CLOCK_REALTIME, nanoseconds);
    bool running = run->running > 0;
    pthread_mutex_unlock(&run->lock);
    return running;
}

/* Lets workers make everything that is not done, and keeps what they finish. */
static enum status tiles_make(struct run *run, struct journal *journal, uint64_t total, struct error *error) {
    struct thread_team team;
    struct progress progress;
    run->running = run->options->jobs;
    progress_start(&progress, "quantizing", total, atomic_load(&run->bytes_done), run->options->quiet);
    enum status status = thread_team_start(&team, run->options->jobs, worker_main, run, error);
    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&run->lock);
    run->running -= run->options->jobs - team.count;
    pthread_mutex_unlock(&run->lock);

    double last_commit = seconds_now();
    while (wait_for_workers(run)) {
        if (interrupt_pending())
            run_stop(run);
        supply_progress(run->options->supply, &progress);
        progress_update(&progress, atomic_load(&run->bytes_done));
        pthread_mutex_lock(&run->lock);
        bool due = run->pending_bytes >= commit_bytes || seconds_now() - last_commit >= commit_seconds;
        pthread_mutex_unlock(&run->lock);
        due = due || supply_wants_commit(run->options->supply);
        if (!due || status != STATUS_OK)
            continue;
        status = commit(run, journal, error);
        last_commit = seconds_now();
        if (status != STATUS_OK)
            run_fail(run, status, error);
    }
    thread_team_join(&team);
    progress_end(&progress);
    /* What is finished is worth keeping even when something failed, unless it was the syncing itself, or the source. */
    if (status == STATUS_OK && !supply_spoiled(run->options->supply))
        status = commit(run, journal, error);
    if (run->status != STATUS_OK) {
        status = run->status;
        *error = run->error;
    }
    if (status == STATUS_OK && interrupt_pending())
        status =
            error_set(error, STATUS_INTERRUPTED, "interrupted; what is done is kept, run the same command to go on");
    return status;
}

/* The files that an earlier run's journal speaks of must be there. */
static enum status files_check(struct run *run, struct error *error) {
    for (uint32_t s = run->options->first_shard; s < run->options->end_shard; s++) {
        const struct plan_shard *planned = &run->plan->shards[s];
        bool any = run->state->shards[s];
        for (uint32_t j = planned->first_job; j < planned->first_job + planned->job_count && !any; j++)
            for (uint32_t t = 0; t < run->plan->jobs[j].tile_count && !any; t++)
                any = run->state->tiles[run->plan->jobs[j].first_tile + t];
        if (!any)
            continue;
        run->shards[s].begun = true;
        uint64_t size;
        const enum status status = shard_file_size(run->plan, s, run->options->folder, &size, error);
        if (status != STATUS_OK)
            return status;
        if (size != planned->size)
            return error_set(error, STATUS_BAD_INPUT,
                             "the journal says that '%s.partial' was begun, but it is missing or has another size; "
                             "remove '%s' to start anew",
                             planned->file, run->options->folder);
    }
    return STATUS_OK;
}

static enum status run_init(struct run *run, struct error *error) {
    const struct plan *plan = run->plan;
    pthread_mutex_init(&run->lock, NULL);
    pthread_cond_init(&run->changed, NULL);
    pthread_cond_init(&run->amax_found, NULL);
    run->shards = calloc(plan->shard_count, sizeof *run->shards);
    run->finished = calloc(plan->tile_count, sizeof *run->finished);
    run->amax = calloc(plan->job_count, sizeof *run->amax);
    run->amax_left = calloc(plan->job_count, sizeof *run->amax_left);
    if (!run->shards || !run->finished || !run->amax || !run->amax_left)
        return error_set_memory(error);
    for (size_t s = 0; s < plan->shard_count; s++) {
        pthread_mutex_init(&run->shards[s].hashing, NULL);
        run->shards[s].fd = -1;
    }
    return STATUS_OK;
}

static void run_free(struct run *run) {
    for (size_t s = 0; run->shards && s < run->plan->shard_count; s++) {
        if (run->shards[s].fd >= 0)
            close(run->shards[s].fd);
        sha256_free(run->shards[s].hash);
        pthread_mutex_destroy(&run->shards[s].hashing);
    }
    pthread_mutex_destroy(&run->lock);
    pthread_cond_destroy(&run->changed);
    pthread_cond_destroy(&run->amax_found);
    free(run->shards);
    free((void *)run->finished);
    free(run->amax);
    free(run->amax_left);
    free(run->pending_tiles.numbers);
    free(run->pending_amax.numbers);
}

/* What is done already, and what is to be done: bytes of the output in total. */
static uint64_t work_survey(struct run *run) {
    const struct plan *plan = run->plan;
    const struct run_state *state = run->state;
    const struct plan_shard *last = &plan->shards[run->options->end_shard - 1];
    uint32_t first_job = plan->shards[run->options->first_shard].first_job, end_job = last->first_job + last->job_count;
    uint64_t total = 0, done = 0;
    for (uint32_t j = first_job; j < end_job; j++) {
        const struct plan_job *job = &plan->jobs[j];
        uint64_t bytes = 0, tiles_done = 0;
        for (uint32_t i = 0; i < job->output_count; i++)
            bytes += plan->outputs[job->outputs[i]].info.size;
        for (uint32_t t = job->first_tile; t < job->first_tile + job->tile_count; t++) {
            atomic_store(&run->finished[t], state->tiles[t]);
            tiles_done += state->tiles[t];
        }
        total += bytes;
        done += (uint64_t)((double)bytes * (double)tiles_done / job->tile_count);
        atomic_store(&run->amax[j], state->amax[j]);
        if (job->kind == JOB_FP8_TENSOR && !state->amax_known[j] && tiles_done < job->tile_count) {
            atomic_store(&run->amax[j], 0);
            atomic_store(&run->amax_left[j], job->tile_count);
        }
    }
    for (uint32_t s = run->options->first_shard; s < run->options->end_shard; s++)
        atomic_store(&run->shards[s].hashed, state->shards[s]);
    atomic_store(&run->bytes_done, done);
    run->end_tile = plan->jobs[end_job - 1].first_tile + plan->jobs[end_job - 1].tile_count;
    run->next = (struct cursor){.shard = run->options->first_shard, .job = first_job};
    return total;
}

/* The journal of work that cannot be trusted goes, for good. */
static enum status journal_remove(const char *path, struct error *error) {
    if (unlink(path) != 0 && errno != ENOENT)
        return error_set_errno(error, STATUS_IO, errno, "cannot remove the journal '%s'", path);
    return folder_above_sync(path, error);
}

enum status execute(const struct plan *plan, const struct execute_options *options,
                    const struct fingerprint *fingerprint, struct run_state *state, struct error *error) {
    struct run run = {.plan = plan, .options = options, .state = state};
    struct journal *journal = NULL;
    enum status status = run_init(&run, error);
    if (status == STATUS_OK)
        status = journal_open(options->journal, fingerprint, run_state_visit, state, &journal, error);
    if (status == STATUS_OK)
        status = files_check(&run, error);
    if (status == STATUS_OK) /* the journal's own entry is as much of a promise */
        status = folder_above_sync(options->journal, error);
    if (status == STATUS_OK && options->supply)
        status = supply_begin(options->supply, state, fingerprint->source, error);
    if (status == STATUS_OK && options->first_shard < options->end_shard)
        status = tiles_make(&run, journal, work_survey(&run), error);
    for (uint32_t s = options->first_shard; s < options->end_shard && status == STATUS_OK && !options->left; s++)
        if (!state->shards[s])
            status = error_set(error, STATUS_IO, "shard '%s' was not completed: this is a bug in qstream",
                               plan->shards[s].file);
    struct error removal;
    if (supply_spoiled(options->supply) && journal_remove(options->journal, &removal) != STATUS_OK) {
        *error = removal;
        status = STATUS_IO;
    }
    supply_end(options->supply, status == STATUS_OK);
    journal_close(journal);
    run_free(&run);
    return status;
}
