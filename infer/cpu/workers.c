#include "infer/cpu/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/thread_team.h"
#include "infer/cpu/product.h"

/*
 * Looks for new work so often before a thread goes to sleep, some hundred microseconds; in between it lets others run,
 * who may be those that it waits for.
 */
enum { SPINS = 5000, SPINS_ALONE = 50 };

/* The tasks of a thread: a run of them, so that what it reads is one stream. Others take of it when theirs are done. */
struct share {
    _Alignas(64) atomic_size_t next;
    size_t end;
};

struct workers {
    struct thread_team team;
    unsigned count; /* with the caller's */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    unsigned sleeping;
    bool stop;
    /* the loop that runs */
    atomic_uint round;    /* changes with each loop */
    atomic_uint busy;     /* threads that are not done with this round */
    struct share *shares; /* of each thread */
    task_function *function;
    void *context;
};

static void pause_briefly(int spin) {
    if (spin % SPINS_ALONE == SPINS_ALONE - 1) {
        sched_yield();
        return;
    }
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static void tasks_run(struct workers *workers, unsigned thread) {
    for (unsigned i = 0; i < workers->count; i++) {
        struct share *share = &workers->shares[(thread + i) % workers->count];
        size_t task;
        while ((task = atomic_fetch_add_explicit(&share->next, 1, memory_order_relaxed)) < share->end)
            workers->function(workers->context, task, thread);
    }
}

/* Waits until the round is another than `seen`. */
static void round_wait(struct workers *workers, unsigned seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&workers->round, memory_order_acquire) != seen)
            return;
        pause_briefly(i);
    }
    pthread_mutex_lock(&workers->lock);
    workers->sleeping++;
    while (atomic_load_explicit(&workers->round, memory_order_acquire) == seen)
        pthread_cond_wait(&workers->wake, &workers->lock);
    workers->sleeping--;
    pthread_mutex_unlock(&workers->lock);
}

static void worker(void *context, unsigned number) {
    struct workers *workers = context;
    unsigned seen = 0;
    product_thread_begin();
    for (;;) {
        round_wait(workers, seen);
        seen++;
        if (workers->stop)
            break;
        tasks_run(workers, number + 1);
        atomic_fetch_sub_explicit(&workers->busy, 1, memory_order_release);
    }
    product_thread_end();
}

static void round_begin(struct workers *workers, size_t tasks) {
    for (unsigned i = 0; i < workers->count; i++) {
        atomic_store_explicit(&workers->shares[i].next, tasks * i / workers->count, memory_order_relaxed);
        workers->shares[i].end = tasks * (i + 1) / workers->count;
    }
    atomic_store_explicit(&workers->busy, workers->count - 1, memory_order_relaxed);
    pthread_mutex_lock(&workers->lock);
    atomic_fetch_add_explicit(&workers->round, 1, memory_order_release);
    if (workers->sleeping > 0)
        pthread_cond_broadcast(&workers->wake);
    pthread_mutex_unlock(&workers->lock);
}

void workers_run(struct workers *workers, size_t count, task_function *function, void *context) {
    workers->function = function;
    workers->context = context;
    if (workers->count > 1 && count > 1) {
        round_begin(workers, count);
        tasks_run(workers, 0);
        for (int i = 0; atomic_load_explicit(&workers->busy, memory_order_acquire) > 0; i = (i + 1) % SPINS_ALONE)
            pause_briefly(i);
        return;
    }
    for (size_t task = 0; task < count; task++)
        function(context, task, 0);
}

enum status workers_start(unsigned count, struct workers **out, struct error *error) {
    struct workers *workers = calloc(1, sizeof *workers);
    *out = workers;
    if (!workers)
        return error_set_memory(error);
    pthread_mutex_init(&workers->lock, NULL);
    pthread_cond_init(&workers->wake, NULL);
    product_thread_begin();
    workers->count = 1;
    if (count <= 1)
        return STATUS_OK;
    workers->shares = aligned_alloc(64, count * sizeof *workers->shares);
    if (!workers->shares)
        return error_set_memory(error);
    enum status status = thread_team_start(&workers->team, count - 1, worker, workers, error);
    workers->count += workers->team.count;
    return status;
}

void workers_stop(struct workers *workers) {
    if (!workers)
        return;
    if (workers->team.count > 0) {
        workers->stop = true;
        round_begin(workers, 0);
        thread_team_join(&workers->team);
    }
    pthread_cond_destroy(&workers->wake);
    pthread_mutex_destroy(&workers->lock);
    free(workers->shares);
    free(workers);
}

unsigned workers_count(const struct workers *workers) { return workers->count; }
