/*
 * Cosines, sines and factors of the positions of a window, from a model's rope.
 */
#ifndef QSTREAM_INFER_ROPE_TABLE_H
#define QSTREAM_INFER_ROPE_TABLE_H

#include "infer/model.h"

/* Rotary embedding of the positions of a window. */
struct rope_table {
    float *cosines, *sines; /* [positions, head_dim / 2] */
    float *query_factors;   /* [positions]: the scale of queries with 1 / sqrt(head_dim) */
};
enum status rope_table_make(const struct model *model, uint32_t positions, struct rope_table *table,
                            struct error *error);
void rope_table_free(struct rope_table *table);

#endif
