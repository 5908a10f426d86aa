/*
 * Rounds one weight for given inputs: `round IN OUT`. IN is a struct order, inputs [tokens][columns], weights of the tokens
 * [tokens], the weight [rows][columns] and, with order.pull 1 or 2, lacks of outputs [tokens][rows] or inputs
 * [tokens][columns], float32. OUT: whether the Gram matrix was usable (u8), the columns from the last to
 * be rounded to the first (u32 [columns]), packed codes, exponents. Driven by check_round.py.
 */
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/round.h"

struct order {
    uint32_t rows, columns, tokens, jobs, cpu, window, pull, unused;
    double damping;
};

static const float *values;
static uint32_t columns;

static void row_copy(const void *context, uint32_t row, float *to) {
    (void)context;
    for (uint32_t c = 0; c < columns; c++)
        to[c] = values[(size_t)row * columns + c];
}

static void *allocated(size_t bytes) {
    void *space = aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!space)
        abort();
    return space;
}

static float *read_floats(FILE *file, size_t count) {
    float *floats = allocated(count * sizeof *floats);
    if (fread(floats, sizeof *floats, count, file) != count)
        abort();
    return floats;
}

int main(int argc, char **argv) {
    struct order order;
    struct error error = {0};
    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL, *out = in ? fopen(argv[2], "wb") : NULL;
    if (!out || fread(&order, sizeof order, 1, in) != 1)
        return 2;
    columns = order.columns;
    float *inputs = read_floats(in, (size_t)order.tokens * columns), *token_weights = read_floats(in, order.tokens);
    values = read_floats(in, (size_t)order.rows * columns);
    const uint32_t lacking = order.pull == 1 ? order.rows : columns;
    float *lacks = order.pull ? read_floats(in, (size_t)order.tokens * lacking) : NULL;
    fclose(in);

    const struct engine_options options = {.jobs = order.jobs,
                                           .cpu = (enum cpu_level)order.cpu,
                                           .packed_size = 64,
                                           .scratch_size = round_scratch(columns, order.pull != 0)};
    struct engine engine;
    struct gram gram = {0};
    struct pull pull = {0};
    struct factor factor = {0};
    bool usable = false;
    enum status status = engine_open(&options, &engine, &error);
    const struct solver solver = {&engine, engine.products, column_kernels_of((enum cpu_level)order.cpu)};
    const struct operand_rows rows = {.act = (unsigned char *)inputs, .scale = 1};
    if (status == STATUS_OK)
        status = gram_open(&engine, columns, &gram, &error);
    if (status == STATUS_OK && lacks)
        status = pull_open(&engine, lacking, columns, &pull, &error);
    for (uint32_t at = 0; status == STATUS_OK && at < order.tokens; at += order.window)
        status = gram_add(&gram, &engine, &rows, token_weights, at,
                          order.tokens - at < order.window ? order.tokens - at : order.window, lacks ? &pull : NULL,
                          lacks, &error);
    if (status == STATUS_OK)
        status = factor_make(&solver, &gram, order.damping, &factor, &usable, &error);
    const size_t bytes = (size_t)order.rows * columns / 2, blocks = (size_t)order.rows * columns / 32;
    struct rounding rounding = {.factor = &factor,
                                .pull = lacks && usable ? &pull : NULL,
                                .pull_of_inputs = order.pull == 2,
                                .rows = order.rows,
                                .row = row_copy,
                                .packed = allocated(bytes),
                                .exponents = allocated(blocks)};
    if (status == STATUS_OK)
        status = round_run(&solver, &rounding, &error);
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", error.message);
        return status;
    }
    const unsigned char used = usable;
    fwrite(&used, 1, 1, out);
    fwrite(factor.columns_of, sizeof(uint32_t), columns, out);
    fwrite(rounding.packed, 1, bytes, out);
    fwrite(rounding.exponents, 1, blocks, out);
    free(rounding.packed);
    free(rounding.exponents);
    free(inputs);
    free(token_weights);
    free(lacks);
    pull_close(&pull);
    free((float *)values);
    factor_close(&factor);
    gram_close(&gram);
    engine_close(&engine);
    return fclose(out) == 0 ? 0 : 4;
}
