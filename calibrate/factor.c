#include "calibrate/factor.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"

enum status solver_pack(const struct solver *solver, const float *tile, float *packed, struct error *error) {
    static const struct product_part part = {
        .n = ROUND_ROWS, .k = GRAM_TILE, .n_part = ROUND_ROWS, .k_part = GRAM_TILE, .transposed = true};
    return product_pack(solver->products, &part, tile, ROUND_ROWS, packed, error);
}

enum status solver_multiply(const struct solver *solver, const float *x, const float *packed, float *y,
                            struct error *error) {
    static const struct product product = {.m = GRAM_TILE, .n = ROUND_ROWS, .k = GRAM_TILE, .add = true};
    return product_run(solver->products, &product, x, packed, y, error);
}

static float *tile_of(const struct factor *factor, uint32_t i, uint32_t j) {
    return factor->values + gram_tile_number(i, j) * GRAM_TILE_VALUES;
}

static float *diagonal_of(const struct factor *factor, uint32_t place) {
    const uint32_t tile = place / GRAM_TILE, at = place % GRAM_TILE;
    return tile_of(factor, tile, tile) + at * GRAM_TILE + at;
}

static const struct product_part tile_part = {.n = GRAM_TILE, .k = GRAM_TILE, .n_part = GRAM_TILE, .k_part = GRAM_TILE};
uint64_t factor_bytes(uint32_t columns) {
    const uint32_t tiles = gram_tiles(columns);
    return (uint64_t)(tiles + 2) * GRAM_TILE_VALUES * sizeof(float) + 2 * GRAM_TILE_VALUES * sizeof(double) +
           (uint64_t)tiles * GRAM_TILE * sizeof(float);
}

struct work {
    const struct solver *solver;
    struct factor *factor;
    double added;   /* to the diagonal: the least pivot */
    uint32_t j;     /* the column of tiles that is made */
    float *packed;  /* [tiles]: of row j, negated */
    float *inverse; /* of the diagonal tile's factor, packed */
};

/* Task: tile (j, task) of the row is packed, negated. */
static void pack_task(void *context, size_t task, unsigned thread) {
    const struct work *work = context;
    float *negated = (float *)(void *)engine_scratch(work->solver->engine, thread);
    const float *from = tile_of(work->factor, work->j, (uint32_t)task);
    for (size_t i = 0; i < GRAM_TILE_VALUES; i++)
        negated[i] = -from[i];
    struct error error;
    if (product_pack(work->solver->products, &tile_part, negated, GRAM_TILE, work->packed + task * GRAM_TILE_VALUES,
                     &error) != STATUS_OK)
        engine_fail(work->solver->engine, STATUS_IO, &error);
}

/* Task: what the columns before take from tile (j + task, j). */
static void update_task(void *context, size_t task, unsigned thread) {
    static const struct product product = {.m = GRAM_TILE, .n = GRAM_TILE, .k = GRAM_TILE, .add = true};
    const struct work *work = context;
    const uint32_t i = work->j + (uint32_t)task;
    (void)thread;
    for (uint32_t k = 0; k < work->j; k++) {
        struct error error;
        if (product_run(work->solver->products, &product, tile_of(work->factor, i, k),
                        work->packed + (size_t)k * GRAM_TILE_VALUES, tile_of(work->factor, i, work->j),
                        &error) != STATUS_OK) {
            engine_fail(work->solver->engine, STATUS_IO, &error);
            return;
        }
    }
}

/* Task: tile (j + 1 + task, j) times the inverse of the diagonal tile's factor, transposed. */
static void solve_task(void *context, size_t task, unsigned thread) {
    static const struct product product = {.m = GRAM_TILE, .n = GRAM_TILE, .k = GRAM_TILE};
    const struct work *work = context;
    float *tile = tile_of(work->factor, work->j + 1 + (uint32_t)task, work->j);
    float *solved = (float *)(void *)engine_scratch(work->solver->engine, thread);
    struct error error;
    if (product_run(work->solver->products, &product, tile, work->inverse, solved, &error) != STATUS_OK)
        engine_fail(work->solver->engine, STATUS_IO, &error);
    else
        memcpy(tile, solved, GRAM_TILE_VALUES * sizeof *tile);
}

/* One column of tiles after the other. */
static enum status tiles_factor(struct work *work, struct error *error) {
    struct engine *engine = work->solver->engine;
    struct factor *factor = work->factor;
    float *inverse = aligned_alloc(64, GRAM_TILE_VALUES * sizeof *inverse);
    double *space = aligned_alloc(64, 2 * GRAM_TILE_VALUES * sizeof *space);
    enum status status = inverse && space ? STATUS_OK : error_set_memory(error);
    for (work->j = 0; status == STATUS_OK && work->j < factor->tiles; work->j++) {
        workers_run(engine->workers, work->j, pack_task, work);
        workers_run(engine->workers, factor->tiles - work->j, update_task, work);
        work->solver->kernels->factor(tile_of(factor, work->j, work->j), work->added, inverse, space);
        status = product_pack(work->solver->products, &tile_part, inverse, GRAM_TILE, work->inverse, error);
        workers_run(engine->workers, factor->tiles - work->j - 1, solve_task, work);
        if (status == STATUS_OK)
            status = engine_status(engine, error);
        if (status == STATUS_OK && interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
    }
    free(inverse);
    free(space);
    return status;
}

/* Task: column `task` of tiles becomes M, divided by the diagonal; those below the diagonal are turned. */
static void finish_task(void *context, size_t task, unsigned thread) {
    const struct work *work = context;
    struct factor *factor = work->factor;
    const uint32_t j = (uint32_t)task;
    float *scaled = (float *)(void *)engine_scratch(work->solver->engine, thread);
    float diagonal[GRAM_TILE];
    for (uint32_t c = 0; c < GRAM_TILE; c++) {
        diagonal[c] = tile_of(factor, j, j)[c * GRAM_TILE + c];
        factor->gains[j * GRAM_TILE + c] = diagonal[c] * diagonal[c];
    }
    for (uint32_t i = j; i < factor->tiles; i++) {
        float *tile = tile_of(factor, i, j);
        for (uint32_t r = 0; r < GRAM_TILE; r++)
            for (uint32_t c = 0; c < GRAM_TILE; c++)
                scaled[i == j ? r * GRAM_TILE + c : c * GRAM_TILE + r] = tile[r * GRAM_TILE + c] / diagonal[c];
        memcpy(tile, scaled, GRAM_TILE_VALUES * sizeof *tile);
    }
}

/* The diagonal is damped; places behind the last column get a one there. */
static void factor_damp(struct work *work, double damping, bool *usable) {
    struct factor *factor = work->factor;
    const uint32_t columns = factor->columns;
    double sum = 0;
    for (uint32_t place = 0; place < columns; place++)
        sum += (double)*diagonal_of(factor, place);
    *usable = sum < FLT_MAX / 2; /* not so with NaN */
    work->added = damping * sum / columns;
    if (!*usable || work->added < FLT_MIN) {
        memset(factor->values, 0, gram_tile_count(factor->tiles) * GRAM_TILE_VALUES * sizeof *factor->values);
        work->added = 1;
    }
    for (uint32_t place = 0; place < columns; place++)
        *diagonal_of(factor, place) += (float)work->added;
    for (uint32_t place = columns; place < factor->tiles * GRAM_TILE; place++)
        *diagonal_of(factor, place) = 1;
}

enum status factor_make(const struct solver *solver, struct gram *gram, double damping, struct factor *factor,
                        bool *usable, struct error *error) {
    *factor = (struct factor){
        .columns = gram->columns, .tiles = gram->tiles, .columns_of = gram->columns_of, .values = gram->values};
    gram->columns_of = NULL;
    gram->values = NULL;
    gram_close(gram);
    struct work work = {.solver = solver, .factor = factor};
    const size_t tile_bytes = GRAM_TILE_VALUES * sizeof(float);
    const size_t packed = product_packed_size(solver->products, GRAM_TILE, GRAM_TILE, error);
    if (packed == 0)
        return STATUS_IO;
    if (packed > tile_bytes)
        return error_set(error, STATUS_IO, "a packed tile takes %zu bytes: this is a bug in qstream", packed);
    factor->gains = malloc((size_t)factor->tiles * GRAM_TILE * sizeof *factor->gains);
    work.packed = aligned_alloc(64, factor->tiles * tile_bytes);
    work.inverse = aligned_alloc(64, tile_bytes);
    enum status status = factor->gains && work.packed && work.inverse ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK) {
        factor_damp(&work, damping, usable);
        status = tiles_factor(&work, error);
    }
    if (status == STATUS_OK) {
        workers_run(solver->engine->workers, factor->tiles, finish_task, &work);
        status = engine_status(solver->engine, error);
    }
    free(work.packed);
    free(work.inverse);
    return status;
}

void factor_close(struct factor *factor) {
    free(factor->columns_of);
    free(factor->values);
    free(factor->gains);
    *factor = (struct factor){0};
}
