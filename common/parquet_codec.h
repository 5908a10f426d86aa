/*
 * What the pages of a Parquet file are compressed with:
 * https://github.com/apache/parquet-format/blob/master/Compression.md.
 */
#ifndef QSTREAM_COMMON_PARQUET_CODEC_H
#define QSTREAM_COMMON_PARQUET_CODEC_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* CompressionCodec of parquet.thrift, as far as it can be read. */
enum parquet_codec { PARQUET_UNCOMPRESSED = 0, PARQUET_SNAPPY = 1, PARQUET_GZIP = 2, PARQUET_ZSTD = 6 };

/*
 * Decompresses `in` to exactly `out_size` bytes. `where` is for messages. STATUS_BAD_INPUT: it does not give that many
 * (of PARQUET_UNCOMPRESSED too), or the codec is none of these. STATUS_IO: the codec's library cannot be loaded.
 */
enum status parquet_decompress(int32_t codec, const void *in, size_t in_size, void *out, size_t out_size,
                               const char *where, struct error *error);

/* Loads the library of a codec that needs one, which else happens when it is first used. STATUS_IO when there is none. */
enum status parquet_codec_load(enum parquet_codec codec, struct error *error);

#endif
