/*
 * Threads that wait for work: a loop over tasks, handed out one by one. What a task computes must depend on its number
 * only, so that the result does not depend on how many threads there are.
 */
#ifndef QSTREAM_INFER_CPU_WORKERS_H
#define QSTREAM_INFER_CPU_WORKERS_H

#include <stddef.h>

#include "common/status.h"

struct workers;

/* `thread` is below workers_count. */
typedef void task_function(void *context, size_t task, unsigned thread);

/* `count` threads in all, the caller's one of them. Free with workers_stop. */
enum status workers_start(unsigned count, struct workers **workers, struct error *error);
void workers_stop(struct workers *workers); /* NULL is fine */
unsigned workers_count(const struct workers *workers);

/* Runs the tasks 0 to count - 1 and returns when all are done. One caller at a time. */
void workers_run(struct workers *workers, size_t count, task_function *function, void *context);

#endif
