/*
 * What follows the products of many tokens: their values (see result.cuh) are added to the hidden states, gated, or rotated
 * and put where attention wants them. Bound by bandwidth: y is read once, four values to a thread where rows and addresses
 * allow it, one otherwise.
 */
#include "infer/cuda/device.cuh"
#include "infer/cuda/result.cuh"

namespace {

enum { THREADS = 256 };

/* Calls launch_slice(first token, tokens, blocks) so that a launch has at most 2^30 units. */
template <typename Launch>
void slices_launch(cuda_device *device, uint32_t tokens, uint64_t units, Launch launch_slice) {
    const uint64_t fit = (UINT64_C(1) << 30) / (units ? units : 1);
    const uint32_t step = fit < 1 ? 1 : fit > tokens ? tokens : (uint32_t)fit;
    for (uint32_t at = 0; at < tokens && !device->failed; at += step) {
        const uint32_t count = tokens - at < step ? tokens - at : step;
        launch_slice(at, count, dim3(ceil_div(count * units, THREADS)));
    }
}

/* The unit of a thread: N rows of a token. */
struct unit {
    uint32_t token, row;
    bool any;
};

template <int N> __device__ static inline unit unit_find(uint32_t first, uint32_t count, uint32_t rows) {
    const uint32_t across = rows / N, number = blockIdx.x * (uint32_t)THREADS + threadIdx.x, token = number / across;
    return unit{first + token, (number - token * across) * N, token < count};
}

/* ---- residual ---- */

template <int N>
__global__ void __launch_bounds__(THREADS)
    finish_residual(result_values result, uint32_t first, uint32_t count, float *hidden, uint32_t columns) {
    const unit unit = unit_find<N>(first, count, result.rows);
    if (!unit.any)
        return;
    const size_t place = (size_t)unit.token * columns + result.first + unit.row;
    float values[N], sums[N];
    values_load<CUDA_F32, N>(hidden, place, sums);
    result_load<N>(result, unit.token, result_token_scale(result, unit.token), unit.row, values);
#pragma unroll
    for (int i = 0; i < N; i++)
        sums[i] += values[i];
    values_store<CUDA_F32, N>(hidden, place, sums);
}

} // namespace

void run_finish_residual(cuda_device *device, const cuda_result *result, float *hidden, uint32_t columns) {
    const result_values values = result_values_of(result);
    const bool four =
        result_by_four(result) && columns % 4 == 0 && result->first % 4 == 0 && runs_aligned(hidden, CUDA_F32, 4);
    slices_launch(device, result->tokens, result->rows / (four ? 4 : 1), [&](uint32_t at, uint32_t count, dim3 grid) {
        launch(device, "to add a product to the hidden states", four ? finish_residual<4> : finish_residual<1>, grid,
               THREADS, 0, values, at, count, hidden, columns);
    });
}

namespace {

/* ---- SwiGLU ---- */

template <cuda_type ACT, int N>
__global__ void __launch_bounds__(THREADS)
    finish_swiglu(result_values gates, result_values ups, uint32_t first, uint32_t count, void *out, uint32_t columns) {
    const unit unit = unit_find<N>(first, count, gates.rows);
    if (!unit.any)
        return;
    float gate[N], up[N];
    result_load<N>(gates, unit.token, result_token_scale(gates, unit.token), unit.row, gate);
    result_load<N>(ups, unit.token, result_token_scale(ups, unit.token), unit.row, up);
#pragma unroll
    for (int i = 0; i < N; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
    values_store<ACT, N>(out, (size_t)unit.token * columns + gates.first + unit.row, gate);
}

} // namespace

void run_finish_swiglu(cuda_device *device, const cuda_result results[2], cuda_type act, void *out, uint32_t columns) {
    const result_values gates = result_values_of(&results[0]), ups = result_values_of(&results[1]);
    const bool four = result_by_four(&results[0]) && result_by_four(&results[1]) && columns % 4 == 0 &&
                      gates.first % 4 == 0 && runs_aligned(out, act, 4);
    const auto kernel = act == CUDA_BF16 ? (four ? finish_swiglu<CUDA_BF16, 4> : finish_swiglu<CUDA_BF16, 1>)
                                         : (four ? finish_swiglu<CUDA_F32, 4> : finish_swiglu<CUDA_F32, 1>);
    slices_launch(device, results[0].tokens, gates.rows / (four ? 4 : 1), [&](uint32_t at, uint32_t count, dim3 grid) {
        launch(device, "to gate a product", kernel, grid, THREADS, 0, gates, ups, at, count, out, columns);
    });
}

namespace {

/* ---- heads ---- */

__device__ static inline float value_round(cuda_type rounding, float x) {
    return rounding == CUDA_F32 ? x : rounding == CUDA_BF16 ? bf16_round(x) : e4m3_round(x);
}

/* A thread takes N values of the first half of a head, and those of the second half that are rotated with them. */
template <cuda_type ACT, int N>
__global__ void __launch_bounds__(THREADS)
    finish_heads(result_values result, cuda_heads heads, uint32_t first, uint32_t count) {
    const uint32_t half = heads.head_dim / 2;
    const unit unit = unit_find<N>(first, count, result.rows / 2);
    if (!unit.any)
        return;
    const uint32_t head = unit.row / half, at = unit.row - head * half, row = head * heads.head_dim + at;
    const float token_scale = result_token_scale(result, unit.token);
    float low[N], high[N];
    result_load<N>(result, unit.token, token_scale, row, low);
    result_load<N>(result, unit.token, token_scale, row + half, high);
    if (heads.cosines || heads.query_factors) {
        const uint32_t position = heads.positions[unit.token];
        const float factor = heads.query_factors ? heads.query_factors[position] : 1.0f;
        float cosines[N], sines[N];
        if (heads.cosines) {
            values_load<CUDA_F32, N>(heads.cosines, (size_t)position * half + at, cosines);
            values_load<CUDA_F32, N>(heads.sines, (size_t)position * half + at, sines);
#pragma unroll
            for (int i = 0; i < N; i++) {
                const float x = low[i], y = high[i];
                low[i] = x * cosines[i] - y * sines[i];
                high[i] = y * cosines[i] + x * sines[i];
            }
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            low[i] *= factor;
            high[i] *= factor;
        }
    }
#pragma unroll
    for (int i = 0; i < N; i++) {
        low[i] = value_round(heads.rounding, low[i]);
        high[i] = value_round(heads.rounding, high[i]);
    }
    const size_t place = (size_t)unit.token * heads.heads * heads.head_dim + result.first + row;
    values_store<ACT, N>(heads.out, place, low);
    values_store<ACT, N>(heads.out, place + half, high);
}

} // namespace

void run_finish_heads(cuda_device *device, const cuda_result *result, const cuda_heads *heads) {
    const result_values values = result_values_of(result);
    const bool four = result_by_four(result) && heads->head_dim % 8 == 0 && runs_aligned(heads->out, heads->act, 4) &&
                      runs_aligned(heads->cosines, CUDA_F32, 4) && runs_aligned(heads->sines, CUDA_F32, 4);
    const auto kernel = heads->act == CUDA_BF16 ? (four ? finish_heads<CUDA_BF16, 4> : finish_heads<CUDA_BF16, 1>)
                                                : (four ? finish_heads<CUDA_F32, 4> : finish_heads<CUDA_F32, 1>);
    slices_launch(device, result->tokens, result->rows / (four ? 8 : 2), [&](uint32_t at, uint32_t count, dim3 grid) {
        launch(device, "to rotate heads", kernel, grid, THREADS, 0, values, *heads, at, count);
    });
}
