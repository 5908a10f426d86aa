#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "infer/cpu/decode_cpu.h"
#include "infer/space.h"

enum { HUGE_PAGE = 2 << 20 };

static uint32_t largest(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* ---- memory ---- */

static size_t operand_bytes(const struct cpu_decoder *decoder, const struct weight *weight) {
    return matvec_kernel(decoder->cpu, weight->format)->space(weight);
}

static size_t largest_operand(const struct cpu_decoder *decoder) {
    const struct model *model = &decoder->base.model;
    size_t most = operand_bytes(decoder, &model->head.weight);
    for (uint32_t i = 0; i < model->layer_count; i++)
        for (enum layer_weight j = 0; j < LAYER_WEIGHTS; j++) {
            const size_t bytes = operand_bytes(decoder, &model->layers[i].weights[j].weight);
            most = bytes > most ? bytes : most;
        }
    return most;
}

/* Gives the values of a token their places behind `base`; returns the bytes that they take. */
static uint64_t work_lay(struct cpu_decoder *decoder, unsigned char *base) {
    const struct model *model = &decoder->base.model;
    const uint64_t query = (uint64_t)model->heads * model->head_dim, key = (uint64_t)model->kv_heads * model->head_dim;
    const uint64_t widest = largest(largest(model->hidden, model->intermediate), (uint32_t)query);
    const uint64_t chunks = decoder->cache.chunks, parts = chunks * model->heads;
    struct {
        float **place;
        uint64_t count;
    } const floats[] = {{&decoder->norm, model->hidden},
                        {&decoder->hidden, model->hidden},
                        {&decoder->values, widest},
                        {&decoder->rounded, widest},
                        {&decoder->queries, query},
                        {&decoder->keys, key},
                        {&decoder->kv_values, key},
                        {&decoder->attended, query},
                        {&decoder->middle, model->intermediate},
                        {&decoder->gate, model->intermediate},
                        {&decoder->up, model->intermediate},
                        {&decoder->logits, model->vocabulary}};
    uint64_t at = 0;
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++)
        *floats[i].place = space_take(base, &at, floats[i].count * sizeof(float));
    const size_t operand = largest_operand(decoder);
    for (int i = 0; i < OPERANDS; i++)
        decoder->operands[i].prepared = space_take(base, &at, operand);
    decoder->parts = space_take(base, &at, parts * sizeof *decoder->parts);
    float *outs = space_take(base, &at, parts * model->head_dim * sizeof(float));
    for (uint64_t i = 0; base && i < parts; i++)
        decoder->parts[i].out = outs + i * model->head_dim;
    decoder->attend_space = space_take(base, &at, (uint64_t)decoder->attend_bytes * workers_count(decoder->workers));
    if (!decoder->base.tied)
        decoder->embedding_row = space_take(base, &at, weight_rows_bytes(&model->embedding, 1));
    return at;
}

static enum status budget_plan(struct cpu_decoder *decoder, const struct decode_options *options, struct error *error) {
    const struct model *model = &decoder->base.model;
    struct decode_budget *budget = &decoder->base.budget;
    budget->weights = weight_rows_bytes(&model->head, model->vocabulary);
    for (uint32_t i = 0; i < model->layer_count; i++)
        budget->weights += space_aligned(model->layers[i].bytes);
    budget->read = budget->weights;
    budget->cache = kv_cache_bytes(decoder->cache.format, model->layer_count, model->kv_heads, model->head_dim,
                                   decoder->base.positions);
    const uint64_t rope = (uint64_t)decoder->base.positions * (model->head_dim + 1) * sizeof(float);
    budget->work = DECODE_PROGRAM_BYTES + work_lay(decoder, NULL) + rope + model->layer_count * sizeof *decoder->layers;
    return decode_budget_check(&decoder->base, options, error);
}

/* ---- loading ---- */

struct loading {
    struct cpu_decoder *decoder;
    uint64_t *offsets; /* of the layers in the arena, then of the head */
    struct progress progress;
    atomic_uint_fast64_t done;
    atomic_int *statuses; /* [layers + 1] */
    struct error *errors;
};

static void load_task(void *context, size_t task, unsigned thread) {
    struct loading *loading = context;
    struct cpu_decoder *decoder = loading->decoder;
    const struct model *model = &decoder->base.model;
    unsigned char *to = decoder->arena + loading->offsets[task];
    struct error *error = &loading->errors[task];
    enum status status;
    if (interrupt_pending())
        status = error_set(error, STATUS_INTERRUPTED, "interrupted");
    else if (task < model->layer_count)
        status = layer_load(model, (uint32_t)task, to, &decoder->layers[task], error);
    else
        status = weight_rows_load(model, &model->head, 0, model->vocabulary, to, &decoder->head, error);
    atomic_store(&loading->statuses[task], (int)status);
    atomic_fetch_add(&loading->done, loading->offsets[task + 1] - loading->offsets[task]);
    if (thread == 0)
        progress_update(&loading->progress, atomic_load(&loading->done));
}

static enum status weights_load(struct cpu_decoder *decoder, bool quiet, struct error *error) {
    const struct model *model = &decoder->base.model;
    const size_t tasks = (size_t)model->layer_count + 1;
    struct loading loading = {.decoder = decoder,
                              .offsets = malloc((tasks + 1) * sizeof *loading.offsets),
                              .statuses = calloc(tasks, sizeof *loading.statuses),
                              .errors = calloc(tasks, sizeof *loading.errors)};
    enum status status = STATUS_OK;
    if (!loading.offsets || !loading.statuses || !loading.errors) {
        status = error_set_memory(error);
    } else {
        loading.offsets[0] = 0;
        for (uint32_t i = 0; i < model->layer_count; i++)
            loading.offsets[i + 1] = loading.offsets[i] + space_aligned(model->layers[i].bytes);
        loading.offsets[tasks] = loading.offsets[tasks - 1] + weight_rows_bytes(&model->head, model->vocabulary);
        progress_start(&loading.progress, "loading", loading.offsets[tasks], 0, quiet);
        workers_run(decoder->workers, tasks, load_task, &loading);
        progress_end(&loading.progress);
        size_t bad = 0; /* the first error, by number: always the same one */
        while (bad < tasks && atomic_load(&loading.statuses[bad]) == STATUS_OK)
            bad++;
        if (bad < tasks) {
            status = (enum status)atomic_load(&loading.statuses[bad]);
            *error = loading.errors[bad];
        }
    }
    free(loading.offsets);
    free(loading.statuses);
    free(loading.errors);
    return status;
}

static enum status spaces_make(struct cpu_decoder *decoder, struct error *error) {
    const uint64_t arena = (decoder->base.budget.weights + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    decoder->arena = aligned_alloc(HUGE_PAGE, arena);
    decoder->layers = calloc(decoder->base.model.layer_count, sizeof *decoder->layers);
    const uint64_t work = work_lay(decoder, NULL);
    decoder->work = aligned_alloc(64, work);
    if (!decoder->arena || !decoder->layers || !decoder->work)
        return error_set_memory(error);
    madvise(decoder->arena, arena, MADV_HUGEPAGE); /* fewer pages to look up while reading; works without */
    memset(decoder->work, 0, work);
    work_lay(decoder, decoder->work);
    return STATUS_OK;
}

enum status cpu_decoder_open(struct decoder *base, const struct decode_options *options, struct error *error) {
    struct cpu_decoder *decoder = (struct cpu_decoder *)base;
    const struct model *model = &base->model;
    decoder->cpu = options->cpu;
    decoder->rows = row_kernels_of(options->cpu);
    enum status status = workers_start(options->jobs, &decoder->workers, error);
    if (status != STATUS_OK)
        return status;
    static const enum weight_format formats[] = {
        [KV_CACHE_AUTO] = WEIGHT_F32, [KV_CACHE_BF16] = WEIGHT_BF16, [KV_CACHE_FP8] = WEIGHT_FP8};
    decoder->cache = (struct kv_store){.format = formats[options->kv_cache],
                                       .layers = model->layer_count,
                                       .kv_heads = model->kv_heads,
                                       .head_dim = model->head_dim};
    decoder->cache.chunks = (uint32_t)(((uint64_t)base->positions + KV_CHUNK - 1) / KV_CHUNK);
    decoder->attend_bytes = kv_cache_space(&decoder->cache);
    status = budget_plan(decoder, options, error);
    if (status != STATUS_OK || options->plan_only)
        return status;
    status = spaces_make(decoder, error);
    if (status == STATUS_OK)
        status = kv_cache_open(&decoder->cache, base->positions, options->cpu, error);
    if (status == STATUS_OK)
        status = rope_table_make(model, base->positions, &decoder->rope, error);
    if (status == STATUS_OK)
        status = norm_load(model, model->norm, model->hidden, decoder->norm, error);
    return status == STATUS_OK ? weights_load(decoder, options->quiet, error) : status;
}

void cpu_decoder_close(struct decoder *base) {
    struct cpu_decoder *decoder = (struct cpu_decoder *)base;
    workers_stop(decoder->workers);
    kv_cache_close(&decoder->cache);
    rope_table_free(&decoder->rope);
    free(decoder->arena);
    free(decoder->layers);
    free(decoder->work);
}

/* ---- how fast memory is ---- */

enum { READ_BYTES = 1 << 20 };
static const double read_seconds = 0.2;

struct reading {
    const unsigned char *bytes;
    memory_read_function *function;
    atomic_uint_fast64_t sum; /* wanted by nobody, but it makes the reading happen */
};

static void read_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    struct reading *reading = context;
    atomic_fetch_add(&reading->sum, reading->function(reading->bytes + task * READ_BYTES, READ_BYTES));
}

double cpu_decoder_read_rate(struct decoder *base) {
    const struct cpu_decoder *decoder = (const struct cpu_decoder *)base;
    static const size_t most = 512; /* tasks of a try */
    struct reading reading = {.bytes = decoder->arena, .function = memory_read_kernel(decoder->cpu)};
    size_t tasks = (size_t)(decoder->base.budget.weights / READ_BYTES);
    tasks = tasks > most ? most : tasks;
    if (tasks == 0)
        return 0;
    double best = 0;
    const double start = seconds_now();
    double now = start;
    while (now - start < read_seconds && !interrupt_pending()) {
        const double before = now;
        workers_run(decoder->workers, tasks, read_task, &reading);
        now = seconds_now();
        const double rate = (double)(tasks * READ_BYTES) / (now - before);
        best = rate > best ? rate : best;
    }
    return best;
}
