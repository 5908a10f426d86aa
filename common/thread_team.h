/*
 * A team of threads that all run one function, each with its own number, until it returns; and what threads need to wait.
 */
#ifndef QSTREAM_COMMON_THREAD_TEAM_H
#define QSTREAM_COMMON_THREAD_TEAM_H

#include <pthread.h>
#include <stddef.h>
#include <time.h>

#include "common/interrupt.h"
#include "common/status.h"

typedef void team_function(void *context, unsigned number);

struct team_member {
    pthread_t thread;
    team_function *function;
    void *context;
    unsigned number;
    struct interrupt_stack signals;
};

struct thread_team {
    struct team_member *members;
    unsigned count;
};

/*
 * Starts `count` threads with small stacks (the function must not need more than half a MiB). When one cannot be
 * started, those that were go on: *team says how many run, and it is an error only when none does.
 */
enum status thread_team_start(struct thread_team *team, unsigned count, team_function *function, void *context,
                              struct error *error);

/* Waits for all of them and frees the team. */
void thread_team_join(struct thread_team *team);

/* Waits until the condition is signalled, or for so many nanoseconds of its clock (CLOCK_REALTIME unless it was made otherwise). */
void condition_wait(pthread_cond_t *condition, pthread_mutex_t *held, clockid_t clock, long nanoseconds);

/* The processors this process may run on. */
unsigned processor_count(void);

#endif
