/*
 * Small Parquet files for tests, made from a description in which everything that is not said is as it should be: the
 * column "text" behind a column of a group, in one row group. Numbers are added to what is right, so that a test names
 * only what is wrong.
 */
#ifndef QSTREAM_TESTS_UNIT_PARQUET_FILE_H
#define QSTREAM_TESTS_UNIT_PARQUET_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <zlib.h>

#include "common/text.h"

enum { DATA = 1, DICTIONARY = 2, DATA_V2 = 3, OTHER_PAGE = 4 };

struct given_page {
    int kind;                       /* 0: there is none */
    int values;                     /* as they are */
    int encoding;                   /* as it is */
    const char *content;            /* as it lies in the file */
    size_t length;                  /* of it */
    int levels, repetition_levels;  /* version 2: bytes of them, as they are */
    int rows, plain_size, size;     /* added */
    int level_encoding;             /* added */
    int crc;                        /* 1: the right one, 2: another one */
    bool no_header, not_compressed; /* not_compressed: version 2 says so */
};

/* What CONTENT stands for: content and length of a string literal. */
#define CONTENT(literal) .content = (literal), .length = sizeof(literal) - 1

struct given {
    /* the schema */
    bool required;
    enum { BOTH, CONVERTED, LOGICAL, UNMARKED, ENUM } mark; /* how the column is said to be text */
    const char *column;                                     /* its name; NULL: text */
    const char *neighbour;                                  /* that of the group before it */
    int type, repetition, root_children, leaf_children, group_children;
    bool no_nodes;
    /* the file */
    int64_t file_rows;
    bool no_schema, no_groups, no_rows, is_signed, second_group, no_group;
    const char *behind_metadata;
    /* the row group and the chunk */
    int64_t group_rows, chunk_values, chunk_begin, chunk_size;
    int columns, codec;
    const char *path, *path_inside, *file_path;
    bool encrypted, dictionary_offset;
    int left_out; /* a field of ColumnMetaData */
    /* the pages; none: one page with the rows "one", "", "three" */
    struct given_page pages[3];
};

/* ---- Thrift's compact protocol; `step` is the distance to the field before ---- */

static void put_byte(struct text *out, unsigned byte) { text_append(out, &(uint8_t){(uint8_t)byte}, 1); }

static void put_varint(struct text *out, uint64_t value) {
    for (; value > 0x7f; value >>= 7)
        put_byte(out, (unsigned)(value & 0x7f) | 0x80);
    put_byte(out, (unsigned)value);
}

static void put_number(struct text *out, int64_t value) {
    put_varint(out, (uint64_t)value << 1 ^ (uint64_t)(value >> 63));
}

static void put_i32(struct text *out, unsigned step, int64_t value) {
    put_byte(out, step << 4 | 5);
    put_number(out, (int32_t)value);
}

static void put_i64(struct text *out, unsigned step, int64_t value) {
    put_byte(out, step << 4 | 6);
    put_number(out, value);
}

static void put_string(struct text *out, unsigned step, const char *string) {
    if (step)
        put_byte(out, step << 4 | 8);
    put_varint(out, strlen(string));
    text_append_string(out, string);
}

static void put_list(struct text *out, unsigned step, uint64_t count, unsigned type) {
    put_byte(out, step << 4 | 9);
    put_byte(out, (count < 15 ? (unsigned)count : 15) << 4 | type);
    if (count >= 15)
        put_varint(out, count);
}

static void put_struct(struct text *out, unsigned step) { put_byte(out, step << 4 | 12); }
static void put_end(struct text *out) { put_byte(out, 0); }

/* ---- pages ---- */

static void put_page(struct text *out, const struct given_page *page) {
    static const int types[] = {[DATA] = 0, [DICTIONARY] = 2, [DATA_V2] = 3, [OTHER_PAGE] = 1};
    const uint32_t crc = (uint32_t)crc32(0, (const Bytef *)page->content, (uInt)page->length);
    put_i32(out, 1, types[page->kind]);
    put_i32(out, 1, (int64_t)page->length + page->plain_size);
    put_i32(out, 1, (int64_t)page->length + page->size);
    if (page->crc)
        put_i32(out, 1, (int32_t)(crc + (page->crc > 1)));
    const unsigned step = page->crc ? 0 : 1;
    if (!page->no_header && page->kind == DATA) {
        put_struct(out, 1 + step);
        put_i32(out, 1, page->values);
        put_i32(out, 1, page->encoding);
        put_i32(out, 1, 3 + page->level_encoding);
        put_i32(out, 1, 3);
        put_end(out);
    } else if (!page->no_header && page->kind == DICTIONARY) {
        put_struct(out, 3 + step);
        put_i32(out, 1, page->values);
        put_i32(out, 1, page->encoding);
        put_byte(out, 0x12); /* is not sorted */
        put_end(out);
    } else if (!page->no_header) {
        put_struct(out, 4 + step);
        put_i32(out, 1, page->values);
        put_i32(out, 1, 0);
        put_i32(out, 1, page->values + page->rows);
        put_i32(out, 1, page->encoding);
        put_i32(out, 1, page->levels);
        put_i32(out, 1, page->repetition_levels);
        if (page->not_compressed)
            put_byte(out, 0x12);
        put_end(out);
    }
    put_end(out);
    text_append(out, page->content, page->length);
}

/* ---- metadata ---- */

static void put_schema(struct text *out, const struct given *given) {
    put_list(out, 1, given->no_nodes ? 0 : 4, 12);
    if (given->no_nodes)
        return;
    put_string(out, 4, "schema");
    put_i32(out, 1, 2 + given->root_children);
    put_end(out);
    put_i32(out, 3, 1);
    put_string(out, 1, given->neighbour ? given->neighbour : "group");
    put_i32(out, 1, 1 + given->group_children);
    put_end(out);
    put_i32(out, 1, 6); /* a string inside a group is not meant */
    put_i32(out, 2, 1);
    put_string(out, 1, "text");
    put_i32(out, 2, 0);
    put_end(out);
    put_i32(out, 1, 6 + given->type);
    put_i32(out, 2, (given->required ? 0 : 1) + given->repetition);
    put_string(out, 1, given->column ? given->column : "text");
    unsigned last = 4;
    if (given->leaf_children) {
        put_i32(out, 1, given->leaf_children);
        last = 5;
    }
    if (given->mark == BOTH || given->mark == CONVERTED || given->mark == ENUM) {
        put_i32(out, 6 - last, given->mark == ENUM ? 4 : 0);
        last = 6;
    }
    if (given->mark == BOTH || given->mark == LOGICAL || given->mark == ENUM) {
        put_struct(out, 10 - last);
        put_struct(out, given->mark == ENUM ? 4 : 1);
        put_end(out);
        put_end(out);
    }
    put_end(out);
}

static void put_chunk(struct text *out, const struct given *given, int64_t begin, int64_t size, int64_t rows) {
    unsigned last = 0;
    if (given->file_path) {
        put_string(out, 1, given->file_path);
        last = 1;
    }
    put_i64(out, 2 - last, 0);
    put_struct(out, 1);
    last = 0;
    for (unsigned id = 1; id <= 11; id++) {
        if ((int)id == given->left_out || id == 8 || id == 10 || (id == 11 && !given->dictionary_offset))
            continue;
        if (id == 1 || id == 4)
            put_i32(out, id - last, id == 1 ? 6 : given->codec);
        else if (id == 2)
            put_list(out, id - last, 0, 5);
        else if (id == 3) {
            put_list(out, id - last, given->path_inside ? 2 : 1, 8);
            put_string(out, 0, given->path ? given->path : "text");
            if (given->path_inside)
                put_string(out, 0, given->path_inside);
        } else if (id == 9) /* some say where the first data page is, some where the first page is */
            put_i64(out, id - last, given->dictionary_offset ? begin + 1 : begin + given->chunk_begin);
        else
            put_i64(out, id - last,
                    id == 5   ? rows + given->chunk_values
                    : id == 7 ? size + given->chunk_size
                    : id == 6 ? 1
                              : begin + given->chunk_begin);
        last = id;
    }
    put_end(out);
    if (given->encrypted) {
        put_struct(out, 5);
        put_end(out);
    }
    put_end(out);
}

static void put_group(struct text *out, const struct given *given, int64_t begin, int64_t size, int64_t rows) {
    const int columns = 2 + given->columns;
    put_list(out, 1, (uint64_t)columns, 12);
    for (int i = 0; i < columns; i++)
        if (i == 1)
            put_chunk(out, given, begin, size, rows);
        else
            put_end(out);
    put_i64(out, 1, 1);
    put_i64(out, 1, rows + given->group_rows);
    put_end(out);
}

static void put_metadata(struct text *out, const struct given *given, int64_t begin, int64_t size, int64_t rows) {
    const unsigned groups = given->no_group ? 0 : given->second_group ? 2 : 1;
    put_i32(out, 1, 1);
    unsigned last = 1;
    if (!given->no_schema) {
        put_schema(out, given);
        last = 2;
    }
    if (!given->no_rows) {
        put_i64(out, 3 - last, rows * groups + given->file_rows);
        last = 3;
    }
    if (!given->no_groups) {
        put_list(out, 4 - last, groups, 12);
        for (unsigned i = 0; i < groups; i++)
            put_group(out, given, begin, size, rows);
        last = 4;
    }
    if (given->is_signed) {
        put_struct(out, 8 - last);
        put_end(out);
    }
    put_end(out);
    if (given->behind_metadata)
        text_append_string(out, given->behind_metadata);
}

/* Three rows, in pages of version 1 and of version 2. */
#define LEVELS "\6\1"
#define STRINGS "\3\0\0\0one\0\0\0\0\5\0\0\0three"

static struct text parquet_file(const struct given *given) {
    static const struct given_page optional = {.kind = DATA, .values = 3, CONTENT("\2\0\0\0" LEVELS STRINGS)};
    static const struct given_page required = {.kind = DATA, .values = 3, CONTENT(STRINGS)};
    struct text out = {0}, metadata = {0};
    int64_t rows = 0;
    text_append_string(&out, "PAR1");
    const int64_t begin = (int64_t)out.length;
    if (!given->pages[0].kind) {
        put_page(&out, given->required ? &required : &optional);
        rows = 3;
    }
    for (unsigned i = 0; i < 3 && given->pages[i].kind; i++) {
        put_page(&out, &given->pages[i]);
        rows += given->pages[i].kind != DICTIONARY ? given->pages[i].values : 0;
    }
    put_metadata(&metadata, given, begin, (int64_t)out.length - begin, rows);
    text_append(&out, metadata.bytes, metadata.length);
    for (unsigned i = 0; i < 4; i++)
        put_byte(&out, (unsigned)(metadata.length >> 8 * i) & 0xff);
    text_append_string(&out, "PAR1");
    text_free(&metadata);
    return out;
}

#endif
