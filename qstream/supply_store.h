/*
 * Where the shards of a supply lie: in a folder of their own, for as long as they are needed, or in the shared Hugging Face
 * cache, for good.
 */
#ifndef QSTREAM_QSTREAM_SUPPLY_STORE_H
#define QSTREAM_QSTREAM_SUPPLY_STORE_H

#include <stdatomic.h>

#include "common/hub/listing.h"
#include "common/source.h"

struct supply_store {
    struct hub *hub;
    const struct hub_listing *listing;
    char *folder;                 /* owned */
    bool keep;                    /* in the cache */
    atomic_bool stop;             /* ends a download that is under way */
    atomic_uint_fast64_t fetched; /* bytes that came over the network */
};

/* Bytes that a shard takes on the disk, at most: while it comes it takes more than when it is there. */
uint64_t store_bytes(const struct hub_file *file);

/* Bytes that are on the disk of it, be it whole or not. */
uint64_t store_taken(const struct supply_store *store, const struct hub_file *file);

/* Bytes that are free where the shards go; those left beside the output, `beside`, when that is the same file system. */
enum status store_room(const struct supply_store *store, uint64_t beside, uint64_t *room, struct error *error);

/* Makes the folder, or what is needed in the cache. */
enum status store_prepare(const struct supply_store *store, struct error *error);

/* Removes everything from the folder but the shards for which `kept` is true, and the file `other` unless it is NULL. */
enum status store_clean(const struct supply_store *store, bool (*kept)(void *context, const struct hub_file *file),
                        void *context, const char *other, struct error *error);

/* Removes the folder and all that is in it. Failing to do so harms nobody. */
void store_remove(const struct supply_store *store);

/* Whether the shard is there, whole. */
bool store_has(const struct supply_store *store, const struct hub_file *file);

/* Bytes of it that need not be fetched any more. */
uint64_t store_present(const struct supply_store *store, const struct hub_file *file);

/* What a download of shards asks and tells, by their numbers among those that were asked for; on one of several threads. */
struct store_watch {
    bool (*admit)(void *context, size_t number); /* there is room for it; asked until there is */
    enum status (*arrived)(void *context, size_t number, struct error *error); /* it is there, its hash was right */
    void *context;
};

/*
 * Downloads shards, in their order as far as one line allows, going on with what is there of them. `watch` may be NULL.
 * STATUS_INTERRUPTED after store.stop, too.
 */
enum status store_fetch(struct supply_store *store, const struct hub_file *const *files, size_t count,
                        const struct store_watch *watch, struct error *error);

enum status store_shard_open(const struct supply_store *store, const struct hub_file *file, struct byte_source **source,
                             struct error *error);

/* Removes a shard, unless it is kept. Nobody must have it open. */
enum status store_shard_drop(const struct supply_store *store, const struct hub_file *file, struct error *error);

#endif
