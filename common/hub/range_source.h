/*
 * A file on the Hub as a byte source: read by ranges, in blocks that are kept for a while and fetched ahead where reading
 * goes on in order. Its memory is bounded by RANGE_BLOCKS blocks of RANGE_BLOCK_BYTES, of all sources together. The bytes
 * are not checked by a hash, which would take the whole file.
 */
#ifndef QSTREAM_COMMON_HUB_RANGE_SOURCE_H
#define QSTREAM_COMMON_HUB_RANGE_SOURCE_H

#include "common/hub/listing.h"
#include "common/source.h"

enum { RANGE_BLOCK_BYTES = 128 << 10, RANGE_BLOCKS = 512 };

/* The listing must outlive the source. Its identity has the file's hash where the Hub knows it. */
enum status range_source_open(struct hub *hub, const struct hub_listing *listing, const struct hub_file *file,
                              struct byte_source **source, struct error *error);

#endif
