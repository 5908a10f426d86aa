/*
 * Which shards of a source that is not on this machine a run reads, and when. A job's home is the shard that its main
 * tensor lies in; what it reads beside it, scales and a norm, may lie in others: these tensors are its companions, which
 * are fetched apart from it. A shard is needed from the first tile to the last that has it as home;
 * tiles are made in their order (of a shard of the output, weights that need their amax are all read before).
 */
#ifndef QSTREAM_QSTREAM_SCHEDULE_H
#define QSTREAM_QSTREAM_SCHEDULE_H

#include "qstream/plan.h"
#include "qstream/run_state.h"

/* What is known of a shard of the source. */
struct schedule_shard {
    uint64_t bytes;       /* that it takes on the disk; 0: it is at hand, nobody has to provide it */
    uint32_t tiles;       /* that have it as home and are still to be made */
    uint32_t first, last; /* of them, when it is needed: from a tile on, to a tile */
    uint32_t turn;        /* the tile that reads it first: the order of those that are needed from the same tile on */
};

struct schedule {
    const struct plan *plan;
    uint32_t *homes;               /* [plan.job_count] shards of the source */
    struct schedule_shard *shards; /* [checkpoint.shard_count] */
    uint32_t *order;               /* shards with tiles that have to be provided, as they are needed */
    size_t order_count;
    uint32_t *companions; /* tensors, sorted, wherever their shards are */
    size_t companion_count;
    bool companions_needed; /* there are some, and tiles that are still to be made */
    bool companions_used;   /* for a tile that is made */
    /* Shards with companions that would not come: they have to be provided, and no tile is left that has one as home. Those
     * that only tiles outside the share have are not among them. */
    uint32_t *loose;
    size_t loose_count;
    uint64_t least; /* the disk that providing `order` takes at least: the largest sum of shards needed at one tile */
};

/*
 * The schedule of the output shards [first_shard, end_shard). `bytes` has what each shard of the source takes on the disk,
 * 0 for those at hand. `state` says what is done already; NULL: nothing. Free with schedule_free, also after an error.
 */
enum status schedule_make(const struct plan *plan, uint32_t first_shard, uint32_t end_shard, const uint64_t *bytes,
                          const struct run_state *state, struct schedule *schedule, struct error *error);

void schedule_free(struct schedule *schedule);

#endif
