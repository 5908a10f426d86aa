/*
 * Work on many items: a team of threads takes them in order while the calling thread shows progress. The first failure,
 * or an interruption, ends it: no further item is begun.
 */
#ifndef QSTREAM_COMMON_TEAM_WORK_H
#define QSTREAM_COMMON_TEAM_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* Does one item, with what belongs to the thread of that number. */
typedef enum status item_function(void *context, size_t item, unsigned thread, struct error *error);

struct team_work {
    item_function *function;
    void *context;
    size_t count;     /* of the items */
    unsigned threads; /* at most; more than items are not of use */
    const char *verb; /* of the progress: "hashing" */
    uint64_t bytes;   /* of all items */
    bool quiet;
    /* the work's own */
    atomic_size_t next;
    atomic_uint_fast64_t bytes_done;
    atomic_uint threads_ended;
    atomic_int status;
    struct error error;
};

/* Does all items. An error is that of the item which failed first. */
enum status team_work_run(struct team_work *work, struct error *error);

/*
 * For the item's function, after each part of the item: counts these bytes as done. An error when the work is
 * interrupted or an item has failed elsewhere; the function returns it.
 */
enum status team_work_advance(struct team_work *work, uint64_t bytes, struct error *error);

#endif
