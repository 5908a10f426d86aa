#include "infer/embedding.h"

#include <stdlib.h>

enum status embedding_values(const struct model *model, const struct row_kernels *rows, const struct weight *weight,
                             uint32_t row, uint32_t id, float *values, struct error *error) {
    rows->unpack(weight, row, 0, model->hidden, values);
    const struct weight *stored = &model->embedding.weight;
    if (stored->format == WEIGHT_FP8 && stored->scale_columns >= stored->columns &&
        (stored->scale_rows >= stored->rows || stored->scale_rows == 1)) /* left out of per-tensor and per-row values */
        rows->multiply(values, weight->scales[stored->scale_rows >= stored->rows ? 0 : row], model->hidden);
    if (!rows->all_finite(values, model->hidden))
        return error_set(error, STATUS_BAD_INPUT, "'%s': tensor '%s' holds NaN or infinity in row %u: it is damaged",
                         model->checkpoint.path, model->embedding.codes->info.name, id);
    return STATUS_OK;
}

enum status embedding_load(const struct model *model, const struct row_kernels *rows, uint32_t id, void *buffer,
                           float *values, struct error *error) {
    struct weight weight;
    const enum status status = weight_rows_load(model, &model->embedding, id, 1, buffer, &weight, error);
    return status == STATUS_OK ? embedding_values(model, rows, &weight, 0, id, values, error) : status;
}

enum status embeddings_load(const struct model *model, const struct row_kernels *rows, const int32_t *ids, size_t count,
                            float *values, struct error *error) {
    void *row = aligned_alloc(64, (weight_rows_bytes(&model->embedding, 1) + 63) / 64 * 64);
    enum status status = row ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        status = embedding_load(model, rows, (uint32_t)ids[i], row, values + i * model->hidden, error);
    free(row);
    return status;
}
