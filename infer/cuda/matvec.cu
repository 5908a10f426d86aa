/*
 * y = weight * x of one token. Bound by reading the weight once: a warp takes
 * MATVEC_ROWS rows at once, 16 bytes of each per lane (a chunk), so that what it has read of x serves all of them, and
 * asks for its next chunks before it works on these. Where rows are too few to fill the device, their columns are divided
 * over the warps of a block, whose sums are added in their order.
 *
 * MXFP4 is multiplied in integers (see prepared.cuh), exactly within a block of 32 columns; then, as all other formats
 * from the start, in float32. MXFP4 leaves the least time per weight. What the memory leaves, in issue slots of a lane, at
 * 4 x 32 of them per clock of 1.7 GHz, and what the loop takes by sm_90's machine code, all of it:
 *
 * |       | H100, 3.35 TB/s | H200, 4.8 TB/s | taken                                                               |
 * | MXFP4 | 4.6             | 3.2            | 2.6: 0.5 byte permutations, 0.5 dot products, 0.7 shifts, logic and |
 * |       |                 |                | additions, 0.1 scales, the rest loads, addresses and moves          |
 * | FP8   | 8.6             | 6.0            | 4.2: 0.5 to float16, 1 to float32, 1.1 sums                         |
 * | BF16  | 17              | 12             | 3.8                                                                 |
 *
 * 20 warps on a multiprocessor each wait for 2 KiB at almost all times: 40 KiB, where 3.35 TB/s at 800 ns need 20 and 4.8
 * TB/s 29.
 *
 * A row that does not begin at a multiple of 16 bytes, and scales that change inside a chunk, take a plain path: the same,
 * but a chunk is read byte by byte.
 */
#include "infer/cuda/chunk.cuh"
#include "infer/cuda/warp.cuh"

enum { MATVEC_ROWS = 4, MATVEC_WARPS = 4, MATVEC_THREADS = MATVEC_WARPS * WARP };

/* What becomes of the sums: those of cuda_matvec_use; and `to` = silu(to) * y, the second of two launches. */
enum matvec_end { END_Y, END_ADD, END_SWIGLU, END_GATE };

struct matvec_item {
    const unsigned char *codes;
    const uint8_t *exponents;
    const float *scales, *bias;
    const unsigned char *prepared;
    float *y;
    uint32_t rows, columns;
    uint32_t scale_rows, scale_run, scale_across; /* columns of a scale; scales of a row */
    uint32_t first;                               /* number of its first block of threads */
};

struct matvec_arguments {
    matvec_item items[CUDA_MATVECS];
    unsigned count;
    matvec_end end;
    unsigned split; /* warps that the columns are divided over */
    float *to;
};

/* ---- chunks ---- */

template <int FORMAT> __host__ __device__ constexpr bool has_exponents() {
    return FORMAT == WEIGHT_MXFP4 || FORMAT == WEIGHT_MXFP8;
}

__device__ static inline size_t row_bytes(int format, uint32_t columns) {
    return (size_t)columns * CHUNK_BYTES / chunk_columns(format);
}

/* A chunk byte by byte; zeros behind the `left` bytes of the row. */
__device__ static inline uint4 load_bytes(const unsigned char *at, size_t left) {
    uint32_t words[4] = {0, 0, 0, 0};
    UNROLL
    for (uint32_t i = 0; i < CHUNK_BYTES; i++)
        if (i < left)
            words[i / 4] |= (uint32_t)at[i] << (8 * (i % 4));
    return make_uint4(words[0], words[1], words[2], words[3]);
}

/* ---- rows ---- */

/* The rows of an item that a block multiplies: where they begin. Inside 32 bits are enough to find a place. */
struct block_rows {
    const unsigned char *codes;
    const uint8_t *exponents;
};

/* What a lane reads of a row in a step. */
struct matvec_chunk {
    uint4 codes;
    uint32_t exponent;
    float scale; /* of FP8, 1 where a row has but one */
};

/*
 * The chunk `at` bytes into the rows, of which `left` are before the row's end; there *out stays as it is: x is 0.
 * `scales`: of the row, where it has several; the chunk's is the one of that number.
 */
template <int FORMAT, bool PLAIN>
__device__ static inline void chunk_load(const block_rows &rows, uint32_t at, uint32_t left, bool several,
                                         const float *scales, uint32_t number, matvec_chunk &out) {
    if (left == 0)
        return;
    if (PLAIN)
        out.codes = load_bytes(rows.codes + at, left);
    else
        out.codes = load_once(rows.codes + at);
    if (has_exponents<FORMAT>())
        out.exponent = __ldg(rows.exponents + at / (CHUNK_BYTES * MX_BLOCK / chunk_columns(FORMAT)));
    if (FORMAT == WEIGHT_FP8 && !PLAIN && several)
        out.scale = __ldg(scales + number);
}

/* Which scale of a row a column has, as it moves on by always the same: without a division. */
struct scale_number {
    uint32_t number, inside, numbers, rest;

    __device__ inline scale_number(const matvec_item &item, uint32_t column, uint32_t columns)
        : number(column / item.scale_run), inside(column % item.scale_run), numbers(columns / item.scale_run),
          rest(columns % item.scale_run) {}
    __device__ inline void move(const matvec_item &item) {
        number += numbers;
        inside += rest;
        if (inside >= item.scale_run) {
            inside -= item.scale_run;
            number++;
        }
    }
};

/* Adds the product of a chunk. `column`: its first; `scales`: of the row, of the plain path. */
template <int FORMAT, bool PLAIN> struct chunk_add {
    const matvec_item &item;

    __device__ inline chunk_add(const matvec_item &item) : item(item) {}
    __device__ inline float operator()(const matvec_chunk &chunk, const chunk_x<FORMAT> &x, const float *scales,
                                       uint32_t column, float sum) const {
        float values[chunk_columns(FORMAT)];
        chunk_decode<FORMAT>(chunk.codes, values);
        if (FORMAT == WEIGHT_FP8 && PLAIN && item.scale_across > 1)
            for (uint32_t i = 0; i < chunk_columns(FORMAT); i++)
                values[i] *= column + i < item.columns ? scales[(column + i) / item.scale_run] : 0;
        const float dot = float_dot<FORMAT>(values, x);
        if (FORMAT == WEIGHT_MXFP8)
            return fmaf(dot, exponent_power(chunk.exponent), sum);
        if (FORMAT == WEIGHT_FP8)
            return fmaf(dot, chunk.scale, sum);
        return sum + dot;
    }
};

template <bool PLAIN> struct chunk_add<WEIGHT_MXFP4, PLAIN> {
    const e2m1_tables tables;

    __device__ inline chunk_add(const matvec_item &item) : tables(((const prepared_header *)item.prepared)->tables) {}
    __device__ inline float operator()(const matvec_chunk &chunk, const chunk_x<WEIGHT_MXFP4> &x, const float *,
                                       uint32_t, float sum) const {
        /* Powers of two: their product is exact, and too small only where that of all is. */
        return fmaf(mxfp4_dot(tables, chunk.codes, x), exponent_power(chunk.exponent) * x.scale, sum);
    }
};

/* The sums of all lanes of each row: lanes 8 r .. 8 r + 7 get that of row r. */
__device__ static inline float rows_reduce(const float sums[MATVEC_ROWS], uint32_t lane) {
    static_assert(MATVEC_ROWS == 4, "two exchanges leave one row");
    const bool second = lane & 16, odd = lane & 8;
    float even_row = second ? sums[2] : sums[0], odd_row = second ? sums[3] : sums[1];
    even_row += __shfl_xor_sync(FULL_WARP, second ? sums[0] : sums[2], 16);
    odd_row += __shfl_xor_sync(FULL_WARP, second ? sums[1] : sums[3], 16);
    float sum = odd ? odd_row : even_row;
    sum += __shfl_xor_sync(FULL_WARP, odd ? even_row : odd_row, 8);
    for (int other = 4; other > 0; other /= 2)
        sum += __shfl_xor_sync(FULL_WARP, sum, other);
    return sum;
}

/* ---- the kernel ---- */

/*
 * What a block multiplies: groups of MATVEC_ROWS rows from `row` on. Of END_SWIGLU the first half of a group is of item
 * 0, the second, with the same numbers, of item 1.
 */
struct block_part {
    uint32_t item, row, groups;
    bool paired;

    __device__ inline uint32_t item_of(uint32_t i) const { return paired ? i / (MATVEC_ROWS / 2) : item; }
    /* Row number i of a group, counted from `row`. */
    __device__ inline uint32_t row_of(uint32_t group, uint32_t i) const {
        return paired ? group * (MATVEC_ROWS / 2) + i % (MATVEC_ROWS / 2) : group * MATVEC_ROWS + i;
    }
};

__device__ static inline block_part part_find(const matvec_arguments &a) {
    block_part part;
    part.paired = a.end == END_SWIGLU;
    part.groups = MATVEC_WARPS / a.split;
    part.item = 0;
    while (!part.paired && part.item + 1 < a.count && blockIdx.x >= a.items[part.item + 1].first)
        part.item++;
    part.row = (blockIdx.x - a.items[part.item].first) * part.row_of(part.groups, 0);
    return part;
}

/*
 * The sums of the rows of a group over the steps first, first + split, .. The next chunks of all rows are asked for before
 * these are worked on.
 */
template <int FORMAT, bool PLAIN>
__device__ static inline void group_sums(const matvec_arguments &a, const block_part &part, uint32_t group,
                                         uint32_t first, uint32_t lane, float sums[MATVEC_ROWS]) {
    const matvec_item &item = a.items[part.item]; /* gate and up have the same shape and x */
    const uint32_t steps = prepared_steps(FORMAT, item.columns), stride = a.split * WARP * CHUNK_BYTES;
    const uint32_t row_size = (uint32_t)row_bytes(FORMAT, item.columns);
    const chunk_add<FORMAT, PLAIN> add(item);
    typename chunk_x<FORMAT>::place place;
    place.find(item.prepared, item.columns, lane);
    place.move(first);
    block_rows rows[2];
    UNROLL
    for (uint32_t i = 0; i < 2; i++) {
        const matvec_item &own = a.items[part.item_of(i * MATVEC_ROWS / 2)];
        rows[i].codes = own.codes + part.row * row_bytes(FORMAT, item.columns);
        rows[i].exponents =
            has_exponents<FORMAT>() ? own.exponents + (size_t)part.row * (item.columns / MX_BLOCK) : nullptr;
    }
    uint32_t begin = (first * WARP + lane) * CHUNK_BYTES, left = begin < row_size ? row_size - begin : 0;
    scale_number scale(item, begin / CHUNK_BYTES * chunk_columns(FORMAT), stride / CHUNK_BYTES * chunk_columns(FORMAT));
    const bool several = FORMAT == WEIGHT_FP8 && item.scale_across > 1;
    uint32_t at[MATVEC_ROWS];
    const float *scales[MATVEC_ROWS];
    matvec_chunk next[MATVEC_ROWS];
    UNROLL
    for (uint32_t i = 0; i < MATVEC_ROWS; i++) {
        /* behind the last row it is read again, and not used */
        const uint32_t last = item.rows - 1 - part.row, row = part.row_of(group, i);
        const uint32_t inside = row < last ? row : last;
        at[i] = begin + inside * row_size;
        scales[i] = nullptr;
        const matvec_item &own = a.items[part.item_of(i)];
        if (several)
            scales[i] = own.scales + (size_t)((part.row + inside) / own.scale_rows) * item.scale_across;
        next[i] = {};
        next[i].scale = 1;
        chunk_load<FORMAT, PLAIN>(rows[i / (MATVEC_ROWS / 2)], at[i], left, several, scales[i], scale.number, next[i]);
    }
    for (uint32_t step = first; step < steps; step += a.split) {
        chunk_x<FORMAT> x;
        matvec_chunk now[MATVEC_ROWS];
        const uint32_t column = begin / CHUNK_BYTES * chunk_columns(FORMAT);
        begin += stride;
        left = begin < row_size ? row_size - begin : 0;
        if (FORMAT == WEIGHT_FP8)
            scale.move(item);
        UNROLL
        for (uint32_t i = 0; i < MATVEC_ROWS; i++) {
            now[i] = next[i];
            at[i] += stride;
            chunk_load<FORMAT, PLAIN>(rows[i / (MATVEC_ROWS / 2)], at[i], left, several, scales[i], scale.number,
                                      next[i]);
        }
        x.load(place);
        place.move(a.split);
        UNROLL
        for (uint32_t i = 0; i < MATVEC_ROWS; i++)
            sums[i] = add(now[i], x, scales[i], column, sums[i]);
    }
}

/* The value of a row: all factors and the bias. */
template <int FORMAT> __device__ static inline float row_value(const matvec_item &item, uint32_t row, float sum) {
    if (FORMAT == WEIGHT_MXFP4)
        sum *= 0.5f;
    if (FORMAT == WEIGHT_FP8 || FORMAT == WEIGHT_MXFP8)
        sum *= E4M3_FACTOR;
    if (FORMAT == WEIGHT_FP8 && item.scale_across == 1)
        sum *= item.scales[row / item.scale_rows];
    sum *= ((const prepared_header *)item.prepared)->factor;
    return item.bias ? sum + item.bias[row] : sum;
}

__device__ static inline float silu(float x) { return x / (1 + expf(-x)); }

template <int FORMAT, bool PLAIN>
__global__ static void __launch_bounds__(MATVEC_THREADS, PLAIN ? 1 : 5) matvec_kernel(const matvec_arguments a) {
    SHARED_MEMORY(shared);
    float *partial = (float *)shared; /* [MATVEC_WARPS][MATVEC_ROWS] */
    const uint32_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const block_part part = part_find(a);
    float sums[MATVEC_ROWS] = {0, 0, 0, 0};
    group_sums<FORMAT, PLAIN>(a, part, warp / a.split, warp % a.split, lane, sums);
    const float sum = rows_reduce(sums, lane);
    if (lane % (WARP / MATVEC_ROWS) == 0)
        partial[warp * MATVEC_ROWS + lane / (WARP / MATVEC_ROWS)] = sum;
    __syncthreads();
    const uint32_t i = threadIdx.x % MATVEC_ROWS, group = threadIdx.x / MATVEC_ROWS;
    if (group >= part.groups || (part.paired && i >= MATVEC_ROWS / 2))
        return;
    const uint32_t number = part.item_of(i), row = part.row + part.row_of(group, i);
    if (row >= a.items[number].rows)
        return;
    float total = 0, up = 0;
    for (uint32_t warp_of = group * a.split; warp_of < (group + 1) * a.split; warp_of++) {
        total += partial[warp_of * MATVEC_ROWS + i];
        if (part.paired)
            up += partial[warp_of * MATVEC_ROWS + i + MATVEC_ROWS / 2];
    }
    const float y = row_value<FORMAT>(a.items[number], row, total);
    if (a.end == END_Y)
        a.items[number].y[row] = y;
    else if (a.end == END_ADD)
        a.to[row] += y;
    else if (a.end == END_SWIGLU)
        a.to[row] = silu(y) * row_value<FORMAT>(a.items[1], row, up);
    else
        a.to[row] = silu(a.to[row]) * y;
}

/* ---- the operation ---- */

static size_t weight_row_size(const weight *weight) {
    return (size_t)weight->columns * CHUNK_BYTES / chunk_columns(weight->format);
}

static uint32_t scale_run(const weight *weight) {
    return weight->scale_columns < weight->columns ? weight->scale_columns : weight->columns;
}

static bool weight_plain(const weight *weight) {
    return weight_row_size(weight) % CHUNK_BYTES != 0 || (uintptr_t)weight->codes % CHUNK_BYTES != 0 ||
           (weight->format == WEIGHT_FP8 && scale_run(weight) < weight->columns &&
            scale_run(weight) % chunk_columns(WEIGHT_FP8) != 0);
}

static void item_set(const cuda_matvec *from, matvec_item *item) {
    const weight *weight = from->weight;
    item->codes = (const unsigned char *)weight->codes;
    item->exponents = weight->exponents;
    item->scales = weight->scales;
    item->bias = weight->bias;
    item->prepared = (const unsigned char *)from->prepared;
    item->y = from->y;
    item->rows = weight->rows;
    item->columns = weight->columns;
    item->scale_rows = item->scale_run = item->scale_across = 1;
    if (weight->format == WEIGHT_FP8) {
        item->scale_rows = weight->scale_rows;
        item->scale_run = scale_run(weight);
        item->scale_across = ceil_div(weight->columns, item->scale_run);
    }
}

typedef void matvec_function(const matvec_arguments);

template <bool PLAIN> static matvec_function *matvec_of(int format) {
    switch (format) {
    case WEIGHT_F32:
        return matvec_kernel<WEIGHT_F32, PLAIN>;
    case WEIGHT_F16:
        return matvec_kernel<WEIGHT_F16, PLAIN>;
    case WEIGHT_BF16:
        return matvec_kernel<WEIGHT_BF16, PLAIN>;
    case WEIGHT_FP8:
        return matvec_kernel<WEIGHT_FP8, PLAIN>;
    case WEIGHT_MXFP8:
        return matvec_kernel<WEIGHT_MXFP8, PLAIN>;
    default:
        return matvec_kernel<WEIGHT_MXFP4, PLAIN>;
    }
}

/*
 * How many warps the columns of a row are divided over: as long as there are fewer than WARPS_WANTED of them for each
 * multiprocessor, two rounds of what it runs at once, and steps for all.
 */
static unsigned split_of(const cuda_device *device, uint32_t groups, uint32_t steps) {
    enum { WARPS_WANTED = 40 };
    unsigned split = 1;
    while (split < MATVEC_WARPS && 2 * split <= steps &&
           (uint64_t)groups * split < (uint64_t)device->multiprocessors * WARPS_WANTED)
        split *= 2;
    return split;
}

/* Weights of one format, all plain or none. */
static void matvec_launch(cuda_device *device, const cuda_matvec *items, unsigned count, matvec_end end, float *to) {
    const int format = items[0].weight->format;
    const uint32_t group_rows = end == END_SWIGLU ? MATVEC_ROWS / 2 : MATVEC_ROWS,
                   weights = end == END_SWIGLU ? 1 : count;
    matvec_arguments a = {};
    a.count = count;
    a.end = end;
    a.to = to;
    uint32_t steps = UINT32_MAX, groups = 0, blocks = 0;
    for (unsigned i = 0; i < count; i++) {
        item_set(&items[i], &a.items[i]);
        const uint32_t own = prepared_steps(format, items[i].weight->columns);
        steps = own < steps ? own : steps;
    }
    for (unsigned i = 0; i < weights; i++)
        groups += ceil_div(items[i].weight->rows, group_rows);
    a.split = split_of(device, groups, steps);
    for (unsigned i = 0; i < weights; i++) {
        a.items[i].first = blocks;
        blocks += ceil_div(items[i].weight->rows, MATVEC_WARPS / a.split * group_rows);
    }
    launch(device, "matvec", weight_plain(items[0].weight) ? matvec_of<true>(format) : matvec_of<false>(format),
           dim3(blocks), MATVEC_THREADS, MATVEC_WARPS * MATVEC_ROWS * sizeof(float), a);
}

static bool kernels_same(const cuda_matvec *a, const cuda_matvec *b) {
    return a->weight->format == b->weight->format && weight_plain(a->weight) == weight_plain(b->weight);
}

void run_matvec(cuda_device *device, const cuda_matvec *items, unsigned count, cuda_matvec_use use, float *to) {
    if (count == 0)
        return;
    if (use == MATVEC_ADD) {
        matvec_launch(device, items, 1, END_ADD, to);
        return;
    }
    if (use == MATVEC_SWIGLU) {
        const bool together = kernels_same(&items[0], &items[1]) && items[0].prepared == items[1].prepared &&
                              items[0].weight->columns == items[1].weight->columns &&
                              scale_run(items[0].weight) == scale_run(items[1].weight);
        if (together) {
            matvec_launch(device, items, 2, END_SWIGLU, to);
            return;
        }
        cuda_matvec gate = items[0];
        gate.y = to;
        matvec_launch(device, &gate, 1, END_Y, to);
        matvec_launch(device, &items[1], 1, END_GATE, to);
        return;
    }
    for (unsigned i = 0, same; i < count; i += same) {
        for (same = 1; i + same < count && kernels_same(&items[i], &items[i + same]);)
            same++;
        matvec_launch(device, items + i, same, END_Y, to);
    }
}
