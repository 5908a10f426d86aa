/*
 * A reader of structs in Thrift's compact protocol, the form of Parquet's metadata.
 * Source: https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
 *
 * The caller goes through the fields of a struct in whatever order they come, and skips those that it does not know:
 *     struct thrift_field field = {0};
 *     while (thrift_field_next(reader, &field))
 *         switch (field.id) {
 *         case 1:
 *             version = thrift_i32(reader, field.type);
 *             break;
 *         default:
 *             thrift_skip(reader, field.type);
 *         }
 * Nothing fails in between: the first thing wrong is kept as `problem`, then all gives zero, no field and no element.
 */
#ifndef QSTREAM_COMMON_THRIFT_COMPACT_H
#define QSTREAM_COMMON_THRIFT_COMPACT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum thrift_type {
    THRIFT_TRUE = 1, /* of a field; the type of a list's elements may be either */
    THRIFT_FALSE = 2,
    THRIFT_I8 = 3,
    THRIFT_I16 = 4,
    THRIFT_I32 = 5,
    THRIFT_I64 = 6,
    THRIFT_DOUBLE = 7,
    THRIFT_BINARY = 8,
    THRIFT_LIST = 9,
    THRIFT_SET = 10,
    THRIFT_MAP = 11,
    THRIFT_STRUCT = 12,
    THRIFT_UUID = 13
};

/* Begins as {bytes, length}. A copy reads again what the original has read. */
struct thrift_reader {
    const uint8_t *bytes;
    size_t length;
    size_t at;
    const char *problem; /* NULL as long as all is well; else what is wrong at `at` */
};

struct thrift_field {
    int id;
    enum thrift_type type;
};

/* Text or bytes inside those of the reader; no NUL behind them. */
struct thrift_binary {
    const uint8_t *bytes;
    size_t length;
};

/* False at the end of the struct. The value must be read, or skipped, before the next call. */
bool thrift_field_next(struct thrift_reader *reader, struct thrift_field *field);

/* A value of a field's or an element's `type`; a problem when it is not the one that is asked for. */
int32_t thrift_i32(struct thrift_reader *reader, enum thrift_type type);
int64_t thrift_i64(struct thrift_reader *reader, enum thrift_type type);
struct thrift_binary thrift_binary(struct thrift_reader *reader, enum thrift_type type);
bool thrift_bool(struct thrift_reader *reader, enum thrift_type type); /* of a field; it has no bytes of its own */
void thrift_struct(struct thrift_reader *reader, enum thrift_type type);

/* The number of elements of a list, each of type `element`, which follow. It is never more than the bytes that are left. */
size_t thrift_list(struct thrift_reader *reader, enum thrift_type type, enum thrift_type element);

/* Passes over a value of any type, nested up to THRIFT_DEPTH levels. */
enum { THRIFT_DEPTH = 32 };
void thrift_skip(struct thrift_reader *reader, enum thrift_type type);

#endif
