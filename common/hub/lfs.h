/*
 * Git LFS as the Hub speaks it, for uploads: the batch that tells where an object's bytes go, in one piece or, with the Hub's
 * own "multipart" transfer, in parts (huggingface_hub's lfs.py).
 *
 * The addresses are signed, good for a while, and of another host: they get no token.
 */
#ifndef QSTREAM_COMMON_HUB_LFS_H
#define QSTREAM_COMMON_HUB_LFS_H

#include "common/hub/hub.h"
#include "common/sha256.h"
#include "common/source.h"

enum { LFS_PARTS_MOST = 10000 }; /* as of S3 */

/* Where an object's bytes go. */
struct lfs_order {
    char *url;    /* takes the bytes, or, of an object in parts, the list of them. NULL: the Hub has the object */
    char *verify; /* to be told when they are there; may be NULL */
    uint64_t part_bytes; /* of each part but the last; 0: in one piece */
    char **parts;        /* where each goes */
    size_t part_count;
};
void lfs_order_free(struct lfs_order *order);

/* A file to be uploaded. */
struct lfs_object {
    const char *path;           /* for messages */
    struct byte_source *source; /* its bytes */
    const uint8_t *sha256;      /* of them */
    uint32_t crc32;             /* the same by zlib; for lfs_send */
    struct lfs_order *order;
};

/*
 * Asks what is to be sent, and fills the objects' orders. `branch`: that the objects are for; NULL for a pull request. No two have the same hash. The
 * caller frees the orders, also after an error. STATUS_BAD_INPUT names an object that the Hub refuses.
 */
enum status lfs_batch(struct hub *hub, const struct hub_reference *reference, const char *branch,
                      const struct lfs_object *objects, size_t count, struct error *error);

/*
 * Carries the orders out, `connections` files or parts at a time, and reports progress unless `quiet`. Orders that are
 * refused, as those are whose addresses have expired, are asked anew; a file is then sent from its beginning. The CRC-32
 * of the bytes that went out has to be the object's: else STATUS_BAD_INPUT, and the object is not completed. The first
 * failure ends it, STATUS_INTERRUPTED after SIGINT; objects that are complete stay.
 */
enum status lfs_send(struct hub *hub, const struct hub_reference *reference, const char *branch,
                     const struct lfs_object *objects, size_t count, unsigned connections, bool quiet,
                     struct error *error);

/* The header fields of all that speaks LFS's JSON. */
enum { LFS_FIELDS = 2 };
extern const char *const lfs_fields[LFS_FIELDS];

#endif
