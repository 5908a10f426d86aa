/*
 * Weights made floating point for products of many tokens: rows of any format to BF16 or float32, [rows, columns].
 *
 * Bound by bandwidth: 1/2 to 4 bytes are read and 2 or 4 written per value. A thread takes UNITS runs of eight values, the
 * lanes of a warp neighbouring runs: what a warp writes at once lies together (512 bytes of BF16), and all of a thread's
 * loads are on their way before the first is used. Rows follow each other without a gap on both sides, so that where
 * scales allow it a run of rows is one run of values. What is not aligned is taken value by value.
 */
#include "infer/cuda/device.cuh"
#include "infer/cuda/result.cuh"

namespace {

enum { THREADS = 256, UNIT = 8, UNITS = 4 };

/* Codes of a unit as they are loaded, and their values. */
template <weight_format FORMAT> struct unit_codes;

template <> struct unit_codes<WEIGHT_F32> {
    float4 low, high;
    __device__ void load(const void *codes, size_t unit) {
        low = ((const float4 *)codes)[2 * unit];
        high = ((const float4 *)codes)[2 * unit + 1];
    }
    __device__ void values(float out[UNIT]) const {
        out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
        out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
    }
};

template <> struct unit_codes<WEIGHT_BF16> {
    uint4 words;
    __device__ void load(const void *codes, size_t unit) { words = ((const uint4 *)codes)[unit]; }
    __device__ void values(float out[UNIT]) const {
        const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            out[i] = __uint_as_float(i % 2 ? word[i / 2] & 0xffff0000u : word[i / 2] << 16);
    }
};

template <> struct unit_codes<WEIGHT_F16> {
    uint4 words;
    __device__ void load(const void *codes, size_t unit) { words = ((const uint4 *)codes)[unit]; }
    __device__ void values(float out[UNIT]) const {
        const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            out[i] = f16_value(word[i / 2] >> i % 2 * 16 & 0xffffu);
    }
};

template <> struct unit_codes<WEIGHT_FP8> {
    uint2 words;
    __device__ void load(const void *codes, size_t unit) { words = ((const uint2 *)codes)[unit]; }
    __device__ void values(float out[UNIT]) const {
#pragma unroll
        for (int i = 0; i < UNIT; i++)
            out[i] = e4m3_value((i < 4 ? words.x : words.y) >> i % 4 * 8 & 0xffu);
    }
};

template <> struct unit_codes<WEIGHT_MXFP8> : unit_codes<WEIGHT_FP8> {};

template <> struct unit_codes<WEIGHT_MXFP4> {
    uint32_t word;
    __device__ void load(const void *codes, size_t unit) { word = ((const uint32_t *)codes)[unit]; }
    __device__ void values(float out[UNIT]) const {
#pragma unroll
        for (int i = 0; i < UNIT; i++) /* the low nibble is the even column */
            out[i] = e2m1_value(word >> i * 4 & 15u);
    }
};

/* Where scales lie: the exponents of MX formats, or FP8's of blocks (NULL: left out). */
struct unpack_scales {
    const uint8_t *exponents; /* of the first row that is unpacked */
    const float *blocks;
    uint32_t first, columns; /* the first row; those of the weight */
    uint32_t scale_rows, scale_columns, across;
};

__device__ static inline float block_scale(const unpack_scales &scales, uint32_t row, uint32_t column) {
    return scales
        .blocks[(size_t)((scales.first + row) / scales.scale_rows) * scales.across + column / scales.scale_columns];
}

/* `units` of eight values. BLOCKS: FP8 with scales of blocks, a row whole units, below 2^32 of them. */
template <weight_format FORMAT, cuda_type TYPE, bool BLOCKS>
__global__ void __launch_bounds__(THREADS)
    unpack_units(const void *__restrict__ codes, unpack_scales scales, size_t units, void *__restrict__ out) {
    const bool mx = FORMAT == WEIGHT_MXFP8 || FORMAT == WEIGHT_MXFP4;
    const size_t first = (size_t)blockIdx.x * (THREADS * UNITS) + threadIdx.x;
    unit_codes<FORMAT> loaded[UNITS];
    float scale[UNITS];
#pragma unroll
    for (int i = 0; i < UNITS; i++) {
        const size_t unit = first + i * THREADS;
        scale[i] = 1;
        if (unit >= units)
            continue;
        loaded[i].load(codes, unit);
        if (mx)
            scale[i] = e8m0_value(scales.exponents[unit / (MX_BLOCK / UNIT)]);
        if (BLOCKS) {
            const uint32_t across = scales.columns / UNIT, row = (uint32_t)unit / across;
            scale[i] = block_scale(scales, row, ((uint32_t)unit - row * across) * UNIT);
        }
    }
#pragma unroll
    for (int i = 0; i < UNITS; i++) {
        const size_t unit = first + i * THREADS;
        if (unit >= units)
            break;
        float values[UNIT];
        loaded[i].values(values);
        if (mx || BLOCKS) {
#pragma unroll
            for (int j = 0; j < UNIT; j++)
                values[j] *= scale[i];
        }
        values_store<TYPE, UNIT>(out, unit * UNIT, values);
    }
}

/* Values [begin, end) one by one. */
template <cuda_type TYPE>
__global__ void __launch_bounds__(THREADS)
    unpack_values(weight_format format, const void *codes, unpack_scales scales, size_t begin, size_t end, void *out) {
    const size_t at = begin + (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (at >= end)
        return;
    float value = 0;
    switch (format) {
    case WEIGHT_F32:
        value = ((const float *)codes)[at];
        break;
    case WEIGHT_F16:
        value = f16_value(((const uint16_t *)codes)[at]);
        break;
    case WEIGHT_BF16:
        value = bf16_value(((const uint16_t *)codes)[at]);
        break;
    case WEIGHT_FP8:
    case WEIGHT_MXFP8:
        value = e4m3_value(((const uint8_t *)codes)[at]);
        break;
    default:
        value = e2m1_value((uint32_t)((const uint8_t *)codes)[at / 2] >> at % 2 * 4 & 15u);
    }
    if (scales.exponents)
        value *= e8m0_value(scales.exponents[at / MX_BLOCK]);
    if (scales.blocks) {
        const uint32_t row = (uint32_t)(at / scales.columns);
        value *= block_scale(scales, row, (uint32_t)(at - (size_t)row * scales.columns));
    }
    values_store<TYPE, 1>(out, at, &value);
}

template <cuda_type TYPE>
void units_launch(cuda_device *device, weight_format format, const void *codes, const unpack_scales &scales,
                  size_t units, void *out) {
    static const char what[] = "to unpack a weight";
    const dim3 grid(ceil_div(units, THREADS * UNITS));
    switch (format) {
    case WEIGHT_F32:
        return launch(device, what, unpack_units<WEIGHT_F32, TYPE, false>, grid, THREADS, 0, codes, scales, units, out);
    case WEIGHT_F16:
        return launch(device, what, unpack_units<WEIGHT_F16, TYPE, false>, grid, THREADS, 0, codes, scales, units, out);
    case WEIGHT_BF16:
        return launch(device, what, unpack_units<WEIGHT_BF16, TYPE, false>, grid, THREADS, 0, codes, scales, units,
                      out);
    case WEIGHT_FP8:
        return scales.blocks ? launch(device, what, unpack_units<WEIGHT_FP8, TYPE, true>, grid, THREADS, 0, codes,
                                      scales, units, out)
                             : launch(device, what, unpack_units<WEIGHT_FP8, TYPE, false>, grid, THREADS, 0, codes,
                                      scales, units, out);
    case WEIGHT_MXFP8:
        return launch(device, what, unpack_units<WEIGHT_MXFP8, TYPE, false>, grid, THREADS, 0, codes, scales, units,
                      out);
    default:
        return launch(device, what, unpack_units<WEIGHT_MXFP4, TYPE, false>, grid, THREADS, 0, codes, scales, units,
                      out);
    }
}

size_t row_bytes(const weight *weight) {
    static const unsigned char bits[WEIGHT_FORMATS] = {32, 16, 16, 8, 8, 4}; /* in the order of weight_format */
    return (size_t)weight->columns * bits[weight->format] / 8;
}

/* Rows few enough that their units are counted in 32 bits. */
void rows_unpack(cuda_device *device, const weight *weight, uint32_t first, uint32_t rows, cuda_type type, void *out) {
    const uint32_t columns = weight->columns;
    const size_t count = (size_t)rows * columns;
    const unsigned char *codes = (const unsigned char *)weight->codes + first * row_bytes(weight);
    unpack_scales scales = {};
    scales.first = first;
    scales.columns = columns;
    if (weight->format == WEIGHT_MXFP8 || weight->format == WEIGHT_MXFP4)
        scales.exponents = weight->exponents + (size_t)first * (columns / MX_BLOCK);
    if (weight->format == WEIGHT_FP8 && !scales_left_to_result(weight)) {
        scales.blocks = weight->scales;
        scales.scale_rows = weight->scale_rows;
        scales.scale_columns = weight->scale_columns;
        scales.across = ceil_div(columns, weight->scale_columns);
    }
    size_t units = (uintptr_t)codes % 16 == 0 && runs_aligned(out, type, UNIT) ? count / UNIT : 0;
    if (scales.blocks && (columns % UNIT != 0 || weight->scale_columns % UNIT != 0))
        units = 0;
    const size_t rest = count - units * UNIT;
    const dim3 grid(ceil_div(rest, THREADS));
    if (type == CUDA_BF16) {
        units_launch<CUDA_BF16>(device, weight->format, codes, scales, units, out);
        launch(device, "to unpack a weight", unpack_values<CUDA_BF16>, grid, THREADS, 0, weight->format, codes, scales,
               units * UNIT, count, out);
    } else {
        units_launch<CUDA_F32>(device, weight->format, codes, scales, units, out);
        launch(device, "to unpack a weight", unpack_values<CUDA_F32>, grid, THREADS, 0, weight->format, codes, scales,
               units * UNIT, count, out);
    }
}

} // namespace

void run_unpack(cuda_device *device, const weight *weight, uint32_t first, uint32_t rows, cuda_type type, void *out) {
    if (weight->columns == 0)
        return;
    const uint64_t most = UINT64_C(1) << 31; /* values of a launch */
    const uint64_t fit = most / weight->columns;
    const uint32_t step = fit < 1 ? 1 : fit > rows ? rows : (uint32_t)fit;
    for (uint32_t at = 0; at < rows && !device->failed; at += step)
        rows_unpack(device, weight, first + at, rows - at < step ? rows - at : step, type,
                    (unsigned char *)out + (size_t)at * weight->columns * type_bytes(type));
}
