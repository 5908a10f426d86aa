#include "calibrate/calibrate.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/round.h"
#include "calibrate/states.h"
#include "common/formats.h"
#include "common/interrupt.h"
#include "common/progress.h"
#include "common/text.h"
#include "infer/cpu/layer.h"
#include "infer/embedding.h"
#include "infer/space.h"

enum {
    GROUP_MOST = 8 /* windows that are computed together: each packing serves them all */
};
/* Hidden states that are larger than so many times the median are too large to count in full. */
static const double large_state = 4;

/* The weights that are rounded for one Gram matrix: of linear layers with the same inputs. */
static const struct stage {
    enum layer_weight first, end;
} stages[] = {{WEIGHT_Q, WEIGHT_O}, {WEIGHT_O, WEIGHT_GATE}, {WEIGHT_GATE, WEIGHT_DOWN}, {WEIGHT_DOWN, LAYER_WEIGHTS}};

struct run {
    const struct calibrate_options *options;
    struct model source, output;
    struct engine engine;
    struct solver solver;
    struct rope_table rope;
    uint32_t group_windows;
    size_t packed, scratch, space_size;
    uint64_t layer_bytes, original_bytes, source_bytes; /* of `buffer`, `original` and `source_buffer` */
    struct layer_space space;
    float *hidden;                 /* of a group */
    double *squares, *sorted;      /* of a group's tokens; of a window's, */
    float *token_weights;          /* from which these are made */
    float *lacks;                  /* of a group, [tokens, hidden]; with a correction only, as what belongs to it */
    struct weight original_weight; /* in `original` */
    unsigned char *buffer;         /* of a layer of the output */
    unsigned char *original;       /* of a weight of the source */
    unsigned char *source_buffer;  /* of a layer of the source */
    struct layer layer, source_layer;
    uint32_t layer_number;
    struct states states, source_states;
    struct states middle; /* of the source: its `out` is what attention leaves */
    struct gram gram;
    struct pull pull;
    struct progress progress;
    uint64_t done; /* bytes of hidden states that went through something */
};

/* ---- what it takes ---- */

static bool is_corrected(const struct run *run) { return run->options->correction > 0; }

/* Whether what a linear layer gives is added to the hidden states. */
static bool is_added(enum layer_weight first) { return first == WEIGHT_O || first == WEIGHT_DOWN; }

static bool stage_wanted(const struct run *run, uint32_t layer, const struct stage *stage) {
    for (enum layer_weight i = stage->first; i < stage->end; i++)
        if (run->options->wanted(run->options->context, layer, i))
            return true;
    return false;
}

static enum status models_open(struct run *run, struct error *error) {
    const struct calibrate_options *options = run->options;
    const struct model_options as_served = {0};
    enum status status = model_open(options->source, &as_served, &run->source, error);
    if (status == STATUS_OK)
        status = options->output_open(options->context, &run->output, error);
    if (status != STATUS_OK)
        return status;
    status = model_window_check(&run->source, options->tokens, error);
    return status == STATUS_OK
               ? model_ids_check(&run->source, options->ids, (size_t)options->windows * options->tokens, error)
               : status;
}

/*
 * Floating-point operations: layers once, what comes before a stage again, Gram matrices, factors, rounding; the source, pulls
 * and what they come to.
 */
static double flops_of(const struct run *run) {
    const double tokens = (double)run->options->windows * run->options->tokens;
    double flops = 0;
    for (uint32_t layer = 0; layer < run->output.layer_count; layer++)
        for (size_t s = 0; s < sizeof stages / sizeof *stages; s++) {
            const bool wanted = stage_wanted(run, layer, &stages[s]);
            double elements = 0;
            for (enum layer_weight i = stages[s].first; i < stages[s].end; i++) {
                const struct weight *weight = &run->output.layers[layer].weights[i].weight;
                elements += (double)weight->rows * weight->columns;
                if (!run->options->wanted(run->options->context, layer, i))
                    continue;
                const double square = (double)weight->rows * weight->columns * weight->columns;
                flops += square * (!is_corrected(run) ? 1 : is_added(i) ? 3 : 5);
            }
            const double columns = run->output.layers[layer].weights[stages[s].first].weight.columns;
            /* gate and up before down is rounded and after it; o and down to weigh tokens, too */
            const bool twice = stages[s].first == WEIGHT_GATE || (wanted && is_added(stages[s].first));
            flops += 2 * tokens * elements * ((twice ? 2 : 1) + is_corrected(run));
            if (wanted)
                flops += tokens * columns * columns + columns * columns * columns / 3;
            if (wanted && is_corrected(run))
                flops += 2 * tokens * columns * run->output.hidden;
        }
    return flops;
}

/* Memory for groups of so many windows. */
static enum status budget_fill(struct run *run, uint32_t windows, struct calibrate_budget *budget,
                               struct error *error) {
    const struct calibrate_options *options = run->options;
    const struct model *model = &run->output;
    *budget = (struct calibrate_budget){0};
    const struct model *models[] = {model, is_corrected(run) ? &run->source : NULL};
    run->packed = SPACE_PACKED;
    run->scratch = run->space_size = 0;
    for (unsigned i = 0; i < 2 && models[i]; i++) {
        size_t packed, scratch;
        const enum status status = layer_engine_size(&run->engine, models[i], &packed, &scratch, error);
        if (status != STATUS_OK)
            return status;
        const size_t space =
            layer_space_size(&run->engine, models[i], windows * options->tokens, windows, options->tokens, error);
        if (space == 0)
            return STATUS_IO;
        run->packed = space_larger(run->packed, packed);
        run->scratch = space_larger(run->scratch, scratch);
        run->space_size = space_larger(run->space_size, space);
    }
    run->scratch = space_larger(run->scratch, model->hidden * sizeof(float)); /* a token's lacks */
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        run->layer_bytes = space_larger(run->layer_bytes, model->layers[layer].bytes);
        if (is_corrected(run))
            run->source_bytes = space_larger(run->source_bytes, run->source.layers[layer].bytes);
        for (enum layer_weight i = 0; i < LAYER_WEIGHTS; i++) {
            if (!options->wanted(options->context, layer, i))
                continue;
            const uint32_t columns = model->layers[layer].weights[i].weight.columns;
            if (!is_corrected(run))
                run->original_bytes = space_larger(run->original_bytes, run->source.layers[layer].weights[i].bytes);
            const uint64_t pull = is_corrected(run) ? pull_bytes(&run->engine, model->hidden, columns) : 0;
            budget->gram = space_larger(budget->gram, gram_bytes(&run->engine, columns) + factor_bytes(columns) + pull);
            run->scratch = space_larger(run->scratch, round_scratch(columns, is_corrected(run)));
        }
    }
    run->group_windows = windows;
    budget->weights =
        space_aligned(run->layer_bytes) + space_aligned(run->original_bytes) + space_aligned(run->source_bytes);
    budget->work = SPACE_PROGRAM + run->packed + space_aligned(run->scratch) * options->jobs +
                   space_aligned(run->space_size) +
                   (uint64_t)windows * options->tokens * model->hidden * sizeof(float) * (is_corrected(run) ? 2 : 1) +
                   (run->source.checkpoint.tensor_count + model->checkpoint.tensor_count) * SPACE_TENSOR +
                   (uint64_t)options->windows * options->tokens * sizeof(int32_t) +
                   (uint64_t)options->tokens * (model->head_dim + 1) * sizeof(float);
    budget->total = budget->weights + budget->gram + budget->work;
    budget->states =
        (is_corrected(run) ? 5 : 2) * (uint64_t)options->windows * options->tokens * model->hidden * sizeof(float);
    budget->flops = flops_of(run);
    return STATUS_OK;
}

static enum status memory_divide(struct run *run, struct calibrate_budget *budget, struct error *error) {
    const struct calibrate_options *options = run->options;
    uint32_t windows = GROUP_MOST;
    while (windows > 1 && windows / 2 >= options->windows)
        windows /= 2;
    for (;; windows /= 2) {
        const enum status status = budget_fill(run, windows, budget, error);
        if (status != STATUS_OK || budget->total <= options->memory)
            return status;
        if (windows == 1)
            break;
    }
    char weights[TEXT_SIZE_MAX], gram[TEXT_SIZE_MAX], work[TEXT_SIZE_MAX];
    return error_set(error, STATUS_USAGE,
                     "--memory is too small: calibrated rounding of this model needs at least %" PRIu64
                     "MiB (weights %s, Gram matrices %s, the rest %s)",
                     text_mebibytes(budget->total), text_size(budget->weights, weights), text_size(budget->gram, gram),
                     text_size(budget->work, work));
}

static enum status run_plan(struct run *run, struct calibrate_budget *budget, struct error *error) {
    const struct calibrate_options *options = run->options;
    const struct engine_options engine = {.jobs = options->jobs, .cpu = options->cpu, .bf16 = options->bf16};
    enum status status = models_open(run, error);
    if (status == STATUS_OK)
        status = engine_open(&engine, &run->engine, error);
    return status == STATUS_OK ? memory_divide(run, budget, error) : status;
}

/* ---- beginning and end ---- */

static struct states states_of(const struct calibrate_options *options, const char *name) {
    struct states states = {.folder = options->states_folder,
                            .name = name,
                            .windows = options->windows,
                            .tokens = options->tokens,
                            .in = -1,
                            .out = -1};
    memcpy(states.identity, options->identity, SHA256_SIZE);
    return states;
}

/* Nothing is open in it. */
static struct run run_of(const struct calibrate_options *options) {
    return (struct run){.options = options,
                        .states = states_of(options, "hidden-states"),
                        .source_states = states_of(options, "source-states"),
                        .middle = states_of(options, "middle-states")};
}

static enum status run_open(struct run *run, struct error *error) {
    const struct calibrate_options *options = run->options;
    const struct model *model = &run->output;
    run->space = (struct layer_space){aligned_alloc(64, space_aligned(run->space_size)), run->space_size};
    run->hidden = malloc((size_t)run->group_windows * options->tokens * model->hidden * sizeof *run->hidden);
    run->buffer = aligned_alloc(64, space_aligned(run->layer_bytes));
    run->original = aligned_alloc(64, space_aligned(run->original_bytes + 1));
    run->token_weights = malloc((size_t)run->group_windows * options->tokens * sizeof *run->token_weights);
    run->squares = malloc((size_t)run->group_windows * options->tokens * sizeof *run->squares);
    run->sorted = malloc(options->tokens * sizeof *run->sorted);
    if (is_corrected(run)) {
        run->source_buffer = aligned_alloc(64, space_aligned(run->source_bytes));
        run->lacks = malloc((size_t)run->group_windows * options->tokens * model->hidden * sizeof *run->lacks);
        if (!run->source_buffer || !run->lacks)
            return error_set_memory(error);
    }
    if (!run->space.bytes || !run->sorted || !run->hidden || !run->token_weights || !run->squares || !run->buffer ||
        !run->original)
        return error_set_memory(error);
    enum status status = engine_space(&run->engine, run->packed, run->scratch, error);
    run->solver = (struct solver){&run->engine, run->engine.products, column_kernels_of(options->cpu)};
    if (status == STATUS_OK && run->engine.bf16)
        status = products_open(options->cpu, false, &run->solver.products, error);
    if (status == STATUS_OK)
        status = rope_table_make(model, options->tokens, &run->rope, error);
    run->states.hidden = run->source_states.hidden = run->middle.hidden = model->hidden;
    return status;
}

static void run_close(struct run *run) {
    gram_close(&run->gram);
    pull_close(&run->pull);
    states_close(&run->states);
    states_close(&run->source_states);
    states_close(&run->middle);
    rope_table_free(&run->rope);
    if (run->solver.products != run->engine.products)
        products_close(run->solver.products);
    engine_close(&run->engine);
    free(run->space.bytes);
    free(run->hidden);
    free(run->token_weights);
    free(run->squares);
    free(run->sorted);
    free(run->buffer);
    free(run->original);
    free(run->source_buffer);
    free(run->lacks);
    model_close(&run->source);
    model_close(&run->output);
}

/* ---- tokens through a part of a layer ---- */

/* What a pass over all windows does: from one linear layer to before another. */
struct passage {
    struct run *run;
    struct states *keep; /* gets what comes out; NULL: nobody */
    enum layer_weight begin, end;
    int from;   /* file of the states, -1: the embedding */
    int wanted; /* with `gather`: the source's states behind `end`, where that is added to them, else in front of it */
    struct group group; /* under way */
    uint32_t windows;   /* of it */
    bool source;        /* through the source, not the output */
    bool gather;        /* the inputs of `end` are added to run->gram */
};

/* ---- what a token counts ---- */

/* Task: the sum of squares of a token's hidden state. */
static void hidden_task(void *context, size_t task, unsigned thread) {
    const struct run *run = context;
    const float *values = run->hidden + task * run->output.hidden;
    double sum = 0;
    (void)thread;
    for (uint32_t i = 0; i < run->output.hidden; i++)
        sum += (double)values[i] * (double)values[i];
    run->squares[task] = sum;
}

/* The same of the hidden state with what a linear layer adds to it, some rows of it; what the source's has more is lacking. */
static void sum_receive(void *context, struct tile *tile) {
    const struct run *run = context;
    const float correction = (float)run->options->correction;
    for (uint32_t i = 0; i < tile->block->count; i++) {
        const uint32_t token = tile->block->first + i;
        const size_t at = (size_t)token * run->output.hidden + tile->row;
        double sum = 0;
        for (uint32_t r = 0; r < tile->rows; r++) {
            const float value = run->hidden[at + r] + tile->y[0][(size_t)i * tile->rows + r];
            sum += (double)value * (double)value;
            if (run->lacks)
                run->lacks[at + r] = correction * (run->lacks[at + r] - value);
        }
        run->squares[token] += sum;
    }
}

static int compare_squares(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/*
 * The weights of a window's tokens: 1, and less for those whose hidden states are far larger than most. These are
 * normalized next, so an error counts by its share; else a few of them, such as the first token of a text, would count for
 * all others.
 */
static void window_weigh(struct run *run, const double *squares, float *weights) {
    const uint32_t tokens = run->options->tokens;
    memcpy(run->sorted, squares, tokens * sizeof *squares);
    qsort(run->sorted, tokens, sizeof *squares, compare_squares);
    const double limit = large_state * sqrt(run->sorted[tokens / 2]);
    for (uint32_t i = 0; i < tokens; i++)
        weights[i] = squares[i] > limit * limit ? (float)(limit / sqrt(squares[i])) : 1;
}

/* The weights of a group's tokens, by their hidden states behind the linear layer that is rounded. */
static enum status tokens_weigh(struct passage *passage, const struct operand_rows *inputs, struct error *error) {
    struct run *run = passage->run;
    const size_t tokens = (size_t)passage->windows * run->options->tokens;
    enum status status = STATUS_OK;
    if (is_added(passage->end)) {
        const struct linear linear = {.weights = {&run->original_weight},
                                      .inputs = {inputs},
                                      .blocks = passage->group.blocks,
                                      .block_count = passage->group.block_count,
                                      .row_multiple = 1,
                                      .in_order = true,
                                      .receive = sum_receive,
                                      .context = run};
        memset(run->squares, 0, tokens * sizeof *run->squares);
        status = linear_run(&run->engine, &linear, error);
    } else {
        workers_run(run->engine.workers, tokens, hidden_task, run);
    }
    for (uint32_t window = 0; status == STATUS_OK && window < passage->windows; window++)
        window_weigh(run, run->squares + (size_t)window * run->options->tokens,
                     run->token_weights + (size_t)window * run->options->tokens);
    return status;
}

/* A row of inputs as values. */
struct inputs {
    const struct run *run;
    const struct operand_rows *rows;
};

static void input_row(const struct inputs *inputs, size_t token, float *values) {
    const struct engine *engine = &inputs->run->engine;
    const struct operand_rows *rows = inputs->rows;
    const uint32_t hidden = inputs->run->output.hidden;
    const float *floats = act_to_floats(engine, rows->act + token * hidden * engine->element, hidden, values);
    if (floats != values)
        memcpy(values, floats, hidden * sizeof *values);
    engine->rows->multiply(values, rows->scale * (rows->per_token ? rows->token_scales[token] : 1), hidden);
}

/* Task: the source's inputs of a token, to be compared with. */
static void wanted_task(void *context, size_t task, unsigned thread) {
    const struct inputs *inputs = context;
    (void)thread;
    input_row(inputs, task, inputs->run->lacks + task * inputs->run->output.hidden);
}

/* Task: what a token's inputs lack of them. */
static void lack_task(void *context, size_t task, unsigned thread) {
    const struct inputs *inputs = context;
    const struct run *run = inputs->run;
    const float correction = (float)run->options->correction;
    float *values = (float *)(void *)engine_scratch(&run->engine, thread);
    float *lacks = run->lacks + task * run->output.hidden;
    input_row(inputs, task, values);
    for (uint32_t i = 0; i < run->output.hidden; i++)
        lacks[i] = correction * (lacks[i] - values[i]);
}

static enum status source_inputs_keep(void *context, enum layer_weight which, const struct operand_rows *inputs,
                                      struct error *error) {
    struct passage *passage = context;
    struct inputs kept = {passage->run, inputs};
    (void)which;
    (void)error;
    workers_run(passage->run->engine.workers, (size_t)passage->windows * passage->run->options->tokens, wanted_task,
                &kept);
    return STATUS_OK;
}

static enum status inputs_gather(void *context, enum layer_weight which, const struct operand_rows *inputs,
                                 struct error *error) {
    struct passage *passage = context;
    struct run *run = passage->run;
    if (which != passage->end)
        return STATUS_OK;
    enum status status = tokens_weigh(passage, inputs, error);
    if (status == STATUS_OK && run->lacks && !is_added(which)) {
        struct inputs own = {run, inputs};
        workers_run(run->engine.workers, (size_t)passage->windows * run->options->tokens, lack_task, &own);
    }
    for (uint32_t i = 0; status == STATUS_OK && i < passage->windows; i++)
        status = gram_add(&run->gram, &run->engine, inputs, run->token_weights, (size_t)i * run->options->tokens,
                          run->options->tokens, run->lacks ? &run->pull : NULL, run->lacks, error);
    return status;
}

/* ---- passes ---- */

/* Hidden states of a group, from window `first` on: from a file, or the embedding of a model. */
static enum status group_read(const struct passage *passage, const struct model *model, int file, uint32_t first,
                              float *values, struct error *error) {
    const struct run *run = passage->run;
    const size_t window = (size_t)run->options->tokens * run->output.hidden;
    enum status status = STATUS_OK;
    for (uint32_t i = 0; status == STATUS_OK && i < passage->windows; i++)
        status = file < 0 ? embeddings_load(model, run->engine.rows,
                                            run->options->ids + (size_t)(first + i) * run->options->tokens,
                                            run->options->tokens, values + i * window, error)
                          : states_read(&run->states, file, first + i, values + i * window, error);
    return status;
}

/* What the inputs of a stage, or the hidden states behind it, are in the source. */
static enum status wanted_read(struct passage *passage, uint32_t first, struct error *error) {
    struct run *run = passage->run;
    const struct layer_run norm = {.model = &run->source,
                                   .layer = &run->source_layer,
                                   .layer_number = run->layer_number,
                                   .begin = passage->end,
                                   .end = passage->end,
                                   .tap = source_inputs_keep,
                                   .tap_context = passage,
                                   .rope = &run->rope,
                                   .group = &passage->group,
                                   .hidden = run->lacks,
                                   .space = &run->space};
    enum status status = group_read(passage, &run->source, passage->wanted, first, run->lacks, error);
    return status == STATUS_OK && !is_added(passage->end) ? layer_run(&run->engine, &norm, error) : status;
}

/* A group of windows, from number `first` on. */
static enum status group_pass(struct passage *passage, uint32_t first, struct error *error) {
    struct run *run = passage->run;
    const size_t window = (size_t)run->options->tokens * run->output.hidden;
    const struct layer_run layer = {.model = passage->source ? &run->source : &run->output,
                                    .layer = passage->source ? &run->source_layer : &run->layer,
                                    .layer_number = run->layer_number,
                                    .begin = passage->begin,
                                    .end = passage->end,
                                    .tap = passage->gather ? inputs_gather : NULL,
                                    .tap_context = passage,
                                    .rope = &run->rope,
                                    .group = &passage->group,
                                    .hidden = run->hidden,
                                    .space = &run->space};
    enum status status = passage->gather && run->lacks ? wanted_read(passage, first, error) : STATUS_OK;
    if (status == STATUS_OK)
        status = group_read(passage, layer.model, passage->from, first, run->hidden, error);
    if (status == STATUS_OK)
        status = layer_run(&run->engine, &layer, error);
    for (uint32_t i = 0; status == STATUS_OK && passage->keep && i < passage->windows; i++)
        status = states_write(passage->keep, first + i, run->hidden + i * window, error);
    run->done += passage->windows * window * sizeof(float);
    progress_update(&run->progress, run->done);
    return status == STATUS_OK && interrupt_pending() ? error_set(error, STATUS_INTERRUPTED, "interrupted") : status;
}

static enum status pass(struct passage *passage, struct error *error) {
    struct run *run = passage->run;
    const struct calibrate_options *options = run->options;
    struct attention_window windows[GROUP_MOST];
    enum status status = STATUS_OK;
    for (uint32_t first = 0; status == STATUS_OK && first < options->windows; first += passage->windows) {
        passage->windows =
            options->windows - first < run->group_windows ? options->windows - first : run->group_windows;
        for (uint32_t i = 0; i < passage->windows; i++)
            windows[i] = (struct attention_window){i * options->tokens, options->tokens};
        status = group_make(windows, passage->windows, &passage->group, error);
        if (status == STATUS_OK)
            status = group_pass(passage, first, error);
        group_free(&passage->group);
    }
    return status;
}

/* ---- rounding ---- */

static enum status original_load(struct run *run, enum layer_weight number, struct error *error) {
    if (is_corrected(run)) {
        run->original_weight = run->source_layer.weights[number];
        return STATUS_OK;
    }
    const struct weight_place *place = &run->source.layers[run->layer_number].weights[number];
    return weight_rows_load(&run->source, place, 0, place->weight.rows, run->original, &run->original_weight, error);
}

/* A row as the quantizer takes it: its value times its scale, in BF16. */
static void original_row(const void *context, uint32_t row, float *values) {
    const struct run *run = context;
    const struct weight *weight = &run->original_weight;
    const struct row_kernels *rows = run->engine.rows;
    rows->unpack(weight, row, 0, weight->columns, values);
    if (weight->format == WEIGHT_FP8 && weight->scale_columns >= weight->columns &&
        (weight->scale_rows == 1 || weight->scale_rows >= weight->rows))
        rows->multiply(values, weight->scales[weight->scale_rows == 1 ? row : 0], weight->columns);
    rows->round_bf16(values, weight->columns, values);
}

static enum status weight_round(struct run *run, enum layer_weight number, const struct factor *factor, bool usable,
                                struct error *error) {
    const struct weight *output = &run->layer.weights[number];
    enum status status = original_load(run, number, error);
    if (status != STATUS_OK)
        return status;
    if (!usable && run->options->note)
        run->options->note(run->options->context, run->layer_number, number);
    const struct rounding rounding = {.factor = factor,
                                      .pull = usable && run->lacks ? &run->pull : NULL,
                                      .pull_of_inputs = !is_added(number),
                                      .rows = output->rows,
                                      .name = run->source.layers[run->layer_number].weights[number].codes->info.name,
                                      .row = original_row,
                                      .context = run,
                                      .packed = (uint8_t *)(uintptr_t)output->codes, /* in the layer's own buffer */
                                      .exponents = (uint8_t *)(uintptr_t)output->exponents};
    return round_run(&run->solver, &rounding, error);
}

/* The weights of a stage whose Gram matrix is there. */
static enum status stage_round(struct run *run, const struct stage *stage, struct error *error) {
    struct factor factor;
    bool usable = false;
    pull_end(&run->pull);
    enum status status = factor_make(&run->solver, &run->gram, run->options->damping, &factor, &usable, error);
    for (enum layer_weight i = stage->first; status == STATUS_OK && i < stage->end; i++)
        if (run->options->wanted(run->options->context, run->layer_number, i))
            status = weight_round(run, i, &factor, usable, error);
    factor_close(&factor);
    pull_close(&run->pull);
    return status == STATUS_OK && interrupt_pending() ? error_set(error, STATUS_INTERRUPTED, "interrupted") : status;
}

/* The tokens go up to a stage, and its weights are rounded for what comes there. */
static enum status stage_run(struct run *run, const struct stage *stage, struct passage passage, struct error *error) {
    const bool wanted = stage_wanted(run, run->layer_number, stage);
    if (!wanted && !passage.keep)
        return STATUS_OK;
    passage.run = run;
    passage.end = stage->first;
    passage.gather = wanted;
    enum status status = STATUS_OK;
    if (wanted)
        status = gram_open(&run->engine, run->layer.weights[stage->first].columns, &run->gram, error);
    if (status == STATUS_OK && wanted && run->lacks)
        status = pull_open(&run->engine, run->output.hidden, run->gram.columns, &run->pull, error);
    if (status == STATUS_OK && wanted && is_added(stage->first))
        status = original_load(run, stage->first, error);
    if (status == STATUS_OK)
        status = pass(&passage, error);
    return status == STATUS_OK && wanted ? stage_round(run, stage, error) : status;
}

/* ---- layers ---- */

/* The tokens go through the source's layer. */
static enum status source_pass(struct run *run, struct error *error) {
    struct passage attention = {
        .run = run, .source = true, .end = WEIGHT_GATE, .from = run->source_states.in, .keep = &run->middle};
    enum status status = layer_load(&run->source, run->layer_number, run->source_buffer, &run->source_layer, error);
    if (status == STATUS_OK)
        status = states_begin(&run->middle, error);
    if (status == STATUS_OK)
        status = states_begin(&run->source_states, error);
    if (status == STATUS_OK)
        status = pass(&attention, error);
    struct passage mlp = {.run = run,
                          .source = true,
                          .begin = WEIGHT_GATE,
                          .end = LAYER_WEIGHTS,
                          .from = run->middle.out,
                          .keep = &run->source_states};
    return status == STATUS_OK ? pass(&mlp, error) : status;
}

static enum status layer_calibrate(struct run *run, bool last, struct error *error) {
    const int in = run->states.in, source = run->source_states.in;
    enum status status = states_begin(&run->states, error);
    const struct passage first = {.begin = WEIGHT_Q, .from = in};
    struct passage stage[] = {first, first, first, {.begin = WEIGHT_GATE, .from = run->states.out}};
    const int wanted[] = {source, run->middle.out, run->middle.out, run->source_states.out};
    stage[2].keep = &run->states; /* what attention leaves */
    for (size_t s = 0; status == STATUS_OK && s < sizeof stages / sizeof *stages; s++) {
        stage[s].wanted = wanted[s];
        status = stage_run(run, &stages[s], stage[s], error);
    }
    struct passage rest = {
        .run = run, .begin = WEIGHT_GATE, .end = LAYER_WEIGHTS, .from = run->states.out, .keep = &run->states};
    return status == STATUS_OK && !last ? pass(&rest, error) : status;
}

static bool layer_wanted(const struct run *run, uint32_t layer) {
    for (size_t s = 0; s < sizeof stages / sizeof *stages; s++)
        if (stage_wanted(run, layer, &stages[s]))
            return true;
    return false;
}

static enum status layer_do(struct run *run, bool last, struct error *error) {
    const uint32_t layer = run->layer_number;
    enum status status = layer_load(&run->output, layer, run->buffer, &run->layer, error);
    if (status != STATUS_OK)
        return status;
    const bool wanted = layer_wanted(run, layer);
    if (is_corrected(run))
        status = source_pass(run, error);
    if (status == STATUS_OK && wanted) {
        status = layer_calibrate(run, last, error);
    } else if (status == STATUS_OK && !last) {
        struct passage whole = {.run = run, .end = LAYER_WEIGHTS, .from = run->states.in, .keep = &run->states};
        status = states_begin(&run->states, error);
        if (status == STATUS_OK)
            status = pass(&whole, error);
    }
    if (status == STATUS_OK && !last && is_corrected(run))
        status = states_commit(&run->source_states, layer + 1, error);
    if (status == STATUS_OK && !last)
        status = states_commit(&run->states, layer + 1, error);
    states_drop(&run->middle);
    if (status == STATUS_OK && wanted)
        status = run->options->keep(run->options->context, layer, run->layer.weights, error);
    if (status == STATUS_OK) {
        states_forget(&run->states, layer);
        states_forget(&run->source_states, layer);
    }
    return status;
}

/* From the first layer with something to round, where its states are there; else all tokens come there again. */
static enum status layers_do(struct run *run, struct error *error) {
    uint32_t first = 0, end = run->output.layer_count;
    while (end > 0 && !layer_wanted(run, end - 1))
        end--;
    while (first < end && !layer_wanted(run, first))
        first++;
    bool found = false, source_found = true;
    enum status status = STATUS_OK;
    if (first > 0 && first < end)
        status = states_open(&run->states, first, &found, error);
    if (status == STATUS_OK && found && is_corrected(run))
        status = states_open(&run->source_states, first, &source_found, error);
    if (!source_found)
        states_close(&run->states);
    found = found && source_found;
    for (uint32_t layer = found ? first : 0; status == STATUS_OK && layer < end; layer++) {
        run->layer_number = layer;
        status = layer_do(run, layer + 1 == end, error);
    }
    return status;
}

/* How often the tokens go through it, or a part of it. */
static uint64_t layer_passes(const struct run *run, uint32_t layer) {
    const uint64_t source = is_corrected(run) ? 2 : 0;
    if (!layer_wanted(run, layer))
        return source + 1;
    return source + 2 + (uint64_t)stage_wanted(run, layer, &stages[0]) + stage_wanted(run, layer, &stages[1]) +
           stage_wanted(run, layer, &stages[3]);
}

enum status calibrate_plan(const struct calibrate_options *options, struct calibrate_budget *budget,
                           struct error *error) {
    struct run run = run_of(options);
    const enum status status = run_plan(&run, budget, error);
    run_close(&run);
    return status;
}

enum status calibrate_run(const struct calibrate_options *options, struct error *error) {
    struct run run = run_of(options);
    struct calibrate_budget budget = {0};
    enum status status = run_plan(&run, &budget, error);
    if (status == STATUS_OK)
        status = run_open(&run, error);
    uint64_t passes = 0;
    for (uint32_t layer = 0; status == STATUS_OK && layer < run.output.layer_count; layer++)
        passes += layer_passes(&run, layer);
    progress_start(&run.progress, "calibrating",
                   passes * options->windows * options->tokens * run.output.hidden * sizeof(float), 0, options->quiet);
    if (status == STATUS_OK)
        status = layers_do(&run, error);
    progress_end(&run.progress);
    run_close(&run);
    return status;
}
