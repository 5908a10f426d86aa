/*
 * The machine's copy bandwidth: a thread per processor, each copying between its own two buffers, which together
 * are far larger than the caches. A copied byte counts twice, read and written (not a third time for the line that
 * some processors fetch before they write it). Prints a line for each of REPEATS rounds:
 *   memcpy <tab> bytes touched per second
 */
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { COPIES = 4, LARGEST = 256 << 20, THREADS_MAX = 1024 };

struct lane {
    pthread_t thread;
    pthread_barrier_t *barrier;
    unsigned rounds;
    size_t size;
    char *from, *to;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void *copy(void *argument) {
    struct lane *lane = argument;
    memset(lane->from, 1, lane->size); /* by the thread that uses it: memory near its processor */
    memset(lane->to, 2, lane->size);
    for (unsigned round = 0; round < lane->rounds; round++) {
        pthread_barrier_wait(lane->barrier);
        for (int i = 0; i < COPIES; i++) {
            memcpy(lane->to, lane->from, lane->size);
            __asm__ volatile("" : : "r"(lane->to) : "memory"); /* the copy has to happen */
        }
        pthread_barrier_wait(lane->barrier);
    }
    return NULL;
}

int main(int argc, char **argv) {
    static struct lane lanes[THREADS_MAX];
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) + 1 : 4; /* the first warms up */
    cpu_set_t set;
    int threads = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    threads = threads > THREADS_MAX ? THREADS_MAX : threads;
    /* An eighth of the memory at most. */
    size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    size_t size = memory / 16 / (size_t)threads;
    size = (size > LARGEST ? LARGEST : size) / 4096 * 4096;
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1);
    for (int i = 0; i < threads; i++) {
        lanes[i] = (struct lane){.barrier = &barrier, .rounds = rounds, .size = size};
        lanes[i].from = aligned_alloc(4096, size);
        lanes[i].to = aligned_alloc(4096, size);
        if (!lanes[i].from || !lanes[i].to || pthread_create(&lanes[i].thread, NULL, copy, &lanes[i]) != 0) {
            fputs("memcpy: out of memory or threads\n", stderr);
            return 4;
        }
    }
    for (unsigned round = 0; round < rounds; round++) {
        pthread_barrier_wait(&barrier);
        double start = now();
        pthread_barrier_wait(&barrier);
        double seconds = now() - start;
        if (round > 0)
            printf("memcpy\t%.0f\n", 2.0 * COPIES * (double)size * threads / seconds);
    }
    for (int i = 0; i < threads; i++)
        pthread_join(lanes[i].thread, NULL);
    return 0;
}
