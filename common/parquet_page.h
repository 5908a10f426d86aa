/*
 * The pages of a Parquet file, one after the other: PageHeader and what it consists of, of
 * https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift.
 */
#ifndef QSTREAM_COMMON_PARQUET_PAGE_H
#define QSTREAM_COMMON_PARQUET_PAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* PageType, as far as it can be read. */
enum parquet_page_type { PARQUET_DATA_PAGE = 0, PARQUET_DICTIONARY_PAGE = 2, PARQUET_DATA_PAGE_V2 = 3 };

struct parquet_page {
    enum parquet_page_type type;
    uint32_t values;        /* nulls too */
    int32_t encoding;       /* of the values */
    int32_t level_encoding; /* of the definition levels; those of version 2 are RLE always */
    uint32_t levels;        /* version 2: the definition levels' bytes, at the beginning and not compressed */
    bool compressed;        /* version 2: false when the values are not, whatever the codec */
    const uint8_t *bytes;   /* as they are in the file */
    size_t size;
    size_t plain_size; /* after decompression, `levels` included */
};

/*
 * Reads the page that lies before `end` at *at, and moves *at behind it. `where` names the place for messages.
 * STATUS_BAD_INPUT: it is not whole, of another type, or its bytes are not those of its CRC.
 */
enum status parquet_page_read(const uint8_t *file, size_t end, size_t *at, const char *where, struct parquet_page *page,
                              struct error *error);

#endif
