/*
 * What is done of a plan: the sum of what its journals say, kept up while a run goes on.
 */
#ifndef QSTREAM_QSTREAM_RUN_STATE_H
#define QSTREAM_QSTREAM_RUN_STATE_H

#include "common/sha256.h"
#include "qstream/journal.h"
#include "qstream/plan.h"

/* What the journals of a run say is done. */
struct run_state {
    uint8_t *tiles;                  /* [plan.tile_count] 1: on disk */
    uint8_t *shards;                 /* [plan.shard_count] 1: complete, digest known */
    uint8_t (*digests)[SHA256_SIZE]; /* [plan.shard_count] */
    uint16_t *amax;                  /* [plan.job_count] BF16 codes */
    uint8_t *amax_known;             /* [plan.job_count] */
    uint8_t (*sources)[SHA256_SIZE]; /* [plan.tile_count] with --hash-source, else NULL */
    const struct plan *plan;
};

enum status run_state_init(const struct plan *plan, struct run_state *state, struct error *error);
void run_state_free(struct run_state *state);
journal_visit run_state_visit; /* context: the struct run_state */

/* Names of a shard's file while it is written and when it is published. */
char *shard_partial_path(const struct plan *plan, size_t shard, const char *folder);
char *shard_final_path(const struct plan *plan, size_t shard, const char *folder);

/* The size of the file that has one of them; 0 where there is none. */
enum status shard_file_size(const struct plan *plan, size_t shard, const char *folder, uint64_t *size,
                            struct error *error);

#endif
