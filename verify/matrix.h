/*
 * A weight as a matrix [rows, columns] of numbers, whatever it is stored as: a view of a tensor and its scale, or of one
 * projection of one expert in a stacked tensor. Tiles of it are read and decoded; memory is that of a tile.
 *
 * | stored as | value                                                                                               |
 * | plain     | the number, as BF16 (round to nearest even) for a source                                            |
 * | fp8       | code times its scale in float32; for a source rounded to BF16, as models that run in BF16 load it   |
 * | mxfp8     | the same, the scale being 2^(code - 127) for 32 columns                                             |
 * | mxfp4     | E2M1 times 2^(code - 127) for 32 columns; the low half of a byte is the even column                 |
 */
#ifndef QSTREAM_VERIFY_MATRIX_H
#define QSTREAM_VERIFY_MATRIX_H

#include "common/checkpoint.h"
#include "common/modules.h"

enum { MATRIX_BLOCK = 32 }; /* columns that an MX scale covers */

struct matrix {
    const struct checkpoint *checkpoint;
    enum stored_format format;
    uint32_t weight, scale; /* tensors; scale MODULE_NO_TENSOR where there is none */
    uint64_t rows, columns; /* of this view */
    uint64_t first_row;     /* of the stacked tensor, its leading dimensions flattened; transposed: the first column */
    uint64_t expert, rows_of_expert;    /* rows of one expert's whole matrix; scales of experts follow each other */
    uint32_t block_rows, block_columns; /* what a scale covers, STORED_FP8_BLOCK */
    bool transposed;                    /* stored as [experts, columns, stored_columns] */
    uint64_t stored_columns;
};

/* A piece of a matrix: whole rows, or a part of one row. Columns begin and end at blocks but for the last. */
struct tile {
    uint64_t row, rows, column, columns;
};

/* Bytes of the largest weight and scale data of a tile of at most `elements` (of at least one block per row). */
void matrix_tile_bytes(const struct matrix *matrix, const struct tile *tile, uint64_t *weight, uint64_t *scale);

struct matrix_buffer {
    uint8_t *weight, *scale; /* of matrix_tile_bytes */
};

/* Reads a tile's bytes. */
enum status matrix_read(const struct matrix *matrix, const struct tile *tile, struct matrix_buffer *buffer,
                        struct error *error);

/* Hints that a tile will be read soon. */
void matrix_prefetch(const struct matrix *matrix, const struct tile *tile);

/*
 * Decodes row `row` of the tile that was read, counted from its first. bf16: for a source, rounded as said above.
 * Formats with scales of float take what they read as it is: NaN goes through.
 */
void matrix_row_bf16(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                     uint64_t row, uint16_t *out);
void matrix_row_float(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                      uint64_t row, float *out);

/* MXFP4 only: the row's packed codes and its scales. */
const uint8_t *matrix_row_packed(const struct tile *tile, const struct matrix_buffer *buffer, uint64_t row);
const uint8_t *matrix_row_scales(const struct tile *tile, const struct matrix_buffer *buffer, uint64_t row);

/* FP8 formats: the row's codes, and the scale of a column of it. */
const uint8_t *matrix_row_codes(const struct tile *tile, const struct matrix_buffer *buffer, uint64_t row);
float matrix_scale(const struct matrix *matrix, const struct tile *tile, const struct matrix_buffer *buffer,
                   uint64_t row, uint64_t column);

/* One number of a scale tensor. */
float number_decode(enum dtype dtype, const uint8_t *bytes, uint64_t index);

#endif
