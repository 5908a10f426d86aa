#include "infer/cpu/decode_cpu.h"
#include "infer/embedding.h"

#include <math.h>
#include <string.h>

#include "infer/cpu/activations.h"

/* ---- products ---- */

/*
 * Bytes of weights in a task: enough to be worth handing out, and few enough for TASKS_PER_THREAD, so that threads end at
 * about the same time.
 */
enum { TASK_LEAST = 16 << 10, TASK_MOST = 128 << 10, TASK_ROWS = 4, TASKS_PER_THREAD = 8, PRODUCTS = 3 };

/* y = weight * operand + bias, or added to y. */
struct decode_product {
    const struct weight *weight;
    const struct operand *operand;
    float *y;
};

struct products {
    const struct cpu_decoder *decoder;
    struct decode_product items[PRODUCTS];
    size_t first[PRODUCTS + 1]; /* tasks of the products, one after another */
    uint32_t task_rows[PRODUCTS];
    unsigned count;
    float *add_to; /* y is then added to this, of one product */
    float *swiglu; /* of two products, gate and up, whose tasks are one: this gets swiglu(gate, up) */
};

static void product_rows(const struct cpu_decoder *decoder, const struct decode_product *product, uint32_t begin,
                         uint32_t end) {
    const struct weight *weight = product->weight;
    matvec_kernel(decoder->cpu, weight->format)->rows(weight, product->operand->prepared, product->y, begin, end);
    if (product->operand->factor != 1)
        decoder->rows->multiply(product->y + begin, product->operand->factor, end - begin);
    if (weight->bias)
        decoder->rows->add(product->y + begin, weight->bias + begin, end - begin);
}

static void product_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct products *products = context;
    const struct cpu_decoder *decoder = products->decoder;
    unsigned number = 0;
    while (!products->swiglu && task >= products->first[number + 1])
        number++;
    const struct decode_product *product = &products->items[number];
    const uint32_t rows = product->weight->rows, run = products->task_rows[number];
    const uint32_t begin = (uint32_t)(task - products->first[number]) * run;
    const uint32_t end = rows - begin < run ? rows : begin + run;
    product_rows(decoder, product, begin, end);
    if (products->swiglu) {
        product_rows(decoder, &products->items[1], begin, end);
        decoder->rows->swiglu(product->y + begin, products->items[1].y + begin, end - begin, products->swiglu + begin);
    }
    if (products->add_to)
        decoder->rows->add(products->add_to + begin, product->y + begin, end - begin);
}

static void products_run(struct cpu_decoder *decoder, struct products *products) {
    products->decoder = decoder;
    size_t bytes = 0;
    for (unsigned i = 0; i < products->count; i++)
        bytes += products->items[i].weight->rows * weight_row_bytes(products->items[i].weight);
    bytes /= (size_t)TASKS_PER_THREAD * workers_count(decoder->workers);
    bytes = bytes < TASK_LEAST ? TASK_LEAST : bytes > TASK_MOST ? TASK_MOST : bytes;
    for (unsigned i = 0; i < products->count; i++) {
        const struct weight *weight = products->items[i].weight;
        const uint32_t rows = (uint32_t)(bytes / (weight_row_bytes(weight) + 1)) / TASK_ROWS * TASK_ROWS;
        products->task_rows[i] = rows < TASK_ROWS ? TASK_ROWS : rows;
        products->first[i + 1] =
            products->first[i] + (weight->rows + (size_t)products->task_rows[i] - 1) / products->task_rows[i];
    }
    if (products->swiglu) /* the tasks of the first are those of both */
        workers_run(decoder->workers, products->first[1], product_task, products);
    else
        workers_run(decoder->workers, products->first[products->count], product_task, products);
}

static void operand_make(struct cpu_decoder *decoder, const struct weight *weight, const float *values,
                         struct operand *operand) {
    operand->factor = activations_round(decoder->rows, weight, values, decoder->rounded);
    matvec_kernel(decoder->cpu, weight->format)->prepare(weight, decoder->rounded, operand->prepared);
}

/* The operand of each of `count` weights: those that are the same are made once. */
static void operands_make(struct cpu_decoder *decoder, const struct weight *weights, unsigned count,
                          const float *values, const struct operand *of[]) {
    for (unsigned i = 0; i < count; i++) {
        unsigned same = 0;
        while (same < i && !operands_equal(&weights[same], &weights[i]))
            same++;
        of[i] = &decoder->operands[same];
        if (same == i)
            operand_make(decoder, &weights[i], values, &decoder->operands[i]);
    }
}

/* to += weight * values; `space` takes the product. */
static void product_add(struct cpu_decoder *decoder, const struct weight *weight, const float *values, float *space,
                        float *to) {
    operand_make(decoder, weight, values, &decoder->operands[0]);
    struct products products = {.items = {{weight, &decoder->operands[0], space}}, .count = 1, .add_to = to};
    products_run(decoder, &products);
}

/* ---- attention ---- */

struct attending {
    struct cpu_decoder *decoder;
    uint32_t layer;
    uint32_t first, end; /* positions that are seen */
    uint32_t first_chunk, chunks;
    uint32_t shares; /* that the queries of a key-value head are divided into */
};

/* Task: a chunk of positions of a key-value head, and a share of its queries. */
static void attend_task(void *context, size_t task, unsigned thread) {
    const struct attending *attending = context;
    struct cpu_decoder *decoder = attending->decoder;
    const struct model *model = &decoder->base.model;
    const uint32_t group = model->heads / model->kv_heads;
    const uint32_t share = (uint32_t)(task % attending->shares), pair = (uint32_t)(task / attending->shares);
    const uint32_t kv_head = pair / attending->chunks, number = pair % attending->chunks,
                   chunk = attending->first_chunk + number;
    const uint32_t query = group * share / attending->shares, count = group * (share + 1) / attending->shares - query;
    const uint32_t begin = chunk * KV_CHUNK;
    const uint32_t first = attending->first > begin ? attending->first - begin : 0;
    const uint32_t end = attending->end - begin < KV_CHUNK ? attending->end - begin : KV_CHUNK;
    struct kv_part *parts = decoder->parts + ((size_t)kv_head * attending->chunks + number) * group + query;
    kv_cache_attend(&decoder->cache, attending->layer, kv_head, chunk, first, end,
                    decoder->queries + ((size_t)kv_head * group + query) * model->head_dim, count,
                    decoder->attend_space + thread * decoder->attend_bytes, parts);
}

/* Rotates queries and keys for this position, and keeps keys and values. */
static void heads_rotate(struct cpu_decoder *decoder, uint32_t layer) {
    const struct model *model = &decoder->base.model;
    const uint32_t half = model->head_dim / 2, position = decoder->base.position;
    const float *cosines = decoder->rope.cosines + (size_t)position * half,
                *sines = decoder->rope.sines + (size_t)position * half;
    for (uint32_t head = 0; head < model->heads; head++) {
        float *query = decoder->queries + (size_t)head * model->head_dim;
        decoder->rows->rotate(query, cosines, sines, decoder->rope.query_factors[position], half, query);
    }
    for (uint32_t head = 0; head < model->kv_heads; head++) {
        float *key = decoder->keys + (size_t)head * model->head_dim;
        decoder->rows->rotate(key, cosines, sines, 1, half, key);
        kv_cache_put(&decoder->cache, layer, head, position, key, decoder->kv_values + (size_t)head * model->head_dim);
    }
}

static void attention(struct cpu_decoder *decoder, uint32_t layer) {
    const struct model *model = &decoder->base.model;
    const struct weight *weights = decoder->layers[layer].weights;
    const struct operand *of[3];
    decoder->rows->norm(decoder->hidden, decoder->layers[layer].attention_norm, model->norm_epsilon, model->hidden,
                        decoder->values);
    operands_make(decoder, weights, 3, decoder->values, of);
    struct products products = {.items = {{&weights[WEIGHT_Q], of[0], decoder->queries},
                                          {&weights[WEIGHT_K], of[1], decoder->keys},
                                          {&weights[WEIGHT_V], of[2], decoder->kv_values}},
                                .count = 3};
    products_run(decoder, &products);
    heads_rotate(decoder, layer);
    struct attending attending = {.decoder = decoder, .layer = layer, .end = decoder->base.position + 1};
    if (model->sliding_window > 0 && attending.end > model->sliding_window)
        attending.first = attending.end - model->sliding_window;
    attending.first_chunk = attending.first / KV_CHUNK;
    attending.chunks = (attending.end + KV_CHUNK - 1) / KV_CHUNK - attending.first_chunk;
    const uint32_t group = model->heads / model->kv_heads, pairs = attending.chunks * model->kv_heads,
                   wanted = (TASKS_PER_THREAD * workers_count(decoder->workers) + pairs - 1) / pairs;
    attending.shares = wanted < group ? wanted : group;
    workers_run(decoder->workers, (size_t)pairs * attending.shares, attend_task, &attending);
    for (uint32_t head = 0; head < model->heads; head++)
        kv_cache_merge(&decoder->cache,
                       decoder->parts + (size_t)(head / group) * attending.chunks * group + head % group,
                       attending.chunks, group, decoder->attended + (size_t)head * model->head_dim);
    product_add(decoder, &weights[WEIGHT_O], decoder->attended, decoder->values, decoder->hidden);
}

static void mlp(struct cpu_decoder *decoder, uint32_t layer) {
    const struct model *model = &decoder->base.model;
    const struct weight *weights = decoder->layers[layer].weights;
    const struct operand *of[2];
    decoder->rows->norm(decoder->hidden, decoder->layers[layer].mlp_norm, model->norm_epsilon, model->hidden,
                        decoder->values);
    operands_make(decoder, &weights[WEIGHT_GATE], 2, decoder->values, of);
    struct products products = {
        .items = {{&weights[WEIGHT_GATE], of[0], decoder->gate}, {&weights[WEIGHT_UP], of[1], decoder->up}},
        .count = 2,
        .swiglu = decoder->middle};
    products_run(decoder, &products);
    product_add(decoder, &weights[WEIGHT_DOWN], decoder->middle, decoder->values, decoder->hidden);
}

/* ---- the whole ---- */

static enum status embed(struct cpu_decoder *decoder, uint32_t id, struct error *error) {
    const struct model *model = &decoder->base.model;
    if (decoder->base.tied)
        return embedding_values(model, decoder->rows, &decoder->head, id, id, decoder->hidden, error);
    return embedding_load(model, decoder->rows, id, decoder->embedding_row, decoder->hidden, error);
}

static enum status logits_make(struct cpu_decoder *decoder, float **logits, struct error *error) {
    const struct model *model = &decoder->base.model;
    decoder->rows->norm(decoder->hidden, decoder->norm, model->norm_epsilon, model->hidden, decoder->values);
    operand_make(decoder, &decoder->head, decoder->values, &decoder->operands[0]);
    struct products products = {.items = {{&decoder->head, &decoder->operands[0], decoder->logits}}, .count = 1};
    products_run(decoder, &products);
    if (!decoder->rows->all_finite(decoder->logits, model->vocabulary))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the logits at position %u hold NaN or infinity: a weight of the head is damaged",
                         model->checkpoint.path, decoder->base.position);
    *logits = decoder->logits;
    return STATUS_OK;
}

static enum status token(struct decoder *base, uint32_t id, float **logits, struct error *error) {
    struct cpu_decoder *decoder = (struct cpu_decoder *)base;
    const struct model *model = &base->model;
    enum status status = embed(decoder, id, error);
    for (uint32_t layer = 0; status == STATUS_OK && layer < model->layer_count; layer++) {
        attention(decoder, layer);
        mlp(decoder, layer);
        if (!decoder->rows->all_finite(decoder->hidden, model->hidden))
            status = error_set(error, STATUS_BAD_INPUT,
                               "'%s': layer %u gives NaN or infinity at position %u: a weight of it is damaged, or its "
                               "values are beyond float32 (see 'qstream inspect --stats')",
                               model->checkpoint.path, layer, base->position);
    }
    return status == STATUS_OK && logits ? logits_make(decoder, logits, error) : status;
}

const struct decode_backend decode_backend_cpu = {.size = sizeof(struct cpu_decoder),
                                                  .open = cpu_decoder_open,
                                                  .close = cpu_decoder_close,
                                                  .token = token,
                                                  .read_rate = cpu_decoder_read_rate};
