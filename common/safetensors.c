#include "common/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What one entry of the header says, checked in itself but not against its neighbours. */
static enum status entry_parse(const char *file_name, const char *name, const json_t *entry, uint64_t data_offset,
                               struct tensor_info *tensor, struct error *error) {
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_string(dtype) || !json_is_array(shape) || !json_is_array(offsets) || json_array_size(offsets) != 2)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the header entry of tensor '%s' is not {dtype, shape, data_offsets[2]}", file_name,
                         name);
    if (!dtype_parse(json_string_value(dtype), &tensor->dtype))
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' has the unknown dtype '%s'", file_name, name,
                         json_string_value(dtype));
    if (json_array_size(shape) > TENSOR_MAX_RANK)
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' has %zu dimensions; at most %d are supported",
                         file_name, name, json_array_size(shape), TENSOR_MAX_RANK);
    tensor->rank = (unsigned)json_array_size(shape);
    for (unsigned i = 0; i < tensor->rank; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return error_set(error, STATUS_BAD_INPUT, "'%s': the shape of tensor '%s' is not a list of sizes",
                             file_name, name);
        tensor->shape[i] = (uint64_t)json_integer_value(extent);
    }
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (!json_is_integer(first) || !json_is_integer(last) || json_integer_value(first) < 0 ||
        json_integer_value(last) < json_integer_value(first))
        return error_set(error, STATUS_BAD_INPUT, "'%s': the data_offsets of tensor '%s' are not an ordered pair",
                         file_name, name);
    uint64_t begin = (uint64_t)json_integer_value(first), end = (uint64_t)json_integer_value(last), size;
    if (!tensor_bytes(tensor->dtype, tensor->shape, tensor->rank, &size)) {
        char text[SHAPE_TEXT_MAX];
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' of shape %s and dtype %s has no size in bytes",
                         file_name, name, shape_text(tensor->shape, tensor->rank, text), dtype_name(tensor->dtype));
    }
    if (end - begin != size)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' takes %" PRIu64 " bytes by its shape and dtype, but %" PRIu64
                         " by its data_offsets",
                         file_name, name, size, end - begin);
    tensor->offset = data_offset + begin; /* begin < 2^63 and data_offset is small: no overflow */
    tensor->size = size;
    tensor->name = strdup(name);
    return tensor->name ? STATUS_OK : error_set_memory(error);
}

static enum status metadata_check(const char *file_name, json_t *metadata, struct error *error) {
    const char *key;
    json_t *value;
    if (json_is_null(metadata))
        return STATUS_OK;
    if (!json_is_object(metadata))
        return error_set(error, STATUS_BAD_INPUT, "'%s': __metadata__ is not an object", file_name);
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return error_set(error, STATUS_BAD_INPUT, "'%s': __metadata__ entry '%s' is not a string", file_name, key);
    }
    return STATUS_OK;
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
    if (memchr(json, '\0', length)) /* jansson lets one pass behind a number */
        return error_set(error, STATUS_BAD_INPUT, "'%s': the header is not valid JSON: it holds a NUL byte", name);
    json_error_t at;
    json_t *root = json_loadb(json, length, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return error_set(error, STATUS_BAD_INPUT, "'%s': the header is not valid JSON: %s (byte %d)", name, at.text,
                         at.position);
    enum status status = STATUS_OK;
    file->tensors = calloc(json_object_size(root) + 1, sizeof *file->tensors);
    if (!file->tensors)
        status = error_set_memory(error);
    const char *key;
    json_t *entry;
    json_object_foreach(root, key, entry) {
        if (status != STATUS_OK)
            break;
        if (strcmp(key, "__metadata__") == 0) {
            status = metadata_check(name, entry, error);
            continue;
        }
        status = entry_parse(name, key, entry, file->data_offset, &file->tensors[file->count], error);
        file->count += status == STATUS_OK;
    }
    json_decref(root);
    if (status != STATUS_OK)
        return status;

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
