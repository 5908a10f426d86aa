/*
 * What qstream and its CUDA plug-in, libqstream_cuda.so, agree on. The plug-in is opened at run time and knows nothing of
 * checkpoints, windows or memory plans: it has a device, memory on it, and the operations of a forward pass. It exports
 *
 *     const struct cuda_plugin *qstream_cuda_plugin(void);
 *
 * whose first two members are compared before anything else is looked at.
 *
 * Operations return at once; they run on the device's compute stream, one after another. A pointer in an argument is an
 * address on the device unless it says "host"; the structs themselves are read before the call returns. The first thing
 * that fails, in a call or on the device, is kept (`failure`), and what is called after it does nothing. A `struct weight`
 * given to an operation is the one that weight_rows_load filled, its pointers moved to the device.
 *
 * All matrices are row-major. "act" is the type of the operands of products: BF16, or F32 where exactness counts more.
 */
#ifndef QSTREAM_INFER_CUDA_PLUGIN_H
#define QSTREAM_INFER_CUDA_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/head_token.h"
#include "infer/weight.h"

enum { CUDA_PLUGIN_VERSION = 1, CUDA_EVENTS = 8, CUDA_NAME_MAX = 64, CUDA_MESSAGE_MAX = 512, CUDA_MATVECS = 3 };

struct cuda_device; /* the plug-in's */
struct cuda_graph;  /* likewise: operations that were recorded */

struct cuda_info {
    char name[CUDA_NAME_MAX];
    unsigned major, minor; /* compute capability */
    unsigned multiprocessors;
    uint64_t memory, memory_free; /* bytes */
    double bandwidth;             /* of its memory as its clock and width say, bytes per second; 0: not known */
    bool unified;                 /* it shares the host's memory (GB10): what is pinned needs no copy */
    bool fp8;                     /* products of FP8 with FP8 (compute capability 8.9 and above) */
};

enum cuda_stream { CUDA_COMPUTE, CUDA_COPY, CUDA_STREAMS };

enum cuda_type { CUDA_F32, CUDA_BF16, CUDA_E4M3 };

/* ---- many tokens ---- */

/*
 * Operand rows of products, rounded as `weight` wants its activations (see infer/weight.h). Row i comes from row rows[i] of
 * `hidden` by RMSNorm: x / sqrt(mean x^2 + epsilon) * norm; or, where hidden is NULL, from row i of `source`. With act
 * BF16 the values are rounded to BF16 first. Out: the values without the last factor, which the product has to be
 * multiplied by: `scale` of struct cuda_result for FP8_STATIC (the input_scale), token_scales for FP8_TOKEN.
 */
struct cuda_operand {
    const float *hidden; /* [.., columns] */
    const float *norm;   /* [columns] */
    float epsilon;
    const uint32_t *rows; /* [tokens]; NULL: all in order */
    const void *source;   /* act [tokens, columns] */
    uint32_t tokens, columns;
    enum cuda_type act;          /* F32 or BF16 */
    const struct weight *weight; /* host: activations, input_scale and group count */
    enum cuda_type type;         /* of out: act; or E4M3, of FP8_STATIC and FP8_TOKEN */
    void *out;                   /* [tokens, columns] */
    float *token_scales;         /* [tokens], of FP8_TOKEN only */
};

/* y[t, r] = sum over c of x[t, c] * weight[r, c]. E4M3: columns and rows multiples of 16. */
struct cuda_product {
    enum cuda_type type; /* of x and weight */
    uint32_t tokens, rows, columns;
    const void *x, *weight;
    float *y;
};

/*
 * y [tokens, rows] of a product with rows [first, first + rows) of a weight. Its value is y * scale * token_scales[t] *
 * (scale of the row, of FP8 weights with one scale for all or one per row) + bias[r].
 */
struct cuda_result {
    float *y;
    uint32_t tokens, first, rows;
    const struct weight *weight; /* host */
    float scale;                 /* of the operand: input_scale of FP8_STATIC, else 1 */
    const float *token_scales;   /* [tokens], or NULL */
};

/*
 * Values of a projection to heads, rotated where cosines are given: halves (x1, x2) become (x1 cos - x2 sin, x2 cos + x1
 * sin), times query_factors[position] where given; then rounded to `rounding` (E4M3: e4m3(clamp(x, +-448))) and put into
 * out, act [tokens, heads, head_dim].
 */
struct cuda_heads {
    uint32_t heads, head_dim;
    const uint32_t *positions;    /* [tokens] */
    const float *cosines, *sines; /* [.., head_dim / 2], or NULL */
    const float *query_factors;   /* [..], or NULL */
    enum cuda_type rounding, act; /* F32: none */
    void *out;
};

struct cuda_window {
    uint32_t first, tokens;
};

/*
 * Causal attention of windows on their own. q, out: act [.., heads, head_dim], k and v: act [.., kv_heads, head_dim]; the
 * tokens of a window one after another from `first`. q is scaled already. A token sees the `sliding` tokens that end with
 * itself; 0: all before it. head_dim: up to 256, a multiple of 8.
 */
struct cuda_attention {
    uint32_t heads, kv_heads, head_dim, sliding;
    enum cuda_type act;
    const void *q, *k, *v;
    void *out;
    const struct cuda_window *windows; /* [window_count] */
    uint32_t window_count, longest;    /* tokens of the longest window */
};

/* ---- one token ---- */

/*
 * x [columns] for products of one token with `weight`: normed where `norm` is given, rounded as the weight wants it, and
 * brought into the form that the kernel reads. `prepared`: prepared_bytes, aligned to 16. A value that is not finite sets *bad to
 * the least of itself and `layer`.
 */
struct cuda_prepare {
    const float *source; /* [columns] */
    const float *norm;   /* [columns], or NULL */
    float epsilon;
    const struct weight *weight; /* host */
    void *prepared;
    uint32_t *bad, layer; /* bad: one number, or NULL */
};

/* y [weight->rows] = weight * x, all scales and the bias applied. */
struct cuda_matvec {
    const struct weight *weight; /* host */
    const void *prepared;        /* for weights of this format, shape and rounding */
    float *y;
};

/* MATVEC_Y: each y is written. MATVEC_ADD: to[r] += y[r], of one. MATVEC_SWIGLU: to[r] = y0 / (1 + exp(-y0)) * y1, of two. */
enum cuda_matvec_use { MATVEC_Y, MATVEC_ADD, MATVEC_SWIGLU };

/*
 * The attention of the token at *position, in one layer: queries [heads, head_dim] and keys are rotated, keys and values
 * [kv_heads, head_dim] are kept, out [heads, head_dim] is computed. The work is divided by fixed shares of the positions seen, so that
 * it can be recorded. E4M3 in the cache has the scale 1.
 */
struct cuda_step_attention {
    uint32_t heads, kv_heads, head_dim, sliding;
    uint32_t positions; /* of the cache */
    const uint32_t *position;
    const float *cosines, *sines, *query_factors; /* [positions, head_dim / 2] twice, [positions] */
    float *queries;
    const float *keys, *values;
    enum cuda_type cache;            /* F32, BF16, E4M3 */
    void *cache_keys, *cache_values; /* [kv_heads, positions, head_dim] */
    void *space;                     /* step_attention_bytes */
    float *out;
};

/* ---- the table ---- */

struct cuda_plugin {
    uint32_t version;    /* CUDA_PLUGIN_VERSION */
    uint32_t size;       /* sizeof(struct cuda_plugin) */
    const char *toolkit; /* "13.0", what it was built with */

    /* Devices that this process may use; -1: none, and why, one line without a newline. */
    int (*device_count)(char message[CUDA_MESSAGE_MAX]);
    /* NULL: why not. *info is filled. */
    struct cuda_device *(*open)(int number, struct cuda_info *info, char message[CUDA_MESSAGE_MAX]);
    void (*close)(struct cuda_device *device); /* releases all that is left; NULL is fine */
    /* The first failure, with what failed; NULL: none so far. */
    const char *(*failure)(const struct cuda_device *device);
    /* Waits for the stream. false: there is a failure. */
    bool (*synchronize)(struct cuda_device *device, enum cuda_stream stream);

    /* Memory of the device, aligned to 256; NULL: there is too little, which is a failure. */
    void *(*allocate)(struct cuda_device *device, uint64_t bytes);
    void (*release)(struct cuda_device *device, void *memory);
    /* Host memory that copies are quick from and to; *address is where the device sees it, NULL where it does not. */
    void *(*allocate_host)(struct cuda_device *device, uint64_t bytes, void **address);
    void (*release_host)(struct cuda_device *device, void *memory);

    /* Copies; one side is host memory, which has to stay as it is until the stream has come to it, pinned or not: a device
     * that reads the host's page tables may take all of it for pinned. */
    void (*copy_in)(struct cuda_device *device, enum cuda_stream stream, void *to, const void *from, uint64_t bytes);
    void (*copy_out)(struct cuda_device *device, enum cuda_stream stream, void *to, const void *from, uint64_t bytes);
    void (*clear)(struct cuda_device *device, void *memory, uint64_t bytes); /* to zeros */

    /* Event number 0 .. CUDA_EVENTS - 1: what was put on a stream before the call. One never recorded is over. */
    void (*event_record)(struct cuda_device *device, unsigned event, enum cuda_stream stream);
    void (*event_follow)(struct cuda_device *device, unsigned event, enum cuda_stream stream); /* stream waits */
    void (*event_wait)(struct cuda_device *device, unsigned event);                            /* caller waits */

    /* Operations between begin and end are recorded, not run; NULL: a failure. */
    void (*graph_begin)(struct cuda_device *device);
    struct cuda_graph *(*graph_end)(struct cuda_device *device);
    void (*graph_run)(struct cuda_device *device, struct cuda_graph *graph);
    void (*graph_free)(struct cuda_graph *graph);

    /* Bytes per second at which all of the device reads so much memory and does nothing else; waits. */
    double (*read_rate)(struct cuda_device *device, const void *memory, uint64_t bytes);

    /* ---- many tokens ---- */
    void (*operand)(struct cuda_device *device, const struct cuda_operand *operand);
    /* Rows [first, first + rows) as `type` (act), the scales of FP8 per tensor and per row left out. out: [rows, columns]. */
    void (*unpack)(struct cuda_device *device, const struct weight *weight, uint32_t first, uint32_t rows,
                   enum cuda_type type, void *out);
    void (*product)(struct cuda_device *device, const struct cuda_product *product);
    /* hidden[t, first + r] += value; hidden: [tokens, columns]. */
    void (*finish_residual)(struct cuda_device *device, const struct cuda_result *result, float *hidden,
                            uint32_t columns);
    /* out[t, first + r] = swiglu(value of 0, value of 1), act [tokens, columns]. */
    void (*finish_swiglu)(struct cuda_device *device, const struct cuda_result results[2], enum cuda_type act,
                          void *out, uint32_t columns);
    /* Rows are whole heads, from head first / head_dim on. */
    void (*finish_heads)(struct cuda_device *device, const struct cuda_result *result, const struct cuda_heads *heads);
    void (*attention)(struct cuda_device *device, const struct cuda_attention *attention);
    /* Logits of one model or of model and baseline go into the tokens' running sums. vocabulary_row: id of the first row. */
    void (*head_update)(struct cuda_device *device, const struct cuda_result *results, unsigned sides,
                        uint32_t vocabulary_row, struct head_token *tokens);
    /* Per token |x - b| / |b| (0 where x = b) and cosine of x and b: sums [tokens][2]. */
    void (*compare)(struct cuda_device *device, const float *x, const float *b, uint32_t tokens, uint32_t columns,
                    double *sums);
    /* *first = the least of itself and the number of the first value that is not finite. */
    void (*finite_check)(struct cuda_device *device, const float *x, uint64_t count, uint64_t *first);
    /* The same for E4M3 codes that are NaN. */
    void (*codes_check)(struct cuda_device *device, const void *codes, uint64_t count, uint64_t *first);

    /* ---- one token ---- */
    uint64_t (*prepared_bytes)(const struct weight *weight);
    void (*prepare)(struct cuda_device *device, const struct cuda_prepare *prepare);
    void (*matvec)(struct cuda_device *device, const struct cuda_matvec *items, unsigned count,
                   enum cuda_matvec_use use, float *to);
    uint64_t (*step_attention_bytes)(const struct cuda_step_attention *attention);
    void (*step_attention)(struct cuda_device *device, const struct cuda_step_attention *attention);
    /* act [tokens, kv_heads, head_dim] into the cache, positions 0 .. tokens - 1. */
    void (*cache_fill)(struct cuda_device *device, const void *source, enum cuda_type act, uint32_t tokens,
                       uint32_t kv_heads, uint32_t head_dim, enum cuda_type cache, void *to, uint32_t positions);
};

typedef const struct cuda_plugin *cuda_plugin_function(void);
#define CUDA_PLUGIN_SYMBOL "qstream_cuda_plugin"
#define CUDA_PLUGIN_FILE "libqstream_cuda.so"

#endif
