#include "qstream/tile.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/formats.h"

/* Rows of a transposed tile that are brought into order at a time. */
enum { ROWS_AT_ONCE = 16, ALIGNMENT = 64 };

static const struct tensor *source_of(const struct plan *plan, const struct plan_job *job) {
    return &plan->checkpoint->tensors[job->source];
}

static size_t element_bytes(const struct tensor *tensor) { return dtype_bits(tensor->info.dtype) / 8; }

/* ---- buffers ---- */

struct needs {
    size_t source, scales, rows, gamma, output[2];
};

static void at_least(size_t *value, uint64_t wanted) {
    if (*value < wanted)
        *value = (size_t)wanted;
}

/* Rows of the scale tensor that belong to `count` rows of the weight, at most. */
static uint64_t scale_rows(const struct tensor_layout *layout, uint64_t count) {
    return layout->scaling == SCALING_BLOCK ? count / layout->block_rows + 2 : count;
}

static uint64_t scale_row_bytes(const struct plan *plan, const struct tensor_layout *layout) {
    const struct tensor_info *scale = &plan->checkpoint->tensors[layout->scale].info;
    uint64_t columns = layout->scaling == SCALING_CHANNEL ? 1 : scale->shape[scale->rank - 1];
    return columns * (dtype_bits(scale->dtype) / 8);
}

static struct needs plan_needs(const struct plan *plan) {
    struct needs needs = {.source = TILE_SCRATCH_BYTES};
    for (size_t j = 0; j < plan->job_count; j++) {
        const struct plan_job *job = &plan->jobs[j];
        const struct tensor_layout *layout = &plan->layout->tensors[job->source];
        uint64_t rows = job->rows < job->rows_per_tile ? job->rows : job->rows_per_tile;
        if (job->kind == JOB_COPY) {
            at_least(&needs.source, rows);
            continue;
        }
        at_least(&needs.source, rows * job->columns * element_bytes(source_of(plan, job)));
        at_least(&needs.rows, job->columns * sizeof(uint16_t) * (job->transposed ? ROWS_AT_ONCE : 1));
        if (job->gamma != NO_TENSOR)
            at_least(&needs.gamma, job->columns * sizeof(float));
        if (layout->scaling > SCALING_TENSOR)
            at_least(&needs.scales, scale_rows(layout, rows) * scale_row_bytes(plan, layout));
        for (uint32_t i = 0; i < job->output_count; i++) {
            uint64_t row_bytes = plan_output_row_bytes(job, &plan->outputs[job->outputs[i]]);
            at_least(&needs.output[i], row_bytes ? rows * row_bytes : sizeof(uint16_t));
        }
    }
    return needs;
}

static size_t padded(size_t bytes) { return (bytes + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static size_t needs_total(const struct needs *needs) {
    return padded(needs->source) + padded(needs->scales) + padded(needs->rows) + padded(needs->gamma) +
           padded(needs->output[0]) + padded(needs->output[1]);
}

size_t tile_worker_bytes(const struct plan *plan) {
    struct needs needs = plan_needs(plan);
    return needs_total(&needs);
}

enum status tile_worker_init(const struct plan *plan, enum cpu_level level, struct tile_worker *worker,
                             struct error *error) {
    *worker = (struct tile_worker){.plan = plan,
                                   .quantize = mxfp4_quantize_for(level),
                                   .convert = convert_for(level),
                                   .gamma_tensor = NO_TENSOR,
                                   .table_tensor = NO_TENSOR};
    struct needs needs = plan_needs(plan);
    worker->memory = aligned_alloc(ALIGNMENT, needs_total(&needs));
    if (!worker->memory)
        return error_set_memory(error);
    uint8_t *at = worker->memory;
    worker->source = at;
    worker->scales = at += padded(needs.source);
    worker->rows = (uint16_t *)(void *)(at += padded(needs.scales));
    worker->gamma = (float *)(void *)(at += padded(needs.rows));
    worker->output[0] = at += padded(needs.gamma);
    worker->output[1] = at + padded(needs.output[0]);
    return STATUS_OK;
}

void tile_worker_free(struct tile_worker *worker) {
    free(worker->memory);
    worker->memory = NULL;
}

/* ---- reading ---- */

/* One floating-point number of a scale tensor: element `index` of `bytes`. */
static float scale_decode(enum dtype dtype, const uint8_t *bytes, uint64_t index) {
    if (dtype == DTYPE_U8 || dtype == DTYPE_F8_E8M0)
        return e8m0_decode(bytes[index]);
    if (dtype == DTYPE_F32) {
        float value;
        memcpy(&value, bytes + index * sizeof value, sizeof value);
        return value;
    }
    uint16_t code;
    memcpy(&code, bytes + index * sizeof code, sizeof code);
    return dtype == DTYPE_BF16 ? bf16_decode(code) : f16_decode(code);
}

static enum status scalar_read(const struct plan *plan, uint32_t index, float *value, struct error *error) {
    const struct tensor *tensor = &plan->checkpoint->tensors[index];
    uint8_t bytes[8];
    enum status status = checkpoint_read(plan->checkpoint, tensor, 0, bytes, element_bytes(tensor), error);
    if (status != STATUS_OK)
        return status;
    *value = scale_decode(tensor->info.dtype, bytes, 0);
    if (!isfinite(*value) || *value < 0)
        return error_set(error, STATUS_BAD_INPUT, "the scale '%s' is %g: it must be a finite number, not below zero",
                         tensor->info.name, (double)*value);
    return STATUS_OK;
}

static enum status gamma_load(struct tile_worker *worker, const struct plan_job *job, struct error *error) {
    if (worker->gamma_tensor == job->gamma)
        return STATUS_OK;
    const struct tensor *norm = &worker->plan->checkpoint->tensors[job->gamma];
    /* The norm's elements are no larger than ours: read them to the end of the buffer and widen forwards. */
    size_t bytes = (size_t)job->columns * element_bytes(norm);
    uint8_t *raw = (uint8_t *)worker->gamma + job->columns * sizeof(float) - bytes;
    worker->gamma_tensor = NO_TENSOR;
    enum status status = checkpoint_read(worker->plan->checkpoint, norm, 0, raw, bytes, error);
    for (uint64_t i = 0; i < job->columns && status == STATUS_OK; i++) {
        worker->gamma[i] = scale_decode(norm->info.dtype, raw, i);
        if (!isfinite(worker->gamma[i]))
            status = error_set(error, STATUS_BAD_INPUT, "layer norm '%s' holds %g at channel %" PRIu64, norm->info.name,
                               (double)worker->gamma[i], i);
    }
    if (status == STATUS_OK)
        worker->gamma_tensor = job->gamma;
    return status;
}

/* The tile's source bytes: whole rows, or for a transposed weight one run of each row of the source. */
static enum status source_load(struct tile_worker *worker, const struct plan_job *job, uint64_t first, uint64_t count,
                               size_t *size, struct error *error) {
    const struct checkpoint *checkpoint = worker->plan->checkpoint;
    const struct tensor *source = source_of(worker->plan, job);
    uint64_t item = element_bytes(source), row_bytes = job->columns * item;
    *size = (size_t)(count * row_bytes);
    if (!job->transposed)
        return checkpoint_read(checkpoint, source, (job->first_row + first) * row_bytes, worker->source, *size, error);
    enum status status = STATUS_OK;
    for (uint64_t c = 0; c < job->columns && status == STATUS_OK; c++) {
        uint64_t row = job->expert * job->columns + c;
        uint64_t element = row * job->source_columns + job->first_row + first;
        status = checkpoint_read(checkpoint, source, element * item, worker->source + c * count * item,
                                 (size_t)(count * item), error);
    }
    return status;
}

/* Where the rows' scales are: row `first` of the job is row `*inside` of the scale rows that were loaded. */
static enum status scales_load(struct tile_worker *worker, const struct plan_job *job, uint64_t first, uint64_t count,
                               uint64_t *inside, struct error *error) {
    const struct plan *plan = worker->plan;
    const struct tensor_layout *layout = &plan->layout->tensors[job->source];
    if (layout->scaling == SCALING_NONE)
        return STATUS_OK;
    const struct tensor *scale = &plan->checkpoint->tensors[layout->scale];
    if (layout->scaling == SCALING_TENSOR) {
        if (worker->table_tensor == layout->scale)
            return STATUS_OK;
        float value;
        enum status status = scalar_read(plan, layout->scale, &value, error);
        if (status == STATUS_OK) {
            fp8_table_fill(value, worker->table);
            worker->table_tensor = layout->scale;
        }
        return status;
    }
    const struct tensor_info *weight = &source_of(plan, job)->info;
    uint64_t per = layout->scaling == SCALING_BLOCK ? layout->block_rows : 1;
    uint64_t rows_of_expert = weight->shape[weight->rank - 2];
    uint64_t scale_rows_of_expert = (rows_of_expert + per - 1) / per;
    uint64_t row = job->first_row + first - job->expert * rows_of_expert; /* inside the expert's matrix */
    uint64_t begin = row / per, end = (row + count - 1) / per + 1, bytes = scale_row_bytes(plan, layout);
    *inside = row - begin * per;
    return checkpoint_read(plan->checkpoint, scale, (job->expert * scale_rows_of_expert + begin) * bytes,
                           worker->scales, (size_t)((end - begin) * bytes), error);
}

/* One FP8 row to BF16 with the scales that scales_load left. `row` counts from the first loaded scale row's start. */
static void fp8_row_decode(struct tile_worker *worker, const struct plan_job *job, const uint8_t *codes, uint64_t row,
                           uint16_t *out) {
    const struct plan *plan = worker->plan;
    const struct tensor_layout *layout = &plan->layout->tensors[job->source];
    if (layout->scaling == SCALING_TENSOR) {
        worker->convert->fp8_e4m3_to_bf16_by_table(codes, (size_t)job->columns, worker->table, out);
        return;
    }
    enum dtype dtype = plan->checkpoint->tensors[layout->scale].info.dtype;
    uint64_t per_rows = 1, per_columns = job->columns;
    if (layout->scaling == SCALING_BLOCK) {
        per_rows = layout->block_rows;
        per_columns = layout->block_columns;
    } else if (layout->scaling == SCALING_MX) {
        per_columns = MXFP4_BLOCK;
    }
    const uint8_t *scales = worker->scales + row / per_rows * scale_row_bytes(plan, layout);
    for (uint64_t c = 0; c < job->columns; c += per_columns) {
        uint64_t count = job->columns - c < per_columns ? job->columns - c : per_columns;
        worker->convert->fp8_e4m3_to_bf16(codes + c, (size_t)count, scale_decode(dtype, scales, c / per_columns),
                                          out + c);
    }
}

/* Element r of each of `columns` runs of `count` elements becomes row r: rows [begin, end) at a time. */
static void transpose(const struct tile_worker *worker, const struct plan_job *job, enum dtype dtype, uint64_t count,
                      uint64_t begin, uint64_t end) {
    for (uint64_t c = 0; c < job->columns; c++)
        for (uint64_t r = begin; r < end; r++) {
            uint64_t from = c * count + r;
            uint16_t value;
            if (dtype == DTYPE_F32) {
                float wide;
                memcpy(&wide, worker->source + from * sizeof wide, sizeof wide);
                value = bf16_encode(wide);
            } else {
                memcpy(&value, worker->source + from * sizeof value, sizeof value);
                if (dtype == DTYPE_F16)
                    value = bf16_encode(f16_decode(value));
            }
            worker->rows[(r - begin) * job->columns + c] = value;
        }
}

/* Row `row` of a loaded tile in BF16; valid until the next call. */
static const uint16_t *row_bf16(struct tile_worker *worker, const struct plan_job *job, uint64_t row, uint64_t count,
                                uint64_t scale_row) {
    enum dtype dtype = source_of(worker->plan, job)->info.dtype;
    if (job->transposed) {
        if (row % ROWS_AT_ONCE == 0)
            transpose(worker, job, dtype, count, row, row + ROWS_AT_ONCE < count ? row + ROWS_AT_ONCE : count);
        return worker->rows + row % ROWS_AT_ONCE * job->columns;
    }
    const uint8_t *bytes = worker->source + row * job->columns * (dtype_bits(dtype) / 8);
    switch (dtype) {
    case DTYPE_BF16:
        return (const uint16_t *)(const void *)bytes;
    case DTYPE_F16:
        worker->convert->f16_to_bf16((const uint16_t *)(const void *)bytes, (size_t)job->columns, worker->rows);
        break;
    case DTYPE_F32:
        worker->convert->f32_to_bf16((const float *)(const void *)bytes, (size_t)job->columns, worker->rows);
        break;
    default:
        fp8_row_decode(worker, job, bytes, scale_row + row, worker->rows);
    }
    return worker->rows;
}

/* The error for a row that holds something else than numbers. */
static enum status nonfinite(const struct tile_worker *worker, const struct plan_job *job, const uint16_t *row,
                             uint64_t row_number, struct error *error) {
    enum { INFINITY_CODE = 0x7f80 };
    uint64_t column = 0;
    while (column + 1 < job->columns && (row[column] & 0x7fff) < INFINITY_CODE)
        column++;
    const struct plan *plan = worker->plan;
    const struct tensor_layout *layout = &plan->layout->tensors[job->source];
    return error_set(error, STATUS_BAD_INPUT,
                     "tensor '%s' holds %s at row %" PRIu64 ", column %" PRIu64
                     "%s%s%s: a checkpoint with such values cannot be quantized",
                     source_of(plan, job)->info.name,
                     (row[column] & 0x7fff) > INFINITY_CODE ? "a NaN" : "an infinite value (in BF16)", row_number,
                     column, layout->scale != NO_TENSOR ? " (times its scale '" : "",
                     layout->scale != NO_TENSOR ? plan->checkpoint->tensors[layout->scale].info.name : "",
                     layout->scale != NO_TENSOR ? "')" : "");
}

/* ---- converting ---- */

static enum status row_quantize(struct tile_worker *worker, const struct plan_job *job, const uint16_t *row,
                                uint64_t number, uint64_t row_number, uint16_t amax, struct error *error) {
    size_t columns = (size_t)job->columns;
    if (job->kind == JOB_MXFP4) {
        size_t blocks = columns / MXFP4_BLOCK;
        const float *gamma = job->gamma == NO_TENSOR ? NULL : worker->gamma;
        if (!worker->quantize(row, blocks, worker->plan->options.rule, gamma,
                              worker->output[0] + number * (columns / 2), worker->output[1] + number * blocks))
            return nonfinite(worker, job, row, row_number, error);
        return STATUS_OK;
    }
    if (job->kind == JOB_FP8_CHANNEL) {
        amax = worker->convert->bf16_amax(row, columns);
        if (amax > 0x7f7f)
            return nonfinite(worker, job, row, row_number, error);
    }
    uint16_t scale = fp8_scale_from_amax(amax);
    worker->convert->bf16_to_fp8_e4m3(row, columns, scale, worker->output[0] + number * columns);
    uint64_t place = job->kind == JOB_FP8_CHANNEL ? number : 0;
    memcpy(worker->output[1] + place * sizeof scale, &scale, sizeof scale);
    return STATUS_OK;
}

static enum status weight_convert(struct tile_worker *worker, const struct plan_job *job, uint64_t first,
                                  uint64_t count, uint16_t amax, struct tile_result *result, struct error *error) {
    uint64_t scale_row = 0;
    enum status status = source_load(worker, job, first, count, &result->source_size, error);
    if (status == STATUS_OK)
        status = scales_load(worker, job, first, count, &scale_row, error);
    if (status == STATUS_OK && job->gamma != NO_TENSOR)
        status = gamma_load(worker, job, error);
    for (uint64_t row = 0; row < count && status == STATUS_OK; row++)
        status = row_quantize(worker, job, row_bf16(worker, job, row, count, scale_row), row,
                              job->first_row + first + row, amax, error);
    for (uint32_t i = 0; i < job->output_count; i++) {
        uint64_t row_bytes = plan_output_row_bytes(job, &worker->plan->outputs[job->outputs[i]]);
        result->offset[i] = first * row_bytes;
        result->size[i] = (size_t)(count * row_bytes);
        if (row_bytes == 0 && first == 0) /* the one scale of a tensor comes with its first tile */
            result->size[i] = sizeof(uint16_t);
    }
    return status;
}

/* The shards that a job read must be what they were. */
static enum status sources_check(const struct plan *plan, const struct plan_job *job, struct error *error) {
    const struct checkpoint *checkpoint = plan->checkpoint;
    uint32_t scale = plan->layout->tensors[job->source].scale, shard = source_of(plan, job)->shard;
    enum status status = byte_source_check_unchanged(checkpoint->shards[shard].source, error);
    if (status == STATUS_OK && scale != NO_TENSOR && checkpoint->tensors[scale].shard != shard)
        status = byte_source_check_unchanged(checkpoint->shards[checkpoint->tensors[scale].shard].source, error);
    return status;
}

enum status tile_convert(struct tile_worker *worker, const struct plan_job *job, uint32_t tile, uint16_t amax,
                         struct tile_result *result, struct error *error) {
    *result = (struct tile_result){.bytes = {worker->output[0], worker->output[1]}};
    uint64_t first, count;
    plan_tile_rows(job, tile, &first, &count);
    enum status status;
    switch (job->kind) {
    case JOB_COPY:
        result->bytes[0] = worker->source;
        result->size[0] = result->source_size = (size_t)count;
        result->offset[0] = first;
        status = checkpoint_read(worker->plan->checkpoint, source_of(worker->plan, job), job->first_row + first,
                                 worker->source, (size_t)count, error);
        break;
    case JOB_SCALAR_F32: {
        float value;
        status = scalar_read(worker->plan, job->source, &value, error);
        memcpy(worker->output[0], &value, sizeof value);
        memcpy(worker->source, &value, sizeof value);
        result->size[0] = result->source_size = sizeof value;
        break;
    }
    default:
        status = weight_convert(worker, job, first, count, amax, result, error);
    }
    if (status == STATUS_OK)
        status = sources_check(worker->plan, job, error);
    return status;
}

enum status tile_amax(struct tile_worker *worker, const struct plan_job *job, uint32_t tile, uint16_t *amax,
                      struct error *error) {
    uint64_t first, count, scale_row = 0;
    size_t size;
    plan_tile_rows(job, tile, &first, &count);
    *amax = 0;
    enum status status = source_load(worker, job, first, count, &size, error);
    if (status == STATUS_OK)
        status = scales_load(worker, job, first, count, &scale_row, error);
    for (uint64_t row = 0; row < count && status == STATUS_OK; row++) {
        const uint16_t *values = row_bf16(worker, job, row, count, scale_row);
        uint16_t largest = worker->convert->bf16_amax(values, (size_t)job->columns);
        if (largest > 0x7f7f)
            status = nonfinite(worker, job, values, job->first_row + first + row, error);
        *amax = largest > *amax ? largest : *amax;
    }
    return status;
}

void tile_prefetch(const struct plan *plan, uint32_t tile) {
    const struct plan_job *job = plan_job_of_tile(plan, tile);
    const struct tensor *source = source_of(plan, job);
    if (job->transposed || job->kind == JOB_SCALAR_F32)
        return;
    uint64_t first, count, row_bytes = job->kind == JOB_COPY ? 1 : job->columns * element_bytes(source);
    plan_tile_rows(job, tile, &first, &count);
    byte_source_prefetch(plan->checkpoint->shards[source->shard].source,
                         source->info.offset + (job->first_row + first) * row_bytes, count * row_bytes);
}
