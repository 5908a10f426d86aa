/*
 * Carrying out a plan: workers take tiles in the order of their places in the output, convert them and write them;
 * a hash follows the finished tiles of each shard; the calling thread syncs data, appends to the journal and shows
 * progress. What a killed run had on disk is not made again.
 */
#ifndef QSTREAM_QSTREAM_EXECUTE_H
#define QSTREAM_QSTREAM_EXECUTE_H

#include <stdbool.h>

#include "common/sha256.h"
#include "qstream/journal.h"
#include "qstream/plan.h"

struct execute_options {
    const char *folder;              /* of the output, exists */
    const char *journal;             /* path of the journal */
    uint32_t first_shard, end_shard; /* the share of this run */
    unsigned jobs;                   /* worker threads */
    enum cpu_level cpu;
    bool quiet;
};

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

/*
 * Makes all shards of [first_shard, end_shard), as *.partial, complete, hashed, synced and journaled. `state` holds
 * what earlier runs did and, at the end, all of it. STATUS_INTERRUPTED after SIGINT or SIGTERM: what was done so
 * far is journaled.
 */
enum status execute(const struct plan *plan, const struct execute_options *options,
                    const struct fingerprint *fingerprint, struct run_state *state, struct error *error);

#endif
