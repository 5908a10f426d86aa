/*
 * Causal attention of windows in float32, for exactness: what attention.cu does, with float32 rounding only. Bound by FMA
 * and by reads from shared memory beside them, 5-8 FMA for each value read: 20-30 % of the peak of float32 expected.
 */
#include <math.h>

#include "infer/cuda/attention.cuh"

/* Lanes: threads of a row, half a warp. Blocks: of a multiprocessor. */
enum { KEYS = 32, LANES = 16, THREADS = 256, BLOCKS = 2 };

/*
 * Floats from a row to the next. Rows are read side by side, four floats each; exponentials are written by half warps, to
 * two rows: each its own half of the banks.
 */
template <int WIDTH, int ROWS> struct float_shape {
    enum {
        width = WIDTH,
        rows = ROWS,
        stride = WIDTH + 4,
        share_stride = KEYS + LANES,
        lane_rows = ROWS / (THREADS / LANES),
        lane_keys = KEYS / LANES,
        lane_fours = WIDTH / (4 * LANES),
        shared = ((ROWS + KEYS) * stride + ROWS * share_stride) * 4, /* queries, keys or values, exponentials */
    };
};

__device__ static inline float4 four_at(const float *x) { return *reinterpret_cast<const float4 *>(x); }

__device__ static inline float dot_add(float4 a, float4 b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

__device__ static inline void scaled_add(float4 *sum, float a, float4 b) {
    sum->x = fmaf(a, b.x, sum->x);
    sum->y = fmaf(a, b.y, sum->y);
    sum->z = fmaf(a, b.z, sum->z);
    sum->w = fmaf(a, b.w, sum->w);
}

/*
 * Copies ROWS rows, of which `rows` exist: the others, and columns from head_dim on, are zeros. row_at(row) is where it
 * begins.
 */
template <typename Shape, int ROWS, typename RowAt>
__device__ static inline void rows_copy(float *to, uint32_t rows, uint32_t head_dim, RowAt row_at) {
    for (uint32_t i = threadIdx.x; i < ROWS * Shape::width; i += THREADS) {
        const uint32_t row = i / Shape::width, column = i % Shape::width;
        to[row * Shape::stride + column] = row < rows && column < head_dim ? row_at(row)[column] : 0;
    }
}

template <typename Shape>
__global__ void __launch_bounds__(THREADS, BLOCKS) attention_f32(const cuda_attention attention) {
    SHARED_MEMORY(memory);
    float *const queries = reinterpret_cast<float *>(memory), *const keys = queries + Shape::rows * Shape::stride,
                 *const shares = keys + KEYS * Shape::stride;
    tile tile;
    if (!tile_find(attention, Shape::rows, &tile))
        return;
    const uint32_t head_dim = attention.head_dim;
    const auto keys_copy = [&](const void *source, uint32_t key) {
        rows_copy<Shape, KEYS>(keys, tile.key_end - key, head_dim, [&](uint32_t row) {
            return static_cast<const float *>(source) + key_offset(attention, tile, key + row);
        });
    };
    rows_copy<Shape, Shape::rows>(queries, tile.rows - tile.row, head_dim, [&](uint32_t row) {
        return static_cast<const float *>(attention.q) + row_offset(attention, tile, tile.row + row);
    });

    /* The thread's rows are row + 16 i, its keys lane + 16 i, its columns lane * 4 + 64 i and the three after each. */
    const uint32_t row = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    float most[Shape::lane_rows], sums[Shape::lane_rows];
    float4 out[Shape::lane_rows][Shape::lane_fours];
#pragma unroll
    for (int r = 0; r < Shape::lane_rows; r++) {
        most[r] = -INFINITY;
        sums[r] = 0;
#pragma unroll
        for (int c = 0; c < Shape::lane_fours; c++)
            out[r][c] = make_float4(0, 0, 0, 0);
    }
    for (uint32_t key = tile.key_begin; key < tile.key_end; key += KEYS) {
        __syncthreads(); /* nobody reads values */
        keys_copy(attention.k, key);
        __syncthreads();
        float scores[Shape::lane_rows][Shape::lane_keys] = {};
#pragma unroll 2 /* more would spill */
        for (uint32_t d = 0; d < head_dim; d += 4) {
            float4 b[Shape::lane_keys];
            for (int j = 0; j < Shape::lane_keys; j++)
                b[j] = four_at(keys + (lane + j * LANES) * Shape::stride + d);
            for (int r = 0; r < Shape::lane_rows; r++) {
                const float4 a = four_at(queries + (row + r * LANES) * Shape::stride + d);
                for (int j = 0; j < Shape::lane_keys; j++)
                    scores[r][j] = dot_add(a, b[j], scores[r][j]);
            }
        }
        __syncthreads(); /* nobody reads keys */
        keys_copy(attention.v, key);
#pragma unroll
        for (int r = 0; r < Shape::lane_rows; r++) {
            const uint32_t token = (tile.row + row + r * LANES) / tile.group;
            float largest = most[r];
            for (int j = 0; j < Shape::lane_keys; j++) {
                if (!sees(token, key + lane + j * LANES, attention.sliding))
                    scores[r][j] = -INFINITY;
                largest = fmaxf(largest, scores[r][j]);
            }
            for (int other = 1; other < LANES; other *= 2)
                largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, other));
            const float shift = largest == -INFINITY ? 0 : largest; /* of a row that has seen nothing yet */
            const float factor = most[r] == largest ? 1 : expf(most[r] - shift);
            most[r] = largest;
            sums[r] *= factor;
            for (int j = 0; j < Shape::lane_keys; j++) {
                const float share = expf(scores[r][j] - shift);
                sums[r] += share;
                shares[(row + r * LANES) * Shape::share_stride + lane + j * LANES] = share;
            }
            for (int c = 0; c < Shape::lane_fours; c++)
                out[r][c] =
                    make_float4(out[r][c].x * factor, out[r][c].y * factor, out[r][c].z * factor, out[r][c].w * factor);
        }
        __syncthreads();
        for (uint32_t k = 0; k < KEYS; k++) {
            float4 b[Shape::lane_fours];
            for (int c = 0; c < Shape::lane_fours; c++)
                b[c] = four_at(keys + k * Shape::stride + lane * 4 + c * 4 * LANES);
            for (int r = 0; r < Shape::lane_rows; r++) {
                const float a = shares[(row + r * LANES) * Shape::share_stride + k];
                for (int c = 0; c < Shape::lane_fours; c++)
                    scaled_add(&out[r][c], a, b[c]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < Shape::lane_rows; r++) {
        float sum = sums[r];
        for (int other = 1; other < LANES; other *= 2)
            sum += __shfl_xor_sync(FULL_WARP, sum, other);
        const uint32_t number = tile.row + row + r * LANES;
        if (number >= tile.rows)
            continue;
        float *const to = static_cast<float *>(attention.out) + row_offset(attention, tile, number);
#pragma unroll
        for (int c = 0; c < Shape::lane_fours; c++) {
            const uint32_t column = lane * 4 + c * 4 * LANES;
            const float values[4] = {out[r][c].x, out[r][c].y, out[r][c].z, out[r][c].w};
            for (int i = 0; i < 4; i++)
                if (column + i < head_dim)
                    to[column + i] = values[i] / sum;
        }
    }
}

template <typename Shape> static void shape_launch(cuda_device *device, const cuda_attention *attention) {
    windows_launch(device, attention_f32<Shape>, THREADS, Shape::rows, Shape::shared, attention);
}

void run_attention_f32(cuda_device *device, const cuda_attention *attention) {
    if (attention->head_dim <= 64)
        shape_launch<float_shape<64, 64>>(device, attention);
    else if (attention->head_dim <= 128)
        shape_launch<float_shape<128, 64>>(device, attention);
    else
        shape_launch<float_shape<256, 32>>(device, attention);
}
