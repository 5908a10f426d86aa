#include "verify/matrix.h"

#include <string.h>

#include "common/formats.h"

static const struct tensor_info *info_of(const struct matrix *matrix, uint32_t tensor) {
    return &matrix->checkpoint->tensors[tensor].info;
}

static uint64_t row_bytes(const struct matrix *matrix, uint64_t columns) {
    if (matrix->format == STORED_MXFP4)
        return columns / 2;
    return columns * (dtype_bits(info_of(matrix, matrix->weight)->dtype) / 8);
}

/* The scales that a tile needs: a run of rows of the scale tensor, whole or the columns of the tile. */
struct scale_run {
    uint64_t first, count;         /* rows of the scale tensor */
    uint64_t column, columns;      /* of it */
    uint64_t stored_columns, item; /* of a whole row; bytes of a scale */
};

static struct scale_run scale_run_of(const struct matrix *matrix, const struct tile *tile) {
    struct scale_run run = {0};
    if (matrix->scale == MODULE_NO_TENSOR)
        return run;
    run.item = dtype_bits(info_of(matrix, matrix->scale)->dtype) / 8;
    run.stored_columns = run.columns = run.count = 1;
    uint64_t row = matrix->first_row + tile->row; /* in the stacked matrix */
    uint64_t inside = matrix->rows_of_expert ? row - matrix->expert * matrix->rows_of_expert : row;
    switch (matrix->format) {
    case STORED_FP8_TENSOR:
        run.first = info_of(matrix, matrix->scale)->size > run.item ? matrix->expert : 0;
        break;
    case STORED_FP8_CHANNEL:
        run.first = row;
        run.count = tile->rows;
        break;
    case STORED_FP8_BLOCK: {
        uint64_t per = matrix->block_rows, of_expert = (matrix->rows_of_expert + per - 1) / per;
        run.first = matrix->expert * of_expert + inside / per;
        run.count = (inside + tile->rows - 1) / per - inside / per + 1;
        run.stored_columns = (matrix->columns + matrix->block_columns - 1) / matrix->block_columns;
        run.column = tile->column / matrix->block_columns;
        run.columns = (tile->column + tile->columns - 1) / matrix->block_columns - run.column + 1;
        break;
    }
    default: /* MXFP8, MXFP4 */
        run.first = row;
        run.count = tile->rows;
        run.stored_columns = matrix->columns / MATRIX_BLOCK;
        run.column = tile->column / MATRIX_BLOCK;
        run.columns = tile->columns / MATRIX_BLOCK;
    }
    return run;
}

void matrix_tile_bytes(const struct matrix *matrix, const struct tile *tile, uint64_t *weight, uint64_t *scale) {
    struct scale_run run = scale_run_of(matrix, tile);
    *weight = tile->rows * row_bytes(matrix, tile->columns);
    *scale = run.count * run.columns * run.item;
}

/* `count` runs of `size` bytes, `stride` apart in the tensor, one behind the other in the buffer. */
static enum status runs_read(const struct matrix *matrix, uint32_t tensor, uint64_t offset, uint64_t count,
                             uint64_t size, uint64_t stride, uint8_t *buffer, struct error *error) {
    const struct tensor *from = &matrix->checkpoint->tensors[tensor];
    if (size == stride)
        return checkpoint_read(matrix->checkpoint, from, offset, buffer, (size_t)(count * size), error);
    enum status status = STATUS_OK;
    for (uint64_t i = 0; i < count && status == STATUS_OK; i++)
        status = checkpoint_read(matrix->checkpoint, from, offset + i * stride, buffer + i * size, (size_t)size, error);
    return status;
}

enum status matrix_read(const struct matrix *matrix, const struct tile *tile, struct matrix_buffer *buffer,
                        struct error *error) {
    enum status status;
    if (matrix->transposed) { /* a run of each of the tile's columns, which are rows of the tensor */
        uint64_t item = dtype_bits(info_of(matrix, matrix->weight)->dtype) / 8, stride = matrix->stored_columns * item;
        uint64_t first = matrix->expert * matrix->columns + tile->column;
        status = runs_read(matrix, matrix->weight, first * stride + (matrix->first_row + tile->row) * item,
                           tile->columns, tile->rows * item, stride, buffer->weight, error);
    } else {
        uint64_t stride = row_bytes(matrix, matrix->columns);
        status = runs_read(matrix, matrix->weight,
                           (matrix->first_row + tile->row) * stride + row_bytes(matrix, tile->column), tile->rows,
                           row_bytes(matrix, tile->columns), stride, buffer->weight, error);
    }
    struct scale_run run = scale_run_of(matrix, tile);
    if (status == STATUS_OK && run.count > 0)
        status = runs_read(matrix, matrix->scale, (run.first * run.stored_columns + run.column) * run.item, run.count,
                           run.columns * run.item, run.stored_columns * run.item, buffer->scale, error);
    return status;
}

void matrix_prefetch(const struct matrix *matrix, const struct tile *tile) {
    if (matrix->transposed)
        return;
    const struct tensor *weight = &matrix->checkpoint->tensors[matrix->weight];
    uint64_t stride = row_bytes(matrix, matrix->columns);
    byte_source_prefetch(matrix->checkpoint->shards[weight->shard].source,
                         weight->info.offset + (matrix->first_row + tile->row) * stride +
                             row_bytes(matrix, tile->column),
                         tile->rows * row_bytes(matrix, tile->columns));
}

float number_decode(enum dtype dtype, const uint8_t *bytes, uint64_t index) {
    uint16_t half;
    float single;
    switch (dtype) {
    case DTYPE_U8:
    case DTYPE_F8_E8M0:
        return e8m0_decode(bytes[index]);
    case DTYPE_BF16:
        memcpy(&half, bytes + index * sizeof half, sizeof half);
        return bf16_decode(half);
    case DTYPE_F16:
        memcpy(&half, bytes + index * sizeof half, sizeof half);
        return f16_decode(half);
    default:
        memcpy(&single, bytes + index * sizeof single, sizeof single);
        return single;
    }
}

const uint8_t *matrix_row_packed(const struct tile *tile, const struct matrix_buffer *buffer, uint64_t row) {
    return buffer->weight + row * (tile->columns / 2);
}

const uint8_t *matrix_row_scales(const struct tile *tile, const struct matrix_buffer *buffer, uint64_t row) {
    return buffer->scale + row * (tile->columns / MATRIX_BLOCK);
}

const uint8_t *matrix_row_codes(const struct tile *tile, const struct matrix_buffer *buffer, uint64_t row) {
    return buffer->weight + row * tile->columns;
}

/* The scale of `column` of the tile, and how many columns from there on have the same. */
static float scale_at(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                      uint64_t row, uint64_t column, uint64_t *same) {
    *same = tile->columns - column;
    if (matrix->scale == MODULE_NO_TENSOR)
        return 1;
    enum dtype dtype = info_of(matrix, matrix->scale)->dtype;
    struct scale_run run = scale_run_of(matrix, tile);
    uint64_t per = 0, index = 0;
    switch (matrix->format) {
    case STORED_FP8_TENSOR:
        break;
    case STORED_FP8_CHANNEL:
        index = row;
        break;
    case STORED_FP8_BLOCK: {
        uint64_t first = matrix->first_row + tile->row - matrix->expert * matrix->rows_of_expert;
        per = matrix->block_columns;
        index = ((first + row) / matrix->block_rows - first / matrix->block_rows) * run.columns;
        break;
    }
    default:
        per = MATRIX_BLOCK;
        index = row * run.columns;
    }
    if (per > 0) {
        uint64_t at = tile->column + column, left = per - at % per;
        index += at / per - run.column;
        *same = left < *same ? left : *same;
    }
    return number_decode(dtype, buffer->scale, index);
}

float matrix_scale(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                   uint64_t row, uint64_t column) {
    uint64_t same;
    return scale_at(matrix, tile, buffer, row, column, &same);
}

/* A plain number of the tile, which may be stored transposed. */
static float plain_at(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                      uint64_t row, uint64_t column) {
    uint64_t index = matrix->transposed ? column * tile->rows + row : row * tile->columns + column;
    enum dtype dtype = info_of(matrix, matrix->weight)->dtype;
    if (dtype == DTYPE_F64) {
        double wide;
        memcpy(&wide, buffer->weight + index * sizeof wide, sizeof wide);
        return (float)wide;
    }
    return number_decode(dtype, buffer->weight, index);
}

static bool is_fp8(enum stored_format format) {
    return format == STORED_FP8_TENSOR || format == STORED_FP8_CHANNEL || format == STORED_FP8_BLOCK ||
           format == STORED_FP8_UNSCALED || format == STORED_MXFP8;
}

struct fp8_table {
    float values[256];
};

/* All values of a code, decoded once: a table in the program's read-only data would repeat formats.c. */
static const float *fp8_values(enum dtype dtype) {
    static _Thread_local struct fp8_table e4m3, e5m2;
    struct fp8_table *table = dtype == DTYPE_F8_E5M2 ? &e5m2 : &e4m3;
    if (table->values[1] == 0)
        for (unsigned code = 0; code < 256; code++)
            table->values[code] =
                dtype == DTYPE_F8_E5M2 ? fp8_e5m2_decode((uint8_t)code) : fp8_e4m3_decode((uint8_t)code);
    return table->values;
}

void matrix_row_float(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                      uint64_t row, float *out) {
    if (matrix->format == STORED_MXFP4) {
        const uint8_t *packed = matrix_row_packed(tile, buffer, row), *scales = matrix_row_scales(tile, buffer, row);
        for (uint64_t c = 0; c < tile->columns; c++)
            out[c] = e2m1_decode((uint8_t)(packed[c / 2] >> (c % 2 * 4) & 15)) * e8m0_decode(scales[c / MATRIX_BLOCK]);
    } else if (is_fp8(matrix->format)) {
        const uint8_t *codes = matrix_row_codes(tile, buffer, row);
        const float *values = fp8_values(info_of(matrix, matrix->weight)->dtype);
        uint64_t same;
        for (uint64_t c = 0; c < tile->columns; c += same) {
            float scale = scale_at(matrix, tile, buffer, row, c, &same);
            for (uint64_t i = c; i < c + same; i++)
                out[i] = values[codes[i]] * scale;
        }
    } else {
        for (uint64_t c = 0; c < tile->columns; c++)
            out[c] = plain_at(matrix, tile, buffer, row, c);
    }
}

/* A run of codes under one scale. A long one goes through a table of the 256 products. */
static void run_bf16(const uint8_t *codes, uint64_t count, const float *values, float scale, uint16_t *out) {
    enum { LONG = 1024 };
    uint16_t table[256];
    if (count < LONG) {
        for (uint64_t i = 0; i < count; i++)
            out[i] = bf16_encode(values[codes[i]] * scale);
        return;
    }
    for (unsigned code = 0; code < 256; code++)
        table[code] = bf16_encode(values[code] * scale);
    for (uint64_t i = 0; i < count; i++)
        out[i] = table[codes[i]];
}

void matrix_row_bf16(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                     uint64_t row, uint16_t *out) {
    if (is_fp8(matrix->format)) {
        const uint8_t *codes = matrix_row_codes(tile, buffer, row);
        const float *values = fp8_values(info_of(matrix, matrix->weight)->dtype);
        uint64_t same;
        for (uint64_t c = 0; c < tile->columns; c += same) {
            float scale = scale_at(matrix, tile, buffer, row, c, &same);
            run_bf16(codes + c, same, values, scale, out + c);
        }
    } else if (info_of(matrix, matrix->weight)->dtype == DTYPE_BF16 && !matrix->transposed) {
        memcpy(out, buffer->weight + row * tile->columns * sizeof *out, (size_t)tile->columns * sizeof *out);
    } else {
        for (uint64_t c = 0; c < tile->columns; c++)
            out[c] = bf16_encode(plain_at(matrix, tile, buffer, row, c));
    }
}
