/*
 * Locks that exclude huggingface_hub's, too: flock(2) on a file that is made for it, stays, and may be written by the
 * group (filelock's UnixFileLock with the mode that huggingface_hub gives it).
 */
#ifndef QSTREAM_COMMON_HUB_FILE_LOCK_H
#define QSTREAM_COMMON_HUB_FILE_LOCK_H

#include "common/status.h"

/* Takes a lock if nobody holds it. *fd is it, held until it is closed; -1: somebody holds it. */
enum status file_lock_try(const char *path, int *fd, struct error *error);

#endif
