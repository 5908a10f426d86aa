/*
 * Rotary position embedding: default, linear, llama3 and YaRN, as transformers 5 computes their parameters
 * (modeling_rope_utils.py); YaRN is from Peng et al., arXiv 2309.00071.
 */
#ifndef QSTREAM_INFER_ROPE_H
#define QSTREAM_INFER_ROPE_H

#include <stdbool.h>
#include <stdint.h>

enum rope_type { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_TYPES };

struct rope {
    enum rope_type type;
    double theta;
    double factor;
    double original_positions;            /* original_max_position_embeddings */
    double low_frequency, high_frequency; /* llama3: low_freq_factor, high_freq_factor */
    double beta_fast, beta_slow;          /* YaRN */
    double mscale, mscale_all;            /* YaRN; 0: not given */
    double attention_factor;              /* YaRN; counts if attention_given */
    bool attention_given;
    bool truncate;         /* YaRN */
    double query_beta;     /* llama_4_scaling_beta; 0: none */
    bool frequencies_bf16; /* rounded to bfloat16, as models cast as a whole hold them */
};

/* "default", "linear", "llama3", "yarn"; ROPE_TYPES when there is no such type. */
enum rope_type rope_type_parse(const char *name);

/* Fills frequencies[head_dim / 2], radians per position; returns the factor of cos and sin. */
float rope_frequencies(const struct rope *rope, uint32_t head_dim, float *frequencies);

/* What queries at a position are multiplied by: 1 + query_beta * ln(1 + floor(position / original_positions)). */
float rope_query_scale(const struct rope *rope, uint32_t position);

#endif
