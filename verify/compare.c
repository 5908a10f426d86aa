#include "verify/compare.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"
#include "common/team_work.h"
#include "verify/mxfp4_measure.h"
#include "verify/value_measure.h"

/* How far ahead of the tiles that are worked on the kernel is asked to read: some 40 MB. */
enum { PREFETCH_TILES = 32 };

/* What a worker allocates. */
struct needs {
    uint64_t source, source_scale, output, output_scale, columns;
};

struct worker {
    uint8_t *memory;
    struct matrix_buffer source, output;
    uint16_t *row;    /* a row of the source in BF16 */
    float *values;    /* a row of the output, decoded */
    double *weights;  /* of the qstream rule's errors; those of gamma_tensor */
    uint8_t *damaged; /* one flag per block */
    uint32_t gamma_tensor;
    struct histogram *histograms; /* one per group */
};

struct comparing {
    const struct checkpoint *source, *output;
    struct pairing *pairing;
    const struct compare_options *options;
    struct compare_result *result;
    mxfp4_measure_fn *measure;
    struct needs needs;
    uint32_t *chosen; /* tiles that are read, in order */
    size_t count;
    struct team_work work;
    pthread_mutex_t lock; /* of the comparisons' results */
    struct worker *workers;
};

/* ---- tiles ---- */

static uint64_t pieces_of(const struct comparison *comparison) { /* of a row */
    uint64_t columns = comparison->kind == COMPARE_VALUES ? comparison->to.columns : 0;
    return columns ? (columns - 1) / comparison->columns_per_tile + 1 : 1;
}

static struct tile tile_of(const struct comparison *comparison, uint32_t number) {
    uint64_t pieces = pieces_of(comparison);
    struct tile tile = {.row = number / pieces * comparison->rows_per_tile,
                        .column = number % pieces * comparison->columns_per_tile};
    uint64_t rows = comparison->to.rows - tile.row, columns = comparison->to.columns - tile.column;
    tile.rows = rows < comparison->rows_per_tile ? rows : comparison->rows_per_tile;
    tile.columns = columns < comparison->columns_per_tile ? columns : comparison->columns_per_tile;
    return tile;
}

/* Elements of a number comparison's tile, bytes of others that are no weights. */
static uint64_t run_of(const struct comparison *comparison, uint64_t total, uint32_t number, uint64_t *first) {
    *first = number * comparison->columns_per_tile;
    uint64_t left = total - *first;
    return left < comparison->columns_per_tile ? left : comparison->columns_per_tile;
}

static uint64_t number_count(const struct checkpoint *output, const struct comparison *comparison) {
    const struct tensor_info *info = &output->tensors[comparison->output].info;
    return info->size / (dtype_bits(info->dtype) / 8);
}

/* Bytes of both sides that a tile reads. */
static uint64_t tile_bytes(const struct checkpoint *source, const struct checkpoint *output,
                           const struct comparison *comparison, uint32_t number) {
    uint64_t first, a[2], b[2];
    if (comparison->kind == COMPARE_BYTES)
        return 2 * run_of(comparison, comparison->size, number, &first);
    if (comparison->kind == COMPARE_NUMBER)
        return run_of(comparison, number_count(output, comparison), number, &first) *
               (dtype_bits(source->tensors[comparison->source].info.dtype) +
                dtype_bits(output->tensors[comparison->output].info.dtype)) /
               8;
    const struct tile tile = tile_of(comparison, number);
    matrix_tile_bytes(&comparison->from, &tile, &a[0], &a[1]);
    matrix_tile_bytes(&comparison->to, &tile, &b[0], &b[1]);
    return a[0] + a[1] + b[0] + b[1];
}

bool compare_is_chosen(const struct pairing *pairing, size_t index, unsigned part, unsigned parts) {
    if (parts < 2)
        return true;
    /* the part that the middle of the tensor's bytes falls into; weighed by tiles, which are about equally long */
    const struct comparison *last = &pairing->comparisons[pairing->count - 1], *it = &pairing->comparisons[index];
    uint64_t total = (uint64_t)last->first_tile + last->tile_count;
    uint64_t middle = 2 * (uint64_t)it->first_tile + it->tile_count;
    uint64_t chosen = total ? middle * parts / (2 * total) : 0;
    return (chosen < parts ? chosen : parts - 1) == part;
}

/* One tile of each run of 1 / sample, by a hash of the run's number: spread evenly, and always the same. */
static bool is_sampled(uint64_t tile, double sample) {
    if (sample >= 1)
        return true;
    uint64_t run = (uint64_t)floor((double)tile * sample);
    uint64_t begin = (uint64_t)ceil((double)run / sample), end = (uint64_t)ceil((double)(run + 1) / sample);
    uint64_t hash = (run + 1) * 0x9e3779b97f4a7c15;
    hash = (hash ^ hash >> 29) * 0xbf58476d1ce4e5b9;
    return end > begin && tile == begin + (hash ^ hash >> 32) % (end - begin);
}

/* The first tile of the part. */
static void tile_choose_one(struct comparing *comparing) {
    const struct compare_options *options = comparing->options;
    for (size_t i = 0; i < comparing->pairing->count && comparing->result->tiles == 0; i++) {
        struct comparison *comparison = &comparing->pairing->comparisons[i];
        if (comparison->tile_count == 0 || !compare_is_chosen(comparing->pairing, i, options->part, options->parts))
            continue;
        if (comparing->chosen)
            comparing->chosen[0] = comparison->first_tile;
        comparison->tiles_left = 1;
        comparing->result->tiles = 1;
        comparing->result->bytes = tile_bytes(comparing->source, comparing->output, comparison, 0);
    }
}

/* Counts the tiles of this part, and fills comparing->chosen when it is there. */
static void tiles_choose(struct comparing *comparing) {
    struct compare_result *result = comparing->result;
    const struct compare_options *options = comparing->options;
    result->tiles = result->tiles_total = result->bytes = result->bytes_total = 0;
    for (size_t i = 0; i < comparing->pairing->count; i++) {
        struct comparison *comparison = &comparing->pairing->comparisons[i];
        comparison->tiles_left = 0;
        if (!compare_is_chosen(comparing->pairing, i, options->part, options->parts))
            continue;
        for (uint32_t t = 0; t < comparison->tile_count; t++) {
            uint64_t bytes = tile_bytes(comparing->source, comparing->output, comparison, t);
            result->tiles_total++;
            result->bytes_total += bytes;
            if (!is_sampled((uint64_t)comparison->first_tile + t, options->sample))
                continue;
            if (comparing->chosen)
                comparing->chosen[result->tiles] = comparison->first_tile + t;
            result->tiles++;
            result->bytes += bytes;
            comparison->tiles_left++;
        }
    }
    if (result->tiles == 0) /* of a sample that is smaller than a tile */
        tile_choose_one(comparing);
    comparing->count = result->tiles;
}

/* ---- workers ---- */

static void at_least(uint64_t *value, uint64_t wanted) {
    if (*value < wanted)
        *value = wanted;
}

static struct needs needs_of(const struct pairing *pairing) {
    struct needs needs = {1 << 20, 16, 1 << 20, 16, 1};
    for (size_t i = 0; i < pairing->count; i++) {
        const struct comparison *comparison = &pairing->comparisons[i];
        if (comparison->kind != COMPARE_VALUES || comparison->tile_count == 0)
            continue;
        /* A tile may begin inside a block of scales: one row of blocks more than in the first tile, at most. */
        struct tile tile = tile_of(comparison, 0);
        uint64_t weight, scale;
        matrix_tile_bytes(&comparison->from, &tile, &weight, &scale);
        at_least(&needs.source, weight);
        at_least(&needs.source_scale, 2 * scale + 16);
        matrix_tile_bytes(&comparison->to, &tile, &weight, &scale);
        at_least(&needs.output, weight);
        at_least(&needs.output_scale, 2 * scale + 16);
        at_least(&needs.columns, tile.columns);
    }
    return needs;
}

static size_t padded(uint64_t bytes) { return (size_t)((bytes + 127) / 64 * 64); }

static uint64_t needs_bytes(const struct needs *needs, size_t groups) {
    return padded(needs->source) + padded(needs->source_scale) + padded(needs->output) + padded(needs->output_scale) +
           padded(needs->columns * sizeof(uint16_t)) + padded(needs->columns * sizeof(float)) +
           padded(needs->columns * sizeof(double)) + padded(needs->columns / MATRIX_BLOCK + 1) +
           padded(groups * sizeof(struct histogram));
}

uint64_t compare_worker_bytes(const struct pairing *pairing) {
    const struct needs needs = needs_of(pairing);
    return needs_bytes(&needs, pairing->group_count);
}

static bool worker_init(const struct comparing *comparing, struct worker *worker) {
    const struct needs *needs = &comparing->needs;
    size_t groups = comparing->pairing->group_count;
    worker->gamma_tensor = MODULE_NO_TENSOR;
    worker->memory = aligned_alloc(64, padded(needs_bytes(needs, groups)));
    if (!worker->memory)
        return false;
    uint8_t *at = worker->memory;
    worker->histograms = (struct histogram *)(void *)at;
    memset(at, 0, groups * sizeof(struct histogram));
    worker->weights = (double *)(void *)(at += padded(groups * sizeof(struct histogram)));
    worker->values = (float *)(void *)(at += padded(needs->columns * sizeof(double)));
    worker->row = (uint16_t *)(void *)(at += padded(needs->columns * sizeof(float)));
    worker->damaged = at += padded(needs->columns * sizeof(uint16_t));
    worker->source.weight = at += padded(needs->columns / MATRIX_BLOCK + 1);
    worker->source.scale = at += padded(needs->source);
    worker->output.weight = at += padded(needs->source_scale);
    worker->output.scale = at + padded(needs->output);
    return true;
}

/* ---- measuring ---- */

/* Squares of a norm's weights for the columns of a tile. */
static enum status weights_load(const struct comparing *comparing, struct worker *worker,
                                const struct comparison *comparison, const struct tile *tile, struct error *error) {
    const struct tensor *norm = &comparing->source->tensors[comparison->gamma];
    size_t item = dtype_bits(norm->info.dtype) / 8;
    if (worker->gamma_tensor == comparison->gamma && tile->columns == comparison->to.columns)
        return STATUS_OK;
    /* the raw numbers are no wider than a double: read to the end of the buffer and widened from its begin */
    uint8_t *raw = (uint8_t *)worker->weights + (size_t)tile->columns * (sizeof(double) - item);
    enum status status =
        checkpoint_read(comparing->source, norm, tile->column * item, raw, (size_t)tile->columns * item, error);
    for (uint64_t i = 0; i < tile->columns && status == STATUS_OK; i++) {
        double gamma = (double)number_decode(norm->info.dtype, raw, i);
        worker->weights[i] = gamma * gamma;
    }
    worker->gamma_tensor =
        status == STATUS_OK && tile->columns == comparison->to.columns ? comparison->gamma : MODULE_NO_TENSOR;
    return status;
}

/*
 * Takes elements that are no finite numbers out of a row: they become zeros on both sides. Returns whether there were
 * any; `damaged` then says in which blocks.
 */
static bool row_clean(struct worker *worker, const struct tile *tile, uint8_t *packed, uint8_t *scales, uint64_t row,
                      struct figures *figures) {
    enum { INFINITY_CODE = 0x7f80, NAN_SCALE = 255, NEUTRAL_SCALE = 127 };
    size_t columns = (size_t)tile->columns, blocks = columns / MATRIX_BLOCK;
    uint16_t largest = 0;
    for (size_t i = 0; i < columns; i++) {
        uint16_t magnitude = worker->row[i] & 0x7fff;
        largest = magnitude > largest ? magnitude : largest;
    }
    if (largest < INFINITY_CODE && !memchr(scales, NAN_SCALE, blocks))
        return false;
    memset(worker->damaged, 0, blocks);
    for (size_t i = 0; i < columns; i++) {
        bool source = (worker->row[i] & 0x7fff) >= INFINITY_CODE;
        if (!source && scales[i / MATRIX_BLOCK] != NAN_SCALE)
            continue;
        tally_add(source ? &figures->source_not_finite : &figures->output_not_finite, 1, row, tile->column + i);
        worker->damaged[i / MATRIX_BLOCK] = MXFP4_DAMAGED;
        worker->row[i] = 0;
        packed[i / 2] = (uint8_t)(packed[i / 2] & (i % 2 ? 0x0f : 0xf0));
    }
    for (size_t b = 0; b < blocks; b++)
        if (scales[b] == NAN_SCALE) {
            scales[b] = NEUTRAL_SCALE;
            worker->damaged[b] = MXFP4_NAN_SCALE;
        }
    return true;
}

static void mxfp4_row_measure(const struct comparing *comparing, struct worker *worker,
                              const struct comparison *comparison, const struct tile *tile, uint64_t row,
                              struct sums *sums, struct figures *figures) {
    uint8_t *packed = worker->output.weight + row * (tile->columns / 2);
    uint8_t *scales = worker->output.scale + row * (tile->columns / MATRIX_BLOCK);
    matrix_row_bf16(&comparison->from, tile, &worker->source, row, worker->row);
    bool damaged = row_clean(worker, tile, packed, scales, tile->row + row, figures);
    const struct mxfp4_row input = {.source = worker->row,
                                    .packed = packed,
                                    .scales = scales,
                                    .blocks = (size_t)tile->columns / MATRIX_BLOCK,
                                    .weights = comparison->gamma != MODULE_NO_TENSOR ? worker->weights : NULL,
                                    .damaged = damaged ? worker->damaged : NULL,
                                    .rules = comparing->options->rules,
                                    .row = tile->row + row,
                                    .column = tile->column};
    comparing->measure(&input, sums, figures, &worker->histograms[comparison->group]);
}

struct scale_context {
    const struct comparison *comparison;
    const struct tile *tile;
    const struct matrix_buffer *buffer;
    uint64_t row;
};

static float scale_get(const void *context, size_t column) {
    const struct scale_context *of = context;
    return matrix_scale(&of->comparison->to, of->tile, of->buffer, of->row, column);
}

static double row_amax(const uint16_t *row, uint64_t columns) {
    uint16_t largest = 0;
    for (uint64_t i = 0; i < columns; i++)
        if ((row[i] & 0x7fff) > largest && (row[i] & 0x7fff) < 0x7f80)
            largest = row[i] & 0x7fff;
    return (double)bf16_decode(largest);
}

static void value_row_measure(struct worker *worker, const struct comparison *comparison, const struct tile *tile,
                              uint64_t row, struct sums *sums, struct figures *figures) {
    const struct matrix *to = &comparison->to;
    const struct scale_context context = {comparison, tile, &worker->output, row};
    bool plain = to->format == STORED_PLAIN;
    matrix_row_bf16(&comparison->from, tile, &worker->source, row, worker->row);
    matrix_row_float(to, tile, &worker->output, row, worker->values);
    const struct value_row input = {.source = worker->row,
                                    .output = worker->values,
                                    .codes = plain ? NULL : matrix_row_codes(tile, &worker->output, row),
                                    .dtype = to->checkpoint->tensors[to->weight].info.dtype,
                                    .columns = (size_t)tile->columns,
                                    .row = tile->row + row,
                                    .column = tile->column};
    value_measure(&input, scale_get, &context, sums, figures, &worker->histograms[comparison->group]);
    if (to->format != STORED_FP8_CHANNEL || tile->columns != to->columns)
        return;
    if (!fp8_scale_compare(scale_get(&context, 0), row_amax(worker->row, tile->columns), tile->row + row, figures))
        figures_odd_row(figures, tile->row + row, sums);
}

static enum status values_compare(struct comparing *comparing, struct worker *worker, struct comparison *comparison,
                                  uint32_t number, struct error *error) {
    const struct tile tile = tile_of(comparison, number);
    struct figures figures;
    struct sums sums = {0};
    figures_clear(&figures);
    enum status status = matrix_read(&comparison->from, &tile, &worker->source, error);
    if (status == STATUS_OK)
        status = matrix_read(&comparison->to, &tile, &worker->output, error);
    if (status == STATUS_OK && comparison->gamma != MODULE_NO_TENSOR)
        status = weights_load(comparing, worker, comparison, &tile, error);
    for (uint64_t row = 0; row < tile.rows && status == STATUS_OK; row++) {
        struct sums of_row = {0};
        if (comparison->to.format == STORED_MXFP4)
            mxfp4_row_measure(comparing, worker, comparison, &tile, row, &of_row, &figures);
        else
            value_row_measure(worker, comparison, &tile, row, &of_row, &figures);
        if (tile.columns == comparison->to.columns)
            figures_row(&figures, tile.row + row, &of_row);
        sums_add(&sums, &of_row);
    }
    if (status != STATUS_OK)
        return status;
    figures.elements = tile.rows * tile.columns;
    pthread_mutex_lock(&comparing->lock);
    if (!comparison->tile_sums)
        comparison->tile_sums = calloc(comparison->tile_count, sizeof *comparison->tile_sums);
    if (comparison->tile_sums) {
        comparison->tile_sums[number] = sums;
        figures_merge(comparison->figures, &figures);
    } else {
        status = error_set_memory(error);
    }
    pthread_mutex_unlock(&comparing->lock);
    return status;
}

/* All tiles are there: their sums, in order. Rows that were cut are put together. */
static void comparison_finish(struct comparison *comparison) {
    uint64_t pieces = pieces_of(comparison);
    for (uint32_t t = 0; t < comparison->tile_count && comparison->tile_sums; t++)
        sums_add(&comparison->sums, &comparison->tile_sums[t]);
    for (uint64_t row = 0; pieces > 1 && row < comparison->to.rows && comparison->tile_sums; row++) {
        struct sums sums = {0};
        for (uint64_t p = 0; p < pieces; p++)
            sums_add(&sums, &comparison->tile_sums[row * pieces + p]);
        figures_row(comparison->figures, row, &sums);
    }
    free(comparison->tile_sums);
    comparison->tile_sums = NULL;
}

static void differences_note(struct comparing *comparing, struct comparison *comparison, uint64_t count,
                             uint64_t first) {
    if (count == 0)
        return;
    pthread_mutex_lock(&comparing->lock);
    comparison->different += count;
    if (first < comparison->first_different)
        comparison->first_different = first;
    pthread_mutex_unlock(&comparing->lock);
}

static enum status bytes_compare(struct comparing *comparing, struct worker *worker, struct comparison *comparison,
                                 uint32_t number, struct error *error) {
    uint64_t first, size = run_of(comparison, comparison->size, number, &first), count = 0, where = UINT64_MAX;
    const struct tensor *source = &comparing->source->tensors[comparison->source];
    const struct tensor *output = &comparing->output->tensors[comparison->output];
    uint8_t *a = worker->source.weight, *b = worker->output.weight;
    enum status status =
        checkpoint_read(comparing->source, source, comparison->source_offset + first, a, (size_t)size, error);
    if (status == STATUS_OK)
        status = checkpoint_read(comparing->output, output, first, b, (size_t)size, error);
    if (status != STATUS_OK || memcmp(a, b, (size_t)size) == 0)
        return status;
    uint64_t item = dtype_bits(output->info.dtype) / 8;
    item = item ? item : 1;
    for (uint64_t i = 0; i + item <= size; i += item)
        if (memcmp(a + i, b + i, (size_t)item) != 0) {
            where = count++ == 0 ? (first + i) / item : where;
        }
    differences_note(comparing, comparison, count, where);
    return STATUS_OK;
}

static enum status numbers_compare(struct comparing *comparing, struct worker *worker, struct comparison *comparison,
                                   uint32_t number, struct error *error) {
    uint64_t first, total = number_count(comparing->output, comparison), different = 0, where = UINT64_MAX;
    uint64_t count = run_of(comparison, total, number, &first);
    const struct tensor *source = &comparing->source->tensors[comparison->source];
    const struct tensor *output = &comparing->output->tensors[comparison->output];
    uint64_t from = dtype_bits(source->info.dtype) / 8, to = dtype_bits(output->info.dtype) / 8;
    uint8_t *a = worker->source.weight, *b = worker->output.weight;
    enum status status = checkpoint_read(comparing->source, source, comparison->source_offset + first * from, a,
                                         (size_t)(count * from), error);
    if (status == STATUS_OK)
        status = checkpoint_read(comparing->output, output, first * to, b, (size_t)(count * to), error);
    for (uint64_t i = 0; i < count && status == STATUS_OK; i++)
        if (float_to_bits(number_decode(source->info.dtype, a, i)) !=
            float_to_bits(number_decode(output->info.dtype, b, i)))
            where = different++ == 0 ? first + i : where;
    if (status == STATUS_OK)
        differences_note(comparing, comparison, different, where);
    return status;
}

/* ---- the team ---- */

static struct comparison *comparison_of(const struct pairing *pairing, uint32_t tile) {
    size_t low = 0, high = pairing->count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (pairing->comparisons[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return &pairing->comparisons[low];
}

static void run_prefetch(const struct checkpoint *checkpoint, uint32_t number, uint64_t offset, uint64_t size) {
    const struct tensor *tensor = &checkpoint->tensors[number];
    byte_source_prefetch(checkpoint->shards[tensor->shard].source, tensor->info.offset + offset, size);
}

static void tile_prefetch(const struct comparing *comparing, size_t at) {
    if (at >= comparing->count)
        return;
    const struct comparison *comparison = comparison_of(comparing->pairing, comparing->chosen[at]);
    uint32_t number = comparing->chosen[at] - comparison->first_tile;
    if (comparison->kind == COMPARE_VALUES) {
        const struct tile tile = tile_of(comparison, number);
        matrix_prefetch(&comparison->from, &tile);
        matrix_prefetch(&comparison->to, &tile);
    } else if (comparison->kind == COMPARE_BYTES) {
        uint64_t first, size = run_of(comparison, comparison->size, number, &first);
        run_prefetch(comparing->source, comparison->source, comparison->source_offset + first, size);
        run_prefetch(comparing->output, comparison->output, first, size);
    }
}

static enum status tile_do(void *context, size_t at, unsigned thread, struct error *error) {
    struct comparing *comparing = context;
    struct worker *worker = &comparing->workers[thread];
    struct comparison *comparison = comparison_of(comparing->pairing, comparing->chosen[at]);
    uint32_t number = comparing->chosen[at] - comparison->first_tile;
    tile_prefetch(comparing, at + PREFETCH_TILES);
    enum status status =
        comparison->kind == COMPARE_VALUES  ? values_compare(comparing, worker, comparison, number, error)
        : comparison->kind == COMPARE_BYTES ? bytes_compare(comparing, worker, comparison, number, error)
                                            : numbers_compare(comparing, worker, comparison, number, error);
    if (status != STATUS_OK)
        return status;
    pthread_mutex_lock(&comparing->lock);
    comparison->tiles_read++;
    if (--comparison->tiles_left == 0)
        comparison_finish(comparison);
    pthread_mutex_unlock(&comparing->lock);
    return team_work_advance(&comparing->work, tile_bytes(comparing->source, comparing->output, comparison, number),
                             error);
}

static enum status workers_make(struct comparing *comparing, unsigned *jobs, struct error *error) {
    uint64_t each = needs_bytes(&comparing->needs, comparing->pairing->group_count) + ((uint64_t)1 << 20);
    uint64_t fitting = comparing->options->memory / each;
    if (fitting == 0)
        return error_set(error, STATUS_USAGE, "--memory is too small: a thread needs %" PRIu64 " MiB beside the tables",
                         (each >> 20) + 1);
    *jobs = comparing->options->jobs;
    if (fitting < *jobs)
        *jobs = (unsigned)fitting;
    if (comparing->count < *jobs)
        *jobs = comparing->count ? (unsigned)comparing->count : 1;
    comparing->workers = calloc((size_t)*jobs + 1, sizeof *comparing->workers);
    if (!comparing->workers)
        return error_set_memory(error);
    for (unsigned i = 0; i < *jobs; i++)
        if (!worker_init(comparing, &comparing->workers[i]))
            return error_set_memory(error);
    return STATUS_OK;
}

static enum status tiles_compare(struct comparing *comparing, unsigned jobs, struct error *error) {
    comparing->work = (struct team_work){.function = tile_do,
                                         .context = comparing,
                                         .count = comparing->count,
                                         .threads = jobs,
                                         .verb = "verifying",
                                         .bytes = comparing->result->bytes,
                                         .quiet = comparing->options->quiet};
    for (size_t at = 0; at < PREFETCH_TILES; at++)
        tile_prefetch(comparing, at);
    return team_work_run(&comparing->work, error);
}

enum status compare_run(const struct checkpoint *source, const struct checkpoint *output, struct pairing *pairing,
                        const struct compare_options *options, struct compare_result *result, struct error *error) {
    *result = (struct compare_result){0};
    struct comparing comparing = {.source = source,
                                  .output = output,
                                  .pairing = pairing,
                                  .options = options,
                                  .result = result,
                                  .measure = mxfp4_measure_for(options->cpu),
                                  .needs = needs_of(pairing)};
    unsigned jobs = 0;
    size_t groups = pairing->group_count;
    tiles_choose(&comparing);
    comparing.chosen = malloc((comparing.count + 1) * sizeof *comparing.chosen);
    result->histograms = calloc(groups + 1, sizeof *result->histograms);
    enum status status = comparing.chosen && result->histograms ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK) {
        tiles_choose(&comparing);
        status = workers_make(&comparing, &jobs, error);
    }
    pthread_mutex_init(&comparing.lock, NULL);
    if (status == STATUS_OK)
        status = tiles_compare(&comparing, jobs, error);
    pthread_mutex_destroy(&comparing.lock);
    for (unsigned i = 0; i < jobs && comparing.workers; i++) {
        for (size_t g = 0; g < groups && comparing.workers[i].memory; g++)
            histogram_merge(&result->histograms[g], &comparing.workers[i].histograms[g]);
        free(comparing.workers[i].memory);
    }
    free(comparing.workers);
    free(comparing.chosen);
    return status;
}

void compare_result_free(struct compare_result *result) {
    free(result->histograms);
    result->histograms = NULL;
}

/* ---- one block ---- */

enum status block_view_read(const struct comparison *comparison, const struct place *place, struct block_view *view,
                            struct error *error) {
    const struct matrix *to = &comparison->to;
    uint64_t column = place->column / MATRIX_BLOCK * MATRIX_BLOCK, left = to->columns - column;
    const struct tile tile = {place->row, 1, column, left < MATRIX_BLOCK ? left : MATRIX_BLOCK};
    uint8_t bytes[4][MATRIX_BLOCK * sizeof(double) * 2];
    struct matrix_buffer from_buffer = {bytes[0], bytes[1]}, to_buffer = {bytes[2], bytes[3]};
    uint16_t row[MATRIX_BLOCK];
    float values[MATRIX_BLOCK];
    *view = (struct block_view){.count = (unsigned)tile.columns, .scale = NAN, .scale_code = -1};
    enum status status = matrix_read(&comparison->from, &tile, &from_buffer, error);
    if (status == STATUS_OK)
        status = matrix_read(to, &tile, &to_buffer, error);
    if (status != STATUS_OK)
        return status;
    matrix_row_bf16(&comparison->from, &tile, &from_buffer, 0, row);
    matrix_row_float(to, &tile, &to_buffer, 0, values);
    if (to->scale != MODULE_NO_TENSOR)
        view->scale = (double)matrix_scale(to, &tile, &to_buffer, 0, 0);
    if (to->format == STORED_MXFP4)
        view->scale_code = to_buffer.scale[0];
    for (unsigned i = 0; i < view->count; i++) {
        view->source[i] = bf16_decode(row[i]);
        view->output[i] = (double)values[i];
        view->codes[i] = to->format == STORED_PLAIN ? -1 : to_buffer.weight[i];
        if (to->format == STORED_MXFP4) {
            view->codes[i] = to_buffer.weight[i / 2] >> (i % 2 * 4) & 15;
            view->output[i] = (double)e2m1_decode((uint8_t)view->codes[i]) * view->scale;
        }
    }
    return STATUS_OK;
}
