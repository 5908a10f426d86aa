#include "infer/cpu/engine.h"

#include <stdlib.h>
#include <string.h>

#include "infer/cpu/activations.h"

enum status engine_open(const struct engine_options *options, struct engine *engine, struct error *error) {
    *engine = (struct engine){.rows = row_kernels_of(options->cpu)};
    const bool has_bf16 = products_have_bf16(options->cpu);
    engine->bf16 = options->bf16 && has_bf16;
    engine->round = options->bf16 && !has_bf16;
    engine->element = engine->bf16 ? sizeof(uint16_t) : sizeof(float);
    enum status status = products_open(options->cpu, engine->bf16, &engine->products, error);
    if (status == STATUS_OK)
        status = workers_start(options->jobs, &engine->workers, error);
    if (status != STATUS_OK)
        return status;
    return engine_space(engine, options->packed_size, options->scratch_size, error);
}

enum status engine_space(struct engine *engine, size_t packed_size, size_t scratch_size, struct error *error) {
    engine->packed_size = (packed_size + 63) / 64 * 64;
    engine->scratch_size = (scratch_size + 63) / 64 * 64;
    if (engine->packed_size > 0)
        engine->packed = aligned_alloc(64, engine->packed_size);
    if (engine->scratch_size > 0)
        engine->scratch = aligned_alloc(64, engine->scratch_size * workers_count(engine->workers));
    if ((engine->packed_size > 0 && !engine->packed) || (engine->scratch_size > 0 && !engine->scratch))
        return error_set_memory(error);
    return STATUS_OK;
}

void engine_close(struct engine *engine) {
    workers_stop(engine->workers);
    products_close(engine->products);
    free(engine->packed);
    free(engine->scratch);
    *engine = (struct engine){0};
}

unsigned char *engine_scratch(const struct engine *engine, unsigned thread) {
    return engine->scratch + engine->scratch_size * thread;
}

void engine_fail(struct engine *engine, enum status status, const struct error *error) {
    if (!atomic_exchange(&engine->failed, true)) {
        engine->status = status;
        engine->error = *error;
    }
}

enum status engine_status(struct engine *engine, struct error *error) {
    if (!atomic_load(&engine->failed))
        return STATUS_OK;
    *error = engine->error;
    atomic_store(&engine->failed, false);
    return engine->status;
}

void act_from_floats(const struct engine *engine, const float *x, uint32_t n, void *act) {
    if (engine->bf16)
        engine->rows->to_bf16(x, n, act);
    else if (engine->round)
        engine->rows->round_bf16(x, n, act);
    else if (act != x)
        memcpy(act, x, n * sizeof *x);
}

const float *act_to_floats(const struct engine *engine, const void *act, uint32_t n, float *space) {
    if (!engine->bf16)
        return act;
    engine->rows->from_bf16(act, n, space);
    return space;
}

/* ---- operands ---- */

void operand_begin(const struct weight *weight, struct operand_rows *operand) {
    operand->scale = weight->activations == ACTIVATIONS_FP8_STATIC ? weight->input_scale : 1;
    operand->per_token = weight->activations == ACTIVATIONS_FP8_TOKEN;
}

void operand_row_fill(const struct engine *engine, const struct weight *weight, float *values, size_t token,
                      struct operand_rows *operand) {
    const uint32_t columns = weight->columns;
    const float factor = activations_round(engine->rows, weight, values, values);
    if (operand->per_token)
        operand->token_scales[token] = factor;
    act_from_floats(engine, values, columns, operand->act + token * columns * engine->element);
}
