/*
 * Everything in the output folder besides the shards, and the order in which it appears: the files carried over
 * from the source, the index, the manifest qstream.json, the model card README.md and, last of all, config.json,
 * without which no loader accepts the folder.
 */
#ifndef QSTREAM_QSTREAM_PUBLISH_H
#define QSTREAM_QSTREAM_PUBLISH_H

#include "common/sha256.h"
#include "qstream/execute.h"
#include "qstream/plan.h"

/* A file of the output: made here (`bytes`) or copied from the source (`source`). */
struct publish_file {
    char *name;   /* inside the folder, may hold '/' */
    char *source; /* path inside the source's folder, or NULL */
    struct text bytes;
    uint64_t size;
    uint8_t digest[SHA256_SIZE];
};

struct publication {
    struct publish_file *files; /* in the order in which they are written; config.json last */
    size_t count, capacity;
    struct text left_out;  /* names of source files that are not carried over, one per line */
    uint64_t folder_bytes; /* of all files, shards included */
};

/*
 * Renders all files. `state` gives the digests (NULL: nothing is written, same sizes, digests of zeros); `fingerprint`
 * goes into the manifest. With `state` the files that are carried over are written to `folder` while they are hashed: a
 * source on the Hub sends each once. Free with publication_free, also after an error.
 */
enum status publication_prepare(const struct plan *plan, const struct recipe *recipe, const struct run_state *state,
                                const struct fingerprint *fingerprint, const char *folder,
                                struct publication *publication, struct error *error);

/*
 * Gives the finished shards of `folder` their names and writes the other files; every step is synced before the next.
 * Can be repeated after a crash at any point.
 */
enum status publication_write(const struct plan *plan, const struct publication *publication, const char *folder,
                              struct error *error);

/* Removes the work folder of a published folder. Failing to do so harms nobody. */
void publication_clean(const char *folder);

void publication_free(struct publication *publication);

/* The fingerprint that a published folder's manifest states; false when there is no such manifest. */
bool manifest_fingerprint(const char *folder, struct fingerprint *fingerprint);

extern const char supply_folder[]; /* "source": inside the work folder, or with more behind it */
extern const char work_folder[];   /* ".qstream", inside the output folder while it is unfinished */

#endif
