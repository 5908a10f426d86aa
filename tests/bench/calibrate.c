/*
 * How fast the three parts of calibrated rounding are: adding tokens to a Gram matrix, factoring it, rounding rows.
 *
 *   calibrate bf16|f32 THREADS COLUMNS TOKENS ROWS
 *
 * One JSON object: seconds and GFLOP/s of each part, by the operations that are needed: tokens * columns^2 (one half of the
 * matrix), columns^3 / 3, rows * columns^2.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/round.h"
#include "common/progress.h"

static uint32_t columns;

/* A xorshift generator's value in -1..1. */
static float noise(uint32_t *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return (float)(int32_t)*state * 0x1p-31f;
}

static void row_make(const void *context, uint32_t row, float *values) {
    (void)context;
    uint32_t state = row + 1;
    for (uint32_t c = 0; c < columns; c++)
        values[c] = noise(&state);
}

static void *allocated(size_t bytes) {
    void *space = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!space)
        abort();
    return space;
}

static double gflops(double operations, double seconds) { return operations / seconds * 1e-9; }

int main(int argc, char **argv) {
    if (argc != 6) {
        fprintf(stderr, "calibrate: wrong number of arguments; see calibrate.c\n");
        return 2;
    }
    const bool bf16 = strcmp(argv[1], "bf16") == 0;
    const unsigned jobs = (unsigned)atoi(argv[2]);
    columns = (uint32_t)atol(argv[3]);
    const uint32_t tokens = (uint32_t)atol(argv[4]), rows = (uint32_t)atol(argv[5]);
    const struct engine_options options = {.jobs = jobs,
                                           .cpu = cpu_best(),
                                           .bf16 = bf16,
                                           .packed_size = 64,
                                           .scratch_size = round_scratch(columns, false)};
    struct engine engine;
    struct error error = {0};
    struct gram gram = {0};
    struct factor factor = {0};
    enum status status = engine_open(&options, &engine, &error);
    struct solver solver = {&engine, engine.products, column_kernels_of(options.cpu)};
    if (status == STATUS_OK && bf16)
        status = products_open(options.cpu, false, &solver.products, &error);
    if (status == STATUS_OK)
        status = gram_open(&engine, columns, &gram, &error);
    float *weights = allocated(tokens * sizeof *weights),
          *values = allocated((size_t)tokens * columns * sizeof *values);
    uint32_t state = 7;
    for (uint32_t i = 0; i < tokens; i++)
        weights[i] = 1;
    for (size_t i = 0; i < (size_t)tokens * columns; i++)
        values[i] = noise(&state);
    uint16_t *codes = allocated((size_t)tokens * columns * sizeof *codes);
    if (bf16 && status == STATUS_OK)
        engine.rows->to_bf16(values, (size_t)tokens * columns, codes);
    const struct operand_rows inputs = {.act = bf16 ? (unsigned char *)codes : (unsigned char *)values, .scale = 1};
    const double begin = seconds_now();
    if (status == STATUS_OK)
        status = gram_add(&gram, &engine, &inputs, weights, 0, tokens, NULL, NULL, &error);
    const double added = seconds_now();
    bool usable = false;
    if (status == STATUS_OK)
        status = factor_make(&solver, &gram, 0.01, &factor, &usable, &error);
    const double factored = seconds_now();
    const struct rounding rounding = {.factor = &factor,
                                      .rows = rows,
                                      .row = row_make,
                                      .packed = allocated((size_t)rows * columns / 2),
                                      .exponents = allocated((size_t)rows * columns / 32)};
    if (status == STATUS_OK)
        status = round_run(&solver, &rounding, &error);
    const double rounded = seconds_now();
    if (status != STATUS_OK || !usable) {
        fprintf(stderr, "calibrate: %s\n", error.message);
        return 1;
    }
    const double square = (double)columns * columns;
    printf(
        "{\"columns\": %u, \"add\": {\"seconds\": %.3f, \"gflops\": %.1f}, \"factor\": {\"seconds\": %.3f, \"gflops\": "
        "%.1f}, \"round\": {\"seconds\": %.3f, \"gflops\": %.1f}}\n",
        columns, added - begin, gflops(tokens * square, added - begin), factored - added,
        gflops(square * columns / 3, factored - added), rounded - factored, gflops(rows * square, rounded - factored));
    return 0;
}
