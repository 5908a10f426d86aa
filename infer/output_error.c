#include "infer/output_error.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "common/text.h"
#include "infer/cpu/layer.h"
#include "infer/embedding.h"
#include "infer/hidden.h"
#include "infer/space.h"

struct run {
    const struct output_error_options *options;
    struct model models[2]; /* source, output */
    struct engine engine;
    struct rope_table rope;
    struct group group; /* a window */
    struct attention_window window;
    struct hidden hidden; /* a slot for each window */
    struct layer_space space;
    unsigned char *buffers[2];
    struct layer layers[2];
    uint32_t layer;
    double (*sums)[2]; /* [blocks of a window]: of one weight, errors and outputs */
    double totals[LAYER_WEIGHTS][2];
    struct output_error *errors;
    size_t count;
};

/* ---- beginning and end ---- */

static enum status models_open(struct run *run, struct error *error) {
    static const struct model_options plain = {.activations_float = true};
    const struct output_error_options *options = run->options;
    enum status status = model_open(options->source, &plain, &run->models[0], error);
    if (status == STATUS_OK)
        status = model_open(options->output, &plain, &run->models[1], error);
    if (status != STATUS_OK)
        return status;
    const struct model *source = &run->models[0], *output = &run->models[1];
    if (source->layer_count != output->layer_count || source->hidden != output->hidden ||
        source->intermediate != output->intermediate || source->heads != output->heads ||
        source->kv_heads != output->kv_heads || source->head_dim != output->head_dim)
        return error_set(error, STATUS_BAD_INPUT, "'%s' and '%s' are models of other shapes", options->source,
                         options->output);
    for (unsigned i = 0; status == STATUS_OK && i < 2; i++)
        status = model_window_check(&run->models[i], options->tokens, error);
    return status == STATUS_OK
               ? model_ids_check(source, options->ids, (size_t)options->windows * options->tokens, error)
               : status;
}

static enum status memory_take(struct run *run, struct error *error) {
    const struct output_error_options *options = run->options;
    const struct model *model = &run->models[0];
    uint64_t bytes[2] = {0};
    size_t packed, scratch;
    for (uint32_t layer = 0; layer < model->layer_count; layer++)
        for (unsigned side = 0; side < 2; side++)
            bytes[side] = space_larger(bytes[side], run->models[side].layers[layer].bytes);
    enum status status = layer_engine_size(&run->engine, model, &packed, &scratch, error);
    if (status != STATUS_OK)
        return status;
    scratch = space_larger(scratch, linear_scratch(1, 2));
    run->space.size = layer_space_size(&run->engine, model, options->tokens, 1, options->tokens, error);
    if (run->space.size == 0)
        return STATUS_IO;
    packed = space_larger(2 * packed, SPACE_PACKED); /* two weights are multiplied with the same inputs */
    const uint64_t slot = (uint64_t)options->tokens * model->hidden * sizeof(float);
    const uint64_t fixed = SPACE_PROGRAM + bytes[0] + bytes[1] + packed + space_aligned(scratch) * options->jobs +
                           run->space.size + slot +
                           (model->checkpoint.tensor_count + run->models[1].checkpoint.tensor_count) * SPACE_TENSOR +
                           (uint64_t)options->windows * options->tokens * sizeof(int32_t) +
                           (uint64_t)options->tokens * (model->head_dim + 1) * sizeof(float);
    if (options->memory < fixed)
        return error_set(error, STATUS_USAGE,
                         "--memory is too small: outputs of this model need at least %" PRIu64 "MiB",
                         text_mebibytes(fixed));
    const uint64_t rest = (options->memory - fixed) / slot;
    const char *folder = options->spill_folder ? options->spill_folder : getenv("TMPDIR");
    run->space.bytes = aligned_alloc(64, space_aligned(run->space.size));
    run->sums = malloc(run->group.block_count * sizeof *run->sums);
    run->errors = calloc((size_t)model->layer_count * LAYER_WEIGHTS, sizeof *run->errors);
    for (unsigned side = 0; side < 2; side++)
        run->buffers[side] = aligned_alloc(64, space_aligned(bytes[side]));
    if (!run->space.bytes || !run->sums || !run->errors || !run->buffers[0] || !run->buffers[1])
        return error_set_memory(error);
    status = engine_space(&run->engine, packed, scratch, error);
    if (status == STATUS_OK)
        status = hidden_open(&run->hidden, options->windows, rest < options->windows ? (size_t)rest : options->windows,
                             slot, 1, folder && *folder ? folder : "/tmp", error);
    return status;
}

static enum status run_open(struct run *run, struct error *error) {
    const struct output_error_options *options = run->options;
    const struct engine_options engine = {
        .jobs = options->jobs, .cpu = options->cpu, .bf16 = products_have_bf16(options->cpu)};
    run->hidden.file = -1;
    run->window = (struct attention_window){0, options->tokens};
    enum status status = models_open(run, error);
    if (status == STATUS_OK)
        status = engine_open(&engine, &run->engine, error);
    if (status == STATUS_OK)
        status = group_make(&run->window, 1, &run->group, error);
    if (status == STATUS_OK)
        status = memory_take(run, error);
    return status == STATUS_OK ? rope_table_make(&run->models[0], options->tokens, &run->rope, error) : status;
}

static void run_close(struct run *run) {
    hidden_close(&run->hidden);
    rope_table_free(&run->rope);
    group_free(&run->group);
    engine_close(&run->engine);
    free(run->space.bytes);
    free(run->sums);
    for (unsigned side = 0; side < 2; side++) {
        free(run->buffers[side]);
        model_close(&run->models[side]);
    }
}

/* ---- measuring ---- */

static bool is_quantized(const struct run *run, enum layer_weight i) {
    return run->models[0].layers[run->layer].weights[i].weight.format !=
           run->models[1].layers[run->layer].weights[i].weight.format;
}

static void outputs_receive(void *context, struct tile *tile) {
    struct run *run = context;
    double error = 0, output = 0;
    for (size_t i = 0; i < (size_t)tile->block->count * tile->rows; i++) {
        const double wanted = (double)tile->y[0][i], apart = wanted - (double)tile->y[1][i];
        error += apart * apart;
        output += wanted * wanted;
    }
    run->sums[tile->block_number][0] += error;
    run->sums[tile->block_number][1] += output;
}

static enum status outputs_compare(void *context, enum layer_weight which, const struct operand_rows *inputs,
                                   struct error *error) {
    static const enum layer_weight ends[] = {
        [WEIGHT_Q] = WEIGHT_O, [WEIGHT_O] = WEIGHT_GATE, [WEIGHT_GATE] = WEIGHT_DOWN, [WEIGHT_DOWN] = LAYER_WEIGHTS};
    struct run *run = context;
    enum status status = STATUS_OK;
    for (enum layer_weight i = which; status == STATUS_OK && i < ends[which]; i++) {
        if (!is_quantized(run, i))
            continue;
        const struct linear linear = {.weights = {&run->layers[0].weights[i], &run->layers[1].weights[i]},
                                      .inputs = {inputs, inputs},
                                      .blocks = run->group.blocks,
                                      .block_count = run->group.block_count,
                                      .row_multiple = 1,
                                      .in_order = true,
                                      .receive = outputs_receive,
                                      .context = run};
        memset(run->sums, 0, run->group.block_count * sizeof *run->sums);
        status = linear_run(&run->engine, &linear, error);
        for (uint32_t block = 0; block < run->group.block_count; block++)
            for (unsigned k = 0; k < 2; k++)
                run->totals[i][k] += run->sums[block][k];
    }
    return status;
}

static enum status window_run(struct run *run, uint32_t window, struct error *error) {
    float *values;
    enum status status = hidden_get(&run->hidden, window, 0, run->layer == 0, &values, error);
    if (status == STATUS_OK && run->layer == 0)
        status = embeddings_load(&run->models[0], run->engine.rows,
                                 run->options->ids + (size_t)window * run->options->tokens, run->options->tokens,
                                 values, error);
    const struct layer_run layer = {.model = &run->models[0],
                                    .layer = &run->layers[0],
                                    .layer_number = run->layer,
                                    .end = LAYER_WEIGHTS,
                                    .tap = outputs_compare,
                                    .tap_context = run,
                                    .rope = &run->rope,
                                    .group = &run->group,
                                    .hidden = values,
                                    .space = &run->space};
    if (status == STATUS_OK)
        status = layer_run(&run->engine, &layer, error);
    return status == STATUS_OK ? hidden_put(&run->hidden, window, 0, error) : status;
}

static enum status errors_note(struct run *run, struct error *error) {
    static const char suffix[] = ".weight";
    for (enum layer_weight i = 0; i < LAYER_WEIGHTS; i++) {
        if (!is_quantized(run, i))
            continue;
        const char *name = run->models[0].layers[run->layer].weights[i].codes->info.name;
        const size_t length = strlen(name) - (text_ends_with(name, suffix) ? strlen(suffix) : 0);
        char *module = strndup(name, length);
        if (!module)
            return error_set_memory(error);
        const double *totals = run->totals[i];
        run->errors[run->count++] = (struct output_error){run->layer, i, module,
                                                          totals[1] > 0   ? sqrt(totals[0] / totals[1])
                                                          : totals[0] > 0 ? HUGE_VAL
                                                                          : 0};
    }
    return STATUS_OK;
}

static enum status layers_run(struct run *run, struct progress *progress, struct error *error) {
    enum status status = STATUS_OK;
    uint64_t done = 0;
    for (run->layer = 0; status == STATUS_OK && run->layer < run->models[0].layer_count; run->layer++) {
        for (unsigned side = 0; status == STATUS_OK && side < 2; side++)
            status = layer_load(&run->models[side], run->layer, run->buffers[side], &run->layers[side], error);
        memset(run->totals, 0, sizeof run->totals);
        for (uint32_t window = 0; status == STATUS_OK && window < run->options->windows; window++) {
            status = window_run(run, window, error);
            done += run->hidden.slot_bytes;
            progress_update(progress, done);
            if (status == STATUS_OK && interrupt_pending())
                status = error_set(error, STATUS_INTERRUPTED, "interrupted");
        }
        if (status == STATUS_OK)
            status = errors_note(run, error);
    }
    return status;
}

enum status output_errors_measure(const struct output_error_options *options, struct output_error **errors,
                                  size_t *count, struct error *error) {
    struct run run = {.options = options};
    struct progress progress;
    enum status status = run_open(&run, error);
    progress_start(&progress, "measuring outputs", run.models[0].layer_count * options->windows * run.hidden.slot_bytes,
                   0, options->quiet);
    if (status == STATUS_OK)
        status = layers_run(&run, &progress, error);
    progress_end(&progress);
    run_close(&run);
    *errors = run.errors;
    *count = run.count;
    return status;
}

void output_errors_free(struct output_error *errors, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(errors[i].module);
    free(errors);
}
