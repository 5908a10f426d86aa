/*
 * Carrying out a plan: workers take tiles in the order of their places in the output, convert them and write them;
 * a hash follows the finished tiles of each shard; the calling thread syncs data, appends to the journal and shows
 * progress. What a killed run had on disk is not made again.
 */
#ifndef QSTREAM_QSTREAM_EXECUTE_H
#define QSTREAM_QSTREAM_EXECUTE_H

#include <stdbool.h>

#include "qstream/journal.h"
#include "qstream/run_state.h"
#include "qstream/supply.h"

struct execute_options {
    const char *folder;              /* of the output, exists */
    const char *journal;             /* path of the journal */
    uint32_t first_shard, end_shard; /* the share of this run */
    unsigned jobs;                   /* worker threads */
    enum cpu_level cpu;
    struct supply *supply; /* of a source that is not on this machine, else NULL */
    const bool *left;      /* [job_count] jobs that are left for later, and their shards unfinished; NULL: none */
    bool quiet;
};

/*
 * Makes all shards of [first_shard, end_shard), as *.partial, complete, hashed, synced and journaled. `state` holds
 * what earlier runs did and, at the end, all of it. STATUS_INTERRUPTED after SIGINT or SIGTERM: what was done so
 * far is journaled.
 */
enum status execute(const struct plan *plan, const struct execute_options *options,
                    const struct fingerprint *fingerprint, struct run_state *state, struct error *error);

#endif
