/*
 * Uploading files to a repository on the Hub as one commit, as huggingface_hub does it without Xet (_commit_api.py and
 * lfs.py): preupload tells which files go through LFS, the LFS batch where their bytes go, NDJSON makes the commit.
 *
 * The order of the calls: upload_hash, upload_card_check, upload_compare, upload_ask, upload_send, upload_commit, upload_check. Nothing is
 * written on the Hub before upload_send, nothing is seen there before upload_commit.
 */
#ifndef QSTREAM_COMMON_HUB_UPLOAD_H
#define QSTREAM_COMMON_HUB_UPLOAD_H

#include "common/hub/lfs.h"
#include "common/hub/listing.h"
#include "common/source.h"

enum upload_fate {
    UPLOAD_NEW,      /* the revision has it not, or has other bytes */
    UPLOAD_SAME,     /* the revision has these bytes under this name */
    UPLOAD_IGNORED,  /* the repository's .gitignore names it */
    UPLOAD_INLINE,   /* small: its bytes go into the commit */
    UPLOAD_PRESENT,  /* LFS: the Hub has the bytes, of whatever name */
    UPLOAD_TRANSFER, /* LFS: the bytes have to be sent */
    UPLOAD_FATES
};
const char *upload_fate_name(enum upload_fate fate); /* "same", "ignored", "inline", "present", "transfer" */

/* Larger files cannot go into a commit. The Hub's own limit is 10 MB. */
enum { UPLOAD_INLINE_MOST = 32 << 20 };

struct upload_file {
    char *path;                 /* in the repository, '/' between folders */
    struct byte_source *source; /* its bytes: what was there when it was opened */
    bool needed;                /* the others are of no use without it */
    uint8_t sha256[SHA256_SIZE];
    uint32_t crc32;         /* of its bytes, as zlib has it: parts that are sent at a time are checked by it */
    char oid[HUB_OID_HEX];  /* git's blob; "" above UPLOAD_INLINE_MOST */
    enum upload_fate fate;  /* of upload_compare and upload_ask */
    struct lfs_order order; /* where fate is UPLOAD_TRANSFER */
};

struct upload {
    struct hub *hub;
    const struct hub_reference *reference; /* its revision is the branch */
    bool create_pull_request;
    struct upload_file *files;
    size_t count;
};

/* Closes the sources and frees the files. */
void upload_free(struct upload *upload);

/* Reads all files and fills in their hashes; `jobs` files at a time. STATUS_BAD_INPUT when one changes meanwhile. */
enum status upload_hash(struct upload *upload, unsigned jobs, bool quiet, struct error *error);

/* Asks the Hub what it thinks of the model card README.md: STATUS_BAD_INPUT when a commit with it would be refused. */
enum status upload_card_check(const struct upload *upload, struct error *error);

/* Finds the files that a listing of the branch has already. */
void upload_compare(struct upload *upload, const struct hub_listing *listing);

/* Asks the Hub what becomes of the others. STATUS_BAD_INPUT when it would ignore a file that is needed. */
enum status upload_ask(struct upload *upload, struct error *error);

/* How many files have a fate, and their bytes. */
struct upload_sum {
    size_t files;
    uint64_t bytes;
};
struct upload_sum upload_sum(const struct upload *upload, enum upload_fate fate);

/*
 * Sends the bytes of UPLOAD_TRANSFER, several files or parts at a time. STATUS_BAD_INPUT when the bytes that went out are
 * not those that were hashed: no such object is completed. What is complete on the Hub stays there: the next upload
 * finds it.
 */
enum status upload_send(struct upload *upload, unsigned connections, bool quiet, struct error *error);

struct upload_result {
    char commit[HUB_OID_HEX];
    char *url;          /* of the commit */
    char *pull_request; /* its URL; NULL without one */
};
void upload_result_free(struct upload_result *result);

/*
 * Makes the commit on top of `parent`. STATUS_IO when the branch has moved since, unless all files are there now: a reply
 * that got lost may have been that of this very commit. Free the result, also after an error.
 */
enum status upload_commit(struct upload *upload, const char *parent, const char *summary, struct upload_result *result,
                          struct error *error);

/* Reads the listing of a commit: STATUS_IO names a file that is not there, or not with the bytes it has here. */
enum status upload_check(const struct upload *upload, const char *commit, struct error *error);

/* ---- for upload.c and upload_commit.c ---- */

/* "ENDPOINT/api/models/REPOSITORY/WHAT/BRANCH", for a pull request if there is to be one. The caller frees. */
char *upload_url(const struct upload *upload, const char *what);

/* The repository's listing at a revision. Free with hub_listing_free, also after an error. */
enum status upload_listing(const struct upload *upload, const char *revision, struct hub_listing *listing,
                           struct error *error);

/* The first file, of those not ignored, that a listing has not with its bytes; NULL when it has all. */
const struct upload_file *upload_missing(const struct upload *upload, const struct hub_listing *listing);

#endif
