#include "common/parquet_page.h"

#include <inttypes.h>
#include <zlib.h>

#include "common/parquet_encoding.h"
#include "common/thrift_compact.h"

/* What the headers of data pages and dictionary pages tell, as it is in the file. */
struct content {
    bool there;
    int32_t values, encoding, level_encoding;
    int32_t rows, levels, repetition_levels; /* version 2 */
    bool compressed;
};

/* The header of a data page of version 1, or of a dictionary page, which has no levels. */
static struct content page_read(struct thrift_reader *reader, enum thrift_type type, bool has_levels) {
    struct content content = {.there = true, .compressed = true};
    struct thrift_field field = {0};
    thrift_struct(reader, type);
    while (thrift_field_next(reader, &field))
        if (field.id == 1)
            content.values = thrift_i32(reader, field.type);
        else if (field.id == 2)
            content.encoding = thrift_i32(reader, field.type);
        else if (field.id == 3 && has_levels)
            content.level_encoding = thrift_i32(reader, field.type);
        else
            thrift_skip(reader, field.type);
    content.rows = content.values;
    return content;
}

static struct content page_v2_read(struct thrift_reader *reader, enum thrift_type type) {
    struct content content = {.there = true, .compressed = true, .level_encoding = PARQUET_RLE};
    struct thrift_field field = {0};
    thrift_struct(reader, type);
    while (thrift_field_next(reader, &field))
        switch (field.id) {
        case 1:
            content.values = thrift_i32(reader, field.type);
            break;
        case 3:
            content.rows = thrift_i32(reader, field.type);
            break;
        case 4:
            content.encoding = thrift_i32(reader, field.type);
            break;
        case 5:
            content.levels = thrift_i32(reader, field.type);
            break;
        case 6:
            content.repetition_levels = thrift_i32(reader, field.type);
            break;
        case 7:
            content.compressed = thrift_bool(reader, field.type);
            break;
        default:
            thrift_skip(reader, field.type);
        }
    return content;
}

struct page_header {
    int32_t type, plain_size, size, crc;
    bool has_crc;
    struct content data, dictionary, data_v2;
};

static struct page_header page_header_read(struct thrift_reader *reader) {
    struct page_header header = {.type = -1, .plain_size = -1, .size = -1};
    struct thrift_field field = {0};
    while (thrift_field_next(reader, &field))
        switch (field.id) {
        case 1:
            header.type = thrift_i32(reader, field.type);
            break;
        case 2:
            header.plain_size = thrift_i32(reader, field.type);
            break;
        case 3:
            header.size = thrift_i32(reader, field.type);
            break;
        case 4:
            header.has_crc = true;
            header.crc = thrift_i32(reader, field.type);
            break;
        case 5:
            header.data = page_read(reader, field.type, true);
            break;
        case 7:
            header.dictionary = page_read(reader, field.type, false);
            break;
        case 8:
            header.data_v2 = page_v2_read(reader, field.type);
            break;
        default:
            thrift_skip(reader, field.type);
        }
    return header;
}

enum status parquet_page_read(const uint8_t *file, size_t end, size_t *at, const char *where, struct parquet_page *page,
                              struct error *error) {
    struct thrift_reader reader = {.bytes = file, .length = end, .at = *at};
    const struct page_header header = page_header_read(&reader);
    if (reader.problem)
        return error_set(error, STATUS_BAD_INPUT, "%s: %s (at byte %zu)", where, reader.problem, reader.at);
    const struct content *content = header.type == PARQUET_DATA_PAGE         ? &header.data
                                    : header.type == PARQUET_DICTIONARY_PAGE ? &header.dictionary
                                    : header.type == PARQUET_DATA_PAGE_V2    ? &header.data_v2
                                                                             : NULL;
    if (!content)
        return error_set(error, STATUS_BAD_INPUT, "%s: it is of type %" PRId32 ", which cannot be read", where,
                         header.type);
    if (!content->there || header.plain_size < 0 || header.size < 0 || content->values < 0 || content->levels < 0)
        return error_set(error, STATUS_BAD_INPUT, "%s: its header is not complete", where);
    if ((size_t)header.size > end - reader.at)
        return error_set(error, STATUS_BAD_INPUT, "%s: it would end behind the column's chunk", where);
    if (content->repetition_levels != 0 || content->rows != content->values)
        return error_set(error, STATUS_BAD_INPUT, "%s: it does not have one value in each row", where);
    if (content->levels > header.size || content->levels > header.plain_size)
        return error_set(error, STATUS_BAD_INPUT, "%s: its definition levels are larger than it is", where);
    *page = (struct parquet_page){
        .type = (enum parquet_page_type)header.type,
        .values = (uint32_t)content->values,
        .encoding = content->encoding,
        .level_encoding = content->level_encoding,
        .levels = (uint32_t)content->levels,
        .compressed = content->compressed,
        .bytes = file + reader.at,
        .size = (size_t)header.size,
        .plain_size = (size_t)header.plain_size,
    };
    if (header.has_crc && crc32_z(0, page->bytes, page->size) != (uint32_t)header.crc)
        return error_set(error, STATUS_BAD_INPUT, "%s: its CRC is another one: the file is damaged", where);
    *at = reader.at + page->size;
    return STATUS_OK;
}
