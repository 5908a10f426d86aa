/*
 * Functions of a warp. Each lane leaves a pointer to its arguments, which lie on its own stack; the last lane to come works on
 * all of them, results included, and makes all ready.
 */
#include <cstdio>

#include "block.h"

#ifdef MODEL_TSAN
#include <sanitizer/tsan_interface.h>
#endif

using namespace model;

namespace {

struct meeting {
    unsigned mask;
    void *lanes[WARP]; /* arguments; NULL: not in mask */
};

/*
 * Lanes that meet have to name the same function, variety and mask. `work` is run once, by the last to come.
 */
template <typename Work>
void meet(const char *function, uint64_t variety, unsigned mask, void *arguments, const char *file, int line,
          Work work) {
    thread *const self = thread_self();
    warp *const own = warp_self();
    const unsigned lane = self->number % WARP;
    self->function = function;
    self->variety = variety;
    self->mask = mask;
    self->arguments = arguments;
    self->file = file;
    self->line = line;
    self->state = IN_WARP;
    if ((mask >> lane & 1) == 0)
        block_fault("thread %u calls %s with mask %08x, which leaves it out", self->number, function, mask);
    own->waiting |= 1u << lane;
    thread *const first = self - lane;
    bool complete = (own->waiting & mask) == mask;
    for (unsigned i = 0; i < WARP && complete; i++)
        if (mask >> i & 1)
            complete = first[i].function == function && first[i].variety == variety && first[i].mask == mask;
    if (complete) {
        meeting all = {mask, {}};
        for (unsigned i = 0; i < WARP; i++)
            all.lanes[i] = mask >> i & 1 ? first[i].arguments : nullptr;
        work(all);
        own->waiting &= ~mask;
        own->syncs++;
        const bool reverse = setting().order == settings::REVERSE;
        for (unsigned i = 0; i < WARP; i++) {
            const unsigned woken = reverse ? WARP - 1 - i : i;
            if (mask >> woken & 1)
                thread_ready(&first[woken]);
        }
    }
    thread_park();
}

struct shuffle {
    uint64_t bits, result;
    unsigned by;
};

const char SHUFFLE[] = "__shfl_sync", BALLOT[] = "__ballot_sync", SYNCWARP[] = "__syncwarp",
           EXCHANGE[] = "model_warp_exchange", MMA[] = "mma", LDMATRIX[] = "ldmatrix";

void shuffle_all(const meeting &all, model_shuffle_kind kind, unsigned width) {
    const uint64_t unknown = setting().poison * 0x0101010101010101u;
    for (unsigned lane = 0; lane < WARP; lane++) {
        shuffle *const own = (shuffle *)all.lanes[lane];
        if (own == nullptr)
            continue;
        const unsigned part = lane / width * width;
        unsigned from = lane; /* where the source would be beyond the part: the own value */
        if (kind == MODEL_SHUFFLE_LANE)
            from = part + own->by % width;
        else if (kind == MODEL_SHUFFLE_XOR && (lane ^ own->by) < part + width)
            from = lane ^ own->by;
        else if (kind == MODEL_SHUFFLE_DOWN && lane + own->by < part + width)
            from = lane + own->by;
        else if (kind == MODEL_SHUFFLE_UP && lane >= part + own->by)
            from = lane - own->by;
        /* what a lane outside of the mask has is not defined */
        own->result = all.lanes[from] ? ((const shuffle *)all.lanes[from])->bits : unknown;
    }
}

} // namespace

uint64_t model_shuffle(unsigned mask, uint64_t bits, model_shuffle_kind kind, unsigned by, int width, const char *file,
                       int line) {
    if (width <= 0 || width > WARP || (width & (width - 1)) != 0)
        block_fault("a shuffle of width %d", width);
    shuffle own = {bits, 0, by};
    meet(SHUFFLE, (uint64_t)kind << 8 | (unsigned)width, mask, &own, file, line,
         [=](const meeting &all) { shuffle_all(all, kind, (unsigned)width); });
    return own.result;
}

unsigned model_ballot(unsigned mask, bool predicate, const char *file, int line) {
    unsigned own = predicate;
    meet(BALLOT, 0, mask, &own, file, line, [](const meeting &all) {
        unsigned votes = 0;
        for (unsigned i = 0; i < WARP; i++)
            if (all.lanes[i] != nullptr && *(unsigned *)all.lanes[i])
                votes |= 1u << i;
        for (unsigned i = 0; i < WARP; i++)
            if (all.lanes[i] != nullptr)
                *(unsigned *)all.lanes[i] = votes;
    });
    return own;
}

void model_syncwarp(unsigned mask, const char *file, int line) {
#ifdef MODEL_TSAN
    char *const order = &warp_self()->sync[warp_self()->syncs % 2];
    __tsan_release(order);
#endif
    meet(SYNCWARP, 0, mask, nullptr, file, line, [](const meeting &) {});
#ifdef MODEL_TSAN
    __tsan_acquire(order);
#endif
}

void model_warp_exchange(const void *mine, size_t bytes, void *all_bytes, const char *file, int line) {
    struct exchange {
        const char *mine;
        char *all;
    } own = {(const char *)mine, (char *)all_bytes};
    meet(EXCHANGE, bytes, 0xffffffffu, &own, file, line, [=](const meeting &all) {
        const exchange *const first = (const exchange *)all.lanes[0];
        for (unsigned from = 0; from < WARP; from++)
            copy_bytes(first->all + from * bytes, ((const exchange *)all.lanes[from])->mine, bytes);
        for (unsigned to = 1; to < WARP; to++)
            copy_bytes(((const exchange *)all.lanes[to])->all, first->all, WARP * bytes);
    });
}

namespace {

struct mma {
    float *d;
    const uint32_t *a, *b;
    const float *c;
};

float bf16(uint32_t pair, unsigned half) { return __uint_as_float(half == 0 ? pair << 16 : pair & 0xffff0000u); }

/* The hardware adds the products of a step with bits to spare; sums in double, rounded once, stand for that. */
void mma_all(const meeting &all) {
    enum { M = 16, N = 8, K = 16 };
    float a[M][K], b[K][N];
    double d[M][N];
    for (unsigned lane = 0; lane < WARP; lane++) {
        const mma *const own = (const mma *)all.lanes[lane];
        const unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 2; i++) {
            a[group][pair + i] = bf16(own->a[0], i);
            a[group + 8][pair + i] = bf16(own->a[1], i);
            a[group][pair + 8 + i] = bf16(own->a[2], i);
            a[group + 8][pair + 8 + i] = bf16(own->a[3], i);
            b[pair + i][group] = bf16(own->b[0], i);
            b[pair + 8 + i][group] = bf16(own->b[1], i);
            d[group][pair + i] = own->c[i];
            d[group + 8][pair + i] = own->c[2 + i];
        }
    }
    for (unsigned m = 0; m < M; m++)
        for (unsigned k = 0; k < K; k++)
            for (unsigned n = 0; n < N; n++)
                d[m][n] += (double)a[m][k] * b[k][n];
    for (unsigned lane = 0; lane < WARP; lane++) {
        float *const own = ((const mma *)all.lanes[lane])->d;
        const unsigned group = lane / 4, pair = lane % 4 * 2;
        for (unsigned i = 0; i < 2; i++) {
            own[i] = (float)d[group][pair + i];
            own[2 + i] = (float)d[group + 8][pair + i];
        }
    }
}

} // namespace

void model_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2], const float c[4], const char *file,
                             int line) {
    mma own = {d, a, b, c};
    meet(MMA, 0, 0xffffffffu, &own, file, line, mma_all);
}

void model_ldmatrix_rows(uint32_t *registers, int count, bool transposed, const uint16_t row[8], const char *file,
                         int line) {
    struct rows {
        const uint16_t *row;
        uint32_t *registers;
    } own = {row, registers};
    meet(LDMATRIX, (uint64_t)count << 1 | transposed, 0xffffffffu, &own, file, line, [=](const meeting &all) {
        for (unsigned lane = 0; lane < WARP; lane++)
            for (unsigned matrix = 0; matrix < (unsigned)count; matrix++) {
                uint32_t both = 0;
                for (unsigned i = 0; i < 2; i++) {
                    const unsigned r = transposed ? lane % 4 * 2 + i : lane / 4,
                                   c = transposed ? lane / 4 : lane % 4 * 2 + i;
                    both |= (uint32_t)((const rows *)all.lanes[matrix * 8 + r])->row[c] << 16 * i;
                }
                ((const rows *)all.lanes[lane])->registers[matrix] = both;
            }
    });
}

/* ---- cp.async ---- */

bool model_copy_later(const model_copy &copy) {
    thread *const self = thread_self();
    if ((copy.bytes != 4 && copy.bytes != 8 && copy.bytes != 16) || copy.read > copy.bytes ||
        ((uintptr_t)copy.to | (copy.read > 0 ? (uintptr_t)copy.from : 0)) % copy.bytes != 0)
        block_fault("thread %u: cp.async of %u bytes, from %p to %p", self->number, copy.bytes, copy.from, copy.to);
    const unsigned char *const shared = model_shared_memory();
    if ((unsigned char *)copy.to < shared || (unsigned char *)copy.to + copy.bytes > shared + shared_bytes())
        block_fault("thread %u: cp.async that leaves shared memory", self->number);
    if (setting().order == settings::REVERSE || (setting().order == settings::RANDOM && random_next() % 2 == 0))
        return false;
    self->copies.push_back(async_copy{copy, self->copy_group});
    return true;
}

void model_copy_async_commit() { thread_self()->copy_group++; }

bool model_copy_take(unsigned left, model_copy *copy) {
    thread *const self = thread_self();
    if (self->copies.empty() || self->copies.front().group + left >= self->copy_group)
        return false;
    *copy = self->copies.front().copy;
    self->copies.pop_front();
    return true;
}
