#include "common/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/json_scan.h"
#include "common/name_table.h"
#include "common/utf8.h"

static const uint64_t header_max = 100000000; /* MAX_HEADER_SIZE of the reference library */
enum { LENGTH_FIELD = 8, DATA_ALIGNMENT = 8 };

static const struct {
    const char *name;
    unsigned bits;
} dtypes[DTYPES] = {
    [DTYPE_BOOL] = {"BOOL", 8},
    [DTYPE_U8] = {"U8", 8},
    [DTYPE_I8] = {"I8", 8},
    [DTYPE_I16] = {"I16", 16},
    [DTYPE_U16] = {"U16", 16},
    [DTYPE_F16] = {"F16", 16},
    [DTYPE_BF16] = {"BF16", 16},
    [DTYPE_I32] = {"I32", 32},
    [DTYPE_U32] = {"U32", 32},
    [DTYPE_F32] = {"F32", 32},
    [DTYPE_F64] = {"F64", 64},
    [DTYPE_I64] = {"I64", 64},
    [DTYPE_U64] = {"U64", 64},
    [DTYPE_C64] = {"C64", 64},
    [DTYPE_F8_E4M3] = {"F8_E4M3", 8},
    [DTYPE_F8_E5M2] = {"F8_E5M2", 8},
    [DTYPE_F8_E8M0] = {"F8_E8M0", 8},
    [DTYPE_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [DTYPE_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [DTYPE_F4] = {"F4", 4},
    [DTYPE_F6_E2M3] = {"F6_E2M3", 6},
    [DTYPE_F6_E3M2] = {"F6_E3M2", 6},
};

const char *dtype_name(enum dtype dtype) { return dtypes[dtype].name; }
unsigned dtype_bits(enum dtype dtype) { return dtypes[dtype].bits; }

static bool dtype_parse(const char *name, enum dtype *dtype) {
    for (int i = 0; i < DTYPES; i++)
        if (strcmp(name, dtypes[i].name) == 0) {
            *dtype = (enum dtype)i;
            return true;
        }
    return false;
}

bool shape_elements(const uint64_t *shape, unsigned rank, uint64_t *elements) {
    *elements = 1;
    for (unsigned i = 0; i < rank; i++)
        if (__builtin_mul_overflow(*elements, shape[i], elements))
            return false;
    return true;
}

bool tensor_bytes(enum dtype dtype, const uint64_t *shape, unsigned rank, uint64_t *bytes) {
    uint64_t elements, bits;
    unsigned width = dtype_bits(dtype);
    if (!shape_elements(shape, rank, &elements))
        return false;
    if (width % 8 == 0)
        return !__builtin_mul_overflow(elements, width / 8, bytes);
    if (__builtin_mul_overflow(elements, width, &bits) || bits % 8 != 0)
        return false;
    *bytes = bits / 8;
    return true;
}

const char *shape_text(const uint64_t *shape, unsigned rank, char out[SHAPE_TEXT_MAX]) {
    int used = snprintf(out, SHAPE_TEXT_MAX, "[");
    for (unsigned i = 0; i < rank; i++)
        used += snprintf(out + used, SHAPE_TEXT_MAX - (size_t)used, "%s%" PRIu64, i ? ", " : "", shape[i]);
    snprintf(out + used, SHAPE_TEXT_MAX - (size_t)used, "]");
    return out;
}

/* The members of a header entry that are read; others are skipped, as the reference library does. */
enum { MEMBER_DTYPE = 1, MEMBER_SHAPE = 2, MEMBER_OFFSETS = 4, MEMBERS_ALL = 7 };

static bool span_is(const struct scanner *scan, struct json_span quoted, const char *word) {
    size_t length = strlen(word);
    return quoted.end - quoted.begin == length + 2 && memcmp(scan->json + quoted.begin + 1, word, length) == 0;
}

/* Up to `most` sizes in brackets; *count says how many there are, which may be more. */
static bool scan_sizes(struct scanner *scan, uint64_t *sizes, size_t most, size_t *count) {
    *count = 0;
    if (!scan_expect(scan, '[', "a list of sizes was expected"))
        return false;
    if (scan_next_is(scan, ']'))
        return scan_expect(scan, ']', "");
    do {
        uint64_t size;
        if (!scan_unsigned(scan, &size))
            return false;
        if (*count < most)
            sizes[*count] = size;
        ++*count;
    } while (scan_next_is(scan, ',') && scan_expect(scan, ',', ""));
    return scan_expect(scan, ']', "',' or ']' was expected");
}

/* What one entry of the header says, checked in itself but not against its neighbours. */
static enum status entry_parse(struct scanner *scan, const char *file_name, const char *name, uint64_t data_offset,
                               struct tensor_info *tensor, struct error *error) {
    unsigned seen = 0;
    uint64_t offsets[2] = {0, 0};
    size_t rank = 0, offset_count = 0;
    struct json_span dtype = {0}, skipped;
    if (!scan_next_is(scan, '{')) {
        if (!scan_value(scan, &skipped))
            return STATUS_BAD_INPUT;
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the header entry of tensor '%s' is not {dtype, shape, data_offsets[2]}", file_name,
                         name);
    }
    bool good = scan_expect(scan, '{', "");
    while (good && !scan_next_is(scan, '}')) {
        struct json_span key;
        good = scan_string(scan, &key) && scan_expect(scan, ':', "':' was expected");
        if (!good)
            break;
        unsigned member = span_is(scan, key, "dtype")          ? MEMBER_DTYPE
                          : span_is(scan, key, "shape")        ? MEMBER_SHAPE
                          : span_is(scan, key, "data_offsets") ? MEMBER_OFFSETS
                                                               : 0;
        if (seen & member)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s': the header is not valid JSON: duplicate object key in the entry of tensor '%s'",
                             file_name, name);
        seen |= member;
        scan_space(scan);
        size_t place = scan->at;
        bool wrong_list = false;
        switch (member) {
        case MEMBER_DTYPE:
            good = scan_value(scan, &dtype);
            break;
        case MEMBER_SHAPE:
            wrong_list = !scan_sizes(scan, tensor->shape, TENSOR_MAX_RANK, &rank);
            break;
        case MEMBER_OFFSETS:
            wrong_list = !scan_sizes(scan, offsets, 2, &offset_count);
            break;
        default:
            good = scan_value(scan, &skipped);
        }
        if (wrong_list) { /* wrong as a list, or as JSON? */
            struct scanner again = {.json = scan->json, .at = place, .length = scan->length};
            if (!scan_value(&again, &skipped)) {
                *scan = again;
                return STATUS_BAD_INPUT;
            }
            scan->problem = NULL;
            bool is_list = scan->json[place] == '[';
            return error_set(error, STATUS_BAD_INPUT,
                             is_list ? member == MEMBER_SHAPE
                                           ? "'%s': the shape of tensor '%s' is not a list of sizes"
                                           : "'%s': the data_offsets of tensor '%s' are not an ordered pair"
                                     : "'%s': the header entry of tensor '%s' is not {dtype, shape, data_offsets[2]}",
                             file_name, name);
        }
        if (good && !scan_next_is(scan, '}'))
            good = scan_expect(scan, ',', "',' or '}' was expected") &&
                   (scan_next_is(scan, '"') || scan_fail(scan, "a string was expected"));
    }
    good = good && scan_expect(scan, '}', "'}' was expected");
    if (!good)
        return STATUS_BAD_INPUT; /* the caller says where */
    bool text = seen & MEMBER_DTYPE && scan->json[dtype.begin] == '"';
    if (seen != MEMBERS_ALL || !text || offset_count != 2)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the header entry of tensor '%s' is not {dtype, shape, data_offsets[2]}", file_name,
                         name);
    struct text spelled = {0};
    if (!scan_string_decode(scan, dtype, &spelled)) {
        text_free(&spelled);
        return STATUS_BAD_INPUT;
    }
    enum status status = STATUS_OK;
    if (!dtype_parse(spelled.bytes, &tensor->dtype))
        status = error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' has the unknown dtype '%s'", file_name, name,
                           spelled.bytes);
    text_free(&spelled);
    if (status != STATUS_OK)
        return status;
    if (rank > TENSOR_MAX_RANK)
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' has %zu dimensions; at most %d are supported",
                         file_name, name, rank, TENSOR_MAX_RANK);
    tensor->rank = (unsigned)rank;
    if (offsets[1] < offsets[0])
        return error_set(error, STATUS_BAD_INPUT, "'%s': the data_offsets of tensor '%s' are not an ordered pair",
                         file_name, name);
    uint64_t size;
    char shape[SHAPE_TEXT_MAX];
    if (!tensor_bytes(tensor->dtype, tensor->shape, tensor->rank, &size))
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' of shape %s and dtype %s has no size in bytes",
                         file_name, name, shape_text(tensor->shape, tensor->rank, shape), dtype_name(tensor->dtype));
    if (offsets[1] - offsets[0] != size)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' takes %" PRIu64 " bytes by its shape and dtype, but %" PRIu64
                         " by its data_offsets",
                         file_name, name, size, offsets[1] - offsets[0]);
    tensor->offset = data_offset + offsets[0]; /* offsets are below 2^63 and data_offset is small: no overflow */
    tensor->size = size;
    tensor->name = strdup(name);
    return tensor->name ? STATUS_OK : error_set_memory(error);
}

/* __metadata__: null, or an object of strings. */
static enum status metadata_check(struct scanner *scan, const char *file_name, struct error *error) {
    struct json_span span, value;
    if (!scan_next_is(scan, '{')) {
        if (!scan_value(scan, &span))
            return STATUS_BAD_INPUT;
        if (scan->json[span.begin] == 'n')
            return STATUS_OK;
        return error_set(error, STATUS_BAD_INPUT, "'%s': __metadata__ is not an object", file_name);
    }
    bool good = scan_expect(scan, '{', "");
    while (good && !scan_next_is(scan, '}')) {
        good = scan_string(scan, &span) && scan_expect(scan, ':', "':' was expected") && scan_value(scan, &value);
        if (good && scan->json[value.begin] != '"')
            return error_set(error, STATUS_BAD_INPUT, "'%s': __metadata__ entry '%.*s' is not a string", file_name,
                             (int)(span.end - span.begin < 66 ? span.end - span.begin - 2 : 64),
                             scan->json + span.begin + 1);
        if (good && !scan_next_is(scan, '}'))
            good = scan_expect(scan, ',', "',' or '}' was expected") &&
                   (scan_next_is(scan, '"') || scan_fail(scan, "a string was expected"));
    }
    return good && scan_expect(scan, '}', "'}' was expected") ? STATUS_OK : STATUS_BAD_INPUT;
}

/* Reads every entry. STATUS_BAD_INPUT with no message in *error when the text is no JSON: scan->problem says why. */
static enum status entries_parse(struct scanner *scan, const char *file_name, struct safetensors *file,
                                 struct error *error) {
    struct text name = {0};
    size_t capacity = 0;
    enum status status = scan_expect(scan, '{', "'{' was expected") ? STATUS_OK : STATUS_BAD_INPUT;
    while (status == STATUS_OK && !scan_next_is(scan, '}')) {
        struct json_span key;
        name.length = 0;
        if (!scan_string(scan, &key) || !scan_string_decode(scan, key, &name) ||
            !scan_expect(scan, ':', "':' was expected")) {
            status = STATUS_BAD_INPUT;
            break;
        }
        if (strcmp(name.bytes, "__metadata__") == 0) {
            status = metadata_check(scan, file_name, error);
        } else {
            if (!array_reserve(file->tensors, file->count + 1, &capacity)) {
                status = error_set_memory(error);
                break;
            }
            struct tensor_info *tensor = &file->tensors[file->count];
            *tensor = (struct tensor_info){0};
            status = entry_parse(scan, file_name, name.bytes, file->data_offset, tensor, error);
            file->count += status == STATUS_OK;
        }
        if (status == STATUS_OK && !scan_next_is(scan, '}') &&
            !(scan_expect(scan, ',', "',' or '}' was expected") &&
              (scan_next_is(scan, '"') || scan_fail(scan, "a string was expected"))))
            status = STATUS_BAD_INPUT;
    }
    text_free(&name);
    if (status == STATUS_OK) {
        scan_expect(scan, '}', "'}' was expected");
        scan_space(scan);
        if (scan->at != scan->length)
            scan_fail(scan, "something follows the object");
    }
    return scan->problem ? STATUS_BAD_INPUT : status;
}

static enum status duplicates_check(const char *file_name, const struct safetensors *file, struct error *error) {
    struct name_table names = {0};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < file->count && status == STATUS_OK; i++) {
        bool added = false;
        const char *name = file->tensors[i].name;
        if (!name_table_add(&names, name, strlen(name), 0, &added))
            status = error_set_memory(error);
        else if (!added)
            status = error_set(error, STATUS_BAD_INPUT, "'%s': the header is not valid JSON: duplicate object key '%s'",
                               file_name, name);
    }
    name_table_free(&names);
    return status;
}

static int by_offset(const void *a, const void *b) {
    const struct tensor_info *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->size != y->size) /* empty tensors first, so that the one behind them continues where they end */
        return x->size < y->size ? -1 : 1;
    return strcmp(x->name, y->name);
}

enum status safetensors_parse(const char *name, const char *json, size_t length, uint64_t file_size,
                              struct safetensors *file, struct error *error) {
    *file = (struct safetensors){.data_offset = LENGTH_FIELD + (uint64_t)length};
    if (length == 0 || json[0] != '{')
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not a safetensors file: its header does not start with '{'",
                         name);
    struct scanner scan = {.json = json, .length = length};
    enum status status = entries_parse(&scan, name, file, error);
    if (status == STATUS_OK && !utf8_is_valid(json, length))
        return error_set(error, STATUS_BAD_INPUT, "'%s': the header is not valid JSON: it is not UTF-8", name);
    if (scan.problem == scan_memory)
        return error_set_memory(error);
    if (scan.problem)
        return error_set(error, STATUS_BAD_INPUT, "'%s': the header is not valid JSON: %s (byte %zu)", name,
                         scan.problem, scan.at);
    if (status == STATUS_OK)
        status = duplicates_check(name, file, error);
    if (status != STATUS_OK)
        return status;

    if (file->count > 0)
        qsort(file->tensors, file->count, sizeof *file->tensors, by_offset);
    uint64_t expected = file->data_offset;
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor_info *tensor = &file->tensors[i];
        if (tensor->offset != expected)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s': the data of tensor '%s' starts at byte %" PRIu64 " where %" PRIu64
                             " was expected: the tensors %s",
                             name, tensor->name, tensor->offset, expected,
                             tensor->offset < expected ? "overlap" : "leave a hole");
        if (tensor->size > file_size || tensor->offset > file_size - tensor->size)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s': tensor '%s' ends at byte %" PRIu64 " of a file of %" PRIu64
                             " bytes: the file is truncated; download or copy it again",
                             name, tensor->name, tensor->offset + tensor->size, file_size);
        expected = tensor->offset + tensor->size;
    }
    if (expected != file_size)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the tensors end at byte %" PRIu64 " but the file has %" PRIu64 " bytes", name, expected,
                         file_size);
    return STATUS_OK;
}

enum status safetensors_read(struct byte_source *source, struct safetensors *file, struct error *error) {
    *file = (struct safetensors){0};
    uint64_t file_size = source->identity.size;
    uint8_t field[LENGTH_FIELD];
    if (file_size < LENGTH_FIELD)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has %" PRIu64 " bytes: too short for a safetensors file",
                         source->name, file_size);
    enum status status = byte_source_read_at(source, 0, field, sizeof field, error);
    if (status != STATUS_OK)
        return status;
    uint64_t length = 0;
    for (int i = LENGTH_FIELD - 1; i >= 0; i--)
        length = length << 8 | field[i];
    if (length > header_max)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the header would have %" PRIu64 " bytes; the format allows 100,000,000 "
                         "(is it a safetensors file?)",
                         source->name, length);
    if (length > file_size - LENGTH_FIELD)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': a header of %" PRIu64 " bytes does not fit in a file of %" PRIu64
                         " bytes: the file is truncated; download or copy it again",
                         source->name, length, file_size);
    char *json = malloc(length ? (size_t)length : 1);
    if (!json)
        return error_set_memory(error);
    status = byte_source_read_at(source, LENGTH_FIELD, json, (size_t)length, error);
    if (status == STATUS_OK)
        status = safetensors_parse(source->name, json, (size_t)length, file_size, file, error);
    free(json);
    return status;
}

void safetensors_free(struct safetensors *file) {
    for (size_t i = 0; i < file->count; i++)
        free(file->tensors[i].name);
    free(file->tensors);
    *file = (struct safetensors){0};
}

void safetensors_header_append(struct text *out, const struct tensor_info *tensors, size_t count) {
    size_t start = out->length;
    text_append(out, "\0\0\0\0\0\0\0\0", LENGTH_FIELD);
    text_append_string(out, "{\"__metadata__\":{\"format\":\"pt\"}");
    uint64_t offset = 0;
    for (size_t i = 0; i < count; i++) {
        text_append_string(out, ",");
        text_append_json_string(out, tensors[i].name);
        text_printf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(tensors[i].dtype));
        for (unsigned k = 0; k < tensors[i].rank; k++)
            text_printf(out, "%s%" PRIu64, k ? "," : "", tensors[i].shape[k]);
        text_printf(out, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset, offset + tensors[i].size);
        offset += tensors[i].size;
    }
    text_append_string(out, "}");
    while ((out->length - start) % DATA_ALIGNMENT != 0 && !out->failed)
        text_append_string(out, " ");
    if (out->failed)
        return;
    uint64_t length = out->length - start - LENGTH_FIELD;
    for (int i = 0; i < LENGTH_FIELD; i++)
        out->bytes[start + (size_t)i] = (char)(length >> (8 * i));
}
