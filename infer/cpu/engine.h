/*
 * The operations of a forward pass on the CPU, over many tokens: linear layers, attention, rounding. Buffers are the
 * caller's; the engine holds the threads, the kernels and their scratch space. Work is split by a fixed tiling of tokens
 * and rows, so that results do not depend on the number of threads.
 *
 * "act" is the type of the operands of products: bf16 (uint16_t) or float32, element bytes each.
 */
#ifndef QSTREAM_INFER_CPU_ENGINE_H
#define QSTREAM_INFER_CPU_ENGINE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "infer/cpu/product.h"
#include "infer/cpu/rows.h"
#include "infer/cpu/workers.h"
#include "infer/token_group.h"
#include "infer/weight.h"

enum { ROW_UNIT = 256 };

struct engine {
    struct workers *workers;
    struct products *products;
    const struct row_kernels *rows;
    bool bf16;      /* act is bf16 */
    bool round;     /* act is float32 holding bf16 values: bf16 computing on a machine without bf16 products */
    size_t element; /* bytes of act */
    unsigned char *packed;
    size_t packed_size;
    unsigned char *scratch; /* scratch_size for each thread */
    size_t scratch_size;
    atomic_bool failed; /* a task failed; the first one is kept: */
    enum status status;
    struct error error;
};

struct engine_options {
    unsigned jobs;
    enum cpu_level cpu;
    bool bf16; /* operands hold bf16 values */
    size_t packed_size, scratch_size;
};

/* Free with engine_close, also after an error. */
enum status engine_open(const struct engine_options *options, struct engine *engine, struct error *error);
void engine_close(struct engine *engine);

/* Gives it packed and scratch space (per thread) of these sizes, once. */
enum status engine_space(struct engine *engine, size_t packed_size, size_t scratch_size, struct error *error);

unsigned char *engine_scratch(const struct engine *engine, unsigned thread);
/* Keeps a task's failure, that of the first one; engine_status gives it back and clears it. */
void engine_fail(struct engine *engine, enum status status, const struct error *error);
enum status engine_status(struct engine *engine, struct error *error);

/* float32 to act and back. */
void act_from_floats(const struct engine *engine, const float *x, uint32_t n, void *act);
const float *act_to_floats(const struct engine *engine, const void *act, uint32_t n, float *space);

/* ---- operands ---- */

/* Rows of a product: act [tokens, columns]; the values are act * scale * token_scales[token]. */
struct operand_rows {
    unsigned char *act;
    float *token_scales; /* [tokens]; used if per_token */
    bool per_token;
    float scale;
};

/* One token: rounds `values` [columns] (they may change) as the weight wants it, into row `token` of the operand. */
void operand_row_fill(const struct engine *engine, const struct weight *weight, float *values, size_t token,
                      struct operand_rows *operand);

/* operand->scale and per_token for a weight. */
void operand_begin(const struct weight *weight, struct operand_rows *operand);

/* ---- linear layers ---- */

/* Products of a block of tokens with a run of rows, of one or two weights. */
struct tile {
    const struct token_block *block;
    uint32_t block_number;
    uint32_t row, rows;
    float *y[2]; /* [block->count, rows], scales and bias applied; the receiver may change them */
    unsigned thread;
    float *space; /* [rows] for the receiver */
};
typedef void tile_function(void *context, struct tile *tile);

struct linear {
    const struct weight *weights[2]; /* the second may be NULL: else of the same shape */
    const struct operand_rows *inputs[2];
    const struct token_block *blocks;
    uint32_t block_count;
    uint32_t row_multiple; /* tiles begin at multiples of this: a head's size, else 1 */
    bool in_order;         /* the tiles of a block one after another, by row, in one thread */
    tile_function *receive;
    void *context;
};

/* Scratch and packed bytes that linear_run needs at least. */
size_t linear_scratch(uint32_t row_multiple, unsigned weights);
size_t linear_packed(struct engine *engine, const struct weight *weight, uint32_t row_multiple, unsigned weights,
                     struct error *error);

enum status linear_run(struct engine *engine, const struct linear *linear, struct error *error);

/* ---- attention ---- */

/*
 * Causal attention of windows on their own. q: act, [window][kv_head][token][heads / kv_heads][head_dim], scaled by
 * 1 / sqrt(head_dim) already; k, v: act [window][kv_head][token][head_dim]; out: act [token][heads][head_dim].
 * kv_packed: attention_packed bytes.
 */
struct attention {
    uint32_t heads, kv_heads, head_dim;
    const struct attention_window *windows;
    uint32_t window_count;
    const unsigned char *q, *k, *v;
    unsigned char *kv_packed;
    unsigned char *out;
};
size_t attention_scratch(const struct engine *engine, uint32_t head_dim);
size_t attention_packed(struct engine *engine, uint32_t kv_heads, uint32_t head_dim, uint32_t tokens, uint32_t windows,
                        struct error *error);
enum status attention_run(struct engine *engine, const struct attention *attention, struct error *error);

#endif
