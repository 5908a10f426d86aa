/*
 * Matrix product: panels of both sides are brought into float32 and the order they are read in, and tiles of 16 x 6 are
 * summed in registers, in the order of k. The tile is compiled twice on x86-64, for AVX2 and for any processor.
 */
#include "product.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "infer/cuda/numbers.cuh"
#include "model.h"

namespace model {

enum { TILE_M = 16, TILE_N = 6, DEPTH = 384, PANEL_M = 192 };

typedef float eight __attribute__((vector_size(32), aligned(32)));

size_t type_bytes(cudaDataType_t type) { return type == CUDA_R_32F ? 4 : type == CUDA_R_8F_E4M3 ? 1 : 2; }

static float value_at(const void *values, cudaDataType_t type, size_t i) {
    switch (type) {
    case CUDA_R_32F:
        return ((const float *)values)[i];
    case CUDA_R_16BF:
        return bf16_value(((const uint16_t *)values)[i]);
    case CUDA_R_16F:
        return f16_value(((const uint16_t *)values)[i]);
    case CUDA_R_8F_E4M3:
        break;
    }
    static const auto table = [] {
        std::vector<float> values_of(256);
        for (unsigned code = 0; code < 256; code++)
            values_of[code] = e4m3_value(code);
        return values_of;
    }();
    return table[((const uint8_t *)values)[i]];
}

/* sums[n][m] += the product of panels a [depth][16] and b [depth][6]. */
static inline __attribute__((always_inline)) void tile(const float *a, const float *b, size_t depth, float *sums) {
    eight sum[TILE_N][2];
    for (int n = 0; n < TILE_N; n++)
        for (int half = 0; half < 2; half++)
            sum[n][half] = ((const eight *)sums)[2 * n + half];
    for (size_t i = 0; i < depth; i++, a += TILE_M, b += TILE_N) {
        const eight low = ((const eight *)a)[0], high = ((const eight *)a)[1];
#pragma GCC unroll 6
        for (int n = 0; n < TILE_N; n++) {
            sum[n][0] += low * b[n];
            sum[n][1] += high * b[n];
        }
    }
    for (int n = 0; n < TILE_N; n++)
        for (int half = 0; half < 2; half++)
            ((eight *)sums)[2 * n + half] = sum[n][half];
}

static void tile_any(const float *a, const float *b, size_t depth, float *sums) { tile(a, b, depth, sums); }
#if defined(__x86_64__)
__attribute__((target("avx2"))) static void tile_avx2(const float *a, const float *b, size_t depth, float *sums) {
    tile(a, b, depth, sums);
}
#endif

/*
 * Rows [first, first + rows) of `from`, whose row i is at i * row_step and column j at j * column_step, in panels of
 * `width` rows: [rows / width][depth][width], 0 beyond.
 */
static void pack(const matrix &from, bool rows_contiguous, size_t first, size_t rows, size_t k, size_t depth,
                 size_t width, float *to) {
    for (size_t panel = 0; panel < rows; panel += width, to += depth * width) {
        const size_t count = std::min(width, rows - panel);
        if (count < width)
            std::fill(to, to + depth * width, 0.0f);
        for (size_t r = 0; r < count; r++) {
            const size_t row = first + panel + r;
            const size_t begin = rows_contiguous ? row + k * from.leading : row * from.leading + k,
                         step = rows_contiguous ? from.leading : 1;
            for (size_t i = 0; i < depth; i++)
                to[i * width + r] = value_at(from.values, from.type, begin + i * step);
        }
    }
}

static void store(const product &work, size_t m, size_t n, float sum) {
    const size_t to = n * work.d_leading + m;
    float value = work.alpha * sum;
    if (work.beta != 0)
        value += work.beta * value_at(work.c.values, work.c.type, n * work.c.leading + m);
    if (work.d_type == CUDA_R_32F)
        ((float *)work.d)[to] = value;
    else
        ((uint16_t *)work.d)[to] = bf16_code(value);
}

static size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

struct free_it {
    void operator()(float *memory) const { free(memory); }
};
typedef std::unique_ptr<float[], free_it> floats;
static floats floats_new(size_t count) {
    void *memory;
    if (posix_memalign(&memory, 64, (count + 16) * sizeof(float)) != 0)
        fault("no memory for a product");
    return floats((float *)memory);
}

void product_run(const product &work) {
    void (*tile_function)(const float *, const float *, size_t, float *) = tile_any;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2"))
        tile_function = tile_avx2;
#endif
    const size_t n_all = round_up(work.n, TILE_N);
    const floats a = floats_new(PANEL_M * DEPTH), b = floats_new(n_all * work.k), sums = floats_new(PANEL_M * n_all);
    /* all of b, one depth after another */
    for (size_t k = 0; k < work.k; k += DEPTH)
        pack(work.b, work.b.transposed, 0, work.n, k, std::min((size_t)DEPTH, work.k - k), TILE_N, &b[k * n_all]);
    for (size_t m = 0; m < work.m; m += PANEL_M) {
        const size_t rows = std::min((size_t)PANEL_M, work.m - m), tiles = (rows + TILE_M - 1) / TILE_M;
        std::fill(&sums[0], &sums[tiles * TILE_M * n_all], 0.0f);
        for (size_t k = 0; k < work.k; k += DEPTH) {
            const size_t depth = std::min((size_t)DEPTH, work.k - k);
            pack(work.a, !work.a.transposed, m, rows, k, depth, TILE_M, &a[0]);
            for (size_t n = 0; n < n_all; n += TILE_N)
                for (size_t t = 0; t < tiles; t++)
                    tile_function(&a[t * TILE_M * depth], &b[k * n_all + n * depth], depth,
                                  &sums[(t * n_all + n) * TILE_M]);
        }
        for (size_t n = 0; n < work.n; n++)
            for (size_t row = 0; row < rows; row++)
                store(work, m + row, n, sums[(row / TILE_M * n_all + n) * TILE_M + row % TILE_M]);
    }
}

} // namespace model
