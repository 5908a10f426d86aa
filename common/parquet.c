#include "common/parquet.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/parquet_codec.h"
#include "common/parquet_encoding.h"
#include "common/parquet_footer.h"
#include "common/parquet_page.h"

struct column_reader {
    const uint8_t *file;
    struct parquet_footer footer;
    parquet_visit *visit;
    void *context;
    char where[ERROR_MESSAGE_MAX / 2]; /* the page, for messages */
    uint8_t *page;                     /* its bytes, decompressed */
    uint8_t *dictionary;               /* those of the chunk's dictionary page, NULL when there is none, */
    size_t dictionary_size;
    uint32_t *entries; /* and where each of its strings begins */
    uint32_t entry_count;
    uint64_t row;          /* the next one, of the file */
    uint64_t page_bytes;   /* decompressed so far */
    uint64_t string_bytes; /* visited so far */
};

static enum status page_error(const struct column_reader *reader, const char *problem, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT, "%s: %s", reader->where, problem);
}

/* Allocates the page's bytes and fills them: the levels of version 2 are as they were, the rest is decompressed. */
static enum status page_decompress(struct column_reader *reader, const struct parquet_page *page, int32_t codec,
                                   uint8_t **bytes, struct error *error) {
    reader->page_bytes += page->plain_size;
    if (reader->page_bytes > PARQUET_LIMIT)
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: up to here the column has %" PRIu64 " bytes; at most %d are read", reader->where,
                         reader->page_bytes, PARQUET_LIMIT);
    *bytes = malloc(page->plain_size > 0 ? page->plain_size : 1);
    if (!*bytes)
        return error_set_memory(error);
    memcpy(*bytes, page->bytes, page->levels);
    if (page->size == page->levels && page->plain_size == page->levels)
        return STATUS_OK; /* there may be nothing at all where nothing was to be compressed */
    return parquet_decompress(page->compressed ? codec : PARQUET_UNCOMPRESSED, page->bytes + page->levels,
                              page->size - page->levels, *bytes + page->levels, page->plain_size - page->levels,
                              reader->where, error);
}

static enum status string_visit(struct column_reader *reader, const char *bytes, size_t length, struct error *error) {
    reader->string_bytes += length;
    if (reader->string_bytes > PARQUET_LIMIT)
        return error_set(error, STATUS_BAD_INPUT,
                         "%s: up to here the strings have %" PRIu64 " bytes; at most %d are read", reader->where,
                         reader->string_bytes, PARQUET_LIMIT);
    reader->row++;
    return reader->visit(reader->context, bytes, length, error);
}

/* ---- dictionary pages ---- */

static void dictionary_free(struct column_reader *reader) {
    free(reader->dictionary);
    free(reader->entries);
    reader->dictionary = NULL;
    reader->entries = NULL;
}

static enum status dictionary_read(struct column_reader *reader, const struct parquet_page *page, int32_t codec,
                                   struct error *error) {
    if (reader->dictionary)
        return page_error(reader, "it is the chunk's second dictionary", error);
    if (page->encoding != PARQUET_PLAIN && page->encoding != PARQUET_PLAIN_DICTIONARY)
        return error_set(error, STATUS_BAD_INPUT, "%s: the encoding of its dictionary is %s, which cannot be read",
                         reader->where, parquet_encoding_name(page->encoding));
    enum status status = page_decompress(reader, page, codec, &reader->dictionary, error);
    if (status != STATUS_OK)
        return status;
    if (page->values > page->plain_size / 4) /* each has a length */
        return page_error(reader, "its dictionary is larger than the page", error);
    reader->entries = malloc((page->values + (size_t)1) * sizeof *reader->entries);
    if (!reader->entries)
        return error_set_memory(error);
    struct parquet_strings strings = {reader->dictionary, reader->dictionary + page->plain_size};
    for (uint32_t i = 0; i < page->values; i++) {
        const char *bytes;
        size_t length;
        reader->entries[i] = (uint32_t)(strings.at - reader->dictionary);
        if (!parquet_strings_next(&strings, &bytes, &length))
            return page_error(reader, "a string of its dictionary goes beyond the page", error);
    }
    if (strings.at != strings.end)
        return page_error(reader, "something follows its dictionary", error);
    reader->dictionary_size = page->plain_size;
    reader->entry_count = page->values;
    return STATUS_OK;
}

/* ---- data pages ---- */

/* Takes the definition levels off the page's bytes: 1 is a value, 0 a null. */
static enum status levels_check(struct column_reader *reader, const struct parquet_page *page, const uint8_t **at,
                                const uint8_t *end, struct error *error) {
    size_t size = page->levels;
    if (!reader->footer.optional)
        return size == 0 ? STATUS_OK : page_error(reader, "it has definition levels, but no nulls", error);
    if (page->level_encoding != PARQUET_RLE)
        return error_set(error, STATUS_BAD_INPUT, "%s: the encoding of its levels is %s, which cannot be read",
                         reader->where, parquet_encoding_name(page->level_encoding));
    if (page->type == PARQUET_DATA_PAGE) {
        if (end - *at < 4)
            return page_error(reader, "its definition levels are cut off", error);
        size = parquet_u32(*at);
        *at += 4;
    }
    if (size > (size_t)(end - *at))
        return page_error(reader, "its definition levels go beyond it", error);
    struct parquet_runs runs = {.at = *at, .end = *at + size, .width = 1};
    for (uint32_t i = 0; i < page->values; i++) {
        uint32_t level;
        if (!parquet_runs_next(&runs, &level))
            return page_error(reader, "its definition levels are cut off", error);
        if (level > 1)
            return page_error(reader, "one of its definition levels is larger than 1", error);
        if (level == 0)
            return error_set(error, STATUS_BAD_INPUT, "%s: row %" PRIu64 " (from 0) is null, which is no string",
                             reader->where, reader->row + i);
    }
    if (runs.at != runs.end)
        return page_error(reader, "something follows its definition levels", error);
    *at += size;
    return STATUS_OK;
}

static enum status plain_visit(struct column_reader *reader, const struct parquet_page *page, const uint8_t *at,
                               const uint8_t *end, struct error *error) {
    struct parquet_strings strings = {at, end};
    for (uint32_t i = 0; i < page->values; i++) {
        const char *bytes;
        size_t length;
        if (!parquet_strings_next(&strings, &bytes, &length))
            return page_error(reader, "a string goes beyond it", error);
        const enum status status = string_visit(reader, bytes, length, error);
        if (status != STATUS_OK)
            return status;
    }
    return strings.at == strings.end ? STATUS_OK : page_error(reader, "something follows its strings", error);
}

static enum status dictionary_visit(struct column_reader *reader, const struct parquet_page *page, const uint8_t *at,
                                    const uint8_t *end, struct error *error) {
    if (!reader->dictionary)
        return page_error(reader, "its chunk has no dictionary", error);
    if (at == end || *at > PARQUET_WIDTH_MOST)
        return page_error(reader, "its indices have no width, or one beyond 32 bits", error);
    struct parquet_runs runs = {.at = at + 1, .end = end, .width = *at};
    for (uint32_t i = 0; i < page->values; i++) {
        uint32_t index;
        if (!parquet_runs_next(&runs, &index))
            return page_error(reader, "its indices are cut off", error);
        if (index >= reader->entry_count)
            return page_error(reader, "one of its indices is beyond the dictionary", error);
        struct parquet_strings entry = {reader->dictionary + reader->entries[index],
                                        reader->dictionary + reader->dictionary_size};
        const char *bytes;
        size_t length;
        parquet_strings_next(&entry, &bytes, &length); /* was read once already */
        const enum status status = string_visit(reader, bytes, length, error);
        if (status != STATUS_OK)
            return status;
    }
    return runs.at == runs.end ? STATUS_OK : page_error(reader, "something follows its indices", error);
}

static enum status data_visit(struct column_reader *reader, const struct parquet_page *page, int32_t codec,
                              struct error *error) {
    if (page->values == 0)
        return STATUS_OK;
    enum status status = page_decompress(reader, page, codec, &reader->page, error);
    if (status != STATUS_OK)
        return status;
    const uint8_t *at = reader->page, *end = reader->page + page->plain_size;
    status = levels_check(reader, page, &at, end, error);
    if (status != STATUS_OK)
        return status;
    switch (page->encoding) {
    case PARQUET_PLAIN:
        return plain_visit(reader, page, at, end, error);
    case PARQUET_PLAIN_DICTIONARY:
    case PARQUET_RLE_DICTIONARY:
        return dictionary_visit(reader, page, at, end, error);
    default:
        return error_set(error, STATUS_BAD_INPUT, "%s: the encoding of its strings is %s, which cannot be read",
                         reader->where, parquet_encoding_name(page->encoding));
    }
}

/* ---- the column ---- */

static enum status chunk_visit(struct column_reader *reader, const struct parquet_chunk *chunk, struct error *error) {
    uint64_t left = chunk->rows;
    size_t at = chunk->begin;
    enum status status = STATUS_OK;
    while (at < chunk->end && status == STATUS_OK) {
        struct parquet_page page;
        snprintf(reader->where, sizeof reader->where, "'%s', page of column '%s' at byte %zu", reader->footer.name,
                 reader->footer.column, at);
        status = parquet_page_read(reader->file, chunk->end, &at, reader->where, &page, error);
        if (status != STATUS_OK)
            break;
        if (page.type == PARQUET_DICTIONARY_PAGE) {
            status = dictionary_read(reader, &page, chunk->codec, error);
            continue;
        }
        if (page.values > left)
            return page_error(reader, "it has more rows than its row group has left", error);
        left -= page.values;
        status = data_visit(reader, &page, chunk->codec, error);
        free(reader->page);
        reader->page = NULL;
    }
    if (status == STATUS_OK && left > 0)
        return error_set(error, STATUS_BAD_INPUT, "'%s': %" PRIu64 " rows of column '%s' are missing before byte %zu",
                         reader->footer.name, left, reader->footer.column, chunk->end);
    return status;
}

enum status parquet_strings_read(const char *name, const void *bytes, size_t length, const char *column,
                                 parquet_visit *visit, void *context, struct error *error) {
    struct column_reader reader = {.file = bytes, .visit = visit, .context = context};
    bool more = true;
    enum status status = parquet_footer_open(name, bytes, length, column, &reader.footer, error);
    while (status == STATUS_OK && more) {
        struct parquet_chunk chunk;
        status = parquet_footer_next(&reader.footer, &chunk, &more, error);
        if (status == STATUS_OK && more)
            status = chunk_visit(&reader, &chunk, error);
        dictionary_free(&reader);
    }
    return status;
}
