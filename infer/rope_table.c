#include "infer/rope_table.h"

#include <math.h>
#include <stdlib.h>

enum status rope_table_make(const struct model *model, uint32_t positions, struct rope_table *table,
                            struct error *error) {
    const uint32_t half = model->head_dim / 2;
    *table = (struct rope_table){.cosines = malloc((size_t)positions * half * sizeof(float)),
                                 .sines = malloc((size_t)positions * half * sizeof(float)),
                                 .query_factors = malloc(positions * sizeof(float))};
    float *frequencies = malloc(half * sizeof *frequencies);
    if (!table->cosines || !table->sines || !table->query_factors || !frequencies) {
        free(frequencies);
        return error_set_memory(error);
    }
    const float factor = rope_frequencies(&model->rope, model->head_dim, frequencies);
    const float scale = (float)(1 / sqrt((double)model->head_dim));
    for (uint32_t position = 0; position < positions; position++) {
        for (uint32_t i = 0; i < half; i++) {
            const float angle = (float)position * frequencies[i];
            table->cosines[(size_t)position * half + i] = (float)(cos((double)angle) * (double)factor);
            table->sines[(size_t)position * half + i] = (float)(sin((double)angle) * (double)factor);
        }
        table->query_factors[position] = rope_query_scale(&model->rope, position) * scale;
    }
    free(frequencies);
    return STATUS_OK;
}

void rope_table_free(struct rope_table *table) {
    free(table->cosines);
    free(table->sines);
    free(table->query_factors);
    *table = (struct rope_table){0};
}
