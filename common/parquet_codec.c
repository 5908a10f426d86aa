#include "common/parquet_codec.h"

#include <inttypes.h>
#include <limits.h>
#include <snappy-c.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/late_library.h"

/* The names of CompressionCodec, for messages. */
static const char *const names[] = {"UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW"};

static __typeof__(&snappy_uncompress) snappy_function;
static __typeof__(&ZSTD_decompress) zstd_function; /* returns a number beyond any size for an error */

enum status parquet_codec_load(enum parquet_codec codec, struct error *error) {
    static const struct late_function snappy[] = {{"snappy_uncompress", &snappy_function}},
                                      zstd[] = {{"ZSTD_decompress", &zstd_function}};
    if (codec == PARQUET_SNAPPY && !snappy_function)
        return late_library_load("libsnappy.so.1", "libsnappy1v5", snappy, 1, error);
    if (codec == PARQUET_ZSTD && !zstd_function)
        return late_library_load("libzstd.so.1", "libzstd1", zstd, 1, error);
    return STATUS_OK;
}

static enum status snappy_decompress(const void *in, size_t in_size, void *out, size_t out_size, bool *good,
                                     struct error *error) {
    const enum status status = parquet_codec_load(PARQUET_SNAPPY, error);
    size_t size = out_size;
    *good = status == STATUS_OK && snappy_function(in, in_size, out, &size) == SNAPPY_OK && size == out_size;
    return status;
}

static enum status zstd_decompress(const void *in, size_t in_size, void *out, size_t out_size, bool *good,
                                   struct error *error) {
    const enum status status = parquet_codec_load(PARQUET_ZSTD, error);
    *good = status == STATUS_OK && zstd_function(out, out_size, in, in_size) == out_size;
    return status;
}

/* One gzip member or several (RFC 1952). */
static enum status gzip_decompress(const void *in, size_t in_size, void *out, size_t out_size, bool *good,
                                   struct error *error) {
    enum { WINDOW = 15, GZIP_ONLY = 16 };
    z_stream stream = {.next_in = (z_const Bytef *)in, .next_out = out};
    *good = false;
    if (in_size > UINT_MAX || out_size > UINT_MAX)
        return STATUS_OK;
    stream.avail_in = (uInt)in_size;
    stream.avail_out = (uInt)out_size;
    if (inflateInit2(&stream, WINDOW + GZIP_ONLY) != Z_OK)
        return error_set_memory(error);
    int result;
    do
        result = inflate(&stream, Z_FINISH);
    while (result == Z_STREAM_END && stream.avail_in > 0 && inflateReset(&stream) == Z_OK);
    *good = result == Z_STREAM_END && stream.avail_in == 0 && stream.avail_out == 0;
    inflateEnd(&stream);
    return result == Z_MEM_ERROR ? error_set_memory(error) : STATUS_OK;
}

enum status parquet_decompress(int32_t codec, const void *in, size_t in_size, void *out, size_t out_size,
                               const char *where, struct error *error) {
    enum status status = STATUS_OK;
    bool good = false;
    switch (codec) {
    case PARQUET_UNCOMPRESSED:
        good = in_size == out_size;
        if (good && out_size > 0)
            memcpy(out, in, out_size);
        break;
    case PARQUET_SNAPPY:
        status = snappy_decompress(in, in_size, out, out_size, &good, error);
        break;
    case PARQUET_GZIP:
        status = gzip_decompress(in, in_size, out, out_size, &good, error);
        break;
    case PARQUET_ZSTD:
        status = zstd_decompress(in, in_size, out, out_size, &good, error);
        break;
    default:
        if (codec >= 0 && (size_t)codec < sizeof names / sizeof *names)
            return error_set(error, STATUS_BAD_INPUT, "%s: it is compressed with %s, which cannot be read", where,
                             names[codec]);
        return error_set(error, STATUS_BAD_INPUT, "%s: it is compressed with codec %" PRId32 ", which is not known",
                         where, codec);
    }
    if (status == STATUS_OK && !good)
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: its %zu bytes (%s) do not give the %zu bytes that it promises: the file is damaged",
                         where, in_size, names[codec], out_size);
    return status;
}
