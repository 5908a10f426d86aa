/*
 * The source of a shard that is on this machine for a while only: its companions are read from their file at any time, all
 * else from the shard's file while it is there.
 */
#ifndef QSTREAM_QSTREAM_LATE_SOURCE_H
#define QSTREAM_QSTREAM_LATE_SOURCE_H

#include "common/source.h"
#include "qstream/companions.h"

/*
 * A source with the name and the identity of `like`, the shard with that number of the source. `companions`, which may be
 * NULL, must outlive it.
 */
enum status late_source_new(const struct byte_source *like, uint32_t shard, const struct companions *companions,
                            struct byte_source **source, struct error *error);

/* The shard is there, in `file`; NULL: no longer. Gives what it was before; nobody must be reading that. */
struct byte_source *late_source_set(struct byte_source *source, struct byte_source *file);

#endif
