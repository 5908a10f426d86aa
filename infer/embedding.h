/*
 * Rows of a model's embedding as they are stored, and as values.
 */
#ifndef QSTREAM_INFER_EMBEDDING_H
#define QSTREAM_INFER_EMBEDDING_H

#include "infer/cpu/rows.h"
#include "infer/model.h"

/*
 * The values [hidden] of the embedding of a token, from row `row` of a weight that holds it. STATUS_BAD_INPUT when one is not
 * finite.
 */
enum status embedding_values(const struct model *model, const struct row_kernels *rows, const struct weight *weight,
                             uint32_t row, uint32_t id, float *values, struct error *error);

/* The same, read from the checkpoint. `buffer`: weight_rows_bytes of one row. */
enum status embedding_load(const struct model *model, const struct row_kernels *rows, uint32_t id, void *buffer,
                           float *values, struct error *error);

/* Those of `count` tokens, [count, hidden]. */
enum status embeddings_load(const struct model *model, const struct row_kernels *rows, const int32_t *ids, size_t count,
                            float *values, struct error *error);

#endif
