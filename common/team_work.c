#include "common/team_work.h"

#include <time.h>

#include "common/interrupt.h"
#include "common/progress.h"
#include "common/thread_team.h"

static void items_do(void *context, unsigned thread) {
    struct team_work *work = context;
    struct error error;
    size_t item;
    while ((item = atomic_fetch_add(&work->next, 1)) < work->count) {
        enum status status = team_work_advance(work, 0, &error);
        if (status == STATUS_OK)
            status = work->function(work->context, item, thread, &error);
        if (status == STATUS_OK)
            continue;
        int none = STATUS_OK;
        if (atomic_compare_exchange_strong(&work->status, &none, (int)status))
            work->error = error; /* read when all threads have ended */
        break;
    }
    atomic_fetch_add(&work->threads_ended, 1);
}

enum status team_work_advance(struct team_work *work, uint64_t bytes, struct error *error) {
    atomic_fetch_add(&work->bytes_done, bytes);
    if (interrupt_pending())
        return error_set(error, STATUS_INTERRUPTED, "interrupted");
    return atomic_load(&work->status) == STATUS_OK ? STATUS_OK : error_set(error, STATUS_IO, "another item failed");
}

enum status team_work_run(struct team_work *work, struct error *error) {
    struct thread_team team;
    struct progress progress;
    if (work->count == 0)
        return STATUS_OK;
    enum status status = thread_team_start(&team, work->threads, items_do, work, error);
    if (status != STATUS_OK)
        return status;
    progress_start(&progress, work->verb, work->bytes, 0, work->quiet);
    while (atomic_load(&work->threads_ended) < team.count) {
        const struct timespec pause = {.tv_nsec = 2000000};
        progress_update(&progress, atomic_load(&work->bytes_done));
        nanosleep(&pause, NULL);
    }
    thread_team_join(&team);
    progress_end(&progress);
    status = (enum status)atomic_load(&work->status);
    if (status != STATUS_OK && error)
        *error = work->error;
    return status;
}
