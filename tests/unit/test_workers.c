/*
 * Loops over tasks: each is done once before the loop is over, whatever the number of threads and of tasks.
 */
#include "infer/cpu/workers.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { TASKS_MOST = 40 };

struct loop {
    int done[TASKS_MOST];
    unsigned threads;
};

static void task(void *context, size_t number, unsigned thread) {
    struct loop *loop = context;
    loop->done[number]++;
    if (thread >= loop->threads)
        abort();
}

static void given_loops_in_a_row_then_each_task_is_done_once_before_the_loop_is_over(void **state) {
    (void)state;
    const unsigned counts[] = {1, 2, 3, 8, 33};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct workers *workers = NULL;
        struct error error;
        assert_int_equal(workers_start(counts[i], &workers, &error), STATUS_OK);
        assert_int_equal(workers_count(workers), counts[i]);
        for (unsigned round = 0; round < 2000; round++) {
            /* not atomic: what is done in a loop is seen after it, and one loop's threads are gone before the next begins */
            struct loop loop = {.threads = counts[i]};
            size_t tasks = round * 7 % (TASKS_MOST + 1);
            workers_run(workers, tasks, task, &loop);
            for (size_t number = 0; number < TASKS_MOST; number++)
                assert_int_equal(loop.done[number], number < tasks);
        }
        workers_stop(workers);
    }
}

/* ---- tasks that need each other ---- */

struct meeting {
    atomic_int begun;
    int slow_done; /* not atomic: the loop's end makes it seen */
};

/* Each of two waits for the other, so that two threads have to be there; the caller's ends first. */
static void meet(void *context, size_t number, unsigned thread) {
    struct meeting *meeting = context;
    (void)number;
    atomic_fetch_add(&meeting->begun, 1);
    while (atomic_load(&meeting->begun) < 2)
        sched_yield();
    if (thread == 0)
        return;
    const struct timespec pause = {.tv_nsec = 2000000};
    nanosleep(&pause, NULL);
    meeting->slow_done++;
}

static void given_tasks_that_need_each_other_then_two_threads_do_them_and_the_slower_one_is_waited_for(void **state) {
    (void)state;
    struct workers *workers = NULL;
    struct error error;
    assert_int_equal(workers_start(2, &workers, &error), STATUS_OK);
    for (unsigned round = 0; round < 20; round++) {
        struct meeting meeting = {0};
        workers_run(workers, 2, meet, &meeting);
        assert_int_equal(meeting.slow_done, 1);
    }
    workers_stop(workers);
}

int main(void) {
    alarm(60); /* a loop that no second thread enters would never end */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_loops_in_a_row_then_each_task_is_done_once_before_the_loop_is_over),
        cmocka_unit_test(given_tasks_that_need_each_other_then_two_threads_do_them_and_the_slower_one_is_waited_for),
    };
    return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
