#include "common/parquet_footer.h"

#include <inttypes.h>
#include <string.h>

#include "common/parquet.h"
#include "common/parquet_encoding.h"

/* A file is MAGIC, pages, metadata, the metadata's length in 4 bytes, MAGIC. */
static const char magic[] = "PAR1", magic_encrypted[] = "PARE";
enum { MAGIC = 4, TAIL = 8 };

/* Metadata that are readable in an encrypted file have a nonce and a tag behind them (Encryption.md). */
enum { SIGNATURE = 12 + 16 };

/* Of parquet.thrift: Type, ConvertedType, FieldRepetitionType and the first member of LogicalType. */
enum { TYPE_BYTE_ARRAY = 6, CONVERTED_UTF8 = 0, REQUIRED = 0, OPTIONAL = 1, LOGICAL_STRING = 1 };

static enum status metadata_error(const struct parquet_footer *footer, const struct thrift_reader *reader,
                                  const char *problem, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT, "'%s' is not a valid Parquet file: %s (at byte %zu)", footer->name,
                     problem, footer->begin + reader->at);
}

static enum status column_error(const struct parquet_footer *footer, const char *problem, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT, "'%s': column '%s' %s", footer->name, footer->column, problem);
}

static bool binary_is(struct thrift_binary binary, const char *text) {
    return binary.bytes && binary.length == strlen(text) && memcmp(binary.bytes, text, binary.length) == 0;
}

/* ---- the schema: a tree as the list of its nodes, parents before their children ---- */

struct schema_node {
    bool leaf;
    bool string; /* annotated as text */
    int32_t type, repetition;
    int32_t children;
    struct thrift_binary name;
};

static bool logical_type_is_string(struct thrift_reader *reader, enum thrift_type type) {
    bool string = false;
    struct thrift_field field = {0};
    thrift_struct(reader, type);
    while (thrift_field_next(reader, &field)) {
        string = string || field.id == LOGICAL_STRING;
        thrift_skip(reader, field.type);
    }
    return string;
}

static struct schema_node node_read(struct thrift_reader *reader) {
    struct schema_node node = {.repetition = -1};
    struct thrift_field field = {0};
    while (thrift_field_next(reader, &field))
        switch (field.id) {
        case 1:
            node.leaf = true;
            node.type = thrift_i32(reader, field.type);
            break;
        case 3:
            node.repetition = thrift_i32(reader, field.type);
            break;
        case 4:
            node.name = thrift_binary(reader, field.type);
            break;
        case 5:
            node.children = thrift_i32(reader, field.type);
            break;
        case 6:
            node.string |= thrift_i32(reader, field.type) == CONVERTED_UTF8;
            break;
        case 10:
            node.string |= logical_type_is_string(reader, field.type);
            break;
        default:
            thrift_skip(reader, field.type);
        }
    return node;
}

/* Goes through the schema, whose nodes `reader` is at, and looks for the column among the children of the root. */
static enum status schema_walk(struct parquet_footer *footer, struct thrift_reader *reader, size_t count,
                               struct schema_node *found, struct error *error) {
    static const char no_tree[] = "its schema is not a tree";
    bool is_found = false;
    const struct schema_node root = count > 0 ? node_read(reader) : (struct schema_node){.leaf = true};
    uint64_t below = (uint64_t)root.children; /* nodes that were announced and have not come yet, */
    uint64_t inside = 0;                      /* and how many of them are inside a child of the root */
    if (!reader->problem && (root.leaf || root.children < 0))
        return metadata_error(footer, reader, no_tree, error);
    for (size_t i = 1; i < count && !reader->problem; i++) {
        const struct schema_node node = node_read(reader);
        if (reader->problem)
            break;
        if (node.children < 0 || (node.leaf && node.children > 0) || below == 0)
            return metadata_error(footer, reader, no_tree, error);
        if (inside == 0 && binary_is(node.name, footer->column)) {
            if (is_found)
                return column_error(footer, "is there twice", error);
            is_found = true;
            *found = node;
            footer->ordinal = footer->leaves;
        }
        const uint64_t children = (uint64_t)node.children;
        inside = inside == 0 ? children : inside - 1 + children;
        below += children - 1;
        footer->leaves += node.leaf;
    }
    if (reader->problem)
        return metadata_error(footer, reader, reader->problem, error);
    if (below != 0)
        return metadata_error(footer, reader, no_tree, error);
    return is_found ? STATUS_OK
                    : error_set(error, STATUS_BAD_INPUT, "'%s' has no column '%s'", footer->name, footer->column);
}

static enum status schema_read(struct parquet_footer *footer, struct thrift_reader *reader, size_t count,
                               struct error *error) {
    struct schema_node column = {0};
    const enum status status = schema_walk(footer, reader, count, &column, error);
    if (status != STATUS_OK)
        return status;
    if (!column.leaf)
        return column_error(footer, "is nested; only plain columns can be read", error);
    if (column.repetition != REQUIRED && column.repetition != OPTIONAL)
        return column_error(footer, "is repeated; only columns with one value in a row can be read", error);
    if (column.type != TYPE_BYTE_ARRAY || !column.string)
        return column_error(footer, "is not one of strings (BYTE_ARRAY, STRING)", error);
    footer->optional = column.repetition == OPTIONAL;
    return STATUS_OK;
}

/* ---- the file ---- */

static enum status metadata_read(struct parquet_footer *footer, struct thrift_reader reader, struct error *error) {
    struct thrift_reader schema = {0}, groups = {0};
    size_t nodes = 0;
    int64_t rows = -1;
    bool is_signed = false;
    struct thrift_field field = {0};
    while (thrift_field_next(&reader, &field))
        switch (field.id) {
        case 2:
            schema = reader;
            nodes = thrift_list(&schema, field.type, THRIFT_STRUCT);
            thrift_skip(&reader, field.type);
            break;
        case 3:
            rows = thrift_i64(&reader, field.type);
            break;
        case 4:
            groups = reader;
            footer->groups = thrift_list(&groups, field.type, THRIFT_STRUCT);
            thrift_skip(&reader, field.type);
            break;
        case 8:
            is_signed = true;
            thrift_skip(&reader, field.type);
            break;
        default:
            thrift_skip(&reader, field.type);
        }
    if (reader.problem)
        return metadata_error(footer, &reader, reader.problem, error);
    if (reader.length - reader.at != (is_signed ? SIGNATURE : 0))
        return metadata_error(footer, &reader, "something follows its metadata", error);
    if (!schema.bytes || !groups.bytes || rows < 0)
        return metadata_error(footer, &reader, "its metadata lack the schema, the row groups or their number of rows",
                              error);
    if (groups.problem)
        return metadata_error(footer, &groups, groups.problem, error);
    if (rows > PARQUET_LIMIT)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has %" PRId64 " rows; at most %d can be read", footer->name,
                         rows, PARQUET_LIMIT);
    footer->rows = (uint64_t)rows;
    footer->next = groups;
    return schema_read(footer, &schema, nodes, error);
}

enum status parquet_footer_open(const char *name, const uint8_t *bytes, size_t length, const char *column,
                                struct parquet_footer *footer, struct error *error) {
    *footer = (struct parquet_footer){.name = name, .column = column};
    if (length < MAGIC + TAIL || memcmp(bytes, magic, MAGIC) != 0 ||
        memcmp(bytes + length - MAGIC, magic, MAGIC) != 0) {
        const bool encrypted = length >= MAGIC && memcmp(bytes, magic_encrypted, MAGIC) == 0;
        return error_set(error, STATUS_BAD_INPUT,
                         encrypted ? "'%s' is an encrypted Parquet file, which cannot be read"
                                   : "'%s' is no Parquet file, or is cut off: it does not begin and end with PAR1",
                         name);
    }
    const size_t size = parquet_u32(bytes + length - TAIL);
    if (size > length - MAGIC - TAIL)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is not a valid Parquet file: its metadata would have %zu bytes, more than the file",
                         name, size);
    footer->begin = length - TAIL - size;
    return metadata_read(footer, (struct thrift_reader){bytes + footer->begin, size, 0, NULL}, error);
}

/* ---- a row group ---- */

enum { HAS_PATH = 1, HAS_CODEC = 2, HAS_VALUES = 4, HAS_SIZE = 8, HAS_PAGES = 16, HAS_ALL = 31 };

struct column_chunk {
    bool elsewhere, encrypted;
    unsigned seen; /* HAS_... */
    bool path_is_column;
    int32_t codec;
    int64_t values, size, data_page, dictionary_page;
};

static void path_read(struct thrift_reader *reader, enum thrift_type type, const char *column,
                      struct column_chunk *chunk) {
    const size_t parts = thrift_list(reader, type, THRIFT_BINARY);
    chunk->path_is_column = parts == 1;
    for (size_t i = 0; i < parts; i++)
        if (!binary_is(thrift_binary(reader, THRIFT_BINARY), column))
            chunk->path_is_column = false;
}

static void column_metadata_read(struct thrift_reader *reader, enum thrift_type type, const char *column,
                                 struct column_chunk *chunk) {
    struct thrift_field field = {0};
    thrift_struct(reader, type);
    while (thrift_field_next(reader, &field))
        switch (field.id) {
        case 3:
            path_read(reader, field.type, column, chunk);
            chunk->seen |= HAS_PATH;
            break;
        case 4:
            chunk->codec = thrift_i32(reader, field.type);
            chunk->seen |= HAS_CODEC;
            break;
        case 5:
            chunk->values = thrift_i64(reader, field.type);
            chunk->seen |= HAS_VALUES;
            break;
        case 7:
            chunk->size = thrift_i64(reader, field.type);
            chunk->seen |= HAS_SIZE;
            break;
        case 9:
            chunk->data_page = thrift_i64(reader, field.type);
            chunk->seen |= HAS_PAGES;
            break;
        case 11:
            chunk->dictionary_page = thrift_i64(reader, field.type);
            break;
        default:
            thrift_skip(reader, field.type);
        }
}

static struct column_chunk column_chunk_read(struct thrift_reader *reader, const char *column) {
    struct column_chunk chunk = {0};
    struct thrift_field field = {0};
    while (thrift_field_next(reader, &field))
        switch (field.id) {
        case 1:
            chunk.elsewhere = true;
            thrift_skip(reader, field.type);
            break;
        case 3:
            column_metadata_read(reader, field.type, column, &chunk);
            break;
        case 8:
        case 9:
            chunk.encrypted = true;
            thrift_skip(reader, field.type);
            break;
        default:
            thrift_skip(reader, field.type);
        }
    return chunk;
}

static enum status chunk_check(struct parquet_footer *footer, const struct column_chunk *found, int64_t rows,
                               struct parquet_chunk *chunk, struct error *error) {
    const struct thrift_reader *reader = &footer->next;
    if (found->encrypted)
        return column_error(footer, "is encrypted, which cannot be read", error);
    if (found->elsewhere)
        return column_error(footer, "lies in another file, which is not read", error);
    if (found->seen != HAS_ALL)
        return metadata_error(footer, reader, "the metadata of a column's chunk are not complete", error);
    if (!found->path_is_column)
        return metadata_error(footer, reader, "its columns have another order than its schema", error);
    if (rows < 0 || found->values != rows || (uint64_t)rows > footer->rows - footer->passed)
        return metadata_error(footer, reader, "the number of rows is not that of their values", error);
    if (rows == 0) { /* pyarrow writes no page then, and 0 for its offset */
        *chunk = (struct parquet_chunk){.codec = found->codec};
        return STATUS_OK;
    }
    /* Writers without a dictionary may say 0. */
    const bool dictionary = found->dictionary_page > 0 && found->dictionary_page < found->data_page;
    const int64_t begin = dictionary ? found->dictionary_page : found->data_page;
    if (begin < MAGIC || (uint64_t)begin > footer->begin || found->size < 0 ||
        (uint64_t)found->size > footer->begin - (uint64_t)begin)
        return metadata_error(footer, reader, "a column's chunk lies outside of the file", error);
    if ((uint64_t)found->size > footer->begin - footer->taken)
        return metadata_error(footer, reader, "the column's chunks overlap", error);
    *chunk = (struct parquet_chunk){(size_t)begin, (size_t)(begin + found->size), (uint64_t)rows, found->codec};
    footer->passed += chunk->rows;
    footer->taken += chunk->end - chunk->begin;
    return STATUS_OK;
}

enum status parquet_footer_next(struct parquet_footer *footer, struct parquet_chunk *chunk, bool *more,
                                struct error *error) {
    struct thrift_reader *reader = &footer->next;
    *more = footer->groups != 0;
    if (!*more)
        return footer->passed == footer->rows ? STATUS_OK
                                              : metadata_error(footer, reader, "its row groups lack rows", error);
    footer->groups--;
    struct column_chunk found = {0};
    size_t columns = 0;
    int64_t rows = -1;
    struct thrift_field field = {0};
    while (thrift_field_next(reader, &field))
        switch (field.id) {
        case 1:
            columns = thrift_list(reader, field.type, THRIFT_STRUCT);
            for (size_t i = 0; i < columns && !reader->problem; i++)
                if (i == footer->ordinal)
                    found = column_chunk_read(reader, footer->column);
                else
                    thrift_skip(reader, THRIFT_STRUCT);
            break;
        case 3:
            rows = thrift_i64(reader, field.type);
            break;
        default:
            thrift_skip(reader, field.type);
        }
    if (reader->problem)
        return metadata_error(footer, reader, reader->problem, error);
    if (columns != footer->leaves)
        return metadata_error(footer, reader, "a row group has not as many columns as the schema", error);
    return chunk_check(footer, &found, rows, chunk, error);
}
