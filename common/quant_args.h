/*
 * QuantizationArgs of compressed-tensors: how weights, activations or a cache are quantized (quant_args.py of 0.20;
 * pydantic's lax coercions, defaults and refusals included).
 */
#ifndef QSTREAM_COMMON_QUANT_ARGS_H
#define QSTREAM_COMMON_QUANT_ARGS_H

#include <stdbool.h>
#include <stdint.h>

struct json_t;

enum number_type { NUMBER_INT, NUMBER_FLOAT };

enum strategy {
    STRATEGY_TENSOR,
    STRATEGY_CHANNEL,
    STRATEGY_GROUP,
    STRATEGY_BLOCK,
    STRATEGY_TOKEN,
    STRATEGY_TENSOR_GROUP,
    STRATEGY_ATTN_HEAD,
    STRATEGIES
};
const char *strategy_name(enum strategy strategy);

/* QuantizationArgs. */
struct quant_args {
    bool present; /* not null */
    bool empty;   /* {}: vLLM takes it for null */
    int64_t num_bits;
    enum number_type type;
    enum strategy strategy;
    bool symmetric, dynamic;
    bool local;         /* dynamic "local" */
    int64_t group_size; /* 0: none */
    int64_t block_rows, block_columns;
    char scale_dtype[32]; /* without "torch."; empty: none */
    char *refusal;        /* why compressed-tensors does not accept these; NULL when it does */
    bool lenient;         /* 0.17, which vLLM 0.33 comes with, accepts them nevertheless */
    bool ordered;         /* 0.17 accepts them for activations, not for weights (actorder group) */
    bool block_pair;      /* of lenient ones: block_structure has two numbers after all */
    bool strict;          /* 0.17 does not accept them, 0.20 does */
};

/* Reads the JSON value (NULL and null: not present). Always succeeds; args->refusal is the caller's to free. */
void quant_args_read(const struct json_t *json, struct quant_args *args);

void quant_args_free(struct quant_args *args);

/* Whether two args describe the same numbers. */
bool quant_args_equal(const struct quant_args *a, const struct quant_args *b);

/* Keeps the first reason in holder->refusal. */
#define QUANT_REFUSE(holder, ...) ((holder)->refusal = (holder)->refusal ? (holder)->refusal : text_format(__VA_ARGS__))

/* A JSON value for messages: short ones as they are, others by their kind. Returns `out`. */
enum { QUANT_VALUE_MAX = 48 };
const char *quant_value_text(const struct json_t *value, char out[QUANT_VALUE_MAX]);

#endif
