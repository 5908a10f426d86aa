/*
 * The output as a checkpoint while there is nothing of it but a plan.
 */
#ifndef QSTREAM_QSTREAM_PLANNED_OUTPUT_H
#define QSTREAM_QSTREAM_PLANNED_OUTPUT_H

#include "qstream/plan.h"
#include "qstream/publish.h"

/*
 * What opening the finished folder would give: config.json and every tensor's place. `folder` is for messages; nothing is
 * read or written, and nothing can be read from it: it has no folder, and its shards have no source. Free with
 * checkpoint_close, also after an error.
 */
enum status planned_output_open(const struct plan *plan, const struct publication *publication, const char *folder,
                                struct checkpoint *checkpoint, struct error *error);

#endif
