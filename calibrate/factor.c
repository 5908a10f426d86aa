#include "calibrate/factor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"

static float *tile_of(const struct factor *factor, uint32_t i, uint32_t j) {
    return factor->values + gram_tile_number(i, j) * GRAM_TILE_VALUES;
}

static const struct product_part tile_part = {.n = GRAM_TILE, .k = GRAM_TILE, .n_part = GRAM_TILE, .k_part = GRAM_TILE};
static const struct product_part turned_part = {
    .n = GRAM_TILE, .k = GRAM_TILE, .n_part = GRAM_TILE, .k_part = GRAM_TILE, .transposed = true};

uint64_t factor_bytes(uint32_t columns) {
    const uint32_t tiles = (columns + GRAM_TILE - 1) / GRAM_TILE;
    return (gram_tile_count(tiles) + tiles + 1) * GRAM_TILE_VALUES * sizeof(float) + (uint64_t)columns * 8;
}

/* ---- the order ---- */

struct ranked {
    float value;
    uint32_t column;
};

static int compare_ranked(const void *a, const void *b) {
    const struct ranked *x = a, *y = b;
    return x->value != y->value ? (x->value > y->value) - (x->value < y->value)
                                : (x->column < y->column) - (x->column > y->column);
}

enum status factor_order(const struct gram *gram, uint32_t **columns_of, struct error *error) {
    struct ranked *ranked = malloc(gram->columns * sizeof *ranked);
    *columns_of = malloc(gram->columns * sizeof **columns_of);
    enum status status = ranked && *columns_of ? STATUS_OK : error_set_memory(error);
    for (uint32_t c = 0; status == STATUS_OK && c < gram->columns; c++)
        ranked[c] = (struct ranked){gram_value(gram, c, c), c};
    if (status == STATUS_OK)
        qsort(ranked, gram->columns, sizeof *ranked, compare_ranked);
    for (uint32_t c = 0; status == STATUS_OK && c < gram->columns; c++)
        (*columns_of)[c] = ranked[c].column;
    free(ranked);
    return status;
}

/* ---- factoring ---- */

struct work {
    const struct solver *solver;
    const struct gram *gram;
    struct factor *factor;
    double added;   /* to the diagonal */
    uint32_t j;     /* the column of tiles that is made */
    float *packed;  /* [tiles]: of row j, negated */
    float *inverse; /* of the diagonal tile's factor, packed */
};

/* Task: a row of tiles in the places of the factor. */
static void place_task(void *context, size_t task, unsigned thread) {
    const struct work *work = context;
    struct factor *factor = work->factor;
    const uint32_t i = (uint32_t)task;
    (void)thread;
    for (uint32_t j = 0; j <= i; j++) {
        float *to = tile_of(factor, i, j);
        for (uint32_t r = 0; r < GRAM_TILE; r++)
            for (uint32_t c = 0; c < GRAM_TILE; c++, to++) {
                const uint32_t row = i * GRAM_TILE + r, column = j * GRAM_TILE + c;
                if (row >= factor->columns || column >= factor->columns)
                    *to = row == column;
                else
                    *to = gram_value(work->gram, factor->columns_of[row], factor->columns_of[column]) +
                          (row == column ? (float)work->added : 0);
            }
    }
}

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
        engine_fail(work->solver->engine, &error);
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
            engine_fail(work->solver->engine, &error);
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
        engine_fail(work->solver->engine, &error);
    else
        memcpy(tile, solved, GRAM_TILE_VALUES * sizeof *tile);
}

/* The lower triangular factor of a tile, in float64, and its inverse; false when the tile is not positive definite. */
static bool tile_factor(float *tile, double *lower, double *inverse) {
    for (uint32_t j = 0; j < GRAM_TILE; j++)
        for (uint32_t i = j; i < GRAM_TILE; i++) {
            double sum = (double)tile[i * GRAM_TILE + j];
            for (uint32_t k = 0; k < j; k++)
                sum -= lower[i * GRAM_TILE + k] * lower[j * GRAM_TILE + k];
            if (i == j && !(sum > 0 && isfinite(sum)))
                return false;
            lower[i * GRAM_TILE + j] = i == j ? sqrt(sum) : sum / lower[j * GRAM_TILE + j];
        }
    for (uint32_t j = 0; j < GRAM_TILE; j++)
        for (uint32_t i = 0; i < GRAM_TILE; i++) {
            double sum = i == j;
            for (uint32_t k = j; k < i; k++)
                sum -= lower[i * GRAM_TILE + k] * inverse[k * GRAM_TILE + j];
            inverse[i * GRAM_TILE + j] = i < j ? 0 : sum / lower[i * GRAM_TILE + i];
        }
    for (uint32_t i = 0; i < GRAM_TILE; i++)
        for (uint32_t j = 0; j < GRAM_TILE; j++)
            tile[i * GRAM_TILE + j] = j > i ? 0 : (float)lower[i * GRAM_TILE + j];
    return true;
}

/* One column of tiles after the other. */
static enum status tiles_factor(struct work *work, bool *fine, struct error *error) {
    struct engine *engine = work->solver->engine;
    struct factor *factor = work->factor;
    double *lower = malloc(2 * GRAM_TILE_VALUES * sizeof *lower), *inverse = lower + GRAM_TILE_VALUES;
    float *rounded = aligned_alloc(64, GRAM_TILE_VALUES * sizeof *rounded);
    enum status status = lower && rounded ? STATUS_OK : error_set_memory(error);
    for (work->j = 0; status == STATUS_OK && *fine && work->j < factor->tiles; work->j++) {
        workers_run(engine->workers, work->j, pack_task, work);
        workers_run(engine->workers, factor->tiles - work->j, update_task, work);
        *fine = tile_factor(tile_of(factor, work->j, work->j), lower, inverse);
        if (!*fine)
            break;
        for (size_t i = 0; i < GRAM_TILE_VALUES; i++)
            rounded[i] = (float)inverse[i];
        status = product_pack(work->solver->products, &tile_part, rounded, GRAM_TILE, work->inverse, error);
        workers_run(engine->workers, factor->tiles - work->j - 1, solve_task, work);
        if (status == STATUS_OK)
            status = engine_status(engine, error);
        if (status == STATUS_OK && interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
    }
    free(lower);
    free(rounded);
    return status;
}

/* Task: column `task` of tiles becomes M: divided by the diagonal, and packed but for the tile on the diagonal. */
static void finish_task(void *context, size_t task, unsigned thread) {
    const struct work *work = context;
    struct factor *factor = work->factor;
    const uint32_t j = (uint32_t)task;
    float *scaled = (float *)(void *)engine_scratch(work->solver->engine, thread);
    float diagonal[GRAM_TILE];
    for (uint32_t c = 0; c < GRAM_TILE; c++) {
        diagonal[c] = tile_of(factor, j, j)[c * GRAM_TILE + c];
        if (j * GRAM_TILE + c < factor->columns)
            factor->gains[j * GRAM_TILE + c] = diagonal[c] * diagonal[c];
    }
    for (uint32_t i = j; i < factor->tiles; i++) {
        float *tile = tile_of(factor, i, j);
        for (uint32_t r = 0; r < GRAM_TILE; r++)
            for (uint32_t c = 0; c < GRAM_TILE; c++)
                scaled[r * GRAM_TILE + c] = tile[r * GRAM_TILE + c] / diagonal[c];
        struct error error;
        if (i == j)
            memcpy(tile, scaled, GRAM_TILE_VALUES * sizeof *tile);
        else if (product_pack(work->solver->products, &turned_part, scaled, GRAM_TILE, tile, &error) != STATUS_OK)
            engine_fail(work->solver->engine, &error);
    }
}

enum status factor_make(const struct solver *solver, const struct gram *gram, double damping, uint32_t *columns_of,
                        struct factor *factor, bool *fine, struct error *error) {
    *factor = (struct factor){.columns = gram->columns, .tiles = gram->tiles, .columns_of = columns_of};
    struct work work = {.solver = solver, .gram = gram, .factor = factor};
    *fine = true;
    const size_t tile_bytes = GRAM_TILE_VALUES * sizeof(float);
    const size_t packed = product_packed_size(solver->products, GRAM_TILE, GRAM_TILE, error);
    if (packed == 0)
        return STATUS_IO;
    if (packed > tile_bytes)
        return error_set(error, STATUS_IO, "a packed tile takes %zu bytes: this is a bug in qstream", packed);
    factor->values = aligned_alloc(64, gram_tile_count(gram->tiles) * tile_bytes);
    factor->gains = malloc(gram->columns * sizeof *factor->gains);
    work.packed = aligned_alloc(64, gram->tiles * tile_bytes);
    work.inverse = aligned_alloc(64, tile_bytes);
    enum status status =
        factor->values && factor->gains && work.packed && work.inverse ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK) {
        for (uint32_t c = 0; c < gram->columns; c++)
            work.added += (double)gram_value(gram, c, c);
        work.added =
            work.added > 0 ? damping * work.added / gram->columns : 1; /* no input at all: each column by itself */
        workers_run(solver->engine->workers, gram->tiles, place_task, &work);
        status = tiles_factor(&work, fine, error);
    }
    if (status == STATUS_OK && *fine) {
        workers_run(solver->engine->workers, gram->tiles, finish_task, &work);
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
