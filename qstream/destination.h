/*
 * DST: the folder that a run writes, from nothing to a published checkpoint. While it is unfinished it holds a work
 * folder with a lock and a journal for the whole run, or one for each part.
 */
#ifndef QSTREAM_QSTREAM_DESTINATION_H
#define QSTREAM_QSTREAM_DESTINATION_H

#include "qstream/execute.h"
#include "qstream/plan.h"

struct destination {
    const char *path;
    unsigned part, parts; /* this run's share; parts 0: the whole */
};

enum destination_state { DESTINATION_NEW, DESTINATION_BEGUN, DESTINATION_FINISHED };

/* STATUS_USAGE when one of the two folders is, or lies inside, the other. DST need not exist; SRC may be on the Hub. */
enum status destination_overlap_check(const struct folder *source, const char *destination, struct error *error);

/* What DST holds. Anything but nothing or our own work, made the same way, is STATUS_USAGE. */
enum status destination_look(const char *path, const struct fingerprint *fingerprint, enum destination_state *state,
                             struct error *error);

/*
 * STATUS_IO when there is no room for `wanted` bytes, those counted that the shards first..end-1 take already. *beside:
 * bytes that are free for other things.
 */
enum status destination_space_check(const struct plan *plan, size_t first, size_t end, const char *folder,
                                    uint64_t wanted, uint64_t *beside, struct error *error);

/*
 * Makes the work folder and takes its lock, shared for a part, exclusive for everything else: parts run beside each
 * other, nothing runs beside a whole run or --finish. *fd holds the lock until it is closed; -1 when there is none.
 */
enum status destination_lock(const struct destination *destination, int *fd, struct error *error);

/* The path of this run's journal, and of the folder for what it downloads of its source; the caller frees them. */
char *destination_journal_path(const struct destination *destination);
char *destination_supply_path(const struct destination *destination);

/*
 * Notes in the work folder which repository the run reads, "hf://org/name@COMMIT"; NULL: none. STATUS_BAD_INPUT when it was
 * begun with another one.
 */
enum status destination_repository_check(const struct destination *destination, const char *repository,
                                         struct error *error);

/* STATUS_USAGE when there are journals of work that was cut otherwise: they would be forgotten. */
enum status destination_journals_check(const struct destination *destination, struct error *error);

/*
 * Reads the journals of all parts into *state. STATUS_USAGE while shards are missing, STATUS_BAD_INPUT when a shard's
 * file is not as its journal says.
 */
enum status destination_parts_collect(const struct destination *destination, const struct plan *plan,
                                      const struct fingerprint *fingerprint, struct run_state *state,
                                      struct error *error);

#endif
