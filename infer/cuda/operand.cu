/*
 * Operands of products of many tokens: rows of hidden states normed, or activations, rounded as the weight wants them
 * (see infer/weight.h). The same values as row_kernels.norm and activations_round, but for the order of the norm's sum.
 *
 * Bound by bandwidth: a row is read from memory once, and once or twice more from the multiprocessor's L1 cache. A block
 * has a row, and its threads grow with the columns: what the blocks of a multiprocessor have in hand is always about
 * 128 KB, which L1 holds. A thread takes eight values at a time where columns and addresses allow it, one otherwise.
 */
#include "infer/cuda/values.cuh"
#include "infer/cuda/warp.cuh"

namespace {

enum : unsigned { THREADS_LEAST = 64, THREADS_MOST = 1024, WIDE = 8, VALUES_PER_THREAD = 16 };

__device__ static const float fp8_largest = 448;

/* The scale that brings the largest value to 448; of MXFP8 the power of two that brings it to 224 .. 448. */
__device__ static inline float scale_of(activations kind, float largest) {
    if (largest == 0)
        return 1;
    const uint32_t bits = __float_as_uint(largest);
    if (bits >= 0x7f800000u) /* infinity or NaN: the values become NaN */
        return largest;
    if (kind != ACTIVATIONS_MXFP8)
        return largest / fp8_largest;
    /* 2^(e - 8), e one more from 1.75 on; not below 2^-126: subnormal scales are of no use */
    const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffffu) >= 0x600000u);
    return __uint_as_float((exponent < 9 ? 1 : exponent - 8) << 23);
}

/* A row's values before they are rounded to FP8. */
template <cuda_type ACT, bool NORMED, int N> struct operand_row {
    const void *base;
    size_t at;
    const float *norm;
    float factor;

    __device__ void load(uint32_t column, float out[N]) const {
        if (!NORMED) {
            values_load<ACT, N>(base, at + column, out);
            return;
        }
        float weights[N];
        values_load<CUDA_F32, N>(base, at + column, out);
        values_load<CUDA_F32, N>(norm, column, weights);
#pragma unroll
        for (int i = 0; i < N; i++) {
            out[i] = weights[i] * (out[i] * factor);
            if (ACT == CUDA_BF16) /* what a server's kernels quantize is bf16 */
                out[i] = bf16_round(out[i]);
        }
    }
};

/* As kernels take it. */
struct operand_task {
    const void *base; /* of hidden, or of source */
    const uint32_t *rows;
    const float *norm;
    float epsilon, input_scale;
    uint32_t columns, group;
    activations kind;
    bool codes; /* E4M3 codes are written, not values */
    void *out;
    float *token_scales;
};

template <cuda_type ACT, int N>
__device__ static inline void fp8_store(const operand_task &task, size_t at, const float values[N], float scale,
                                        float factor) {
    float rounded[N];
#pragma unroll
    for (int i = 0; i < N; i++)
        rounded[i] = values[i] / scale;
    if (task.codes) {
        values_store<CUDA_E4M3, N>(task.out, at, rounded);
        return;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
        rounded[i] = e4m3_round(rounded[i]) * factor;
    values_store<ACT, N>(task.out, at, rounded);
}

template <int N> __device__ static inline float largest_of(float most, const float values[N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        most = larger_value()(most, fabsf(values[i]));
    return most;
}

/* Groups that neighbouring lanes of a warp hold together, N values each. */
template <cuda_type ACT, typename Row, int N>
__device__ static void groups_by_lanes(const operand_task &task, const Row &row, size_t out) {
    for (uint32_t base = 0; base < task.columns; base += blockDim.x * N) {
        const uint32_t column = base + threadIdx.x * N;
        float values[N] = {};
        if (column < task.columns)
            row.load(column, values);
        float most = largest_of<N>(0, values);
        for (int lane = (int)(task.group / N / 2); lane > 0; lane /= 2)
            most = larger_value()(most, __shfl_xor_sync(FULL_WARP, most, lane));
        const float scale = scale_of(task.kind, most);
        if (column < task.columns)
            fp8_store<ACT, N>(task, out + column, values, scale, scale);
    }
}

/* Groups of any size, each by a warp. */
template <cuda_type ACT, typename Row>
__device__ static void groups_by_warps(const operand_task &task, const Row &row, size_t out) {
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    for (uint64_t begin = (uint64_t)warp * task.group; begin < task.columns; begin += (uint64_t)warps * task.group) {
        const uint32_t end = task.columns - begin < task.group ? task.columns : (uint32_t)begin + task.group;
        float most = 0, value;
        for (uint32_t column = (uint32_t)begin + lane; column < end; column += WARP) {
            row.load(column, &value);
            most = largest_of<1>(most, &value);
        }
        const float scale = scale_of(task.kind, warp_reduce(most, larger_value()));
        for (uint32_t column = (uint32_t)begin + lane; column < end; column += WARP) {
            row.load(column, &value);
            fp8_store<ACT, 1>(task, out + column, &value, scale, scale);
        }
    }
}

template <cuda_type ACT, bool NORMED, int N>
__global__ void __launch_bounds__(THREADS_MOST) operand_kernel(operand_task task) {
    SHARED_MEMORY(shared);
    float *space = (float *)shared;
    const uint32_t token = blockIdx.x, columns = task.columns, step = blockDim.x * N;
    operand_row<ACT, NORMED, N> row = {task.base, (size_t)(task.rows ? task.rows[token] : token) * columns, task.norm,
                                       1};
    const size_t out = (size_t)token * columns;
    if (NORMED) {
        float sum = 0;
        for (uint32_t column = threadIdx.x * N; column < columns; column += step) {
            float values[N];
            values_load<CUDA_F32, N>(row.base, row.at + column, values);
#pragma unroll
            for (int i = 0; i < N; i++)
                sum += values[i] * values[i];
        }
        sum = block_reduce(sum, add_values(), space);
        row.factor = 1 / sqrtf(sum / (float)columns + task.epsilon);
    }
    float scale = task.input_scale;
    switch (task.kind) {
    case ACTIVATIONS_FP8_GROUP:
    case ACTIVATIONS_MXFP8:
        if constexpr (N > 1)
            groups_by_lanes<ACT, operand_row<ACT, NORMED, N>, N>(task, row, out);
        else
            groups_by_warps<ACT>(task, operand_row<ACT, NORMED, 1>{row.base, row.at, row.norm, row.factor}, out);
        return;
    case ACTIVATIONS_FP8_TOKEN: {
        float most = 0;
        for (uint32_t column = threadIdx.x * N; column < columns; column += step) {
            float values[N];
            row.load(column, values);
            most = largest_of<N>(most, values);
        }
        scale = scale_of(task.kind, block_reduce(most, larger_value(), space));
        if (threadIdx.x == 0)
            task.token_scales[token] = scale;
        break;
    }
    default:
        break;
    }
    for (uint32_t column = threadIdx.x * N; column < columns; column += step) {
        float values[N];
        row.load(column, values);
        if (task.kind == ACTIVATIONS_FLOAT)
            values_store<ACT, N>(task.out, out + column, values);
        else
            fp8_store<ACT, N>(task, out + column, values, scale, 1);
    }
}

/* Whether groups are held by 1, 2, 4, .. 32 lanes that have eight values each. */
bool group_by_lanes(uint32_t group) {
    const uint32_t lanes = group / WIDE;
    return group % WIDE == 0 && lanes >= 1 && lanes <= WARP && (lanes & (lanes - 1)) == 0;
}

} // namespace

void run_operand(cuda_device *device, const cuda_operand *operand) {
    const weight *weight = operand->weight;
    const bool normed = operand->hidden != NULL;
    operand_task task = {};
    task.base = normed ? operand->hidden : operand->source;
    task.rows = normed ? operand->rows : NULL;
    task.norm = operand->norm;
    task.epsilon = operand->epsilon;
    task.input_scale = weight->input_scale;
    task.columns = operand->columns;
    task.group = weight->group;
    task.kind = weight->activations;
    task.codes = operand->type == CUDA_E4M3;
    task.out = operand->out;
    task.token_scales = operand->token_scales;
    const bool groups = task.kind == ACTIVATIONS_FP8_GROUP || task.kind == ACTIVATIONS_MXFP8;
    if (task.codes && task.kind != ACTIVATIONS_FP8_STATIC && task.kind != ACTIVATIONS_FP8_TOKEN) {
        device_fail_text(device, "operands of FP8 codes have one scale, or one per token");
        return;
    }
    if (groups && task.group == 0) {
        device_fail_text(device, "activations are rounded in groups of no column");
        return;
    }
    const bool wide = task.columns % WIDE == 0 && (!groups || group_by_lanes(task.group)) &&
                      runs_aligned(task.base, normed ? CUDA_F32 : operand->act, WIDE) &&
                      (!normed || runs_aligned(task.norm, CUDA_F32, WIDE)) &&
                      runs_aligned(task.out, operand->type, WIDE);
    const unsigned wanted = ceil_div(task.columns, VALUES_PER_THREAD * WARP) * WARP;
    const unsigned threads = wanted < THREADS_LEAST ? +THREADS_LEAST : wanted > THREADS_MOST ? +THREADS_MOST : wanted;
    void (*kernel)(operand_task);
    if (operand->act == CUDA_BF16)
        kernel = normed ? (wide ? operand_kernel<CUDA_BF16, true, WIDE> : operand_kernel<CUDA_BF16, true, 1>)
                        : (wide ? operand_kernel<CUDA_BF16, false, WIDE> : operand_kernel<CUDA_BF16, false, 1>);
    else
        kernel = normed ? (wide ? operand_kernel<CUDA_F32, true, WIDE> : operand_kernel<CUDA_F32, true, 1>)
                        : (wide ? operand_kernel<CUDA_F32, false, WIDE> : operand_kernel<CUDA_F32, false, 1>);
    launch(device, "to round operands", kernel, dim3(operand->tokens), threads, WARP * sizeof(float), task);
}
