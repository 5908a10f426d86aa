/*
 * The metadata at a Parquet file's end: where the chunks of one column lie. FileMetaData and what it consists of, of
 * https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
 */
#ifndef QSTREAM_COMMON_PARQUET_FOOTER_H
#define QSTREAM_COMMON_PARQUET_FOOTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/thrift_compact.h"

/* Any list of chunks is gone through without being kept. The caller's name, bytes and column must outlive it. */
struct parquet_footer {
    const char *name;
    const char *column;
    size_t begin;              /* of the metadata in the file: no chunk reaches further */
    bool optional;             /* the column may have nulls, so that its pages have definition levels */
    size_t leaves;             /* columns, nested ones too */
    size_t ordinal;            /* of the column among them */
    uint64_t rows;             /* of the file, at most PARQUET_LIMIT */
    uint64_t passed;           /* rows of the row groups before the next one */
    uint64_t taken;            /* bytes of the chunks before the next one */
    size_t groups;             /* row groups that are still to come, */
    struct thrift_reader next; /* and the first of them */
};

/* The column's part of a row group. */
struct parquet_chunk {
    size_t begin, end; /* its pages in the file */
    uint64_t rows;     /* each with one value, which may be null */
    int32_t codec;     /* enum parquet_codec, or a number that it does not have */
};

/* STATUS_BAD_INPUT for what is no Parquet file, and for a column that is not there or not one of strings. */
enum status parquet_footer_open(const char *name, const uint8_t *bytes, size_t length, const char *column,
                                struct parquet_footer *footer, struct error *error);

/*
 * The next row group's chunk; *more is false when there is none. The chunks lie in the file, and together take no more
 * bytes than it has; their rows are as many as the file's.
 */
enum status parquet_footer_next(struct parquet_footer *footer, struct parquet_chunk *chunk, bool *more,
                                struct error *error);

#endif
