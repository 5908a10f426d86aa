/*
 * Writes weights as the verifier decodes them: `decode FOLDER MODULE...`. For each module, its values in float32, row by
 * row, to standard output. Driven by sample_check.py.
 */
#include <stdio.h>
#include <stdlib.h>

#include "verify/matrix.h"

static uint32_t number_of(const struct checkpoint *checkpoint, const char *module, const char *part) {
    char name[512];
    snprintf(name, sizeof name, "%s.%s", module, part);
    const struct tensor *found = checkpoint_find(checkpoint, name);
    return found ? (uint32_t)(found - checkpoint->tensors) : MODULE_NO_TENSOR;
}

static void *allocated(uint64_t bytes) {
    void *space = malloc(bytes);
    if (!space)
        abort();
    return space;
}

static enum status decode(const struct checkpoint *checkpoint, const char *module, struct error *error) {
    struct matrix matrix = {.checkpoint = checkpoint,
                            .format = STORED_MXFP4,
                            .weight = number_of(checkpoint, module, "weight_packed"),
                            .scale = number_of(checkpoint, module, "weight_scale")};
    if (matrix.weight == MODULE_NO_TENSOR) {
        matrix.format = STORED_FP8_TENSOR;
        matrix.weight = number_of(checkpoint, module, "weight");
        if (matrix.scale != MODULE_NO_TENSOR && checkpoint->tensors[matrix.scale].info.size > sizeof(float))
            matrix.format = STORED_FP8_CHANNEL;
    }
    if (matrix.weight == MODULE_NO_TENSOR || matrix.scale == MODULE_NO_TENSOR)
        return error_set(error, STATUS_BAD_INPUT, "%s: no weight or no scale", module);
    const struct tensor_info *info = &checkpoint->tensors[matrix.weight].info;
    matrix.rows = matrix.rows_of_expert = info->shape[0];
    matrix.columns = info->shape[1] * (matrix.format == STORED_MXFP4 ? 2 : 1);
    const struct tile tile = {.rows = matrix.rows, .columns = matrix.columns};
    uint64_t weight, scale;
    matrix_tile_bytes(&matrix, &tile, &weight, &scale);
    struct matrix_buffer buffer = {allocated(weight), allocated(scale)};
    float *row = allocated(matrix.columns * sizeof *row);
    const enum status status = matrix_read(&matrix, &tile, &buffer, error);
    for (uint64_t r = 0; status == STATUS_OK && r < matrix.rows; r++) {
        matrix_row_float(&matrix, &tile, &buffer, r, row);
        fwrite(row, sizeof *row, matrix.columns, stdout);
    }
    free(buffer.weight);
    free(buffer.scale);
    free(row);
    return status;
}

int main(int argc, char **argv) {
    struct checkpoint checkpoint;
    struct error error;
    enum status status = argc > 2 ? checkpoint_open(argv[1], &checkpoint, &error) : STATUS_USAGE;
    if (argc <= 2)
        return status;
    for (int i = 2; status == STATUS_OK && i < argc; i++)
        status = decode(&checkpoint, argv[i], &error);
    if (status != STATUS_OK)
        fprintf(stderr, "%s\n", error.message);
    checkpoint_close(&checkpoint);
    return fclose(stdout) == 0 ? (int)status : STATUS_IO;
}
