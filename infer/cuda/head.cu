/*
 * The logits of a run of the vocabulary's rows go into the running maximum, sum and cross term of each token, as
 * infer/cpu/head.c does it. Bound by bandwidth: a logit is read once. Each thread keeps the sum under its own largest
 * logit and mends it when a larger one comes; at the end of the run the sums of the threads are brought under the token's
 * largest and added in double. The two sides go through the same operations in the same order: of equal logits the sums are
 * equal to the bit, and the divergence is 0.
 */
#include <float.h>
#include <math.h>

#include "infer/cuda/result.cuh"
#include "infer/cuda/warp.cuh"

namespace {

enum { THREADS = 512, BLOCKS_LEAST = 2 /* on a multiprocessor: for more the compiler would spill */ };

/* The largest logit, and the first row it is in. NaN is never it. */
struct top_logit {
    float value;
    uint32_t row;
};

/* What a thread has seen of a side. */
struct side_part {
    top_logit top;
    float sum;    /* of exp(logit - most) */
    double cross; /* of exp(b - most of b) * (b - a) */
};

/* Not below what can be taken from a logit: of no logit, or of -infinity alone. */
__device__ static inline float part_most(const side_part &part) { return fmaxf(part.top.value, -FLT_MAX); }

/* N logits of rows from `row` on. `others`: of the model, where these are the baseline's; else NULL. */
template <int N>
__device__ static inline void part_add(side_part *part, const float logits[N], const float *others, uint32_t row) {
    const float most_before = part_most(*part);
#pragma unroll
    for (int i = 0; i < N; i++)
        if (logits[i] > part->top.value)
            part->top = top_logit{logits[i], row + i};
    const float most = part_most(*part);
    if (most > most_before) {
        const float correction = expf(most_before - most);
        part->sum *= correction;
        part->cross *= (double)correction;
    }
    float sum = 0, cross = 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        const float power = expf(logits[i] - most);
        sum += power;
        if (others)
            cross += power * (logits[i] - others[i]);
    }
    part->sum += sum;
    if (others)
        part->cross += (double)cross;
}

/* Of the block: every thread gets it. `space`: WARP of each. */
__device__ static top_logit block_top(top_logit top, float *values, uint32_t *rows) {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        const float value = __shfl_xor_sync(FULL_WARP, top.value, distance);
        const uint32_t row = __shfl_xor_sync(FULL_WARP, top.row, distance);
        if (value > top.value || (value == top.value && row < top.row))
            top = top_logit{value, row};
    }
    __syncthreads();
    if (lane == 0) {
        values[warp] = top.value;
        rows[warp] = top.row;
    }
    __syncthreads();
    top = top_logit{values[0], rows[0]};
    for (unsigned i = 1; i < warps; i++)
        if (values[i] > top.value || (values[i] == top.value && rows[i] < top.row))
            top = top_logit{values[i], rows[i]};
    return top;
}

/* What the threads have, into the token. All of the block call it; `token` is changed by thread 0. */
__device__ static void part_merge(const side_part &part, bool baseline, uint32_t vocabulary_row, head_token *token,
                                  double *space) {
    const top_logit top = block_top(part.top, (float *)space, (uint32_t *)space + WARP);
    const float most = fmaxf(top.value, -FLT_MAX), correction = expf(part_most(part) - most);
    const double sum = block_reduce((double)part.sum * (double)correction, add_values(), space);
    const double cross = baseline ? block_reduce(part.cross * (double)correction, add_values(), space) : 0;
    if (threadIdx.x != 0)
        return;
    head_side *side = &token->sides[baseline];
    if (top.value > side->most) { /* what was summed is brought under it */
        const double before = exp((double)side->most - (double)top.value);
        side->sum *= before;
        if (baseline)
            token->cross *= before;
        side->most = top.value;
        side->top = vocabulary_row + top.row;
    }
    /* 1 where the largest is this run's; of -infinity alone there is nothing to add but NaN */
    const double under = most == side->most || side->most < -FLT_MAX ? 1 : exp((double)most - (double)side->most);
    side->sum += sum * under;
    if (baseline)
        token->cross += cross * under;
}

template <int N, bool TWO>
__global__ void __launch_bounds__(THREADS, BLOCKS_LEAST)
    head_update(result_values model, result_values baseline, uint32_t vocabulary_row, head_token *tokens) {
    SHARED_MEMORY(shared);
    const uint32_t number = blockIdx.x;
    const float scales[2] = {result_token_scale(model, number), TWO ? result_token_scale(baseline, number) : 1.0f};
    side_part parts[2];
#pragma unroll
    for (int side = 0; side < 2; side++)
        parts[side] = side_part{top_logit{-INFINITY, 0xffffffffu}, 0, 0};
    for (uint32_t row = threadIdx.x * N; row < model.rows; row += THREADS * N) {
        float a[N], b[N];
        result_load<N>(model, number, scales[0], row, a);
        if (TWO) {
            result_load<N>(baseline, number, scales[1], row, b);
            part_add<N>(&parts[1], b, a, row);
        }
        part_add<N>(&parts[0], a, NULL, row);
    }
    head_token *token = &tokens[number];
    if (TWO)
        part_merge(parts[1], true, vocabulary_row, token, (double *)shared);
    part_merge(parts[0], false, vocabulary_row, token, (double *)shared);
    const uint32_t target = token->target - vocabulary_row;
    if (threadIdx.x == 0 && target < model.rows) {
        result_load<1>(model, number, scales[0], target, &token->sides[0].target);
        if (TWO)
            result_load<1>(baseline, number, scales[1], target, &token->sides[1].target);
    }
}

} // namespace

void run_head_update(cuda_device *device, const cuda_result *results, unsigned sides, uint32_t vocabulary_row,
                     head_token *tokens) {
    const bool two = sides == 2, four = result_by_four(&results[0]) && (!two || result_by_four(&results[1]));
    const result_values model = result_values_of(&results[0]), baseline = two ? result_values_of(&results[1]) : model;
    if (two && baseline.rows != model.rows) {
        device_fail_text(device, "the logits of the model and of the baseline are of different rows");
        return;
    }
    if (model.rows == 0)
        return;
    const auto kernel = two ? (four ? head_update<4, true> : head_update<1, true>)
                            : (four ? head_update<4, false> : head_update<1, false>);
    launch(device, "to sum up logits", kernel, dim3(results[0].tokens), THREADS, WARP * sizeof(double), model, baseline,
           vocabulary_row, tokens);
}
