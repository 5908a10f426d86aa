#include "calibrate/round.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/target.h"
#include "common/interrupt.h"
#include "infer/space.h"

/* The space of a thread. */
struct space {
    float *rows;        /* [GRAM_TOGETHER][columns]: become columns at once */
    float *w;           /* [columns][ROUND_ROWS] */
    int8_t *q;          /* [columns][ROUND_ROWS]: twice the coded value */
    uint8_t *exponents; /* [columns / ROUND_BLOCK][ROUND_ROWS] */
    float *errors;      /* [tiles]: packed */
    float *moves;       /* [tiles * GRAM_TILE][ROUND_ROWS], by place: what a pull adds to the weights; with one only */
    float *x, *tile_w, *error; /* of a tile: [GRAM_TILE][ROUND_ROWS] */
    int8_t *tile_q;
    uint8_t *tile_exponents;
};

static size_t space_lay(uint32_t columns, bool pull, unsigned char *base, struct space *space) {
    const size_t tiles = gram_tiles(columns), tile = ROUND_TILE_VALUES * sizeof(float);
    size_t at = 0;
    space->rows = space_take(base, &at, gram_scratch(columns));
    space->w = space_take(base, &at, (size_t)ROUND_ROWS * columns * sizeof(float));
    space->q = space_take(base, &at, (size_t)ROUND_ROWS * columns);
    space->exponents = space_take(base, &at, (size_t)ROUND_ROWS * columns / ROUND_BLOCK);
    space->errors = space_take(base, &at, tiles * tile);
    space->moves = pull ? space_take(base, &at, tiles * tile) : NULL;
    space->x = space_take(base, &at, tile);
    space->tile_w = space_take(base, &at, tile);
    space->error = space_take(base, &at, tile);
    space->tile_q = space_take(base, &at, ROUND_TILE_VALUES);
    space->tile_exponents = space_take(base, &at, ROUND_TILE_VALUES);
    return at;
}

size_t round_scratch(uint32_t columns, bool pull) {
    struct space space;
    return space_lay(columns, pull, NULL, &space);
}

struct work {
    const struct solver *solver;
    const struct rounding *rounding;
};

/* A chunk of rows; those behind the last one are zero. */
struct chunk {
    const struct work *work;
    struct space space;
    uint32_t first, rows;
};

static void rows_load(struct chunk *chunk) {
    const struct rounding *rounding = chunk->work->rounding;
    const uint32_t columns = rounding->factor->columns;
    const struct space *space = &chunk->space;
    for (uint32_t begin = 0; begin < ROUND_ROWS; begin += GRAM_TOGETHER) {
        for (uint32_t r = 0; r < GRAM_TOGETHER; r++)
            if (begin + r < chunk->rows)
                rounding->row(rounding->context, chunk->first + begin + r, space->rows + (size_t)r * columns);
            else
                memset(space->rows + (size_t)r * columns, 0, columns * sizeof *space->rows);
        for (uint32_t c = 0; c < columns; c++)
            for (uint32_t r = 0; r < GRAM_TOGETHER; r++)
                space->w[(size_t)c * ROUND_ROWS + begin + r] = space->rows[(size_t)r * columns + c];
    }
}

static enum status rows_check(const struct chunk *chunk, struct error *error) {
    const struct rounding *rounding = chunk->work->rounding;
    for (uint32_t c = 0; c < rounding->factor->columns; c++)
        for (uint32_t r = 0; r < ROUND_ROWS; r++)
            if (!isfinite(chunk->space.w[(size_t)c * ROUND_ROWS + r]))
                return error_set(error, STATUS_BAD_INPUT,
                                 "tensor '%s' holds %s at row %u, column %u: a checkpoint with such values cannot be "
                                 "quantized",
                                 rounding->name,
                                 isnan(chunk->space.w[(size_t)c * ROUND_ROWS + r]) ? "a NaN"
                                                                                   : "an infinite value (in BF16)",
                                 chunk->first + r, c);
    return STATUS_OK;
}

/* The pull of outputs from one of inputs: of each tile of columns, its product with the rows. */
static enum status moves_multiply(const struct chunk *chunk, struct error *error) {
    const struct rounding *rounding = chunk->work->rounding;
    const struct solver *solver = chunk->work->solver;
    const struct space *space = &chunk->space;
    const uint32_t tiles = rounding->pull->tiles;
    memset(space->moves, 0, (size_t)tiles * ROUND_TILE_VALUES * sizeof *space->moves);
    enum status status = STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < rounding->pull->chunks; i++) {
        const uint32_t rest = rounding->factor->columns - i * GRAM_TILE, width = rest < GRAM_TILE ? rest : GRAM_TILE;
        memset(space->tile_w, 0, ROUND_TILE_VALUES * sizeof *space->tile_w);
        memcpy(space->tile_w, space->w + (size_t)i * ROUND_TILE_VALUES, (size_t)width * ROUND_ROWS * sizeof *space->w);
        status = solver_pack(solver, space->tile_w, space->errors, error);
        for (uint32_t j = 0; status == STATUS_OK && j < tiles; j++)
            status = solver_multiply(solver, rounding->pull->values + ((size_t)i * tiles + j) * GRAM_TILE_VALUES,
                                     space->errors, space->moves + (size_t)j * ROUND_TILE_VALUES, error);
    }
    return status;
}

/* No row moves by more than this share of its own length: it stays an image of the source. */
static const float move_most = 0.5f;

/* What each row's move is multiplied with; 0 where it is not finite. */
static void shares_find(const struct chunk *chunk, float *shares) {
    const struct space *space = &chunk->space;
    double own[ROUND_ROWS] = {0}, move[ROUND_ROWS] = {0};
    for (size_t c = 0; c < chunk->work->rounding->factor->columns; c++)
        for (uint32_t r = 0; r < ROUND_ROWS; r++) {
            const double w = (double)space->w[c * ROUND_ROWS + r], moved = (double)space->moves[c * ROUND_ROWS + r];
            own[r] += w * w;
            move[r] += moved * moved;
        }
    for (uint32_t r = 0; r < ROUND_ROWS; r++) {
        const double most = (double)move_most * sqrt(own[r]), length = sqrt(move[r]);
        shares[r] = !isfinite(length) ? 0 : length > most ? (float)(most / length) : 1;
    }
}

/* The weights become what is to be rounded. */
static enum status rows_move(struct chunk *chunk, struct error *error) {
    const struct rounding *rounding = chunk->work->rounding;
    const struct space *space = &chunk->space;
    const struct factor *factor = rounding->factor;
    enum status status = STATUS_OK;
    if (rounding->pull_of_inputs)
        status = moves_multiply(chunk, error);
    else
        memcpy(space->moves,
               rounding->pull->values + (size_t)(chunk->first / ROUND_ROWS) * factor->tiles * GRAM_TILE_VALUES,
               (size_t)factor->tiles * ROUND_TILE_VALUES * sizeof *space->moves);
    if (status == STATUS_OK)
        status = target_solve(chunk->work->solver, factor, space->moves, space->errors, space->x, error);
    float shares[ROUND_ROWS];
    if (status == STATUS_OK)
        shares_find(chunk, shares);
    for (uint32_t place = 0; status == STATUS_OK && place < factor->columns; place++) {
        float *w = space->w + (size_t)factor->columns_of[place] * ROUND_ROWS;
        const float *moves = space->moves + (size_t)place * ROUND_ROWS;
        for (uint32_t r = 0; r < ROUND_ROWS; r++) {
            const float moved = w[r] + (shares[r] > 0 ? shares[r] * moves[r] : 0);
            w[r] = isfinite(moved) ? moved : w[r];
        }
    }
    return status;
}

static void exponents_choose(struct chunk *chunk) {
    const struct factor *factor = chunk->work->rounding->factor;
    for (uint32_t begin = 0; begin < factor->columns; begin += ROUND_BLOCK)
        chunk->work->solver->kernels->exponents(chunk->space.w + (size_t)begin * ROUND_ROWS,
                                                chunk->space.exponents + (size_t)(begin / ROUND_BLOCK) * ROUND_ROWS);
}

/* A tile's columns of the weights, and their exponents. */
static void tile_gather(const struct space *space, const uint32_t *columns_of, uint32_t width) {
    for (uint32_t c = 0; c < width; c++) {
        const size_t column = columns_of[c], at = (size_t)c * ROUND_ROWS;
        memcpy(space->tile_w + at, space->w + column * ROUND_ROWS, ROUND_ROWS * sizeof *space->w);
        memcpy(space->tile_exponents + at, space->exponents + column / ROUND_BLOCK * ROUND_ROWS, ROUND_ROWS);
    }
    memset(space->tile_w + (size_t)width * ROUND_ROWS, 0, (GRAM_TILE - width) * ROUND_ROWS * sizeof *space->w);
    memcpy(space->x, space->tile_w, ROUND_TILE_VALUES * sizeof *space->x);
}

/* x of tile j gets what the errors of the tiles before add. */
static enum status errors_add(const struct chunk *chunk, uint32_t j, struct error *error) {
    const struct factor *factor = chunk->work->rounding->factor;
    enum status status = STATUS_OK;
    for (uint32_t i = j + 1; status == STATUS_OK && i < factor->tiles; i++)
        status = solver_multiply(chunk->work->solver, factor->values + gram_tile_number(i, j) * GRAM_TILE_VALUES,
                                 chunk->space.errors + (size_t)i * ROUND_TILE_VALUES, chunk->space.x, error);
    return status;
}

/* Columns one after the other, the last place of the factor first. */
static enum status chunk_round(struct chunk *chunk, struct error *error) {
    const struct work *work = chunk->work;
    const struct factor *factor = work->rounding->factor;
    const struct space *space = &chunk->space;
    enum status status = STATUS_OK;
    for (uint32_t j = factor->tiles; status == STATUS_OK && j-- > 0;) {
        const uint32_t rest = factor->columns - j * GRAM_TILE, width = rest < GRAM_TILE ? rest : GRAM_TILE;
        const uint32_t *columns_of = factor->columns_of + (size_t)j * GRAM_TILE;
        tile_gather(space, columns_of, width);
        status = errors_add(chunk, j, error);
        if (status != STATUS_OK)
            break;
        const struct column_tile tile = {.width = width,
                                         .m = factor->values + gram_tile_number(j, j) * GRAM_TILE_VALUES,
                                         .w = space->tile_w,
                                         .exponents = space->tile_exponents,
                                         .x = space->x,
                                         .q = space->tile_q,
                                         .error = space->error};
        work->solver->kernels->round(&tile);
        for (uint32_t c = 0; c < width; c++)
            memcpy(space->q + (size_t)columns_of[c] * ROUND_ROWS, space->tile_q + (size_t)c * ROUND_ROWS, ROUND_ROWS);
        memset(space->error + (size_t)width * ROUND_ROWS, 0, (GRAM_TILE - width) * ROUND_ROWS * sizeof *space->error);
        status = solver_pack(work->solver, space->error, space->errors + (size_t)j * ROUND_TILE_VALUES, error);
    }
    return status;
}

/* No row ends farther from its source than this share of its own length: on other text than this one it would be lost. */
static const double lost_most = 0.7;

/* space->w holds the rows of the source. */
static bool lost_find(const struct chunk *chunk, bool *lost) {
    const struct space *space = &chunk->space;
    double own[ROUND_ROWS] = {0}, away[ROUND_ROWS] = {0}, scales[ROUND_ROWS];
    for (size_t c = 0; c < chunk->work->rounding->factor->columns; c++) {
        if (c % ROUND_BLOCK == 0)
            for (uint32_t r = 0; r < ROUND_ROWS; r++)
                scales[r] =
                    ldexp(0.5, space->exponents[c / ROUND_BLOCK * ROUND_ROWS + r] - 127); /* q is twice the value */
        for (uint32_t r = 0; r < ROUND_ROWS; r++) {
            const double w = (double)space->w[c * ROUND_ROWS + r], error = w - space->q[c * ROUND_ROWS + r] * scales[r];
            own[r] += w * w;
            away[r] += error * error;
        }
    }
    bool any = false;
    for (uint32_t r = 0; r < chunk->rows; r++)
        any |= lost[r] = away[r] > lost_most * lost_most * own[r];
    return any;
}

/* Rows that are lost are rounded to nearest, with the scales of least error. */
static void lost_round(struct chunk *chunk) {
    static const float apart[GRAM_TILE_VALUES]; /* no error adds to another column */
    const struct column_kernels *kernels = chunk->work->solver->kernels;
    const struct space *space = &chunk->space;
    bool lost[ROUND_ROWS];
    rows_load(chunk);
    if (!lost_find(chunk, lost))
        return;
    for (uint32_t b = 0; b < chunk->work->rounding->factor->columns / ROUND_BLOCK; b++) {
        const float *w = space->w + (size_t)b * ROUND_BLOCK * ROUND_ROWS;
        kernels->exponents(w, space->tile_exponents);
        for (uint32_t c = 1; c < ROUND_BLOCK; c++)
            memcpy(space->tile_exponents + (size_t)c * ROUND_ROWS, space->tile_exponents, ROUND_ROWS);
        memcpy(space->x, w, (size_t)ROUND_BLOCK * ROUND_ROWS * sizeof *w);
        kernels->round(&(struct column_tile){.width = ROUND_BLOCK,
                                             .m = apart,
                                             .w = w,
                                             .exponents = space->tile_exponents,
                                             .x = space->x,
                                             .q = space->tile_q,
                                             .error = space->error});
        for (uint32_t r = 0; r < chunk->rows; r++) {
            if (!lost[r])
                continue;
            space->exponents[(size_t)b * ROUND_ROWS + r] = space->tile_exponents[r];
            for (uint32_t c = 0; c < ROUND_BLOCK; c++)
                space->q[((size_t)b * ROUND_BLOCK + c) * ROUND_ROWS + r] = space->tile_q[(size_t)c * ROUND_ROWS + r];
        }
    }
}

/* Twice a value of e2m1 to its code. */
static uint8_t code_of(int8_t doubled) {
    static const uint8_t codes[13] = {0, 1, 2, 3, 4, 0, 5, 0, 6, 0, 0, 0, 7};
    return doubled < 0 ? codes[-doubled] | 8 : codes[doubled];
}

static void codes_store(const struct chunk *chunk) {
    const struct rounding *rounding = chunk->work->rounding;
    const uint32_t columns = rounding->factor->columns, blocks = columns / ROUND_BLOCK;
    for (uint32_t b = 0; b < blocks; b++)
        for (uint32_t r = 0; r < chunk->rows; r++) {
            const size_t row = chunk->first + r;
            const int8_t *q = chunk->space.q + (size_t)b * ROUND_BLOCK * ROUND_ROWS + r;
            uint8_t *packed = rounding->packed + row * (columns / 2) + (size_t)b * (ROUND_BLOCK / 2);
            for (uint32_t c = 0; c < ROUND_BLOCK; c += 2)
                packed[c / 2] =
                    (uint8_t)(code_of(q[(size_t)c * ROUND_ROWS]) | code_of(q[(size_t)(c + 1) * ROUND_ROWS]) << 4);
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
    space_lay(rounding->factor->columns, rounding->pull != NULL, engine_scratch(work->solver->engine, thread),
              &chunk.space);
    struct error error;
    rows_load(&chunk);
    enum status status = rows_check(&chunk, &error);
    if (status == STATUS_OK && rounding->pull)
        status = rows_move(&chunk, &error);
    if (status == STATUS_OK)
        exponents_choose(&chunk);
    if (status == STATUS_OK)
        status = chunk_round(&chunk, &error);
    if (status == STATUS_OK) {
        lost_round(&chunk);
        codes_store(&chunk);
    } else {
        engine_fail(work->solver->engine, status, &error);
    }
}

enum status round_run(const struct solver *solver, const struct rounding *rounding, struct error *error) {
    const struct work work = {.solver = solver, .rounding = rounding};
    workers_run(solver->engine->workers, (rounding->rows + ROUND_ROWS - 1) / ROUND_ROWS, chunk_task,
                (void *)(uintptr_t)&work);
    const enum status status = engine_status(solver->engine, error);
    return status == STATUS_OK && interrupt_pending() ? error_set(error, STATUS_INTERRUPTED, "interrupted") : status;
}
