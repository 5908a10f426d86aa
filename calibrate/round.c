#include "calibrate/round.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/columns.h"
#include "common/formats.h"
#include "common/interrupt.h"

enum { TILE_COLUMNS = GRAM_TILE * ROUND_ROWS };

/* The space of a thread. Tiles lie as [column][row] unless said otherwise. */
struct space {
    float *w;           /* [ROUND_ROWS][columns] */
    float *errors;      /* [tiles][ROUND_ROWS][GRAM_TILE]: of the places of the factor, then of the columns */
    int8_t *q;          /* [ROUND_ROWS][columns]: twice the coded value */
    uint8_t *exponents; /* [columns / ROUND_BLOCK][ROUND_ROWS] */
    float *sum;         /* [ROUND_ROWS][GRAM_TILE]: what products give */
    float *x, *weights, *scales, *coded, *error; /* tiles */
    float *other;                                /* [GRAM_TILE][GRAM_TILE] */
    double *loss;                                /* [ROUND_ROWS] */
};

static void *take(unsigned char *base, size_t *at, size_t bytes) {
    void *place = base ? base + *at : NULL;
    *at += (bytes + 63) / 64 * 64;
    return place;
}

static size_t space_lay(uint32_t columns, unsigned char *base, struct space *space) {
    const size_t tiles = (columns + GRAM_TILE - 1) / GRAM_TILE, tile = TILE_COLUMNS * sizeof(float);
    size_t at = 0;
    space->w = take(base, &at, (size_t)ROUND_ROWS * columns * sizeof(float));
    space->errors = take(base, &at, tiles * tile);
    space->q = take(base, &at, (size_t)ROUND_ROWS * columns);
    space->exponents = take(base, &at, (size_t)ROUND_ROWS * columns / ROUND_BLOCK);
    space->sum = take(base, &at, tile);
    space->x = take(base, &at, tile);
    space->weights = take(base, &at, tile);
    space->scales = take(base, &at, tile);
    space->coded = take(base, &at, tile);
    space->error = take(base, &at, tile);
    space->other = take(base, &at, GRAM_TILE_VALUES * sizeof(float) * 2);
    space->loss = take(base, &at, ROUND_ROWS * sizeof(double));
    return at;
}

size_t round_scratch(uint32_t columns) {
    struct space space;
    return space_lay(columns, NULL, &space);
}

struct work {
    const struct solver *solver;
    struct rounding *rounding;
    const struct column_kernels *kernels;
    float *diagonal; /* [columns] of the damped Gram matrix */
    float added;     /* to it */
    double *losses;  /* [chunks] */
};

/* A chunk of rows; those behind the last one are zero. */
struct chunk {
    const struct work *work;
    struct space space;
    uint32_t first, rows;
};

static const struct product tile_product = {.m = ROUND_ROWS, .n = GRAM_TILE, .k = GRAM_TILE, .add = true};

static float scale_of(const struct chunk *chunk, uint32_t row, uint32_t column) {
    return e8m0_decode(chunk->space.exponents[(size_t)(column / ROUND_BLOCK) * ROUND_ROWS + row]);
}

static void rows_load(struct chunk *chunk) {
    const struct rounding *rounding = chunk->work->rounding;
    const uint32_t columns = rounding->gram->columns;
    for (uint32_t r = 0; r < ROUND_ROWS; r++) {
        float *to = chunk->space.w + (size_t)r * columns;
        if (r < chunk->rows)
            rounding->row(rounding->context, chunk->first + r, to);
        else
            memset(to, 0, columns * sizeof *to);
    }
}

/* Under the diagonal of the Gram matrix. */
static void exponents_choose(struct chunk *chunk) {
    const uint32_t columns = chunk->work->rounding->gram->columns;
    float *block = chunk->space.x;
    for (uint32_t begin = 0; begin < columns; begin += ROUND_BLOCK) {
        for (uint32_t c = 0; c < ROUND_BLOCK; c++)
            for (uint32_t r = 0; r < ROUND_ROWS; r++)
                block[c * ROUND_ROWS + r] = chunk->space.w[(size_t)r * columns + begin + c];
        chunk->work->kernels->exponents(block, chunk->work->diagonal + begin,
                                        chunk->space.exponents + (size_t)(begin / ROUND_BLOCK) * ROUND_ROWS);
    }
}

/* A tile's columns of the weights and their scales; *x begins as `sum` and the weights. */
static void tile_gather(struct chunk *chunk, const uint32_t *columns_of, uint32_t begin, uint32_t width) {
    const uint32_t columns = chunk->work->rounding->gram->columns;
    struct space *space = &chunk->space;
    for (uint32_t c = 0; c < width; c++) {
        const uint32_t column = columns_of ? columns_of[begin + c] : begin + c;
        for (uint32_t r = 0; r < ROUND_ROWS; r++) {
            const size_t place = (size_t)c * ROUND_ROWS + r;
            space->weights[place] = space->w[(size_t)r * columns + column];
            space->scales[place] = scale_of(chunk, r, column);
        }
    }
}

/* The errors of a tile become operands of products; its codes are kept. */
static void tile_scatter(struct chunk *chunk, const uint32_t *columns_of, uint32_t tile, uint32_t width) {
    const uint32_t columns = chunk->work->rounding->gram->columns;
    struct space *space = &chunk->space;
    float *errors = space->errors + (size_t)tile * TILE_COLUMNS;
    memset(errors, 0, TILE_COLUMNS * sizeof *errors);
    for (uint32_t c = 0; c < width; c++) {
        const uint32_t place = tile * GRAM_TILE + c, column = columns_of ? columns_of[place] : place;
        for (uint32_t r = 0; r < ROUND_ROWS; r++) {
            errors[(size_t)r * GRAM_TILE + c] = space->error[(size_t)c * ROUND_ROWS + r];
            space->q[(size_t)r * columns + column] = (int8_t)(2 * space->coded[(size_t)c * ROUND_ROWS + r]);
        }
    }
}

static uint32_t tile_width(uint32_t columns, uint32_t tile) {
    const uint32_t rest = columns - tile * GRAM_TILE;
    return rest < GRAM_TILE ? rest : GRAM_TILE;
}

/* Columns one after the other, the last place of the factor first. */
static enum status chunk_round(struct chunk *chunk, struct error *error) {
    const struct work *work = chunk->work;
    const struct factor *factor = work->rounding->factor;
    struct space *space = &chunk->space;
    memset(space->loss, 0, ROUND_ROWS * sizeof *space->loss);
    for (uint32_t j = factor->tiles; j-- > 0;) {
        const uint32_t width = tile_width(factor->columns, j);
        memset(space->sum, 0, TILE_COLUMNS * sizeof *space->sum);
        for (uint32_t i = j + 1; i < factor->tiles; i++) {
            const enum status status =
                product_run(work->solver->products, &tile_product, space->errors + (size_t)i * TILE_COLUMNS,
                            factor->values + gram_tile_number(i, j) * GRAM_TILE_VALUES, space->sum, error);
            if (status != STATUS_OK)
                return status;
        }
        tile_gather(chunk, factor->columns_of, j * GRAM_TILE, width);
        for (uint32_t c = 0; c < width; c++)
            for (uint32_t r = 0; r < ROUND_ROWS; r++)
                space->x[(size_t)c * ROUND_ROWS + r] =
                    space->weights[(size_t)c * ROUND_ROWS + r] + space->sum[(size_t)r * GRAM_TILE + c];
        const struct column_tile tile = {.width = width,
                                         .m = factor->values + gram_tile_number(j, j) * GRAM_TILE_VALUES,
                                         .gains = factor->gains + (size_t)j * GRAM_TILE,
                                         .w = space->weights,
                                         .scales = space->scales,
                                         .x = space->x,
                                         .q = space->coded,
                                         .error = space->error,
                                         .loss = work->rounding->measure ? space->loss : NULL};
        work->kernels->round(&tile);
        tile_scatter(chunk, factor->columns_of, j, width);
    }
    return STATUS_OK;
}

/* The errors of all columns in their own order, from the codes. */
static void errors_restore(struct chunk *chunk) {
    const uint32_t columns = chunk->work->rounding->gram->columns, tiles = chunk->work->rounding->gram->tiles;
    struct space *space = &chunk->space;
    for (uint32_t tile = 0; tile < tiles; tile++) {
        float *errors = space->errors + (size_t)tile * TILE_COLUMNS;
        const uint32_t width = tile_width(columns, tile);
        memset(errors, 0, TILE_COLUMNS * sizeof *errors);
        for (uint32_t r = 0; r < ROUND_ROWS; r++)
            for (uint32_t c = 0; c < width; c++) {
                const size_t place = (size_t)r * columns + tile * GRAM_TILE + c;
                errors[r * GRAM_TILE + c] =
                    space->w[place] - 0.5f * (float)space->q[place] * scale_of(chunk, r, tile * GRAM_TILE + c);
            }
    }
}

/* Tile (i, j) of the damped Gram matrix as the second operand of a product of x [rows, columns of i]. */
static enum status gram_pack(struct chunk *chunk, uint32_t i, uint32_t j, float *packed, struct error *error) {
    const struct gram *gram = chunk->work->rounding->gram;
    const struct product_part part = {
        .n = GRAM_TILE, .k = GRAM_TILE, .n_part = GRAM_TILE, .k_part = GRAM_TILE, .transposed = i > j};
    const float *tile = gram->values + (i > j ? gram_tile_number(i, j) : gram_tile_number(j, i)) * GRAM_TILE_VALUES;
    if (i == j) {
        float *damped = chunk->space.x;
        memcpy(damped, tile, GRAM_TILE_VALUES * sizeof *damped);
        for (uint32_t c = 0; c < GRAM_TILE; c++)
            damped[c * GRAM_TILE + c] += chunk->work->added;
        tile = damped;
    }
    return product_pack(chunk->work->solver->products, &part, tile, GRAM_TILE, packed, error);
}

/* error * H of a tile of columns into `sum`. */
static enum status gradient(struct chunk *chunk, uint32_t j, struct error *error) {
    const struct work *work = chunk->work;
    struct space *space = &chunk->space;
    float *packed = space->other;
    memset(space->sum, 0, TILE_COLUMNS * sizeof *space->sum);
    for (uint32_t i = 0; i < work->rounding->gram->tiles; i++) {
        enum status status = gram_pack(chunk, i, j, packed, error);
        if (status == STATUS_OK)
            status = product_run(work->solver->products, &tile_product, space->errors + (size_t)i * TILE_COLUMNS,
                                 packed, space->sum, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status chunk_descend(struct chunk *chunk, struct error *error) {
    const struct work *work = chunk->work;
    const struct gram *gram = work->rounding->gram;
    struct space *space = &chunk->space;
    for (uint32_t j = 0; j < gram->tiles; j++) {
        const uint32_t width = tile_width(gram->columns, j);
        const enum status status = gradient(chunk, j, error);
        if (status != STATUS_OK)
            return status;
        tile_gather(chunk, NULL, j * GRAM_TILE, width);
        const float *errors = space->errors + (size_t)j * TILE_COLUMNS;
        for (uint32_t c = 0; c < width; c++)
            for (uint32_t r = 0; r < ROUND_ROWS; r++) {
                const size_t place = (size_t)c * ROUND_ROWS + r;
                space->x[place] = space->sum[(size_t)r * GRAM_TILE + c];
                space->error[place] = errors[(size_t)r * GRAM_TILE + c];
                space->coded[place] = 0.5f * (float)space->q[(size_t)r * gram->columns + j * GRAM_TILE + c];
            }
        float *h = space->other;
        memcpy(h, gram->values + gram_tile_number(j, j) * GRAM_TILE_VALUES, GRAM_TILE_VALUES * sizeof *h);
        for (uint32_t c = 0; c < GRAM_TILE; c++)
            h[c * GRAM_TILE + c] += work->added;
        const struct column_descent descent = {.width = width,
                                               .h = h,
                                               .scales = space->scales,
                                               .gradient = space->x,
                                               .q = space->coded,
                                               .error = space->error};
        work->kernels->descend(&descent);
        tile_scatter(chunk, NULL, j, width);
    }
    return STATUS_OK;
}

/* The sum of error * H * error. */
static enum status chunk_loss(struct chunk *chunk, double *loss, struct error *error) {
    const struct gram *gram = chunk->work->rounding->gram;
    *loss = 0;
    for (uint32_t j = 0; j < gram->tiles; j++) {
        const enum status status = gradient(chunk, j, error);
        if (status != STATUS_OK)
            return status;
        const float *errors = chunk->space.errors + (size_t)j * TILE_COLUMNS;
        for (size_t i = 0; i < TILE_COLUMNS; i++)
            *loss += (double)errors[i] * (double)chunk->space.sum[i];
    }
    return STATUS_OK;
}

/* Twice a value of e2m1 to its code. */
static uint8_t code_of(int8_t doubled) {
    static const uint8_t codes[13] = {0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7};
    return doubled < 0 ? codes[-doubled] | 8 : codes[doubled];
}

static void codes_store(const struct chunk *chunk) {
    const struct rounding *rounding = chunk->work->rounding;
    const uint32_t columns = rounding->gram->columns, blocks = columns / ROUND_BLOCK;
    for (uint32_t r = 0; r < chunk->rows; r++) {
        const size_t row = chunk->first + r;
        const int8_t *q = chunk->space.q + (size_t)r * columns;
        for (uint32_t c = 0; c < columns; c += 2)
            rounding->packed[row * (columns / 2) + c / 2] = (uint8_t)(code_of(q[c]) | code_of(q[c + 1]) << 4);
        for (uint32_t b = 0; b < blocks; b++)
            rounding->exponents[row * blocks + b] = chunk->space.exponents[(size_t)b * ROUND_ROWS + r];
    }
}

/* Task: a chunk of rows. */
static void chunk_task(void *context, size_t task, unsigned thread) {
    const struct work *work = context;
    const struct rounding *rounding = work->rounding;
    if (interrupt_pending())
        return;
    struct chunk chunk = {.work = work, .first = (uint32_t)task * ROUND_ROWS};
    chunk.rows = rounding->rows - chunk.first < ROUND_ROWS ? rounding->rows - chunk.first : ROUND_ROWS;
    space_lay(rounding->gram->columns, engine_scratch(work->solver->engine, thread), &chunk.space);
    rows_load(&chunk);
    exponents_choose(&chunk);
    struct error error;
    enum status status = chunk_round(&chunk, &error);
    if (status == STATUS_OK && rounding->sweeps > 0)
        errors_restore(&chunk);
    for (unsigned sweep = 0; status == STATUS_OK && sweep < rounding->sweeps; sweep++)
        status = chunk_descend(&chunk, &error);
    if (status == STATUS_OK && rounding->measure && rounding->sweeps > 0)
        status = chunk_loss(&chunk, &work->losses[task], &error);
    for (uint32_t r = 0; status == STATUS_OK && rounding->sweeps == 0 && r < chunk.rows; r++)
        work->losses[task] += chunk.space.loss[r];
    if (status == STATUS_OK)
        codes_store(&chunk);
    else
        engine_fail(work->solver->engine, &error);
}

enum status round_run(const struct solver *solver, struct rounding *rounding, struct error *error) {
    const struct gram *gram = rounding->gram;
    const size_t chunks = (rounding->rows + ROUND_ROWS - 1) / ROUND_ROWS;
    struct work work = {.solver = solver, .rounding = rounding, .kernels = column_kernels_of(rounding->cpu)};
    work.diagonal = malloc(gram->columns * sizeof *work.diagonal);
    work.losses = calloc(chunks, sizeof *work.losses);
    enum status status = work.diagonal && work.losses ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK) {
        double mean = 0;
        for (uint32_t c = 0; c < gram->columns; c++) {
            work.diagonal[c] = gram_value(gram, c, c);
            mean += (double)work.diagonal[c] / gram->columns;
        }
        work.added = mean > 0 ? (float)(rounding->damping * mean) : 1;
        for (uint32_t c = 0; c < gram->columns; c++)
            work.diagonal[c] += work.added;
        workers_run(solver->engine->workers, chunks, chunk_task, &work);
        status = engine_status(solver->engine, error);
        if (status == STATUS_OK && interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
    }
    rounding->loss = 0;
    for (size_t i = 0; status == STATUS_OK && i < chunks; i++)
        rounding->loss += work.losses[i];
    free(work.diagonal);
    free(work.losses);
    return status;
}
