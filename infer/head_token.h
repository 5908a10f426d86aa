/*
 * What is kept of the logits of a token whose next token is scored, as runs of the vocabulary's rows go by.
 */
#ifndef QSTREAM_INFER_HEAD_TOKEN_H
#define QSTREAM_INFER_HEAD_TOKEN_H

#include <stdint.h>

/* One model's logits of a token, those seen so far. */
struct head_side {
    double sum; /* of exp(logit - most) */
    float most, target;
    uint32_t top; /* the first row of the largest logit */
};

struct head_token {
    struct head_side sides[2]; /* the model, the baseline */
    double cross;              /* sum of exp(b - most of b) * (b - a); a: the model's logit, b: the baseline's */
    uint32_t target;           /* id of the token that comes next */
};

#endif
