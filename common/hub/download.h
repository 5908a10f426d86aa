/*
 * Downloading files whole: several at a time and large ones in several ranges, going on where an earlier run stopped, each
 * with its hash checked before it gets its name.
 *
 * A file grows as TARGET.partial: its bytes in their places, behind them a note of which have come. A killed process loses
 * at most the last PROGRESS_BYTES of each connection. When all are there, the bytes are hashed (while they come, as far as
 * they are in order), synced, and the file is renamed. A wrong hash starts the file anew, once; then it is removed and
 * STATUS_IO names it.
 */
#ifndef QSTREAM_COMMON_HUB_DOWNLOAD_H
#define QSTREAM_COMMON_HUB_DOWNLOAD_H

#include "common/hub/listing.h"

struct download_item {
    const struct hub_file *file; /* of the listing */
    char *target;                /* where it goes; the folder exists. Not owned */
    bool done;                   /* set when it has its name */
};

struct download_options {
    unsigned connections; /* at a time, at least 1 */
    bool quiet;           /* no progress */
};

/* Bytes of a target that need not be fetched any more: all where it has its name, else what TARGET.partial holds. */
uint64_t download_present(const struct download_item *item);

/*
 * Fetches the items that have no target yet, in their order. The first failure ends it, STATUS_INTERRUPTED after SIGINT;
 * what came is kept for the next time. Several processes must not fetch the same target: hub_cache_lock.
 */
enum status download(struct hub *hub, const struct hub_listing *listing, struct download_item *items, size_t count,
                     const struct download_options *options, struct error *error);

#endif
