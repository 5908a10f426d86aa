/*
 * Causal attention of windows: FlashAttention-2 (Dao, arXiv 2307.08691). A block has a tile of the rows of one key-value
 * head in one window and goes over the keys that they see, a tile at a time: scores, their exponentials under the largest
 * so far of each row, products with the values; what has been summed is scaled down when the largest grows. No
 * [window, window] matrix exists. A tile that no row sees is not read, and a result depends on nothing but its window.
 *
 * Rows are (token, query head of the group): the heads that share keys and values fill a tile together, so short windows
 * fill it too, tiles at the diagonal waste little, and keys and values are read group times less often.
 *
 * BF16: bound by compute. 4 * head_dim operations per row and key on tensor cores, a row's exponential beside them. The kernel has
 * what FlashAttention-2 has (mma.sync, one tile of keys and one of values on their way while the other is used), and should
 * get its 60-70 % of the peak on A100, L40, GB10 and RTX Blackwell. On H100 and B200 mma.sync itself reaches some 60 % of
 * their peak: 35-40 % of it. From memory it needs 2 * head_dim values per tile of rows and key: of L2, as the tiles of a
 * head run side by side.
 *
 * F32: float32 rounding only; bound by FMA and reads from shared memory, 20-30 % of the peak of float32.
 */
#include <math.h>

#include "infer/cuda/mma.cuh"
#include "infer/cuda/numbers.cuh"

/* ---- rows and keys of a block ---- */

enum { CHUNK = 8 }; /* bf16 values of 16 bytes */

struct tile {
    uint32_t first;              /* number of the window's first token */
    uint32_t group;              /* query heads of a key-value head */
    uint32_t row, rows;          /* the first row, and the rows of the window */
    uint32_t key_begin, key_end; /* what the rows see, by position in the window */
};

/* The last rows see the most keys: they go first. false: the window has no such rows. */
__device__ static inline bool tile_find(const cuda_attention &attention, uint32_t tile_rows, tile *tile) {
    const cuda_window window = attention.windows[blockIdx.z];
    tile->first = window.first;
    tile->group = attention.heads / attention.kv_heads;
    tile->rows = window.tokens * tile->group;
    tile->row = (gridDim.x - 1 - blockIdx.x) * tile_rows;
    if (tile->row >= tile->rows)
        return false;
    const uint32_t last = min(tile->row + tile_rows, tile->rows) - 1, token = tile->row / tile->group;
    tile->key_begin = attention.sliding > 0 && token >= attention.sliding ? token - attention.sliding + 1 : 0;
    tile->key_end = last / tile->group + 1;
    return true;
}

/* Where the head of a row of the window begins, in q and out. */
__device__ static inline size_t row_offset(const cuda_attention &attention, const tile &tile, uint32_t row) {
    const uint32_t token = tile.first + row / tile.group;
    return ((size_t)token * attention.heads + blockIdx.y * tile.group + row % tile.group) * attention.head_dim;
}

/* The same of a key, in k and v. */
__device__ static inline size_t key_offset(const cuda_attention &attention, const tile &tile, uint32_t key) {
    return ((size_t)(tile.first + key) * attention.kv_heads + blockIdx.y) * attention.head_dim;
}

__device__ static inline bool sees(uint32_t token, uint32_t key, uint32_t sliding) {
    return key <= token && (sliding == 0 || token - key < sliding);
}

/* ---- bf16 ---- */

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
#pragma unroll 4
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
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < Shape::matrices; m++)
#pragma unroll
        for (int n = 0; n < Shape::keys / 8; n++)
#pragma unroll
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
#pragma unroll
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
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t token = (row + m * 16 + half * 8) / group;
#pragma unroll
            for (int n = 0; n < Shape::keys / 8; n++)
#pragma unroll
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
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = rows.most[m][half];
#pragma unroll
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
#pragma unroll
            for (int n = 0; n < Shape::keys / 8; n++)
#pragma unroll
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
#pragma unroll
            for (int i = 0; i < 4; i++)
                rows.out[m][n][i] *= factors[i / 2];
    }
}

/* out += exponentials * values; what was the product of one multiplication is, as it lies, the operand of the next. */
template <typename Shape>
__device__ static inline void values_multiply(warp_rows<Shape> &rows, const scores<Shape> &scores,
                                              const unsigned char *values) {
    const uint32_t lane = threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < Shape::keys / 16; k++) {
        uint32_t a[Shape::matrices][4];
#pragma unroll
        for (int m = 0; m < Shape::matrices; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[m][i] = bf16_pair(scores[m][k * 2 + i / 2][i % 2 * 2], scores[m][k * 2 + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < Shape::width / 16; n++) {
            uint32_t b[4]; /* of columns 0-7, then of columns 8-15 */
            matrices_load<true>(b, values + chunk_offset<Shape::width>(k * 16 + lane % 16, n * 2 + lane / 16));
#pragma unroll
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
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float sum = rows.sums[m][half];
            sum += __shfl_xor_sync(FULL_WARP, sum, 1);
            sum += __shfl_xor_sync(FULL_WARP, sum, 2);
            const uint32_t r = row + m * 16 + half * 8;
            if (r >= tile.rows)
                continue;
            const float factor = 1 / sum;
            const size_t offset = row_offset(attention, tile, r);
#pragma unroll
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
#pragma unroll
        for (int half = 0; half < 2; half++) {
            rows.most[m][half] = -INFINITY;
            rows.sums[m][half] = 0;
        }
#pragma unroll
        for (int n = 0; n < Shape::width / 8; n++)
#pragma unroll
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

/* ---- f32 ---- */

enum { F32_KEYS = 32, F32_LANES = 16, F32_THREADS = 256 }; /* lanes: threads of a row, half a warp */

/* Floats from a row to the next: rows are read side by side, four floats each. */
template <int WIDTH, int ROWS> struct shape_f32 {
    enum {
        width = WIDTH,
        rows = ROWS,
        stride = WIDTH + 4,
        share_stride = F32_KEYS + 4,
        lane_rows = ROWS / (F32_THREADS / F32_LANES),
        lane_keys = F32_KEYS / F32_LANES,
        lane_fours = WIDTH / (4 * F32_LANES),
        shared = ((ROWS + F32_KEYS) * stride + ROWS * share_stride) * 4, /* queries, keys or values, exponentials */
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

/* As rows_copy, at once. */
template <int WIDTH, int ROWS, typename RowAt>
__device__ static inline void rows_copy_f32(float *to, uint32_t head_dim, RowAt row_at) {
    for (uint32_t i = threadIdx.x; i < ROWS * WIDTH; i += F32_THREADS) {
        const float *const from = row_at(i / WIDTH);
        to[i / WIDTH * (WIDTH + 4) + i % WIDTH] = from != NULL && i % WIDTH < head_dim ? from[i % WIDTH] : 0;
    }
}

template <typename Shape> __global__ void __launch_bounds__(F32_THREADS) attention_f32(const cuda_attention attention) {
    SHARED_MEMORY(memory);
    float *const queries = reinterpret_cast<float *>(memory), *const keys = queries + Shape::rows * Shape::stride,
                 *const shares = keys + F32_KEYS * Shape::stride;
    tile tile;
    if (!tile_find(attention, Shape::rows, &tile))
        return;
    const uint32_t head_dim = attention.head_dim;
    const float *const q = static_cast<const float *>(attention.q);
    const auto keys_copy = [&](const void *source, uint32_t first) {
        const float *const from = static_cast<const float *>(source);
        rows_copy_f32<Shape::width, F32_KEYS>(keys, head_dim, [&](uint32_t key) -> const float * {
            return first + key < tile.key_end ? from + key_offset(attention, tile, first + key) : NULL;
        });
    };
    rows_copy_f32<Shape::width, Shape::rows>(queries, head_dim, [&](uint32_t row) -> const float * {
        return tile.row + row < tile.rows ? q + row_offset(attention, tile, tile.row + row) : NULL;
    });

    /* The thread's rows are row + 16 i, its keys lane + 16 i, its columns lane * 4 + 64 i and the three after each. */
    const uint32_t row = threadIdx.x / F32_LANES, lane = threadIdx.x % F32_LANES;
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
    for (uint32_t key = tile.key_begin; key < tile.key_end; key += F32_KEYS) {
        __syncthreads(); /* nobody reads values */
        keys_copy(attention.k, key);
        __syncthreads();
        float scores[Shape::lane_rows][Shape::lane_keys] = {};
        for (uint32_t d = 0; d < head_dim; d += 4) {
            float4 b[Shape::lane_keys];
#pragma unroll
            for (int j = 0; j < Shape::lane_keys; j++)
                b[j] = four_at(keys + (lane + j * F32_LANES) * Shape::stride + d);
#pragma unroll
            for (int r = 0; r < Shape::lane_rows; r++) {
                const float4 a = four_at(queries + (row + r * F32_LANES) * Shape::stride + d);
#pragma unroll
                for (int j = 0; j < Shape::lane_keys; j++)
                    scores[r][j] = dot_add(a, b[j], scores[r][j]);
            }
        }
        __syncthreads(); /* nobody reads keys */
        keys_copy(attention.v, key);
#pragma unroll
        for (int r = 0; r < Shape::lane_rows; r++) {
            const uint32_t token = (tile.row + row + r * F32_LANES) / tile.group;
            float largest = most[r];
#pragma unroll
            for (int j = 0; j < Shape::lane_keys; j++) {
                if (!sees(token, key + lane + j * F32_LANES, attention.sliding))
                    scores[r][j] = -INFINITY;
                largest = fmaxf(largest, scores[r][j]);
            }
#pragma unroll
            for (int other = 1; other < F32_LANES; other *= 2)
                largest = fmaxf(largest, __shfl_xor_sync(FULL_WARP, largest, other));
            const float shift = largest == -INFINITY ? 0 : largest; /* of a row that has seen nothing yet */
            const float factor = most[r] == largest ? 1 : expf(most[r] - shift);
            most[r] = largest;
            sums[r] *= factor;
#pragma unroll
            for (int j = 0; j < Shape::lane_keys; j++) {
                const float share = expf(scores[r][j] - shift);
                sums[r] += share;
                shares[(row + r * F32_LANES) * Shape::share_stride + lane + j * F32_LANES] = share;
            }
#pragma unroll
            for (int c = 0; c < Shape::lane_fours; c++)
                out[r][c] =
                    make_float4(out[r][c].x * factor, out[r][c].y * factor, out[r][c].z * factor, out[r][c].w * factor);
        }
        __syncthreads();
#pragma unroll 4
        for (uint32_t k = 0; k < F32_KEYS; k++) {
            float4 b[Shape::lane_fours];
#pragma unroll
            for (int c = 0; c < Shape::lane_fours; c++)
                b[c] = four_at(keys + k * Shape::stride + lane * 4 + c * 4 * F32_LANES);
#pragma unroll
            for (int r = 0; r < Shape::lane_rows; r++) {
                const float a = shares[(row + r * F32_LANES) * Shape::share_stride + k];
#pragma unroll
                for (int c = 0; c < Shape::lane_fours; c++)
                    scaled_add(&out[r][c], a, b[c]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < Shape::lane_rows; r++) {
        float sum = sums[r];
#pragma unroll
        for (int other = 1; other < F32_LANES; other *= 2)
            sum += __shfl_xor_sync(FULL_WARP, sum, other);
        const uint32_t number = tile.row + row + r * F32_LANES;
        if (number >= tile.rows)
            continue;
        float *const to = static_cast<float *>(attention.out) + row_offset(attention, tile, number);
#pragma unroll
        for (int c = 0; c < Shape::lane_fours; c++) {
            const uint32_t column = lane * 4 + c * 4 * F32_LANES;
            const float values[4] = {out[r][c].x, out[r][c].y, out[r][c].z, out[r][c].w};
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (column + i < head_dim)
                    to[column + i] = values[i] / sum;
        }
    }
}

/* ---- host ---- */

enum { HEAD_DIM_MOST = 256, GRID_MOST = 65535 /* blocks, in y and z */ };

static void windows_launch(cuda_device *device, void (*kernel)(const cuda_attention), unsigned threads, uint32_t rows,
                           size_t shared, const cuda_attention *attention) {
    const uint64_t most_rows = (uint64_t)attention->longest * (attention->heads / attention->kv_heads);
    for (uint32_t first = 0; first < attention->window_count; first += GRID_MOST) {
        const uint32_t rest = attention->window_count - first;
        cuda_attention part = *attention;
        part.windows += first;
        part.window_count = rest < GRID_MOST ? rest : GRID_MOST;
        const dim3 grid(ceil_div(most_rows, rows), attention->kv_heads, part.window_count);
        launch(device, "attention", kernel, grid, threads, shared, part);
    }
}

template <typename Shape> static void bf16_launch(cuda_device *device, const cuda_attention *attention) {
    windows_launch(device, attention_bf16<Shape>, Shape::threads, Shape::rows, Shape::shared, attention);
}

template <typename Shape> static void f32_launch(cuda_device *device, const cuda_attention *attention) {
    windows_launch(device, attention_f32<Shape>, F32_THREADS, Shape::rows, Shape::shared, attention);
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
        if (head_dim <= 64)
            f32_launch<shape_f32<64, 64>>(device, attention);
        else if (head_dim <= 128)
            f32_launch<shape_f32<128, 64>>(device, attention);
        else
            f32_launch<shape_f32<256, 32>>(device, attention);
    } else if (head_dim <= narrow::width) {
        bf16_launch<narrow>(device, attention);
    } else if (head_dim <= middle::width) {
        if (device->shared_most >= 2 * middle::shared)
            bf16_launch<middle>(device, attention);
        else
            bf16_launch<middle_small>(device, attention);
    } else {
        bf16_launch<wide>(device, attention);
    }
}
