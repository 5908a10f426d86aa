/*
 * The head over tokens whose next token is scored: running maximum, sum and cross terms of their logits, so that the
 * logits of all the vocabulary never exist at once.
 */
#ifndef QSTREAM_INFER_CPU_HEAD_H
#define QSTREAM_INFER_CPU_HEAD_H

#include "infer/cpu/engine.h"
#include "infer/cpu/layer.h"
#include "infer/head_token.h"

void head_token_begin(struct head_token *token, uint32_t target);

/* -log of the probability of the next token, in nats; not finite when a logit was not. */
double head_nll(const struct head_token *token, unsigned side);

/* KL divergence of the baseline's distribution from the model's, sum of p_b log(p_b / p_a), in nats. */
double head_kl(const struct head_token *token);

/* Bytes of packed and scratch space that head_run wants at least; `sides`: 1 or 2. */
enum status head_engine_size(struct engine *engine, const struct weight *head, unsigned sides, size_t *packed,
                             size_t *scratch, struct error *error);

/*
 * Rows [first_row, first_row + weights[0]->rows) of the head, of the model and, if weights[1] is not NULL, of the
 * baseline. Slices are to be given in the order of their rows. group: the scored tokens; tokens, inputs: as many.
 */
struct head_run {
    const struct weight *weights[2];
    const struct operand_rows *inputs[2];
    uint32_t first_row;
    const struct group *group;
    struct head_token *tokens;
};
enum status head_run(struct engine *engine, const struct head_run *run, struct error *error);

#endif
