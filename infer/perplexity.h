/*
 * Sliding-window perplexity, of one checkpoint or of two side by side: what is asked, what comes out.
 *
 * Window k covers the tokens [k * stride, k * stride + window). It scores the tokens that no window before it has scored
 * (its last `stride` when it is whole), but never its own first one, which has nothing before it. NLL in nats, the mean
 * over all scored tokens; PPL = exp(NLL).
 */
#ifndef QSTREAM_INFER_PERPLEXITY_H
#define QSTREAM_INFER_PERPLEXITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cpu.h"
#include "common/status.h"
#include "infer/device.h"

struct ppl_protocol {
    uint32_t window, stride; /* tokens; 2 <= window, 1 <= stride <= window */
    uint32_t windows;        /* 0: as many as the text has, the last may be shorter */
};

/* One window of the protocol. */
struct ppl_window {
    size_t first;        /* its first token's place in the text */
    uint32_t tokens;     /* how many it covers */
    uint32_t scored;     /* the last so many of them */
    double nll;          /* mean over its scored tokens */
    double baseline_nll; /* with a baseline */
    double kl;           /* mean, with a baseline */
};

/* One scored token. */
struct ppl_token {
    uint32_t position; /* in the text */
    int32_t id;
    float nll;
    float baseline_nll, kl; /* with a baseline; kl in nats, of the baseline's distribution p against the model's q */
    bool agrees;            /* with a baseline: the same most probable token */
};

/* How far the hidden states behind a layer are from the baseline's: d = x - b per token, over all tokens run. */
struct ppl_layer {
    double rel_error; /* mean over tokens of |x - b| / |b| */
    double cosine;    /* mean over tokens of <x, b> / (|x| |b|) */
};

/* What is stated before anything is computed. Bytes. */
struct ppl_budget {
    uint64_t tokens;        /* of all windows */
    uint64_t hidden;        /* hidden states of all windows, of both models */
    uint64_t hidden_memory; /* of these in memory; the rest goes to a file */
    uint64_t weights;       /* buffers of stored weights */
    uint64_t work;          /* the rest: activations of a group of windows, logits, packed tiles */
    uint64_t total;         /* all that is in memory */
    uint64_t read;          /* bytes of weights that are read from the checkpoints */
    uint32_t group;         /* windows that are computed together */
    uint32_t groups;
    struct device_budget device; /* the figures above are of the host then */
};

enum compute { COMPUTE_AUTO, COMPUTE_BF16, COMPUTE_F32 };
enum kv_cache { KV_CACHE_AUTO, KV_CACHE_BF16, KV_CACHE_FP8 }; /* AUTO: as precise as the computing */

struct ppl_options {
    const char *model;    /* folder */
    const char *baseline; /* folder, or NULL */
    struct ppl_protocol protocol;
    enum compute compute;
    enum kv_cache kv_cache;
    bool activations_float; /* --activations float; else as served */
    bool fused_scales;      /* q, k, v and gate, up share the largest input_scale and weight_scale, as vLLM's do */
    bool rope_bf16;         /* rotary frequencies rounded to bfloat16, as in a model that was cast as a whole */
    bool resident;          /* all weights are read first and kept */
    uint64_t memory;        /* of the whole run, bytes */
    struct device_choice device;
    unsigned jobs;
    enum cpu_level cpu;
    const char *spill_folder; /* NULL: $TMPDIR or /tmp */
    bool quiet;
};

struct ppl_result {
    double nll, ppl;
    double standard_error; /* of nll: of the mean over scored tokens, as if these were independent */
    size_t tokens_scored, tokens_run;
    double seconds, tokens_per_second; /* of the pass, reading included */
    enum compute compute;              /* what AUTO came to */
    struct ppl_budget budget;
    struct ppl_window *windows;
    size_t window_count;
    struct ppl_token *tokens; /* of all windows, in order */
    /* with a baseline */
    bool has_baseline;
    double baseline_nll, baseline_ppl;
    double kl_mean, kl_median, kl_p99, kl_max;
    double top1_agreement;    /* share of scored tokens */
    struct ppl_layer *layers; /* [0]: the embedding, [n]: behind layer n - 1 */
    size_t layer_count;
};

/*
 * The windows of a text of `count` tokens; the caller frees *windows. STATUS_USAGE when the protocol is none,
 * STATUS_BAD_INPUT when the text has fewer tokens than it needs: at least two, and for a given number of windows as
 * many as let each score a token.
 */
enum status ppl_windows(const struct ppl_protocol *protocol, size_t count, struct ppl_window **windows,
                        size_t *window_count, struct error *error);

/*
 * Plans only (with device.memory given also for a CUDA device that is not there): fills result->budget, compute, windows (nothing scored), tokens_run and tokens_scored. Errors as ppl_run.
 */
enum status ppl_plan(const struct ppl_options *options, const int32_t *ids, size_t count, struct ppl_result *result,
                     struct error *error);

/*
 * Measures. ids: the tokens of the text. STATUS_BAD_INPUT when a checkpoint cannot be run (which tensor, why), when an
 * id is not below the model's vocabulary, or the baseline is another model; STATUS_USAGE when --memory is too small
 * (how much is needed). Free with ppl_result_free, also after an error.
 */
enum status ppl_run(const struct ppl_options *options, const int32_t *ids, size_t count, struct ppl_result *result,
                    struct error *error);

/*
 * From result->tokens and windows (first, tokens, scored): each window's means, nll, ppl, standard error and, with a
 * baseline, the figures of it. Sums in double in the order of the tokens.
 */
enum status ppl_summarize(struct ppl_result *result, struct error *error);

void ppl_result_free(struct ppl_result *result);

#endif
