/*
 * A folder that qstream is still filling: no config.json yet, shards under the names NAME.partial, and the journals of
 * one run or of several parts in .qstream/. Only the journals say which shards are complete: a hole reads as zeros,
 * which are valid codes.
 */
#ifndef QSTREAM_VERIFY_UNFINISHED_H
#define QSTREAM_VERIFY_UNFINISHED_H

#include <stdbool.h>
#include <stddef.h>

#include "common/checkpoint.h"
#include "common/status.h"

struct unfinished {
    char *
        *files; /* names inside the folder of the shards that are complete, sorted; NAME.partial, or NAME if renamed */
    size_t count;
    size_t incomplete; /* shard files that are there and are not complete */
};

/*
 * Whether `folder` holds unfinished work: .qstream/ with a journal, and no config.json. *is_unfinished is false for
 * everything else, also for a folder that does not exist.
 */
enum status unfinished_detect(const char *folder, bool *is_unfinished, struct error *error);

/*
 * Finds the shards that the journals call complete. `source` tells which number a shard has that bears a source's
 * name. A journal that is damaged is STATUS_BAD_INPUT. Free with unfinished_free, also after an error.
 */
enum status unfinished_read(const char *folder, const struct checkpoint *source, struct unfinished *unfinished,
                            struct error *error);
void unfinished_free(struct unfinished *unfinished);

#endif
