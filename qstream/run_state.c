#include "qstream/run_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum status run_state_init(const struct plan *plan, struct run_state *state, struct error *error) {
    bool hash_source = plan->options.hash_source;
    *state = (struct run_state){
        .plan = plan,
        .tiles = calloc(plan->tile_count, 1),
        .shards = calloc(plan->shard_count, 1),
        .digests = calloc(plan->shard_count, SHA256_SIZE),
        .amax = calloc(plan->job_count, sizeof(uint16_t)),
        .amax_known = calloc(plan->job_count, 1),
        .sources = hash_source ? calloc(plan->tile_count, SHA256_SIZE) : NULL,
    };
    if (!state->tiles || !state->shards || !state->digests || !state->amax || !state->amax_known ||
        (hash_source && !state->sources))
        return error_set_memory(error);
    return STATUS_OK;
}

void run_state_free(struct run_state *state) {
    free(state->tiles);
    free(state->shards);
    free(state->digests);
    free(state->amax);
    free(state->amax_known);
    free(state->sources);
    *state = (struct run_state){0};
}

void run_state_visit(void *context, const struct journal_record *record) {
    struct run_state *state = context;
    const struct plan *plan = state->plan;
    switch (record->type) {
    case JOURNAL_TILES:
        for (uint32_t tile = record->first; tile <= record->last && tile < plan->tile_count; tile++)
            state->tiles[tile] = 1;
        break;
    case JOURNAL_SHARD:
        if (record->first < plan->shard_count) {
            state->shards[record->first] = 1;
            memcpy(state->digests[record->first], record->payload, SHA256_SIZE);
        }
        break;
    case JOURNAL_AMAX:
        if (record->first < plan->job_count) {
            state->amax[record->first] = (uint16_t)record->last;
            state->amax_known[record->first] = 1;
        }
        break;
    case JOURNAL_SOURCE:
        if (state->sources && record->first < plan->tile_count)
            memcpy(state->sources[record->first], record->payload, SHA256_SIZE);
        break;
    default:
        break;
    }
}

char *shard_partial_path(const struct plan *plan, size_t shard, const char *folder) {
    return text_format("%s/%s.partial", folder, plan->shards[shard].file);
}

char *shard_final_path(const struct plan *plan, size_t shard, const char *folder) {
    return text_format("%s/%s", folder, plan->shards[shard].file);
}

enum status shard_file_size(const struct plan *plan, size_t shard, const char *folder, uint64_t *size,
                            struct error *error) {
    char *partial = shard_partial_path(plan, shard, folder), *final = shard_final_path(plan, shard, folder);
    enum status status = STATUS_OK;
    *size = 0;
    if (partial && final) {
        struct stat file;
        int problem = stat(partial, &file) == 0 ? 0 : errno;
        if (problem == ENOENT)
            problem = stat(final, &file) == 0 ? 0 : errno;
        if (!problem)
            *size = (uint64_t)file.st_size;
        else if (problem != ENOENT)
            status = error_set_errno(error, STATUS_IO, problem, "cannot stat '%s'", partial);
    } else {
        status = error_set_memory(error);
    }
    free(partial);
    free(final);
    return status;
}
