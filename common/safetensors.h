/*
 * The safetensors format: an 8-byte little-endian header length, a JSON header, the data.
 *
 * Reading is as strict as the reference library (huggingface/safetensors, safetensors/src/tensor.rs) and stricter
 * where two readers could understand a file differently: a header of at most 100,000,000 bytes inside the file
 * that starts with '{'; known dtypes; data_offsets that are ordered, in bounds and cover the data section without
 * overlap or hole up to the end of the file; byte length = product of the shape x dtype size, every product
 * checked; no duplicate names.
 */
#ifndef QSTREAM_COMMON_SAFETENSORS_H
#define QSTREAM_COMMON_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/source.h"
#include "common/status.h"
#include "common/text.h"

/* In the reference library's order: it lays tensors out by this, the last first. */
enum dtype {
    DTYPE_BOOL,
    DTYPE_F4,
    DTYPE_F6_E2M3,
    DTYPE_F6_E3M2,
    DTYPE_U8,
    DTYPE_I8,
    DTYPE_F8_E5M2,
    DTYPE_F8_E4M3,
    DTYPE_F8_E8M0,
    DTYPE_F8_E4M3FNUZ,
    DTYPE_F8_E5M2FNUZ,
    DTYPE_I16,
    DTYPE_U16,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I32,
    DTYPE_U32,
    DTYPE_F32,
    DTYPE_C64,
    DTYPE_F64,
    DTYPE_I64,
    DTYPE_U64,
    DTYPES
};

const char *dtype_name(enum dtype dtype); /* as the format spells it */
unsigned dtype_bits(enum dtype dtype);    /* per element */

enum { TENSOR_MAX_RANK = 8 };

struct tensor_info {
    char *name; /* UTF-8, NUL-terminated */
    enum dtype dtype;
    unsigned rank;
    uint64_t shape[TENSOR_MAX_RANK];
    uint64_t offset; /* first byte, counted from the start of the file */
    uint64_t size;   /* bytes */
};

struct safetensors {
    struct tensor_info *tensors; /* in the order of their data */
    size_t count;
    uint64_t data_offset; /* 8 + the header's length */
};

/* Elements of a shape; false on overflow. */
bool shape_elements(const uint64_t *shape, unsigned rank, uint64_t *elements);

/* Bytes of a tensor; false on overflow or when sub-byte elements do not fill whole bytes. */
bool tensor_bytes(enum dtype dtype, const uint64_t *shape, unsigned rank, uint64_t *bytes);

/* "[28672, 12288]" into out; returns out. */
enum { SHAPE_TEXT_MAX = 24 * TENSOR_MAX_RANK };
const char *shape_text(const uint64_t *shape, unsigned rank, char out[SHAPE_TEXT_MAX]);

/* Reads and checks the header of `source`. Free with safetensors_free, also after an error. */
enum status safetensors_read(struct byte_source *source, struct safetensors *file, struct error *error);

/*
 * The same from the header's bytes: `json` holds `length` bytes (a byte behind them is not needed), the file has
 * `file_size` bytes in all. `name` is for messages.
 */
enum status safetensors_parse(const char *name, const char *json, size_t length, uint64_t file_size,
                              struct safetensors *file, struct error *error);

void safetensors_free(struct safetensors *file);

/*
 * Appends the start of a file, length field and header, for tensors in the order of their data. Only name, dtype,
 * rank, shape and size are read; the data of the first begins at 0 of the data section, each next where the one
 * before ends. The header is padded with spaces so that the data starts at a multiple of 8.
 */
void safetensors_header_append(struct text *out, const struct tensor_info *tensors, size_t count);

#endif
