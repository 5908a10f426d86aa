/*
 * What the threads of a block do together. A function of a warp is a meeting of the lanes in `mask`: each waits until all
 * have come, and then the last one works for all. For functions with two bodies (PTX, or this):
 *
 *     model_warp_exchange: all lanes get the bytes of all 32 lanes.
 *     model_mma_m16n8k16_bf16: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32.
 *     model_ldmatrix: ldmatrix.sync.aligned.m8n8.xN[.trans].shared.b16.
 *
 * None of them orders memory accesses, as in CUDA; __syncwarp and __syncthreads do.
 */
#ifndef QSTREAM_CUDA_MODEL_WARP_MODEL_H
#define QSTREAM_CUDA_MODEL_WARP_MODEL_H

#include <cstddef>
#include <cstdint>

#define MODEL_CALLER const char *file = __builtin_FILE(), int line = __builtin_LINE()

/* The block's dynamic shared memory, aligned to 16 and no more, filled with poison before each block. */
unsigned char *model_shared_memory();

void model_syncthreads(const char *file, int line);
void model_syncwarp(unsigned mask, const char *file, int line);
void model_fence();
unsigned model_lane();

enum model_shuffle_kind { MODEL_SHUFFLE_LANE, MODEL_SHUFFLE_XOR, MODEL_SHUFFLE_DOWN, MODEL_SHUFFLE_UP };
uint64_t model_shuffle(unsigned mask, uint64_t bits, model_shuffle_kind kind, unsigned by, int width, const char *file,
                       int line);
unsigned model_ballot(unsigned mask, bool predicate, const char *file, int line);

/* `all`: 32 * bytes, lane after lane. Of all 32 lanes. */
void model_warp_exchange(const void *mine, size_t bytes, void *all, MODEL_CALLER);

/*
 * d = a * b + c. Fragments as the PTX ISA lays them out; with group = lane / 4 and pair = lane % 4, and in each register
 * the lower column (a) or row (b) in the low half:
 *     a, 16x16: a[0] row group, columns 2 pair, 2 pair + 1; a[1] row group + 8; a[2], a[3]: the same, columns + 8
 *     b, 16x8: column group; b[0] rows 2 pair, 2 pair + 1; b[1] rows + 8
 *     c, d, 16x8: [0], [1] row group, columns 2 pair, 2 pair + 1; [2], [3] row group + 8
 */
void model_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4], MODEL_CALLER);

/* `count` 1, 2 or 4 matrices of 8x8 16-bit numbers; `row` of lanes 8 i .. 8 i + 7 is where the rows of matrix i begin.
 * Each row is read by the lane that names it, and here, where sanitizers see it. */
void model_ldmatrix_rows(uint32_t *registers, int count, bool transposed, const uint16_t row[8], const char *file,
                         int line);
static inline void model_ldmatrix(uint32_t *registers, int count, bool transposed, const void *row, MODEL_CALLER) {
    struct alignas(16) row_type {
        uint16_t values[8];
    } own = {};
    if ((int)model_lane() < 8 * count)
        own = *(const row_type *)row;
    model_ldmatrix_rows(registers, count, transposed, own.values, file, line);
}

/* ---- copies that run beside the threads: cp.async ---- */

/*
 * model_copy_async: cp.async.cg/ca of 4, 8 or 16 bytes, of which `read` come from `from`, the rest are zeros. The copy is made
 * at its wait, with QSTREAM_MODEL_ORDER=reverse at once, and in random order at one of the two. Others see it after a barrier.
 * model_copy_async_commit: cp.async.commit_group. model_copy_async_wait: cp.async.wait_group, all but the last `left`
 * groups. model_copy_async_wait_all: cp.async.wait_all.
 */
struct model_copy {
    void *to;
    const void *from;
    unsigned bytes, read;
};
static inline void model_copy_now(const model_copy &copy) {
    unsigned char *const to = (unsigned char *)copy.to;
    for (unsigned i = 0; i < copy.bytes; i++)
        to[i] = i < copy.read ? ((const unsigned char *)copy.from)[i] : 0;
}
bool model_copy_later(const model_copy &copy); /* false: it is to be made at once */
bool model_copy_take(unsigned left, model_copy *copy);
void model_copy_async_commit();

static inline void model_copy_async(void *to, const void *from, unsigned bytes, unsigned read) {
    const model_copy copy = {to, from, bytes, read};
    if (!model_copy_later(copy))
        model_copy_now(copy);
}
static inline void model_copy_async_wait(unsigned left) {
    model_copy copy;
    while (model_copy_take(left, &copy))
        model_copy_now(copy);
}
static inline void model_copy_async_wait_all() {
    model_copy_async_commit();
    model_copy_async_wait(0);
}

#endif
