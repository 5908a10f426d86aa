#include "common/thread_team.h"

#include <sched.h>
#include <stdlib.h>

enum { STACK_BYTES = 1 << 20 };

static void *member_run(void *argument) {
    struct team_member *member = argument;
    interrupt_thread_begin(&member->signals);
    member->function(member->context, member->number);
    interrupt_thread_end(&member->signals);
    return NULL;
}

enum status thread_team_start(struct thread_team *team, unsigned count, team_function *function, void *context,
                              struct error *error) {
    *team = (struct thread_team){.members = calloc(count, sizeof *team->members)};
    if (!team->members)
        return error_set_memory(error);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int problem = 0;
    while (team->count < count) {
        struct team_member *member = &team->members[team->count];
        member->function = function;
        member->context = context;
        member->number = team->count;
        problem = pthread_create(&member->thread, &attributes, member_run, member);
        if (problem)
            break;
        team->count++;
    }
    pthread_attr_destroy(&attributes);
    if (team->count > 0)
        return STATUS_OK;
    free(team->members);
    team->members = NULL;
    return error_set_errno(error, STATUS_IO, problem, "cannot start a thread");
}

void thread_team_join(struct thread_team *team) {
    for (unsigned i = 0; i < team->count; i++)
        pthread_join(team->members[i].thread, NULL);
    free(team->members);
    *team = (struct thread_team){0};
}

void condition_wait(pthread_cond_t *condition, pthread_mutex_t *held, clockid_t clock, long nanoseconds) {
    static const long second = 1000000000;
    struct timespec until;
    clock_gettime(clock, &until);
    until.tv_nsec += nanoseconds;
    until.tv_sec += until.tv_nsec / second;
    until.tv_nsec %= second;
    pthread_cond_timedwait(condition, held, &until);
}

unsigned processor_count(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    int count = CPU_COUNT(&set);
    return count > 0 ? (unsigned)count : 1;
}
