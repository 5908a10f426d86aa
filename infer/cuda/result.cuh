/*
 * The values of a product's result (struct cuda_result) from what the product left: scales and bias are applied where the
 * values are used, so that y is read once.
 */
#ifndef QSTREAM_INFER_CUDA_RESULT_CUH
#define QSTREAM_INFER_CUDA_RESULT_CUH

#include "infer/cuda/values.cuh"

/* As kernels take it. */
struct result_values {
    const float *y;            /* [tokens, rows] */
    const float *token_scales; /* or NULL */
    const float *row_scales;   /* of the weight's rows, or one for all; or NULL */
    const float *bias;         /* of the weight's row, or NULL */
    float scale;
    uint32_t rows, first;
    bool one_scale;
};

/* Scales that products are multiplied by: of all of a weight or of its rows. Others are in what run_unpack makes. */
static inline bool scales_left_to_result(const weight *weight) {
    return weight->format == WEIGHT_FP8 && weight->scale_columns >= weight->columns &&
           (weight->scale_rows >= weight->rows || weight->scale_rows == 1);
}

static inline result_values result_values_of(const cuda_result *result) {
    const weight *weight = result->weight;
    result_values values = {};
    values.y = result->y;
    values.token_scales = result->token_scales;
    values.bias = weight->bias;
    values.scale = result->scale;
    values.rows = result->rows;
    values.first = result->first;
    if (scales_left_to_result(weight)) {
        values.row_scales = weight->scales;
        values.one_scale = weight->scale_rows >= weight->rows;
    }
    return values;
}

/* Whether rows of y can be read four values at a time. */
static inline bool result_by_four(const cuda_result *result) {
    return result->rows % 4 == 0 && runs_aligned(result->y, CUDA_F32, 4);
}

__device__ static inline float result_token_scale(const result_values &result, uint32_t token) {
    return result.token_scales ? result.token_scales[token] : 1.0f;
}

/* Values of rows [row, row + N) of y for a token whose scale is token_scale. */
template <int N>
__device__ static inline void result_load(const result_values &result, uint32_t token, float token_scale, uint32_t row,
                                          float out[N]) {
    values_load<CUDA_F32, N>(result.y, (size_t)token * result.rows + row, out);
    const uint32_t first = result.first + row;
    if (!result.row_scales || result.one_scale) {
        const float scale = (result.row_scales ? result.row_scales[0] * result.scale : result.scale) * token_scale;
#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] *= scale;
    } else {
#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] = out[i] * (result.row_scales[first + i] * result.scale) * token_scale;
    }
    if (result.bias) {
#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] += result.bias[first + i];
    }
}

#endif
