/*
 * The header parser on any bytes. What it accepts must be JSON without NUL, fill the file exactly, be refused for any other file size,
 * and come back the same after it was written with safetensors_header_append.
 */
#include "common/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void require_same(const struct safetensors *a, const struct safetensors *b) {
    REQUIRE(a->count == b->count);
    for (size_t i = 0; i < a->count; i++) {
        const struct tensor_info *x = &a->tensors[i], *y = &b->tensors[i];
        REQUIRE(strcmp(x->name, y->name) == 0);
        REQUIRE(x->dtype == y->dtype && x->rank == y->rank && x->size == y->size);
        REQUIRE(memcmp(x->shape, y->shape, x->rank * sizeof *x->shape) == 0);
        REQUIRE(x->offset - a->data_offset == y->offset - b->data_offset);
    }
}

static void require_consistent(const struct safetensors *file, uint64_t file_size) {
    uint64_t at = file->data_offset, bytes;
    for (size_t i = 0; i < file->count; i++) {
        const struct tensor_info *tensor = &file->tensors[i];
        REQUIRE(tensor->offset == at);
        REQUIRE(tensor_bytes(tensor->dtype, tensor->shape, tensor->rank, &bytes) && bytes == tensor->size);
        char text[SHAPE_TEXT_MAX];
        REQUIRE(strlen(shape_text(tensor->shape, tensor->rank, text)) < SHAPE_TEXT_MAX);
        at += tensor->size;
    }
    REQUIRE(at == file_size);
}

static void require_round_trip(const struct safetensors *file, uint64_t data_size) {
    struct text out = {0};
    struct error error;
    struct safetensors again;
    enum { LENGTH_FIELD = 8 };
    safetensors_header_append(&out, file->tensors, file->count);
    REQUIRE(!out.failed && out.length % 8 == 0);
    uint64_t length = 0;
    for (int i = LENGTH_FIELD - 1; i >= 0; i--)
        length = length << 8 | (uint8_t)out.bytes[i];
    REQUIRE(length == out.length - LENGTH_FIELD);
    REQUIRE(safetensors_parse("again", out.bytes + LENGTH_FIELD, (size_t)length, out.length + data_size, &again,
                              &error) == STATUS_OK);
    require_same(file, &again);
    safetensors_free(&again);
    text_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint64_t data_size = header_data_size(data, size), file_size = 8 + (uint64_t)size + data_size;
    struct safetensors file;
    struct error error;
    enum status status = safetensors_parse("fuzz", (const char *)data, size, file_size, &file, &error);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
    if (status == STATUS_OK) {
        REQUIRE(!memchr(data, '\0', size)); /* no JSON holds one, and other readers refuse it */
        require_consistent(&file, file_size);
        require_round_trip(&file, data_size);
        struct safetensors other;
        REQUIRE(safetensors_parse("fuzz", (const char *)data, size, file_size + 1, &other, &error) == STATUS_BAD_INPUT);
        safetensors_free(&other);
        REQUIRE(safetensors_parse("fuzz", (const char *)data, size, file_size - 1, &other, &error) == STATUS_BAD_INPUT);
        safetensors_free(&other);
    }
    safetensors_free(&file);
    return 0;
}
