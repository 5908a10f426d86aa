#include "common/thrift_compact.h"

static void fail(struct thrift_reader *reader, const char *problem) {
    if (!reader->problem)
        reader->problem = problem;
}

static uint8_t read_byte(struct thrift_reader *reader) {
    if (!reader->problem && reader->at == reader->length)
        fail(reader, "the metadata end too early");
    return reader->problem ? 0 : reader->bytes[reader->at++];
}

static void pass(struct thrift_reader *reader, size_t count) {
    if (count > reader->length - reader->at)
        fail(reader, "a value goes beyond the metadata");
    if (!reader->problem)
        reader->at += count;
}

/* A number in groups of seven bits, the lowest first, of at most `bits` bits. */
static uint64_t read_varint(struct thrift_reader *reader, unsigned bits) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < bits; shift += 7) {
        const uint64_t group = read_byte(reader);
        const uint64_t low = group & 0x7f;
        if (bits - shift < 7 && low >> (bits - shift) != 0)
            break;
        value |= low << shift;
        if (!(group & 0x80))
            return reader->problem ? 0 : value;
    }
    fail(reader, "a number in the metadata is too large");
    return 0;
}

static int64_t read_zigzag(struct thrift_reader *reader, unsigned bits) {
    const uint64_t value = read_varint(reader, bits);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

static bool expect(struct thrift_reader *reader, enum thrift_type type, enum thrift_type wanted) {
    if (type != wanted)
        fail(reader, "a value in the metadata is of another type than the format says");
    return !reader->problem;
}

bool thrift_field_next(struct thrift_reader *reader, struct thrift_field *field) {
    const uint8_t header = read_byte(reader);
    if (header == 0) /* the end, or a problem */
        return false;
    const unsigned step = header >> 4;
    const int64_t id = step ? (int64_t)field->id + step : read_zigzag(reader, 32);
    field->type = (enum thrift_type)(header & 0x0f);
    if (id < INT16_MIN || id > INT16_MAX)
        fail(reader, "the number of a field in the metadata is too large");
    else
        field->id = (int)id;
    return !reader->problem;
}

int32_t thrift_i32(struct thrift_reader *reader, enum thrift_type type) {
    return expect(reader, type, THRIFT_I32) ? (int32_t)read_zigzag(reader, 32) : 0;
}

int64_t thrift_i64(struct thrift_reader *reader, enum thrift_type type) {
    return expect(reader, type, THRIFT_I64) ? read_zigzag(reader, 64) : 0;
}

struct thrift_binary thrift_binary(struct thrift_reader *reader, enum thrift_type type) {
    struct thrift_binary binary = {0};
    if (!expect(reader, type, THRIFT_BINARY))
        return binary;
    const size_t length = (size_t)read_varint(reader, 32), begin = reader->at;
    pass(reader, length);
    if (!reader->problem)
        binary = (struct thrift_binary){reader->bytes + begin, length};
    return binary;
}

bool thrift_bool(struct thrift_reader *reader, enum thrift_type type) {
    if (type != THRIFT_TRUE)
        expect(reader, type, THRIFT_FALSE);
    return !reader->problem && type == THRIFT_TRUE;
}

void thrift_struct(struct thrift_reader *reader, enum thrift_type type) { expect(reader, type, THRIFT_STRUCT); }

/* The head of a list or set. Each element takes a byte at least. */
static size_t read_list(struct thrift_reader *reader, enum thrift_type *element) {
    const uint8_t header = read_byte(reader);
    size_t count = header >> 4;
    *element = (enum thrift_type)(header & 0x0f);
    if (count == 0x0f)
        count = (size_t)read_varint(reader, 32);
    if (count > reader->length - reader->at)
        fail(reader, "a list goes beyond the metadata");
    return reader->problem ? 0 : count;
}

size_t thrift_list(struct thrift_reader *reader, enum thrift_type type, enum thrift_type element) {
    if (!expect(reader, type, THRIFT_LIST))
        return 0;
    enum thrift_type found;
    const size_t count = read_list(reader, &found);
    return count != 0 && expect(reader, found, element) ? count : 0;
}

static void skip(struct thrift_reader *reader, enum thrift_type type, bool element, unsigned depth);

static void skip_elements(struct thrift_reader *reader, enum thrift_type type, size_t count, unsigned depth) {
    for (size_t i = 0; i < count && !reader->problem; i++)
        skip(reader, type, true, depth);
}

static void skip_map(struct thrift_reader *reader, unsigned depth) {
    const size_t count = (size_t)read_varint(reader, 32);
    if (count == 0)
        return;
    const uint8_t types = read_byte(reader);
    if (count > reader->length - reader->at)
        fail(reader, "a map goes beyond the metadata");
    for (size_t i = 0; i < count && !reader->problem; i++) {
        skip(reader, (enum thrift_type)(types >> 4), true, depth);
        skip(reader, (enum thrift_type)(types & 0x0f), true, depth);
    }
}

static void skip(struct thrift_reader *reader, enum thrift_type type, bool element, unsigned depth) {
    if (depth > THRIFT_DEPTH)
        fail(reader, "the metadata are nested too deeply");
    if (reader->problem)
        return;
    switch (type) {
    case THRIFT_TRUE:
    case THRIFT_FALSE: /* a field's value is its type */
        pass(reader, element ? 1 : 0);
        break;
    case THRIFT_I8:
        pass(reader, 1);
        break;
    case THRIFT_I16:
    case THRIFT_I32:
    case THRIFT_I64:
        read_varint(reader, 64);
        break;
    case THRIFT_DOUBLE:
        pass(reader, 8);
        break;
    case THRIFT_BINARY:
        thrift_binary(reader, type);
        break;
    case THRIFT_LIST:
    case THRIFT_SET: {
        enum thrift_type of;
        const size_t count = read_list(reader, &of);
        skip_elements(reader, of, count, depth + 1);
        break;
    }
    case THRIFT_MAP:
        skip_map(reader, depth + 1);
        break;
    case THRIFT_STRUCT: {
        struct thrift_field field = {0};
        while (thrift_field_next(reader, &field))
            skip(reader, field.type, false, depth + 1);
        break;
    }
    case THRIFT_UUID:
        pass(reader, 16);
        break;
    default:
        fail(reader, "a value in the metadata is of a type that Thrift does not have");
    }
}

void thrift_skip(struct thrift_reader *reader, enum thrift_type type) { skip(reader, type, false, 0); }
