/*
 * How values lie in the pages of a Parquet file: https://github.com/apache/parquet-format/blob/master/Encodings.md.
 */
#ifndef QSTREAM_COMMON_PARQUET_ENCODING_H
#define QSTREAM_COMMON_PARQUET_ENCODING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The encodings that are read, of Encoding in parquet.thrift; PLAIN_DICTIONARY is an older name of RLE_DICTIONARY. */
enum parquet_encoding { PARQUET_PLAIN = 0, PARQUET_PLAIN_DICTIONARY = 2, PARQUET_RLE = 3, PARQUET_RLE_DICTIONARY = 8 };

/* "DELTA_BYTE_ARRAY"; "one that is not known". */
const char *parquet_encoding_name(int32_t encoding);

static inline uint32_t parquet_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Strings as PLAIN has them: each behind its length in 4 bytes. */
struct parquet_strings {
    const uint8_t *at, *end;
};

/* False when there is none, or it is cut off. */
bool parquet_strings_next(struct parquet_strings *strings, const char **bytes, size_t *length);

/*
 * Numbers as RLE has them: runs of one number, and of numbers packed into `width` bits each, eight at a time. Begins as
 * {at, end, width}.
 */
enum { PARQUET_WIDTH_MOST = 32 };
struct parquet_runs {
    const uint8_t *at, *end; /* what follows the run that is being read */
    unsigned width;          /* 0 to PARQUET_WIDTH_MOST */
    uint64_t left;           /* numbers in this run, */
    uint32_t number;         /* which is each of them, */
    const uint8_t *packed;   /* unless they lie here, */
    uint64_t bit;            /* the next one from this bit on */
};

/* False when there is none, or a run is cut off or empty. */
bool parquet_runs_next(struct parquet_runs *runs, uint32_t *number);

#endif
