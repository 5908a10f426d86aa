/*
 * Causal attention of windows: FlashAttention-2 (Dao, arXiv 2307.08691). A block has a tile of the rows of one key-value
 * head in one window and goes over the keys that they see, a tile at a time: scores, their exponentials under the largest
 * so far of each row, products with the values; what has been summed is scaled down when the largest grows. No
 * [window, window] matrix exists. A tile that no row sees is not read, and a result depends on nothing but its window.
 *
 * Bound by compute: 4 * head_dim operations per row and key on tensor cores, an exponential beside them. The kernel has
 * what FlashAttention-2 has (mma.sync; the tile of values on its way during the products with keys, the next of keys during
 * those with values), so its share of the peak is what to expect, not yet measured: 60-70 % on A100, L40, GB10 and RTX
 * Blackwell; 35-40 % on H100 and B200, of whose peak mma.sync itself reaches some 60 %. From L2, where the tiles of a head
 * that run side by side find the same keys, it needs a byte for 128 operations (64 in the small shape).
 *
 * Here bf16; attention_f32.cu has float32.
 */
#include <math.h>

#include "infer/cuda/attention.cuh"
#include "infer/cuda/mma.cuh"
#include "infer/cuda/numbers.cuh"

enum { CHUNK = 8 /* values of 16 bytes */, HEAD_DIM_MOST = 256 };

/*
 * In shared memory a row has WIDTH values, in chunks that are exchanged by the row's last three bits: eight rows at the
 * same chunk, which is what a matrix is read as, are in different banks.
 */
template <int WIDTH> __device__ static inline uint32_t chunk_offset(uint32_t row, uint32_t chunk) {
    return (row * (WIDTH / CHUNK) + chunk / 8 * 8 + (chunk ^ row) % 8) * (CHUNK * (uint32_t)sizeof(uint16_t));
}

/*
 * Starts the copy of ROWS rows, of which `rows` (at least one) exist: the others, and columns from head_dim on, are zeros.
 * row_at(row) is where it begins. A thread has one column of chunks.
 */
template <int WIDTH, int ROWS, int THREADS, typename RowAt>
__device__ static inline void rows_copy(unsigned char *to, uint32_t rows, uint32_t head_dim, RowAt row_at) {
    enum { CHUNKS = WIDTH / CHUNK, STEP = THREADS / CHUNKS };
    const uint32_t number = threadIdx.x % CHUNKS;
    const bool exists = number * CHUNK < head_dim;
    const uint32_t column = exists ? number * CHUNK : 0;
    for (uint32_t row = threadIdx.x / CHUNKS; row < ROWS; row += STEP)
        copy_start(to + chunk_offset<WIDTH>(row, number), row_at(min(row, rows - 1)) + column, exists && row < rows);
}

/*
 * A tile: WARPS * MATRICES * 16 rows, KEYS keys. MATRICES: those [16, ..] of a warp; with two of them a fragment of keys
 * or values is used twice.
 */
template <int WIDTH, int WARPS, int MATRICES, int KEYS> struct shape {
    enum {
        width = WIDTH,
        warps = WARPS,
        matrices = MATRICES,
        keys = KEYS,
        warp_rows = MATRICES * 16,
        rows = WARPS * warp_rows,
        threads = WARPS * WARP,
        row_bytes = WIDTH * 2,
        shared = (rows + 2 * KEYS) * row_bytes, /* queries, keys, values */
    };
};

/* What a warp has of its rows: of each matrix, rows lane / 4 and lane / 4 + 8. */
template <typename Shape> struct warp_rows {
    float out[Shape::matrices][Shape::width / 8][4];
    float most[Shape::matrices][2]; /* largest score so far */
    float sums[Shape::matrices][2]; /* of exponentials, of this lane's columns */
};

template <typename Shape> using scores = float[Shape::matrices][Shape::keys / 8][4];

/* scores = queries * keys^T */
template <typename Shape>
__device__ static inline void scores_multiply(scores<Shape> &scores, const unsigned char *queries,
                                              const unsigned char *keys) {
    const uint32_t lane = lane_number();
#pragma unroll
    for (int m = 0; m < Shape::matrices; m++)
#pragma unroll
        for (int n = 0; n < Shape::keys / 8; n++)
            for (int i = 0; i < 4; i++)
                scores[m][n][i] = 0;
#pragma unroll
    for (int k = 0; k < Shape::width / 16; k++) {
        uint32_t a[Shape::matrices][4];
#pragma unroll
        for (int m = 0; m < Shape::matrices; m++)
            matrices_load<false>(a[m], queries + chunk_offset<Shape::width>(m * 16 + lane % 16, k * 2 + lane / 16));
#pragma unroll
        for (int n = 0; n < Shape::keys / 16; n++) {
            uint32_t b[4]; /* of keys 0-7, then of keys 8-15 */
            matrices_load<false>(
                b, keys + chunk_offset<Shape::width>(n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
            for (int m = 0; m < Shape::matrices; m++) {
                mma_bf16(scores[m][n * 2], a[m], b);
                mma_bf16(scores[m][n * 2 + 1], a[m], b + 2);
            }
        }
    }
}

/* What a row does not see gets -infinity. `row`: the lane's first, `key`: of the tile. */
template <typename Shape>
__device__ static inline void scores_mask(scores<Shape> &scores, uint32_t row, uint32_t group, uint32_t key,
                                          uint32_t sliding) {
    const uint32_t column = threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < Shape::matrices; m++)
        for (int half = 0; half < 2; half++) {
            const uint32_t token = (row + m * 16 + half * 8) / group;
            for (int n = 0; n < Shape::keys / 8; n++)
                for (int i = 0; i < 2; i++)
                    if (!sees(token, key + n * 8 + column + i, sliding))
                        scores[m][n][half * 2 + i] = -INFINITY;
        }
}

/* From scores to their exponentials, rounded when they become operands; the sums are of what they were before. */
template <typename Shape> __device__ static inline void scores_soften(scores<Shape> &scores, warp_rows<Shape> &rows) {
    const float LOG2_E = 1.44269504f;
#pragma unroll
    for (int m = 0; m < Shape::matrices; m++) {
        float factors[2];
        for (int half = 0; half < 2; half++) {
            float most = rows.most[m][half];
            for (int n = 0; n < Shape::keys / 8; n++)
                most = fmaxf(most, fmaxf(scores[m][n][half * 2], scores[m][n][half * 2 + 1]));
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1)); /* four lanes have a row */
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
            const float shift = most == -INFINITY ? 0 : most * LOG2_E; /* of a row that has seen nothing yet */
            factors[half] = exp2_quick(rows.most[m][half] * LOG2_E - shift);
            if (rows.most[m][half] == most)
                factors[half] = 1;
            rows.most[m][half] = most;
            float sum = 0;
            for (int n = 0; n < Shape::keys / 8; n++)
                for (int i = half * 2; i < half * 2 + 2; i++) {
                    scores[m][n][i] = exp2_quick(fmaf(scores[m][n][i], LOG2_E, -shift));
                    sum += scores[m][n][i];
                }
            rows.sums[m][half] = fmaf(rows.sums[m][half], factors[half], sum);
        }
        if (!__any_sync(FULL_WARP, factors[0] != 1 || factors[1] != 1))
            continue;
#pragma unroll
        for (int n = 0; n < Shape::width / 8; n++)
            for (int i = 0; i < 4; i++)
                rows.out[m][n][i] *= factors[i / 2];
    }
}

/* out += exponentials * values; what was the product of one multiplication is, as it lies, the operand of the next. */
template <typename Shape>
__device__ static inline void values_multiply(warp_rows<Shape> &rows, const scores<Shape> &scores,
                                              const unsigned char *values) {
    const uint32_t lane = lane_number();
#pragma unroll
    for (int k = 0; k < Shape::keys / 16; k++) {
        uint32_t a[Shape::matrices][4];
#pragma unroll
        for (int m = 0; m < Shape::matrices; m++)
            for (int i = 0; i < 4; i++)
                a[m][i] = bf16_pair(scores[m][k * 2 + i / 2][i % 2 * 2], scores[m][k * 2 + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < Shape::width / 16; n++) {
            uint32_t b[4]; /* of columns 0-7, then of columns 8-15 */
            matrices_load<true>(b, values + chunk_offset<Shape::width>(k * 16 + lane % 16, n * 2 + lane / 16));
            for (int m = 0; m < Shape::matrices; m++) {
                mma_bf16(rows.out[m][n * 2], a[m], b);
                mma_bf16(rows.out[m][n * 2 + 1], a[m], b + 2);
            }
        }
    }
}

template <typename Shape>
__device__ static inline void rows_store(const cuda_attention &attention, const tile &tile,
                                         const warp_rows<Shape> &rows, uint32_t row) {
    uint16_t *const out = static_cast<uint16_t *>(attention.out);
#pragma unroll
    for (int m = 0; m < Shape::matrices; m++)
        for (int half = 0; half < 2; half++) {
            float sum = rows.sums[m][half];
            sum += __shfl_xor_sync(FULL_WARP, sum, 1);
            sum += __shfl_xor_sync(FULL_WARP, sum, 2);
            const uint32_t r = row + m * 16 + half * 8;
            if (r >= tile.rows)
                continue;
            const float factor = 1 / sum;
            const size_t offset = row_offset(attention, tile, r);
            for (int n = 0; n < Shape::width / 8; n++) {
                const uint32_t column = n * 8 + threadIdx.x % 4 * 2;
                if (column < attention.head_dim)
                    *reinterpret_cast<uint32_t *>(out + offset + column) =
                        bf16_pair(rows.out[m][n][half * 2] * factor, rows.out[m][n][half * 2 + 1] * factor);
            }
        }
}

template <typename Shape>
__global__ void __launch_bounds__(Shape::threads) attention_bf16(const cuda_attention attention) {
    SHARED_MEMORY(memory);
    unsigned char *const queries = memory, *const keys = queries + Shape::rows * Shape::row_bytes,
                         *const values = keys + Shape::keys * Shape::row_bytes;
    tile tile;
    if (!tile_find(attention, Shape::rows, &tile))
        return;
    const uint32_t stride = attention.kv_heads * attention.head_dim;
    const auto keys_copy = [&](unsigned char *to, const void *source, uint32_t key) {
        const uint16_t *const from = static_cast<const uint16_t *>(source) + key_offset(attention, tile, key);
        rows_copy<Shape::width, Shape::keys, Shape::threads>(to, tile.key_end - key, attention.head_dim,
                                                             [&](uint32_t row) { return from + (size_t)row * stride; });
    };
    rows_copy<Shape::width, Shape::rows, Shape::threads>(
        queries, tile.rows - tile.row, attention.head_dim, [&](uint32_t row) {
            return static_cast<const uint16_t *>(attention.q) + row_offset(attention, tile, tile.row + row);
        });
    keys_copy(keys, attention.k, tile.key_begin);

    const uint32_t sliding = attention.sliding;
    const uint32_t warp_row = __shfl_sync(FULL_WARP, threadIdx.x / WARP, 0) * Shape::warp_rows;
    const uint32_t lane_row = tile.row + warp_row + threadIdx.x % WARP / 4;
    const uint32_t token_first = (tile.row + warp_row) / tile.group; /* of the warp */
    const uint32_t token_last = (tile.row + warp_row + Shape::warp_rows - 1) / tile.group;
    warp_rows<Shape> rows;
#pragma unroll
    for (int m = 0; m < Shape::matrices; m++) {
        for (int half = 0; half < 2; half++) {
            rows.most[m][half] = -INFINITY;
            rows.sums[m][half] = 0;
        }
#pragma unroll
        for (int n = 0; n < Shape::width / 8; n++)
            for (int i = 0; i < 4; i++)
                rows.out[m][n][i] = 0;
    }
    for (uint32_t key = tile.key_begin; key < tile.key_end; key += Shape::keys) {
        const uint32_t key_last = key + Shape::keys - 1;
        const bool seen = key <= token_last && (sliding == 0 || key_last + sliding > token_first); /* by the warp */
        const bool masked = key_last > token_first || (sliding > 0 && key + sliding <= token_last);
        scores<Shape> scores;
        copies_wait();
        __syncthreads(); /* the keys are there, and nobody reads values */
        keys_copy(values, attention.v, key);
        if (seen)
            scores_multiply<Shape>(scores, queries + warp_row * Shape::row_bytes, keys);
        copies_wait();
        __syncthreads(); /* the values are there, and nobody reads keys */
        if (key + Shape::keys < tile.key_end)
            keys_copy(keys, attention.k, key + Shape::keys);
        if (seen) {
            if (masked)
                scores_mask<Shape>(scores, lane_row, tile.group, key, sliding);
            scores_soften<Shape>(scores, rows);
            values_multiply<Shape>(rows, scores, values);
        }
    }
    rows_store<Shape>(attention, tile, rows, lane_row);
}

template <typename Shape> static void shape_launch(cuda_device *device, const cuda_attention *attention) {
    windows_launch(device, attention_bf16<Shape>, Shape::threads, Shape::rows, Shape::shared, attention);
}

/*
 * Shapes of bf16, with two blocks to a multiprocessor. Two matrices a warp where shared memory, 128 bytes a clock, would
 * else hold up the tensor cores: A100, H100, B200, which have a lot of it. The others, of half the tensor cores to a
 * multiprocessor and 100 KB, have twice the blocks from one matrix.
 */
using narrow = shape<64, 4, 2, 64>;
using middle = shape<128, 4, 2, 64>;
using middle_small = shape<128, 4, 1, 64>;
using wide = shape<256, 8, 1, 32>; /* one block: the products alone are 128 registers */

void run_attention(cuda_device *device, const cuda_attention *attention) {
    const uint32_t head_dim = attention->head_dim;
    if (attention->window_count == 0 || attention->longest == 0)
        return;
    if (head_dim == 0 || head_dim > HEAD_DIM_MOST || head_dim % CHUNK != 0) {
        device_fail_text(device, "attention: head_dim is not a multiple of 8 up to 256");
    } else if (attention->act == CUDA_F32) {
        run_attention_f32(device, attention);
    } else if (head_dim <= narrow::width) {
        shape_launch<narrow>(device, attention);
    } else if (head_dim <= middle::width) {
        if (device->shared_most >= 2 * middle::shared)
            shape_launch<middle>(device, attention);
        else
            shape_launch<middle_small>(device, attention);
    } else {
        shape_launch<wide>(device, attention);
    }
}
