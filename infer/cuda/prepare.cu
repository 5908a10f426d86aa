/*
 * x of the products of one token: normed, rounded as the weight wants its activations (as infer/cpu/activations.c does),
 * and laid out as prepared.cuh says. Bound by latency: each block finds what depends on all columns (the sum of squares,
 * the largest value) by itself, from the second cache, and lays out PREPARE_COLUMNS of them. Every block adds in the same
 * order, so all find the same.
 */
#include "infer/cuda/codes.cuh"
#include "infer/cuda/prepared.cuh"
#include "infer/cuda/warp.cuh"

enum { PREPARE_THREADS = 256, PREPARE_COLUMNS = 4 * PREPARE_THREADS };

uint64_t prepared_bytes(const weight *weight) {
    const uint64_t steps = prepared_steps(weight->format, weight->columns);
    if (weight->format == WEIGHT_MXFP4)
        return PREPARED_HEADER + steps * (4 * PREPARED_PLANE + WARP * sizeof(prepared_block));
    return PREPARED_HEADER + steps * WARP * chunk_columns(weight->format) * sizeof(float);
}

struct prepare_arguments {
    const float *source, *norm;
    float epsilon;
    bool wide; /* source and norm may be read 16 bytes at once */
    int format, activations;
    float input_scale;
    uint32_t columns, group;
    unsigned char *prepared;
    uint32_t *bad, layer;
};

/* Four columns; zeros behind the last one. */
__device__ static inline void load_four(const prepare_arguments &a, const float *x, uint32_t column, float out[4]) {
    if (a.wide && column + 4 <= a.columns) {
        const float4 four = *(const float4 *)(x + column);
        out[0] = four.x;
        out[1] = four.y;
        out[2] = four.z;
        out[3] = four.w;
        return;
    }
    for (uint32_t i = 0; i < 4; i++)
        out[i] = column + i < a.columns ? x[column + i] : 0;
}

/* The values of four columns, before they are rounded. */
__device__ static inline void values_four(const prepare_arguments &a, float factor, uint32_t column, float out[4]) {
    load_four(a, a.source, column, out);
    if (a.norm) {
        float weights[4];
        load_four(a, a.norm, column, weights);
        for (int i = 0; i < 4; i++)
            out[i] = weights[i] * (out[i] * factor);
    }
}

__device__ static inline bool finite(float x) { return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u; }

__device__ static inline float normed(const prepare_arguments &a, float factor, uint32_t column) {
    return a.norm ? a.norm[column] * (a.source[column] * factor) : a.source[column];
}

/* Magnitudes order as their bits do, NaN above all. */
struct larger_bits {
    __device__ uint32_t operator()(uint32_t a, uint32_t b) const { return a > b ? a : b; }
};

__device__ static inline uint32_t magnitude(float x) { return __float_as_uint(x) & 0x7fffffffu; }

/* The scale that brings the largest value to 448; of MXFP8 the power of two that brings it to 224 .. 448. */
__device__ static inline float activation_scale(int activations, uint32_t most) {
    const float fp8_largest = 448;
    if (most == 0)
        return 1;
    const float largest = __uint_as_float(most);
    if (most >= 0x7f800000u)
        return largest;
    if (activations != ACTIVATIONS_MXFP8)
        return largest / fp8_largest;
    /* subnormal scales are of no use; nor have subnormal values to be told apart, which are far below the bound */
    const int exponent = (int)(most >> 23) - 127, up = (most & 0x007fffffu) >= 0x00600000u;
    const int power = exponent + up < -118 ? -126 : exponent + up - 8;
    return __uint_as_float((uint32_t)(power + 127) << 23);
}

__device__ static inline float fp8_round(float x, float scale) { return e4m3_value(e4m3_code(x / scale)); }

/* ---- the layouts ---- */

/* The larger or the sum over the 8 lanes that have a block of 32 columns. */
template <typename T, typename Combine> __device__ static inline T block_lanes(T value, Combine combine) {
    for (int lane = 1; lane < 8; lane *= 2)
        value = combine(value, __shfl_xor_sync(FULL_WARP, value, lane));
    return value;
}

/*
 * As matvec_block_scale of infer/cpu/matvec_kernels.h: the power of two that brings the largest of a block's values to
 * 2^14 .. 2^15 - 1, as its inverse; NaN and infinity stay.
 */
__device__ static inline float block_scale(uint32_t most) {
    if (most >= 0x7f800000u)
        return __uint_as_float(most);
    uint32_t exponent = most >> 23;
    exponent += (most & 0x007fffffu) >= 0x007fff00u; /* rounding would give 2^15 */
    exponent = exponent < 16 ? 16 : exponent;        /* tiny values: coarser, 2^-125 at most */
    return __uint_as_float((exponent - 14) << 23);
}

/* All lanes of a warp, four columns each. */
__device__ static inline void integers_write(const prepare_arguments &a, uint32_t column, const float values[4]) {
    uint32_t most = 0;
    for (int i = 0; i < 4; i++)
        most = larger_bits()(most, magnitude(values[i]));
    const float scale = block_scale(block_lanes(most, larger_bits()));
    const bool usual = finite(scale);
    const float inverse = usual ? 1 / scale : 0;
    uint32_t upper = 0, lower = 0;
    int sum = 0;
    for (int i = 0; i < 4; i++) {
        const float magic = 0x1.8p23f; /* rounds to an integer, in the low bits */
        const int integer = usual ? (int)__float_as_uint(values[i] * inverse + magic) - 0x4b400000 : 0;
        upper |= ((uint32_t)integer >> 8 & 0xffu) << (8 * i);
        lower |= ((uint32_t)integer & 0xffu) << (8 * i);
        sum += integer;
    }
    sum = block_lanes(sum, add_values());
    const uint32_t block = column / MX_BLOCK, step = block / WARP, lane = block % WARP, at = column % MX_BLOCK;
    unsigned char *planes = a.prepared + PREPARED_HEADER + (size_t)step * 4 * PREPARED_PLANE +
                            at / CHUNK_BYTES * PREPARED_PLANE + lane * CHUNK_BYTES + at % CHUNK_BYTES;
    *(uint32_t *)planes = upper;
    *(uint32_t *)(planes + 2 * PREPARED_PLANE) = lower;
    if (at == 0) {
        const size_t behind = (size_t)prepared_steps(a.format, a.columns) * 4 * PREPARED_PLANE;
        prepared_block *blocks = (prepared_block *)(a.prepared + PREPARED_HEADER + behind);
        blocks[block].scale = scale;
        blocks[block].correction = -E2M1_OFFSET * sum;
    }
}

__device__ static inline void floats_write(const prepare_arguments &a, uint32_t column, const float values[4]) {
    const uint32_t chunk_size = chunk_columns(a.format), chunk = column / chunk_size;
    const uint32_t step = chunk / WARP, lane = chunk % WARP, four = column % chunk_size / 4;
    float4 *out = (float4 *)(a.prepared + PREPARED_HEADER);
    out[((size_t)step * (chunk_size / 4) + four) * WARP + lane] =
        make_float4(values[0], values[1], values[2], values[3]);
}

/* ---- the whole ---- */

/*
 * The scales of the groups that this block's columns lie in, by a warp each. A group may reach beyond the columns; there
 * are at most PREPARE_COLUMNS + 1 of them.
 */
__device__ static inline void group_scales(const prepare_arguments &a, float factor, uint32_t first, float *scales) {
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const uint32_t end = a.columns - first < PREPARE_COLUMNS ? a.columns : first + PREPARE_COLUMNS;
    const uint32_t begin_group = first / a.group, end_group = (end - 1) / a.group + 1;
    for (uint32_t group = begin_group + warp; group < end_group; group += PREPARE_THREADS / WARP) {
        const uint32_t from = group * a.group, to = a.columns - from < a.group ? a.columns : from + a.group;
        uint32_t most = 0;
        for (uint32_t column = from + lane; column < to; column += WARP)
            most = larger_bits()(most, magnitude(normed(a, factor, column)));
        most = warp_reduce(most, larger_bits());
        if (lane == 0)
            scales[group - begin_group] = activation_scale(a.activations, most);
    }
    __syncthreads();
}

__global__ static void __launch_bounds__(PREPARE_THREADS) prepare_kernel(const prepare_arguments a) {
    SHARED_MEMORY(shared);
    float *space = (float *)shared, *scales = space + WARP;
    float factor = 1;
    bool bad = false;
    if (a.norm) {
        float sum = 0;
        for (uint32_t column = 4 * threadIdx.x; column < a.columns; column += PREPARE_COLUMNS) {
            float x[4];
            load_four(a, a.source, column, x);
            sum += (x[0] * x[0] + x[1] * x[1]) + (x[2] * x[2] + x[3] * x[3]);
        }
        sum = block_reduce(sum, add_values(), space);
        bad = !finite(sum);
        factor = 1 / sqrtf(sum / (float)a.columns + a.epsilon);
    }
    float scale = 1;
    if (a.activations == ACTIVATIONS_FP8_STATIC) {
        scale = a.input_scale;
    } else if (a.activations == ACTIVATIONS_FP8_TOKEN) {
        uint32_t most = 0;
        for (uint32_t column = 4 * threadIdx.x; column < a.columns; column += PREPARE_COLUMNS) {
            float values[4];
            values_four(a, factor, column, values);
            for (int i = 0; i < 4; i++)
                most = larger_bits()(most, magnitude(values[i]));
        }
        scale = activation_scale(a.activations, block_reduce(most, larger_bits(), (uint32_t *)space));
    }
    if (blockIdx.x == 0 && threadIdx.x == 0)
        *(prepared_header *)a.prepared = {scale, E2M1_TABLES};
    const uint32_t first = blockIdx.x * PREPARE_COLUMNS, column = first + 4 * threadIdx.x;
    const bool groups = a.activations == ACTIVATIONS_FP8_GROUP || a.activations == ACTIVATIONS_MXFP8;
    if (groups && first < a.columns)
        group_scales(a, factor, first, scales);
    float values[4];
    load_four(a, a.source, column, values);
    for (int i = 0; i < 4; i++)
        bad |= !finite(values[i]);
    if (bad && a.bad)
        atomicMin(a.bad, a.layer);
    values_four(a, factor, column, values);
    for (uint32_t i = 0; i < 4; i++) {
        if (groups && column + i < a.columns) {
            const float own = scales[(column + i) / a.group - first / a.group];
            values[i] = fp8_round(values[i], own) * own;
        } else if (a.activations == ACTIVATIONS_FP8_STATIC || a.activations == ACTIVATIONS_FP8_TOKEN) {
            values[i] = column + i < a.columns ? fp8_round(values[i], scale) : 0;
        }
    }
    if (a.format == WEIGHT_MXFP4)
        integers_write(a, column, values);
    else if (column < prepared_steps(a.format, a.columns) * WARP * chunk_columns(a.format))
        floats_write(a, column, values);
}

void run_prepare(cuda_device *device, const cuda_prepare *prepare) {
    const weight *weight = prepare->weight;
    prepare_arguments a = {};
    a.source = prepare->source;
    a.norm = prepare->norm;
    a.epsilon = prepare->epsilon;
    a.wide = ((uintptr_t)a.source | (uintptr_t)a.norm) % sizeof(float4) == 0;
    a.format = weight->format;
    a.activations = weight->activations;
    a.input_scale = weight->input_scale;
    a.columns = weight->columns;
    a.group = weight->group ? weight->group : weight->columns;
    a.prepared = (unsigned char *)prepare->prepared;
    a.bad = prepare->bad;
    a.layer = prepare->layer;
    const uint64_t padded =
        (uint64_t)prepared_steps(weight->format, weight->columns) * WARP * chunk_columns(weight->format);
    launch(device, "prepare", prepare_kernel, dim3(ceil_div(padded, PREPARE_COLUMNS)), PREPARE_THREADS,
           (WARP + PREPARE_COLUMNS + 1) * sizeof(float), a);
}
