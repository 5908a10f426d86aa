#include "common/hub/range_source.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/file_range.h"
#include "common/thread_team.h"

enum {
    BLOCK = RANGE_BLOCK_BYTES,
    RUN_MOST = 32,                    /* blocks of one request: 4 MiB */
    AHEAD_MOST = 128,                 /* blocks that are read ahead of reading in order: 16 MiB */
    IN_ORDER_READS = 4,               /* after so many, and as many blocks, reading is taken to go on in order */
    DIRECT_BLOCKS = RANGE_BLOCKS / 2, /* a read of more goes past the blocks */
    FETCHERS = 6,                     /* threads that read ahead */
    JOBS_MOST = 64,
};

/* ---- the blocks of all sources ---- */

struct range_source {
    struct byte_source base;
    struct hub *hub;
    struct hub_place place;
    uint64_t next;      /* where reading in order would go on */
    uint64_t in_order;  /* bytes that were read so, up to there */
    unsigned reads;     /* in how many reads */
    uint64_t ahead_end; /* blocks up to this one were asked for ahead */
    unsigned jobs;      /* of reading ahead, not finished */
    bool closing;
};

struct block {
    const struct range_source *source; /* NULL: free */
    uint64_t index;                    /* in the file */
    uint64_t used;                     /* when it was last read, by pool.clock */
    unsigned readers;                  /* that copy from it */
    bool whole;                        /* its bytes have come */
    bool read;                         /* once at least */
    char *bytes;
};

struct job {
    struct range_source *source;
    uint64_t first;
    size_t count;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t arrived; /* a block has come, or will not; a job is finished */
    pthread_cond_t asked;   /* there is a job */
    struct block blocks[RANGE_BLOCKS];
    struct job jobs[JOBS_MOST]; /* a ring */
    size_t job_first, job_count;
    uint64_t clock;
    struct thread_team team; /* started when reading ahead begins; it ends with the process */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .arrived = PTHREAD_COND_INITIALIZER, .asked = PTHREAD_COND_INITIALIZER};

/* All below are called with the lock held, unless they say otherwise. */

static struct block *block_find(const struct range_source *source, uint64_t index) {
    for (size_t i = 0; i < RANGE_BLOCKS; i++)
        if (pool.blocks[i].source == source && pool.blocks[i].index == index)
            return &pool.blocks[i];
    return NULL;
}

static void block_drop(struct block *block) {
    free(block->bytes);
    *block = (struct block){0};
}

/*
 * A block for what is to be fetched: a free one, or the one that was read longest ago; `ahead`: not one that was itself
 * read ahead and is still to be read. NULL when all are in use.
 */
static struct block *block_take(const struct range_source *source, uint64_t index, bool ahead) {
    struct block *oldest = NULL;
    for (size_t i = 0; i < RANGE_BLOCKS; i++) {
        struct block *block = &pool.blocks[i];
        if (!block->source) {
            oldest = block;
            break;
        }
        if (block->whole && block->readers == 0 && (block->read || !ahead) && (!oldest || block->used < oldest->used))
            oldest = block;
    }
    if (!oldest)
        return NULL;
    char *bytes = oldest->bytes ? oldest->bytes : malloc(BLOCK);
    if (!bytes)
        return NULL;
    *oldest = (struct block){.source = source, .index = index, .used = ++pool.clock, .bytes = bytes};
    return oldest;
}

static size_t block_size(const struct range_source *source, uint64_t index) {
    const uint64_t left = source->base.identity.size - index * BLOCK;
    return left < BLOCK ? (size_t)left : BLOCK;
}

static uint64_t block_count(const struct range_source *source) {
    return (source->base.identity.size + BLOCK - 1) / BLOCK;
}

/* ---- fetching a run of blocks ---- */

struct run {
    struct range_source *source;
    bool ahead;
    struct block *blocks[RUN_MOST];
    size_t count, whole; /* blocks; those that have come */
    size_t filled;       /* bytes of the block after them */
};

/* Takes blocks for as many as are missing from `first` on, at most `most`. */
static void run_claim(struct run *run, uint64_t first, uint64_t most) {
    const uint64_t end = block_count(run->source);
    while (run->count < most && run->count < RUN_MOST && first + run->count < end) {
        const uint64_t index = first + run->count;
        struct block *block = block_find(run->source, index) ? NULL : block_take(run->source, index, run->ahead);
        if (!block)
            return;
        run->blocks[run->count++] = block;
    }
}

/* On the client's thread, without the lock: a block that has not come is its fetcher's alone. */
static bool run_take(void *context, const void *bytes, size_t size) {
    struct run *run = context;
    for (const char *at = bytes; size > 0;) {
        struct block *block = run->blocks[run->whole];
        const size_t room = block_size(run->source, block->index) - run->filled, part = size < room ? size : room;
        memcpy(block->bytes + run->filled, at, part);
        at += part;
        size -= part;
        run->filled += part;
        if (part < room)
            break;
        run->filled = 0;
        run->whole++;
        pthread_mutex_lock(&pool.lock);
        block->whole = true;
        pthread_cond_broadcast(&pool.arrived);
        pthread_mutex_unlock(&pool.lock);
    }
    pthread_mutex_lock(&pool.lock);
    const bool go_on = !run->ahead || !run->source->closing;
    pthread_mutex_unlock(&pool.lock);
    return go_on;
}

/* Fetches the claimed blocks, without the lock while it does; those that do not come are free again. */
static enum status run_fetch(struct run *run, struct error *error) {
    const uint64_t offset = run->blocks[0]->index * BLOCK;
    const size_t size = (run->count - 1) * BLOCK + block_size(run->source, run->blocks[run->count - 1]->index);
    pthread_mutex_unlock(&pool.lock);
    const enum status status =
        hub_range_read(run->source->hub, &run->source->place, offset, size, run_take, run, error);
    pthread_mutex_lock(&pool.lock);
    for (size_t i = run->whole; i < run->count; i++)
        block_drop(run->blocks[i]);
    pthread_cond_broadcast(&pool.arrived);
    return status;
}

/* Fetches what is missing of a job's blocks; an error is left to who reads them, and tries again. */
static void job_do(const struct job *job) {
    enum status status = STATUS_OK;
    for (uint64_t index = job->first; index < job->first + job->count && status == STATUS_OK;) {
        struct run run = {.source = job->source, .ahead = true};
        if (job->source->closing)
            return;
        if (block_find(job->source, index)) {
            index++;
            continue;
        }
        run_claim(&run, index, job->first + job->count - index);
        if (run.count == 0)
            return;
        status = run_fetch(&run, NULL);
        index += run.count;
    }
}

static void fetcher_run(void *context, unsigned number) {
    (void)context;
    (void)number;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.job_count == 0)
            pthread_cond_wait(&pool.asked, &pool.lock);
        const struct job job = pool.jobs[pool.job_first];
        pool.job_first = (pool.job_first + 1) % JOBS_MOST;
        pool.job_count--;
        job_do(&job);
        job.source->jobs--;
        pthread_cond_broadcast(&pool.arrived);
    }
}

static bool is_asked(const struct range_source *source, uint64_t index) {
    for (size_t i = 0; i < pool.job_count; i++) {
        const struct job *job = &pool.jobs[(pool.job_first + i) % JOBS_MOST];
        if (job->source == source && index >= job->first && index < job->first + job->count)
            return true;
    }
    return block_find(source, index) != NULL;
}

/* Has the blocks [first, end) fetched in the background, as far as there is room. */
static void ahead_ask(struct range_source *source, uint64_t first, uint64_t end) {
    if (end > block_count(source))
        end = block_count(source);
    while (first < end && pool.job_count < JOBS_MOST) {
        if (is_asked(source, first)) {
            first++;
            continue;
        }
        const uint64_t count = end - first < RUN_MOST ? end - first : RUN_MOST;
        if (!pool.team.members && thread_team_start(&pool.team, FETCHERS, fetcher_run, NULL, NULL) != STATUS_OK)
            return;
        pool.jobs[(pool.job_first + pool.job_count++) % JOBS_MOST] = (struct job){source, first, (size_t)count};
        source->jobs++;
        pthread_cond_signal(&pool.asked);
        first += count;
    }
}

/*
 * Reading that goes on in order, by one thread or by several that take turns, is read ahead of, as far as it has come.
 * Reading a header does not look like that.
 */
static void ahead_follow(struct range_source *source, uint64_t offset, uint64_t size) {
    const uint64_t end = offset + size, near = (uint64_t)RUN_MOST * BLOCK;
    const bool follows = offset + near >= source->next && offset <= source->next + near;
    if (!follows) {
        source->in_order = source->ahead_end = 0;
        source->reads = 0;
    }
    source->reads++;
    if (follows && end <= source->next)
        return;
    source->in_order += follows ? end - source->next : size;
    source->next = end;
    if (source->reads < IN_ORDER_READS || source->in_order < (uint64_t)IN_ORDER_READS * BLOCK)
        return;
    const uint64_t behind = source->in_order / BLOCK, ahead = behind < AHEAD_MOST ? behind : AHEAD_MOST;
    const uint64_t here = (end + BLOCK - 1) / BLOCK, from = source->ahead_end > here ? source->ahead_end : here;
    const uint64_t to = here + ahead, worth = ahead / 2 < RUN_MOST ? ahead / 2 : RUN_MOST; /* a request */
    if (to < from + worth)
        return;
    ahead_ask(source, from, to);
    source->ahead_end = to;
}

/* ---- the source ---- */

static enum status read_direct(struct range_source *source, uint64_t offset, char *to, size_t size,
                               struct error *error) {
    pthread_mutex_unlock(&pool.lock);
    const enum status status = hub_range_read_buffer(source->hub, &source->place, offset, to, size, error);
    pthread_mutex_lock(&pool.lock);
    return status;
}

/* Copies what a block has of [offset, offset + size); *copied says how much. */
static enum status block_read(struct range_source *source, uint64_t offset, char *to, size_t size, size_t *copied,
                              struct error *error) {
    const uint64_t index = offset / BLOCK;
    const size_t inside = (size_t)(offset % BLOCK), left = block_size(source, index) - inside;
    const size_t wanted = size < left ? size : left;
    *copied = 0;
    struct block *block = block_find(source, index);
    if (block && block->whole) {
        block->used = ++pool.clock;
        block->read = true;
        block->readers++;
        pthread_mutex_unlock(&pool.lock);
        memcpy(to, block->bytes + inside, wanted);
        pthread_mutex_lock(&pool.lock);
        block->readers--;
        *copied = wanted;
        return STATUS_OK;
    }
    if (block) { /* somebody fetches it */
        pthread_cond_wait(&pool.arrived, &pool.lock);
        return STATUS_OK;
    }
    const uint64_t last = (offset + size - 1) / BLOCK;
    struct run run = {.source = source};
    run_claim(&run, index, last - index + 1);
    if (run.count == 0) { /* all blocks are in use */
        *copied = wanted;
        return read_direct(source, offset, to, wanted, error);
    }
    if (index + run.count <= last)
        ahead_ask(source, index + run.count, last + 1);
    return run_fetch(&run, error);
}

static enum status range_read_at(struct byte_source *base, uint64_t offset, void *buffer, size_t size,
                                 struct error *error) {
    struct range_source *source = (struct range_source *)base;
    char *to = buffer;
    if (offset > base->identity.size || size > base->identity.size - offset)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' has %" PRIu64 " bytes, too few for the %zu bytes at %" PRIu64
                         " that its header promises: it is truncated",
                         base->name, base->identity.size, size, offset);
    enum status status = STATUS_OK;
    pthread_mutex_lock(&pool.lock);
    if (size > (size_t)DIRECT_BLOCKS * BLOCK) {
        status = read_direct(source, offset, to, size, error);
        size = 0;
    } else {
        ahead_follow(source, offset, size);
    }
    while (status == STATUS_OK && size > 0) {
        size_t copied;
        status = block_read(source, offset, to, size, &copied, error);
        offset += copied;
        to += copied;
        size -= copied;
    }
    pthread_mutex_unlock(&pool.lock);
    return status;
}

/* A commit does not change. */
static enum status range_identify(struct byte_source *base, struct source_identity *now, struct error *error) {
    (void)error;
    *now = base->identity;
    return STATUS_OK;
}

static void range_prefetch(struct byte_source *base, uint64_t offset, uint64_t size) {
    struct range_source *source = (struct range_source *)base;
    if (offset >= base->identity.size || size == 0)
        return;
    uint64_t most = (uint64_t)AHEAD_MOST * BLOCK;
    pthread_mutex_lock(&pool.lock);
    ahead_ask(source, offset / BLOCK, (offset + (size < most ? size : most) + BLOCK - 1) / BLOCK);
    pthread_mutex_unlock(&pool.lock);
}

static void range_close(struct byte_source *base) {
    struct range_source *source = (struct range_source *)base;
    pthread_mutex_lock(&pool.lock);
    source->closing = true;
    while (source->jobs > 0)
        pthread_cond_wait(&pool.arrived, &pool.lock);
    for (size_t i = 0; i < RANGE_BLOCKS; i++)
        if (pool.blocks[i].source == source)
            block_drop(&pool.blocks[i]);
    pthread_mutex_unlock(&pool.lock);
    hub_place_free(&source->place);
    free(source->base.name);
    free(source);
}

static const struct byte_source_operations range_operations = {
    .read_at = range_read_at,
    .identify = range_identify,
    .prefetch = range_prefetch,
    .close = range_close,
};

enum status range_source_open(struct hub *hub, const struct hub_listing *listing, const struct hub_file *file,
                              struct byte_source **out, struct error *error) {
    *out = NULL;
    struct range_source *source = calloc(1, sizeof *source);
    char *repository = hub_reference_text(&listing->reference, listing->reference.revision);
    char *name = repository ? text_format("%s/%s", repository, file->path) : NULL;
    free(repository);
    if (!source || !name) {
        free(source);
        free(name);
        return error_set_memory(error);
    }
    source->base = (struct byte_source){&range_operations, name, {.size = file->size, .hashed = file->lfs}};
    if (file->lfs)
        memcpy(source->base.identity.sha256, file->sha256, sizeof file->sha256);
    source->hub = hub;
    hub_place_init(&source->place, listing, file);
    *out = &source->base;
    return STATUS_OK;
}
