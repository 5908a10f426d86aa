/*
 * Attention of one token over the keys and values so far, and filling their cache. Bound by reading the cache: the
 * positions seen are divided into shares of about the same size, one per block of threads, all of them at once on the
 * device; a second kernel puts the shares together, in order. The grid does not depend on the position, which is read on
 * the device: shares that a short context has no use for end at once.
 *
 * A block takes its share in tiles: keys and values go to shared memory as they are stored, then a thread has the scores
 * of a position for a few queries, then a chunk of 8 dimensions for a part of the positions and all queries. All queries
 * of a key-value head are served at once, up to QUERIES_MOST; of more, other blocks take the rest. Sums are float32, the
 * softmax is taken under a running maximum.
 */
#include <float.h>

#include "infer/cuda/codes.cuh"
#include "infer/cuda/warp.cuh"

enum {
    STEP_THREADS = 128,
    STEP_WARPS = STEP_THREADS / WARP,
    DIMENSIONS = 8, /* of a chunk */
    QUERIES_MOST = 8,
    SHARES_MOST = 128,
    BLOCKS_WANTED = 512, /* about four for each multiprocessor of the largest cards */
    SHARE_STEP = 16,     /* positions of a share are a multiple of it */
    TILE_MOST = 128,     /* positions of a tile; a power of two */
    TILE_LEAST = 16,
    TILE_BYTES = 36 << 10,         /* keys and values of a tile: two blocks on a multiprocessor with 100 KiB */
    SCORES_STRIDE = TILE_MOST + 4, /* from a query's scores to the next one's: other banks */
    MERGE_THREADS = 512
};

struct step_arguments {
    cuda_step_attention a;
    uint32_t shares, tile, group, query_blocks;
    bool wide; /* rows of the cache are whole units */
};

/* What a share leaves: out is to be divided by the sum of all sums, under a common maximum. */
struct step_part {
    float most, sum;
};

static uint32_t shares_of(const cuda_step_attention *attention) {
    const uint32_t group = attention->heads / attention->kv_heads;
    const uint64_t pairs = (uint64_t)attention->kv_heads * ceil_div(group, QUERIES_MOST);
    const uint64_t shares = (BLOCKS_WANTED + pairs - 1) / pairs;
    return shares < SHARES_MOST ? (uint32_t)shares : (uint32_t)SHARES_MOST;
}

/* The space: parts [heads][shares], then out [heads][shares][head_dim]. */
static uint64_t parts_bytes(uint64_t heads, uint64_t shares) { return heads * shares * sizeof(step_part); }

uint64_t step_attention_bytes(const cuda_step_attention *attention) {
    const uint64_t shares = shares_of(attention), heads = attention->heads;
    return parts_bytes(heads, shares) + heads * shares * attention->head_dim * sizeof(float);
}

/* ---- what all kernels know ---- */

__host__ __device__ static inline uint32_t element_bytes(int cache) {
    return cache == CUDA_F32 ? 4 : cache == CUDA_BF16 ? 2 : 1;
}

__host__ __device__ static inline uint32_t chunks_of(uint32_t head_dim) {
    return (head_dim + DIMENSIONS - 1) / DIMENSIONS;
}

/* Bytes that are copied and read at once, a unit: a chunk, or half of it. */
__host__ __device__ constexpr uint32_t unit_bytes(int cache) { return cache == CUDA_E4M3 ? 8 : 16; }

/*
 * From a row of a tile to the next: an odd number of units, so that threads with a row each read from different banks.
 */
__host__ __device__ static inline uint32_t row_stride(int cache, uint32_t head_dim) {
    const uint32_t units = chunks_of(head_dim) * DIMENSIONS * element_bytes(cache) / unit_bytes(cache);
    return (units | 1) * unit_bytes(cache);
}

/* The positions that are seen, [first, end), and how many of them a share has. */
struct step_span {
    uint32_t first, end, share;
};

__device__ static inline step_span span_find(const step_arguments &p) {
    step_span span;
    const uint32_t position = *p.a.position;
    span.end = position + 1;
    span.first = p.a.sliding > 0 && span.end > p.a.sliding ? span.end - p.a.sliding : 0;
    const uint32_t seen = span.end - span.first, even = (seen + p.shares - 1) / p.shares;
    span.share = (even + SHARE_STEP - 1) / SHARE_STEP * SHARE_STEP;
    return span;
}

/* (x1, x2) = halves of a head: x1 cos - x2 sin, x2 cos + x1 sin, times the factor. Value number i < half, and i + half. */
__device__ static inline void rotate(const step_arguments &p, const float *x, uint32_t position, uint32_t i,
                                     float factor, float &low, float &high) {
    const uint32_t half = p.a.head_dim / 2;
    const float first = x[i], second = x[i + half];
    const float cosine = p.a.cosines[(size_t)position * half + i], sine = p.a.sines[(size_t)position * half + i];
    low = (first * cosine - second * sine) * factor;
    high = (second * cosine + first * sine) * factor;
}

template <int CACHE> __device__ static inline void value_store(void *row, uint32_t i, float value) {
    if (CACHE == CUDA_F32)
        ((float *)row)[i] = value;
    else if (CACHE == CUDA_BF16)
        ((uint16_t *)row)[i] = bf16_code(value);
    else
        ((uint8_t *)row)[i] = e4m3_code(value);
}

/* A chunk as float32, E4M3 divided by E4M3_FACTOR. */
template <int CACHE> __device__ static inline void chunk_floats(const unsigned char *at, float out[DIMENSIONS]) {
    if (CACHE == CUDA_F32) {
        const float4 low = ((const float4 *)at)[0], high = ((const float4 *)at)[1];
        out[0] = low.x, out[1] = low.y, out[2] = low.z, out[3] = low.w;
        out[4] = high.x, out[5] = high.y, out[6] = high.z, out[7] = high.w;
    } else if (CACHE == CUDA_BF16) {
        const uint4 codes = *(const uint4 *)at;
        bf16_two(codes.x, out[0], out[1]);
        bf16_two(codes.y, out[2], out[3]);
        bf16_two(codes.z, out[4], out[5]);
        bf16_two(codes.w, out[6], out[7]);
    } else {
        const uint2 codes = *(const uint2 *)at;
        e4m3_four(codes.x, out);
        e4m3_four(codes.y, out + 4);
    }
}

template <int CACHE> __device__ static inline float chunk_factor() { return CACHE == CUDA_E4M3 ? E4M3_FACTOR : 1.0f; }

/* ---- a share ---- */

/* A block's shared memory. */
struct step_shared {
    float *queries;               /* [QUERIES][padded dimensions] */
    float *scores;                /* [QUERIES][SCORES_STRIDE] of the tile's positions, then their exponentials */
    float *most, *sum, *decrease; /* [QUERIES]: so far; what sums so far are multiplied by */
    unsigned char *keys, *values; /* [tile] rows */
};

static size_t shared_bytes(int cache, uint32_t head_dim, uint32_t queries, uint32_t tile) {
    const size_t rows = (size_t)2 * tile * row_stride(cache, head_dim);
    const size_t sums = (size_t)STEP_THREADS * DIMENSIONS * queries * sizeof(float); /* in the place of the rows */
    const size_t numbers = (size_t)queries * (chunks_of(head_dim) * DIMENSIONS + SCORES_STRIDE) + 3 * QUERIES_MOST;
    return numbers * sizeof(float) + (rows > sums ? rows : sums);
}

template <int CACHE, int QUERIES>
__device__ static inline step_shared shared_lay(unsigned char *at, const step_arguments &p) {
    step_shared shared;
    shared.most = (float *)at;
    shared.sum = shared.most + QUERIES_MOST;
    shared.decrease = shared.sum + QUERIES_MOST;
    shared.queries = shared.decrease + QUERIES_MOST;
    shared.scores = shared.queries + QUERIES * chunks_of(p.a.head_dim) * DIMENSIONS;
    shared.keys = (unsigned char *)(shared.scores + QUERIES * SCORES_STRIDE);
    shared.values = shared.keys + (size_t)p.tile * row_stride(CACHE, p.a.head_dim);
    return shared;
}

/* Starts to copy `count` rows of the cache to a tile. Of rows that are not whole units it is done at once. */
template <int CACHE>
__device__ static inline void rows_load(const step_arguments &p, const unsigned char *from, uint32_t count,
                                        unsigned char *to) {
    const uint32_t row_bytes = p.a.head_dim * element_bytes(CACHE), stride = row_stride(CACHE, p.a.head_dim);
    if (p.wide) {
        enum { UNIT = unit_bytes(CACHE) };
        const uint32_t units = row_bytes / UNIT, rows = STEP_THREADS / units, unit = threadIdx.x % units;
        for (uint32_t row = threadIdx.x / units; row < count && threadIdx.x < rows * units; row += rows)
            copy_start<UNIT>(to + row * stride + unit * UNIT, from + (size_t)row * row_bytes + unit * UNIT);
    } else {
        const uint32_t pairs = row_bytes / 2; /* a head has an even number of dimensions */
        for (uint32_t i = threadIdx.x; i < count * pairs; i += STEP_THREADS) {
            const uint32_t row = i / pairs, at = i % pairs * 2;
            *(uint16_t *)(to + row * stride + at) = *(const uint16_t *)(from + (size_t)row * row_bytes + at);
        }
    }
    copies_close();
}

/* The token's own key and value: into row `row` of a tile and, by one block of each head, into the cache. */
template <int CACHE>
__device__ static inline void own_put(const step_arguments &p, uint32_t kv_head, uint32_t position, bool keep,
                                      uint32_t row, const step_shared &shared) {
    const uint32_t head_dim = p.a.head_dim, half = head_dim / 2, stride = row_stride(CACHE, head_dim);
    const size_t place = ((size_t)kv_head * p.a.positions + position) * head_dim * element_bytes(CACHE);
    unsigned char *key = shared.keys + row * stride, *value = shared.values + row * stride;
    unsigned char *key_kept = (unsigned char *)p.a.cache_keys + place,
                  *value_kept = (unsigned char *)p.a.cache_values + place;
    const float *keys = p.a.keys + (size_t)kv_head * head_dim, *values = p.a.values + (size_t)kv_head * head_dim;
    for (uint32_t i = threadIdx.x; i < half; i += STEP_THREADS) {
        float low, high;
        rotate(p, keys, position, i, 1, low, high);
        value_store<CACHE>(key, i, low);
        value_store<CACHE>(key, i + half, high);
        value_store<CACHE>(value, i, values[i]);
        value_store<CACHE>(value, i + half, values[i + half]);
        if (keep) {
            value_store<CACHE>(key_kept, i, low);
            value_store<CACHE>(key_kept, i + half, high);
            value_store<CACHE>(value_kept, i, values[i]);
            value_store<CACHE>(value_kept, i + half, values[i + half]);
        }
    }
}

/* Scores of a tile. A thread has one position, and some of the queries. */
template <int CACHE, int QUERIES>
__device__ static inline void scores_make(const step_arguments &p, uint32_t count, const step_shared &shared) {
    enum { AT_ONCE = (QUERIES + 1) / 2 };
    const uint32_t chunks = chunks_of(p.a.head_dim), dimensions = chunks * DIMENSIONS;
    const uint32_t position = threadIdx.x % p.tile, part = threadIdx.x / p.tile, parts = STEP_THREADS / p.tile;
    if (position >= count)
        return;
    const unsigned char *key = shared.keys + position * row_stride(CACHE, p.a.head_dim);
    for (uint32_t query = part * AT_ONCE; query < QUERIES; query += parts * AT_ONCE) {
        const float *queries = shared.queries + query * dimensions;
        float sums[AT_ONCE] = {};
        UNROLL_TWICE
        for (uint32_t chunk = 0; chunk < chunks; chunk++) {
            float k[DIMENSIONS];
            chunk_floats<CACHE>(key + chunk * DIMENSIONS * element_bytes(CACHE), k);
            UNROLL
            for (int i = 0; i < AT_ONCE; i++) {
                const float4 *q = (const float4 *)(queries + i * dimensions + chunk * DIMENSIONS);
                const float4 low = q[0], high = q[1];
                sums[i] = fmaf(k[0], low.x, fmaf(k[1], low.y, fmaf(k[2], low.z, fmaf(k[3], low.w, sums[i]))));
                sums[i] = fmaf(k[4], high.x, fmaf(k[5], high.y, fmaf(k[6], high.z, fmaf(k[7], high.w, sums[i]))));
            }
        }
        UNROLL
        for (int i = 0; i < AT_ONCE; i++)
            shared.scores[(query + i) * SCORES_STRIDE + position] = sums[i] * chunk_factor<CACHE>();
    }
}

/* Scores to exponentials under the largest so far. A warp has a query. */
template <int QUERIES> __device__ static inline void softmax_step(uint32_t count, const step_shared &shared) {
    const uint32_t lane = threadIdx.x % WARP;
    for (uint32_t query = threadIdx.x / WARP; query < QUERIES; query += STEP_WARPS) {
        float *scores = shared.scores + query * SCORES_STRIDE;
        const float before = shared.most[query];
        float most = before, sum = 0;
        for (uint32_t i = lane; i < count; i += WARP)
            most = larger_value()(most, scores[i]);
        most = warp_reduce(most, larger_value());
        for (uint32_t i = lane; i < count; i += WARP) {
            scores[i] = expf(scores[i] - most);
            sum += scores[i];
        }
        sum = warp_reduce(sum, add_values());
        __syncwarp(); /* all have read what is written now: exchanges order no memory */
        if (lane == 0) {
            const float decrease = expf(before - most);
            shared.most[query] = most;
            shared.sum[query] = shared.sum[query] * decrease + sum;
            shared.decrease[query] = decrease;
        }
    }
}

/* Blocks that a multiprocessor has registers for. */
__host__ __device__ constexpr int blocks_least(int cache, int queries) {
    return queries <= 4 ? 4 : cache == CUDA_F32 ? 2 : 3;
}

template <int CACHE, int QUERIES>
__global__ static void __launch_bounds__(STEP_THREADS, blocks_least(CACHE, QUERIES))
    step_attention_kernel(const step_arguments p) {
    SHARED_MEMORY(memory);
    const step_shared shared = shared_lay<CACHE, QUERIES>(memory, p);
    const uint32_t head_dim = p.a.head_dim, half = head_dim / 2, chunks = chunks_of(head_dim);
    const uint32_t dimensions = chunks * DIMENSIONS, stride = row_stride(CACHE, head_dim);
    const uint32_t share = blockIdx.x / p.query_blocks, query_block = blockIdx.x % p.query_blocks;
    const uint32_t kv_head = blockIdx.y, first_query = query_block * QUERIES;
    const uint32_t queries = p.group - first_query < QUERIES ? p.group - first_query : QUERIES;
    const step_span span = span_find(p);
    const uint32_t position = span.end - 1;
    if ((uint64_t)share * span.share >= span.end - span.first)
        return;
    const uint32_t begin = span.first + share * span.share;
    const uint32_t end = span.end - begin < span.share ? span.end : begin + span.share;

    /* queries, rotated; zeros behind a head and in the place of queries that are not there */
    for (uint32_t i = threadIdx.x; i < QUERIES * dimensions; i += STEP_THREADS)
        if (i / dimensions >= queries || i % dimensions >= head_dim)
            shared.queries[i] = 0;
    const float factor = p.a.query_factors ? p.a.query_factors[position] : 1;
    for (uint32_t i = threadIdx.x; i < queries * half; i += STEP_THREADS) {
        const uint32_t query = i / half, at = i % half;
        const size_t head = (size_t)kv_head * p.group + first_query + query;
        float low, high;
        rotate(p, p.a.queries + head * head_dim, position, at, factor, low, high);
        shared.queries[query * dimensions + at] = low;
        shared.queries[query * dimensions + at + half] = high;
    }
    if (threadIdx.x < QUERIES) {
        shared.most[threadIdx.x] = -INFINITY;
        shared.sum[threadIdx.x] = 0;
    }
    /* what lies behind the head in a row is never loaded: zeros */
    for (uint32_t i = threadIdx.x; i < p.tile * (dimensions - head_dim); i += STEP_THREADS) {
        const uint32_t row = i / (dimensions - head_dim), at = head_dim + i % (dimensions - head_dim);
        value_store<CACHE>(shared.keys + row * stride, at, 0);
        value_store<CACHE>(shared.values + row * stride, at, 0);
    }

    /* a thread's chunk, and its part of the positions */
    const uint32_t chunk = threadIdx.x % chunks, part = threadIdx.x / chunks, parts = STEP_THREADS / chunks;
    float sums[QUERIES][DIMENSIONS] = {};
    const size_t row_bytes = (size_t)head_dim * element_bytes(CACHE);
    for (uint32_t at = begin; at < end; at += p.tile) {
        const uint32_t count = end - at < p.tile ? end - at : p.tile;
        const bool own = at + count == span.end; /* the last one is this token's */
        const size_t place = ((size_t)kv_head * p.a.positions + at) * row_bytes;
        rows_load<CACHE>(p, (const unsigned char *)p.a.cache_keys + place, count - own, shared.keys);
        rows_load<CACHE>(p, (const unsigned char *)p.a.cache_values + place, count - own, shared.values);
        if (own)
            own_put<CACHE>(p, kv_head, position, query_block == 0, count - 1, shared);
        copies_wait<1>(); /* the keys */
        __syncthreads();
        scores_make<CACHE, QUERIES>(p, count, shared);
        copies_wait<0>();
        __syncthreads();
        softmax_step<QUERIES>(count, shared);
        __syncthreads();
        UNROLL
        for (int query = 0; query < QUERIES; query++) {
            const float decrease = shared.decrease[query];
            UNROLL
            for (int i = 0; i < DIMENSIONS; i++)
                sums[query][i] *= decrease;
        }
        if (part < parts)
            UNROLL_TWICE
        for (uint32_t row = part; row < count; row += parts) {
            float v[DIMENSIONS];
            chunk_floats<CACHE>(shared.values + row * stride + chunk * DIMENSIONS * element_bytes(CACHE), v);
            UNROLL
            for (int query = 0; query < QUERIES; query++) {
                const float weight = shared.scores[query * SCORES_STRIDE + row];
                UNROLL
                for (int i = 0; i < DIMENSIONS; i++)
                    sums[query][i] = fmaf(weight, v[i], sums[query][i]);
            }
        }
        __syncthreads();
    }

    /* the parts of the positions together, in their order */
    float *space = (float *)shared.keys; /* [parts][QUERIES][dimensions] */
    if (part < parts) {
        UNROLL
        for (int query = 0; query < QUERIES; query++) {
            float4 *to = (float4 *)(space + (part * QUERIES + query) * dimensions + chunk * DIMENSIONS);
            to[0] = make_float4(sums[query][0], sums[query][1], sums[query][2], sums[query][3]);
            to[1] = make_float4(sums[query][4], sums[query][5], sums[query][6], sums[query][7]);
        }
    }
    __syncthreads();
    step_part *step_parts = (step_part *)p.a.space;
    float *outs = (float *)((unsigned char *)p.a.space + (size_t)p.a.heads * p.shares * sizeof(step_part));
    for (uint32_t i = threadIdx.x; i < queries * head_dim; i += STEP_THREADS) {
        const uint32_t query = i / head_dim, dimension = i % head_dim;
        const size_t number = ((size_t)kv_head * p.group + first_query + query) * p.shares + share;
        float sum = 0;
        for (uint32_t j = 0; j < parts; j++)
            sum += space[(j * QUERIES + query) * dimensions + dimension];
        outs[number * head_dim + dimension] = sum * chunk_factor<CACHE>();
        if (dimension == 0) {
            step_parts[number].most = shared.most[query];
            step_parts[number].sum = shared.sum[query];
        }
    }
}

/* ---- the shares together ---- */

/* A block per head; threads: a dimension, and a part of the shares. */
__global__ static void __launch_bounds__(MERGE_THREADS) step_merge_kernel(const step_arguments p) {
    SHARED_MEMORY(memory);
    float *space = (float *)memory, *factors = space + WARP, *sums = factors + SHARES_MOST; /* [parts][head_dim] */
    const step_span span = span_find(p);
    const uint32_t used = (span.end - span.first + span.share - 1) / span.share, head_dim = p.a.head_dim;
    const size_t first = (size_t)blockIdx.x * p.shares;
    const step_part *step_parts = (const step_part *)p.a.space + first;
    const float *outs =
        (const float *)((const unsigned char *)p.a.space + (size_t)p.a.heads * p.shares * sizeof(step_part)) +
        first * head_dim;
    const bool mine = threadIdx.x < used;
    const float own = mine ? step_parts[threadIdx.x].most : -INFINITY;
    const float most = block_reduce(own, larger_value(), space);
    const float factor = mine ? expf(own - most) : 0;
    if (mine)
        factors[threadIdx.x] = factor;
    const float sum = block_reduce(mine ? step_parts[threadIdx.x].sum * factor : 0, add_values(), space);
    const uint32_t dimension = threadIdx.x % head_dim, part = threadIdx.x / head_dim, parts = MERGE_THREADS / head_dim;
    if (part < parts) {
        float total = 0;
        for (uint32_t share = part; share < used; share += parts)
            total = fmaf(factors[share], outs[(size_t)share * head_dim + dimension], total);
        sums[part * head_dim + dimension] = total;
    }
    __syncthreads();
    if (part == 0) {
        float total = 0;
        for (uint32_t i = 0; i < parts; i++)
            total += sums[i * head_dim + dimension];
        p.a.out[(size_t)blockIdx.x * head_dim + dimension] = total * (1 / sum);
    }
}

/* ---- the operation ---- */

typedef void step_function(const step_arguments);

template <int CACHE> static step_function *step_of(uint32_t queries) {
    return queries == 1   ? step_attention_kernel<CACHE, 1>
           : queries == 4 ? step_attention_kernel<CACHE, 4>
                          : step_attention_kernel<CACHE, QUERIES_MOST>;
}

void run_step_attention(cuda_device *device, const cuda_step_attention *attention) {
    step_arguments p = {};
    p.a = *attention;
    p.group = attention->heads / attention->kv_heads;
    p.shares = shares_of(attention);
    p.query_blocks = ceil_div(p.group, QUERIES_MOST);
    const uint32_t queries = p.group == 1 ? 1 : p.group <= 4 ? 4 : QUERIES_MOST;
    const int cache = attention->cache;
    p.wide = (size_t)attention->head_dim * element_bytes(cache) % unit_bytes(cache) == 0 &&
             ((uintptr_t)attention->cache_keys | (uintptr_t)attention->cache_values) % sizeof(uint4) == 0;
    const size_t row = row_stride(cache, attention->head_dim);
    for (p.tile = TILE_MOST; p.tile > TILE_LEAST && 2 * p.tile * row > TILE_BYTES;)
        p.tile /= 2;
    step_function *kernel = cache == CUDA_F32    ? step_of<CUDA_F32>(queries)
                            : cache == CUDA_BF16 ? step_of<CUDA_BF16>(queries)
                                                 : step_of<CUDA_E4M3>(queries);
    launch(device, "step_attention", kernel, dim3(p.shares * p.query_blocks, attention->kv_heads), STEP_THREADS,
           shared_bytes(cache, attention->head_dim, queries, p.tile), p);
    launch(device, "step_attention", step_merge_kernel, dim3(attention->heads), MERGE_THREADS,
           (WARP + SHARES_MOST + MERGE_THREADS) * sizeof(float), p);
}

/* ---- filling the cache ---- */

enum { FILL_THREADS = 256, FILL_WARPS = FILL_THREADS / WARP };

struct fill_arguments {
    const void *source;
    void *to;
    uint32_t tokens, kv_heads, head_dim, positions;
};

/* A warp has a token's head. */
template <int ACT, int CACHE>
__global__ static void __launch_bounds__(FILL_THREADS) cache_fill_kernel(const fill_arguments a) {
    const size_t row = (size_t)blockIdx.x * FILL_WARPS + threadIdx.x / WARP;
    if (row >= (size_t)a.tokens * a.kv_heads)
        return;
    const size_t token = row / a.kv_heads, head = row % a.kv_heads;
    unsigned char *to = (unsigned char *)a.to + (head * a.positions + token) * a.head_dim * element_bytes(CACHE);
    for (uint32_t i = threadIdx.x % WARP; i < a.head_dim; i += WARP)
        value_store<CACHE>(to, i,
                           ACT == CUDA_F32 ? ((const float *)a.source)[row * a.head_dim + i]
                                           : bf16_value(((const uint16_t *)a.source)[row * a.head_dim + i]));
}

typedef void fill_function(const fill_arguments);

template <int ACT> static fill_function *fill_of(int cache) {
    return cache == CUDA_F32    ? cache_fill_kernel<ACT, CUDA_F32>
           : cache == CUDA_BF16 ? cache_fill_kernel<ACT, CUDA_BF16>
                                : cache_fill_kernel<ACT, CUDA_E4M3>;
}

void run_cache_fill(cuda_device *device, const void *source, cuda_type act, uint32_t tokens, uint32_t kv_heads,
                    uint32_t head_dim, cuda_type cache, void *to, uint32_t positions) {
    const fill_arguments a = {source, to, tokens, kv_heads, head_dim, positions};
    launch(device, "cache_fill", act == CUDA_F32 ? fill_of<CUDA_F32>(cache) : fill_of<CUDA_BF16>(cache),
           dim3(ceil_div((uint64_t)tokens * kv_heads, FILL_WARPS)), FILL_THREADS, 0, a);
}
