/*
 * Downloading files whole: several at a time and large ones in several ranges, going on where an earlier run stopped, each
 * with its hash checked before it gets its name.
 *
 * A file grows as TARGET.partial (partial.h). A killed process loses at most the last PARTIAL_NOTE_BYTES of each
 * connection. The bytes are hashed while they come, in order, by threads of their own; when all are there and the hash is
 * right, they are synced and the file gets its name. A wrong hash starts the file anew, once; then it is removed and
 * STATUS_IO names it.
 *
 * A dropped connection goes on at the byte where it stopped, for as long as bytes come. Memory is a few MiB for each
 * connection, whatever the sizes of the files.
 */
#ifndef QSTREAM_COMMON_HUB_DOWNLOAD_H
#define QSTREAM_COMMON_HUB_DOWNLOAD_H

#include <stdatomic.h>

#include "common/hub/listing.h"

struct download_item {
    const struct hub_file *file; /* of the listing */
    char *target;                /* where it goes; the folder exists. Not owned */
    char *lock; /* a file that is locked meanwhile (file_lock.h); its folder exists. NULL: none. Not owned */
    bool done;  /* set when it has its name */
};

struct download_options {
    unsigned connections; /* at a time, at least 1 */
    bool quiet;           /* no progress, and nothing about locks */
    /*
     * Both are called with the item's lock held, on one of several threads, and may be NULL. `present`: whether the item
     * is there already, elsewhere than at its target. `finish`: the item is at its target, or present.
     */
    bool (*present)(void *context, const struct download_item *item);
    enum status (*finish)(void *context, const struct download_item *item, struct error *error);
    /* Whether an item may begin; asked of each in turn, with no lock held, until it may. NULL: it may. */
    bool (*admit)(void *context, const struct download_item *item);
    void *context;
    const atomic_bool *stop;       /* once true, it ends with STATUS_INTERRUPTED. NULL: only a signal does that */
    atomic_uint_fast64_t *fetched; /* counts the bytes that come over the network. NULL: not asked for */
};

/* Bytes of a target that need not be fetched any more: all where it has its name, else what TARGET.partial holds. */
uint64_t download_present(const struct download_item *item);

/*
 * Fetches the items that have no target yet (a regular file of the right size), in their order; those whose lock another
 * process holds come last. The first failure ends it, STATUS_INTERRUPTED after SIGINT; what came is kept for the next time.
 */
enum status download(struct hub *hub, const struct hub_listing *listing, struct download_item *items, size_t count,
                     const struct download_options *options, struct error *error);

#endif
