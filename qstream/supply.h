/*
 * Supplying a run whose source is on the Hub: shards are downloaded whole, in the order in which tiles need them
 * (schedule.h), into a folder of DST's work folder, checked by their hash, read, and removed once everything that was made
 * of them is durable. No more than a limit of the source is on the disk at once: the shards that are there and the one that
 * comes, each with its full size, and the companions (companions.h).
 *
 * Shards that the shared Hugging Face cache has are read there; they count for nothing and stay. With `keep` the others go
 * there, too, and stay; there is no limit then.
 *
 * What is left on the disk by a run that ended early is used by the next one. Where a pointer to a supply may be NULL, that
 * is a source on this machine: nothing is waited for.
 */
#ifndef QSTREAM_QSTREAM_SUPPLY_H
#define QSTREAM_QSTREAM_SUPPLY_H

#include "common/progress.h"
#include "qstream/plan.h"
#include "qstream/run_state.h"

struct supply;

struct supply_options {
    const char *folder;              /* for shards; it need not exist, the one above it has to when the run begins */
    uint32_t first_shard, end_shard; /* of the output: the share of this run */
    bool keep;
};

/* What a run takes from its beginning to its end, in bytes. */
struct supply_needs {
    size_t shards;       /* to be downloaded */
    uint64_t download;   /* over the network, for them and the companions */
    uint64_t companions; /* on the disk */
    uint64_t least;      /* of the source on the disk at once; 0 with `keep` */
    uint64_t usual;      /* that and the largest shard: the next one comes while one is quantized */
};

/* ---- before a run ---- */

/*
 * Looks at what there is to supply; writes nothing. *supply is NULL for a source on this machine. `checkpoint` is the plan's.
 * Free with supply_close, after the checkpoint was closed.
 */
enum status supply_open(const struct plan *plan, struct checkpoint *checkpoint, const struct supply_options *options,
                        struct supply **supply, struct error *error);
void supply_close(struct supply *supply); /* may be NULL */

struct supply_needs supply_needs(const struct supply *supply);

/*
 * How much of the source may be on the disk at once: `most`, which is no less than the least; 0: the usual. `beside`: bytes
 * that are free in the folder beside what is missing of the output; where they are fewer, those are the limit.
 */
void supply_settle(struct supply *supply, uint64_t most, uint64_t beside);

/* ---- during a run ---- */

/*
 * Begins: has the companions fetched, takes the place of the checkpoint's sources, starts downloading. `state` says what
 * earlier runs made, `source` is the fingerprint's. STATUS_IO when there is no room for the least, STATUS_USAGE when what
 * is left to be done needs more than supply_settle was given.
 */
enum status supply_begin(struct supply *supply, const struct run_state *state, const uint8_t source[SHA256_SIZE],
                         struct error *error);

/* Waits for the shard that a tile reads. Fails with the download, with STATUS_INTERRUPTED after SIGINT or supply_cancel. */
enum status supply_await(struct supply *supply, uint32_t tile, struct error *error); /* may be NULL */

void supply_tile_made(struct supply *supply, uint32_t tile); /* may be NULL */
bool supply_wants_commit(struct supply *supply);             /* it waits for tiles to become durable; may be NULL */

/* These tiles are durable, journal and all: removes the shards that nobody reads any more. */
enum status supply_tiles_durable(struct supply *supply, const uint32_t *tiles, size_t count,
                                 struct error *error); /* may be NULL */

/* Lets everybody who waits end. */
void supply_cancel(struct supply *supply); /* may be NULL */

/*
 * What was read of a shard by ranges is not what it holds: nothing that was made can be trusted, the journal has to be
 * removed, then supply_end called.
 */
bool supply_spoiled(struct supply *supply); /* may be NULL */

/* Ends: stops what is under way. When `complete`, nothing is left in the folder. */
void supply_end(struct supply *supply, bool complete); /* may be NULL */

/* Bytes that came over the network so far, of shards and companions. */
uint64_t supply_fetched(const struct supply *supply);

/* Tells progress how the download stands. */
void supply_progress(struct supply *supply, struct progress *progress); /* may be NULL */

#endif
