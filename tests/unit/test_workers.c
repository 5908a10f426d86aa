/*
 * Loops over tasks: each is done once before the loop is over, whatever the number of threads and of tasks.
 */
#include "infer/cpu/workers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_loops_in_a_row_then_each_task_is_done_once_before_the_loop_is_over),
    };
    return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
