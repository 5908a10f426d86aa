/*
 * Ranges of a file's bytes on the Hub. Where the file is served (a signed address of another host, mostly) is remembered
 * and asked anew when it has expired; what the Hub says about the file on the way must be what its listing says.
 */
#ifndef QSTREAM_COMMON_HUB_FILE_RANGE_H
#define QSTREAM_COMMON_HUB_FILE_RANGE_H

#include <pthread.h>

#include "common/hub/listing.h"

/* Where one file is served. For several threads at once. */
struct hub_place {
    const struct hub_listing *listing; /* of `file`; both must outlive the place */
    const struct hub_file *file;
    pthread_mutex_t lock;
    char *url;     /* where the Hub sent us last; NULL: not known */
    bool unranged; /* the server ignores ranges */
    /* Bytes that are read in vain, of a server that ignores ranges, to get at those behind them: 8 MiB at first. Set it
     * before reading. */
    uint64_t skip_most;
};

void hub_place_init(struct hub_place *place, const struct hub_listing *listing, const struct hub_file *file);
void hub_place_free(struct hub_place *place);

/* Whether the server was seen to ignore ranges. */
bool hub_place_is_unranged(struct hub_place *place);

/* STATUS_BAD_INPUT when the fields of a reply about a file (commit, hash, size) contradict the listing. */
enum status hub_route_check(const struct hub_route *route, const struct hub_listing *listing,
                            const struct hub_file *file, struct error *error);

/*
 * Reads exactly `size` bytes at `offset`, which lie in the file, and hands them to `take` in order, on the client's thread;
 * false of it ends the reading: STATUS_CHECK_FAILED. A connection that breaks is taken up where it stopped, HUB_ATTEMPTS
 * times without a byte. Of a server that ignores ranges, what lies behind more than place->skip_most bytes is STATUS_IO.
 */
enum status hub_range_read(struct hub *hub, struct hub_place *place, uint64_t offset, uint64_t size,
                           bool (*take)(void *context, const void *bytes, size_t size), void *context,
                           struct error *error);

/* The same into a buffer. */
enum status hub_range_read_buffer(struct hub *hub, struct hub_place *place, uint64_t offset, void *buffer, size_t size,
                                  struct error *error);

#endif
