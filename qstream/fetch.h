/*
 * Fetching a repository's files into the shared cache or a folder: what is chosen, what is there already, whether the rest
 * fits, and the fetching itself.
 */
#ifndef QSTREAM_QSTREAM_FETCH_H
#define QSTREAM_QSTREAM_FETCH_H

#include "common/hub/selection.h"

/* A file that was chosen. */
struct fetch_file {
    const struct hub_file *file;
    char *target, *lock; /* as download_item has them */
    bool there;          /* in its place */
    bool noted;          /* with all that belongs to it: nothing is left to do */
    bool twin;           /* its bytes are those of one before it, and lie in the same place */
    bool copied;         /* its bytes come from the shared cache */
    uint64_t present;    /* bytes that need not be fetched any more */
};

struct fetch {
    struct hub hub;
    struct hub_listing listing;
    enum selection_reason *reasons; /* of the files of the listing */
    const char *folder;             /* where plain files go; NULL: the cache */
    bool listed;                    /* the listing is the repository's; false: only what the cache has of it */
    struct fetch_file *files;
    size_t count;
    char *where;                /* the folder in which they are, once they are: the snapshot, or `folder` */
    uint64_t bytes, present;    /* of the files */
    uint64_t needed, available; /* bytes on the disk: still to be taken, free */
};

/*
 * Lists the repository (offline: what the cache has of it), chooses, and looks at what is there. Writes nothing. Offline, a
 * file that is missing is STATUS_IO. Free with fetch_close, also after an error.
 */
enum status fetch_open(const struct hub_reference *reference, const struct selection_rules *rules, const char *folder,
                       struct fetch *fetch, struct error *error);
void fetch_close(struct fetch *fetch);

/* STATUS_IO when there is no room for what is missing. */
enum status fetch_room_check(const struct fetch *fetch, struct error *error);

/* Fetches what is missing. */
enum status fetch_run(struct fetch *fetch, unsigned connections, bool quiet, struct error *error);

#endif
