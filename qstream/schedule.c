#include "qstream/schedule.h"

#include <stdlib.h>

/* A scale that is copied goes with its weight, wherever it lies. */
static uint32_t home_of(const struct plan *plan, const struct plan_job *job) {
    uint32_t owner = plan->layout->tensors[job->source].owner;
    return plan->checkpoint->tensors[owner == NO_TENSOR ? job->source : owner].shard;
}

/* Calls `note` for every tensor that a job reads. */
static void job_tensors(const struct plan *plan, const struct plan_job *job,
                        void (*note)(void *context, uint32_t tensor), void *context) {
    note(context, job->source);
    bool converted = job->kind != JOB_COPY && job->kind != JOB_SCALAR_F32;
    if (converted && plan->layout->tensors[job->source].scale != NO_TENSOR)
        note(context, plan->layout->tensors[job->source].scale);
    if (job->gamma != NO_TENSOR)
        note(context, job->gamma);
}

/* ---- companions ---- */

struct companions {
    const struct schedule *schedule;
    uint32_t home; /* of the job that is looked at */
    bool *wanted;  /* [tensor_count] */
    bool any;      /* the job has one */
};

static void companion_note(void *context, uint32_t tensor) {
    struct companions *companions = context;
    const struct tensor *read = &companions->schedule->plan->checkpoint->tensors[tensor];
    if (read->shard == companions->home || read->info.size == 0)
        return;
    companions->wanted[tensor] = true;
    companions->any = true;
}

/* The companions of the share, whatever is done and wherever shards are: a run that goes on has the same. */
static enum status companions_collect(struct schedule *schedule, uint32_t first_job, uint32_t end_job,
                                      const struct run_state *state, struct error *error) {
    const struct plan *plan = schedule->plan;
    size_t count = plan->checkpoint->tensor_count;
    struct companions companions = {.schedule = schedule, .wanted = calloc(count + 1, sizeof(bool))};
    schedule->companions = calloc(count + 1, sizeof *schedule->companions);
    if (!companions.wanted || !schedule->companions) {
        free(companions.wanted);
        return error_set_memory(error);
    }
    for (uint32_t j = first_job; j < end_job; j++) {
        const struct plan_job *job = &plan->jobs[j];
        companions.home = schedule->homes[j];
        companions.any = false;
        job_tensors(plan, job, companion_note, &companions);
        for (uint32_t i = 0; i < job->tile_count; i++) {
            bool made = state && state->tiles[job->first_tile + i];
            schedule->companions_used = schedule->companions_used || (made && companions.any);
            schedule->companions_needed = schedule->companions_needed || !made;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        if (companions.wanted[i])
            schedule->companions[schedule->companion_count++] = i;
    schedule->companions_needed = schedule->companions_needed && schedule->companion_count > 0;
    free(companions.wanted);
    return STATUS_OK;
}

/* Nobody would check the companions of these by the hash of their shard. */
static enum status loose_collect(struct schedule *schedule, uint32_t first_job, uint32_t end_job, struct error *error) {
    const struct plan *plan = schedule->plan;
    size_t count = plan->checkpoint->shard_count;
    enum use { HOME = 1, HOME_ELSEWHERE = 2, COMPANIONS = 4 };
    uint8_t *used = calloc(count + 1, 1);
    schedule->loose = calloc(count + 1, sizeof *schedule->loose);
    if (!used || !schedule->loose) {
        free(used);
        return error_set_memory(error);
    }
    for (size_t j = 0; j < plan->job_count; j++)
        used[schedule->homes[j]] |= j >= first_job && j < end_job ? HOME : HOME_ELSEWHERE;
    for (size_t i = 0; i < schedule->companion_count; i++)
        used[plan->checkpoint->tensors[schedule->companions[i]].shard] |= COMPANIONS;
    for (uint32_t s = 0; s < count; s++) {
        bool elsewhere = (used[s] & (HOME | HOME_ELSEWHERE)) == HOME_ELSEWHERE;
        const struct schedule_shard *shard = &schedule->shards[s];
        if (used[s] & COMPANIONS && shard->bytes > 0 && shard->tiles == 0 && !elsewhere)
            schedule->loose[schedule->loose_count++] = s;
    }
    free(used);
    return STATUS_OK;
}

/* ---- when ---- */

static void need_note(struct schedule_shard *shard, uint32_t from, uint32_t tile) {
    if (shard->tiles == 0 || from < shard->first || (from == shard->first && tile < shard->turn))
        shard->turn = tile;
    if (shard->tiles == 0 || from < shard->first)
        shard->first = from;
    if (shard->tiles == 0 || tile > shard->last)
        shard->last = tile;
}

static void needs_collect(struct schedule *schedule, uint32_t first_shard, uint32_t end_shard,
                          const struct run_state *state) {
    const struct plan *plan = schedule->plan;
    for (uint32_t s = first_shard; s < end_shard; s++) {
        const struct plan_shard *planned = &plan->shards[s];
        uint32_t begin = plan->jobs[planned->first_job].first_tile;
        for (uint32_t j = planned->first_job; j < planned->first_job + planned->job_count; j++) {
            const struct plan_job *job = &plan->jobs[j];
            struct schedule_shard *shard = &schedule->shards[schedule->homes[j]];
            bool amax = job->kind == JOB_FP8_TENSOR && !(state && state->amax_known[j]);
            for (uint32_t tile = job->first_tile; tile < job->first_tile + job->tile_count; tile++) {
                if (state && state->tiles[tile])
                    continue;
                need_note(shard, amax ? begin : tile, tile);
                shard->tiles++;
            }
        }
    }
}

static int by_need(const void *a, const void *b, void *context) {
    const struct schedule_shard *shards = context;
    const struct schedule_shard *x = &shards[*(const uint32_t *)a], *y = &shards[*(const uint32_t *)b];
    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return x->turn < y->turn ? -1 : x->turn > y->turn;
}

static enum status order_make(struct schedule *schedule, struct error *error) {
    size_t count = schedule->plan->checkpoint->shard_count;
    schedule->order = calloc(count + 1, sizeof *schedule->order);
    if (!schedule->order)
        return error_set_memory(error);
    for (uint32_t s = 0; s < count; s++)
        if (schedule->shards[s].bytes > 0 && schedule->shards[s].tiles > 0)
            schedule->order[schedule->order_count++] = s;
    qsort_r(schedule->order, schedule->order_count, sizeof *schedule->order, by_need, schedule->shards);
    /* The sum only grows where a shard begins to be needed. */
    for (size_t i = 0; i < schedule->order_count; i++) {
        uint32_t tile = schedule->shards[schedule->order[i]].first;
        uint64_t sum = 0;
        for (size_t k = 0; k < schedule->order_count; k++) {
            const struct schedule_shard *shard = &schedule->shards[schedule->order[k]];
            if (shard->first <= tile && shard->last >= tile)
                sum += shard->bytes;
        }
        schedule->least = sum > schedule->least ? sum : schedule->least;
    }
    return STATUS_OK;
}

enum status schedule_make(const struct plan *plan, uint32_t first_shard, uint32_t end_shard, const uint64_t *bytes,
                          const struct run_state *state, struct schedule *schedule, struct error *error) {
    size_t shards = plan->checkpoint->shard_count;
    *schedule = (struct schedule){.plan = plan,
                                  .homes = calloc(plan->job_count + 1, sizeof *schedule->homes),
                                  .shards = calloc(shards + 1, sizeof *schedule->shards)};
    if (!schedule->homes || !schedule->shards)
        return error_set_memory(error);
    for (size_t s = 0; s < shards; s++)
        schedule->shards[s].bytes = bytes[s];
    for (size_t j = 0; j < plan->job_count; j++)
        schedule->homes[j] = home_of(plan, &plan->jobs[j]);
    uint32_t first_job = 0, end_job = 0;
    if (first_shard < end_shard) {
        first_job = plan->shards[first_shard].first_job;
        end_job = plan->shards[end_shard - 1].first_job + plan->shards[end_shard - 1].job_count;
    }
    needs_collect(schedule, first_shard, end_shard, state);
    enum status status = companions_collect(schedule, first_job, end_job, state, error);
    if (status == STATUS_OK)
        status = loose_collect(schedule, first_job, end_job, error);
    if (status == STATUS_OK)
        status = order_make(schedule, error);
    return status;
}

void schedule_free(struct schedule *schedule) {
    free(schedule->homes);
    free(schedule->shards);
    free(schedule->order);
    free(schedule->companions);
    free(schedule->loose);
    *schedule = (struct schedule){0};
}
