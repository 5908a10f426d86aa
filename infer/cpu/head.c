#include "infer/cpu/head.h"

#include <math.h>

void head_token_begin(struct head_token *token, uint32_t target) {
    *token = (struct head_token){.target = target};
    token->sides[0].most = token->sides[1].most = -INFINITY;
}

static double log_sum(const struct head_side *side) { return log(side->sum) + (double)side->most; }

double head_nll(const struct head_token *token, unsigned side) {
    return log_sum(&token->sides[side]) - (double)token->sides[side].target;
}

double head_kl(const struct head_token *token) {
    const double kl = token->cross / token->sides[1].sum - log_sum(&token->sides[1]) + log_sum(&token->sides[0]);
    return kl < 0 ? 0 : kl; /* only by rounding */
}

enum status head_engine_size(struct engine *engine, const struct weight *head, unsigned sides, size_t *packed,
                             size_t *scratch, struct error *error) {
    *packed = linear_packed(engine, head, 1, sides, error);
    *scratch = linear_scratch(1, sides);
    return *packed == 0 ? STATUS_IO : STATUS_OK;
}

struct pass {
    struct engine *engine;
    const struct head_run *run;
};

/* A larger logit than all before: what was summed is brought under it. */
static void most_raise(const struct row_kernels *rows, struct head_token *token, unsigned number, const float *logits,
                       uint32_t count, uint32_t first_row) {
    struct head_side *side = &token->sides[number];
    const float most = rows->maximum(logits, count);
    if (!(most > side->most))
        return;
    const double correction = exp((double)side->most - (double)most);
    side->sum *= correction;
    if (number == 1)
        token->cross *= correction;
    side->most = most;
    uint32_t top = 0;
    while (top < count - 1 && logits[top] != most)
        top++;
    side->top = first_row + top;
}

static void logits_receive(void *context, struct tile *tile) {
    const struct pass *pass = context;
    const struct head_run *run = pass->run;
    const struct row_kernels *rows = pass->engine->rows;
    const uint32_t first_row = run->first_row + tile->row;
    for (uint32_t i = 0; i < tile->block->count; i++) {
        struct head_token *token = &run->tokens[tile->block->first + i];
        float *logits[2] = {tile->y[0] + (size_t)i * tile->rows, NULL};
        if (run->weights[1])
            logits[1] = tile->y[1] + (size_t)i * tile->rows;
        for (unsigned side = 0; side < 2 && logits[side]; side++) {
            if (token->target - first_row < tile->rows)
                token->sides[side].target = logits[side][token->target - first_row];
            most_raise(rows, token, side, logits[side], tile->rows, first_row);
        }
        float sum;
        if (logits[1]) {
            double product;
            rows->cross(logits[1], logits[0], token->sides[1].most, tile->rows, &sum, &product);
            token->sides[1].sum += (double)sum;
            token->cross += product;
        }
        token->sides[0].sum += (double)rows->exponentials(logits[0], token->sides[0].most, tile->rows);
    }
}

enum status head_run(struct engine *engine, const struct head_run *run, struct error *error) {
    struct pass pass = {.engine = engine, .run = run};
    const struct linear linear = {.weights = {run->weights[0], run->weights[1]},
                                  .inputs = {run->inputs[0], run->inputs[1]},
                                  .blocks = run->group->blocks,
                                  .block_count = run->group->block_count,
                                  .row_multiple = 1,
                                  .in_order = true,
                                  .receive = logits_receive,
                                  .context = &pass};
    return linear_run(engine, &linear, error);
}
