/*
 * What supply.c (what goes on during a run) and supply_begin.c (before it) share. Nobody else includes it.
 */
#ifndef QSTREAM_QSTREAM_SUPPLY_INSIDE_H
#define QSTREAM_QSTREAM_SUPPLY_INSIDE_H

#include <pthread.h>

#include "common/thread_team.h"
#include "qstream/companions.h"
#include "qstream/schedule.h"
#include "qstream/supply.h"
#include "qstream/supply_store.h"

/* A shard of the source. What is behind `file` is guarded by supply.lock. */
struct supply_shard {
    const struct hub_file *file; /* NULL: it is on this machine, and no matter of ours */
    bool there;                  /* and checked: it can be read, until its last tile is durable */
    bool counted;                /* in supply.used: it is there, or there is room for it */
    uint32_t unmade, undurable;  /* tiles that have it as home */
};

struct supply {
    const struct plan *plan;
    struct checkpoint *checkpoint;
    struct supply_options options;
    struct supply_store store;
    char *companions_path;
    struct schedule schedule; /* of the share; from supply_begin on of what is left of it */
    struct supply_needs needs;
    struct companions *companions; /* NULL: none are needed */
    struct supply_shard *shards;   /* [checkpoint.shard_count] */
    uint64_t most, beside;         /* what supply_settle was given */
    uint64_t total;                /* bytes to be downloaded by this run */
    double begun;
    uint32_t *coming; /* shards that the thread downloads, and their files */
    const struct hub_file **coming_files;
    size_t coming_count;
    struct thread_team thread;
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t changed;
    uint64_t limit, used; /* bytes of the source on the disk */
    unsigned waiting;     /* workers */
    bool room_wanted;     /* the thread waits for room */
    bool spoiled;         /* a companion was not what its shard holds */
    bool ended;           /* the thread, with `status` and `error` */
    enum status status;
    struct error error;
};

/* Starts the thread that downloads. */
enum status supply_start(struct supply *supply, struct error *error);

/*
 * Compares a shard, whose hash was right, with what was read of it by ranges: its header, and the companions where there are
 * any. STATUS_IO where they differ: nothing can be trusted then, and supply.spoiled is set.
 */
enum status supply_shard_compare(struct supply *supply, uint32_t number, struct byte_source *file, struct error *error);

/* A shard is on the disk, its hash was right: if all agrees with it, it can be read. */
enum status supply_shard_take(struct supply *supply, uint32_t number, struct error *error);

#endif
