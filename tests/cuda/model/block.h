/* The threads of the running block (block.cc), and what their meetings need (warp.cc). */
#ifndef QSTREAM_CUDA_MODEL_BLOCK_H
#define QSTREAM_CUDA_MODEL_BLOCK_H

#include <deque>

#include "fiber.h"
#include "model.h"

namespace model {

enum { WARP = 32, THREADS_MOST = 1024 };

enum thread_state { READY, AT_BARRIER, IN_WARP, EXITED };

struct async_copy {
    model_copy copy;
    uint64_t group;
};

/* A thread of the block. */
struct thread {
    uint3 index;
    unsigned number;
    fiber *on; /* NULL: not started */
    thread_state state;
    /* where and for what it waits */
    const char *file;
    int line;
    const char *function; /* of the warp: "__shfl_sync", ... */
    uint64_t variety;     /* lanes that meet have to agree on it */
    unsigned mask;
    void *arguments;
    std::deque<async_copy> copies; /* not made yet */
    uint64_t copy_group;           /* the open one */
};

struct warp {
    unsigned waiting; /* lanes that wait in a function of the warp */
    unsigned syncs;   /* of ThreadSanitizer's, to tell one __syncwarp from the next */
    char sync[2];
};

/* The running thread. */
thread *thread_self();
warp *warp_self();
uint64_t random_next();
size_t shared_bytes(); /* of the block */
/* Lets others run; the caller comes back when it was made ready. */
void thread_park();
void thread_ready(thread *woken);
/* A fault that lists the threads of the block. */
[[noreturn]] void block_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Not memcpy: ThreadSanitizer would watch it. */
static inline void copy_bytes(char *to, const char *from, size_t bytes) {
    for (size_t i = 0; i < bytes; i++)
        to[i] = from[i];
}

} // namespace model

#endif
