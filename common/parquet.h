/*
 * Strings of a Parquet file that is in memory: one column, row by row, in their order. For small files: what a file asks
 * for beyond PARQUET_LIMIT is refused.
 *
 * Source of the format: Apache Parquet, https://github.com/apache/parquet-format (README.md, Encodings.md, Compression.md
 * and src/main/thrift/parquet.thrift). What is read of it:
 * - a column directly below the root of the schema, BYTE_ARRAY with the logical type STRING (or the converted type UTF8),
 *   required or optional; a null is an error. Other columns, nested ones too, are passed over
 * - any number of row groups; data pages of version 1 and 2, dictionary pages
 * - values as PLAIN, PLAIN_DICTIONARY and RLE_DICTIONARY, levels as RLE
 * - UNCOMPRESSED, SNAPPY, GZIP and ZSTD; libsnappy and libzstd are loaded when a page needs them
 * - the CRC of a page is checked where there is one. Statistics, indices and Bloom filters are not looked at
 * Anything else (encryption, other encodings and codecs, columns in other files) is STATUS_BAD_INPUT that names it.
 */
#ifndef QSTREAM_COMMON_PARQUET_H
#define QSTREAM_COMMON_PARQUET_H

#include <stddef.h>

#include "common/status.h"

/*
 * The most bytes that the pages of the column may have together when they are decompressed, that its strings may have
 * together, and rows. It bounds memory, to twice as much, and time.
 */
enum { PARQUET_LIMIT = 1 << 26 };

/* Takes the string of a row: `length` bytes, as they are stored (not checked to be UTF-8, no NUL behind them), which
 * are gone when it returns. Anything but STATUS_OK ends the reading. */
typedef enum status parquet_visit(void *context, const char *bytes, size_t length, struct error *error);

/*
 * Calls `visit` for every row of `column`. `name` is the file's, for messages. STATUS_BAD_INPUT names the file and the
 * byte where it is not what it should be; rows before it have been visited then. STATUS_IO: no memory, or the library of
 * a codec is missing. Not for several threads at once (it may load a library).
 */
enum status parquet_strings_read(const char *name, const void *bytes, size_t length, const char *column,
                                 parquet_visit *visit, void *context, struct error *error);

#endif
