/*
 * What the kernels of attention share: which rows a block has, which keys they see, and the launch for all windows.
 *
 * Rows are (token, query head of the group), token after token: the heads that share keys and values fill a tile together,
 * so that short windows fill it too, tiles at the diagonal waste little, and keys are read by fewer blocks.
 */
#ifndef QSTREAM_INFER_CUDA_ATTENTION_CUH
#define QSTREAM_INFER_CUDA_ATTENTION_CUH

#include "infer/cuda/device.cuh"

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

/* A block of the grid: rows in x, key-value head in y, window in z. `rows`: of a block. */
static inline void windows_launch(cuda_device *device, void (*kernel)(const cuda_attention), unsigned threads,
                                  uint32_t rows, size_t shared, const cuda_attention *attention) {
    const uint32_t GRID_MOST = 65535; /* blocks in z */
    const uint64_t most_rows = (uint64_t)attention->longest * (attention->heads / attention->kv_heads);
    /* what sees all needs no second bound */
    const uint32_t sliding = attention->sliding < attention->longest ? attention->sliding : 0;
    for (uint32_t first = 0; first < attention->window_count; first += GRID_MOST) {
        const uint32_t rest = attention->window_count - first;
        cuda_attention part = *attention;
        part.sliding = sliding;
        part.windows += first;
        part.window_count = rest < GRID_MOST ? rest : GRID_MOST;
        const dim3 grid(ceil_div(most_rows, rows), attention->kv_heads, part.window_count);
        launch(device, "attention", kernel, grid, threads, shared, part);
    }
}

void run_attention_f32(cuda_device *device, const cuda_attention *attention);

#endif
