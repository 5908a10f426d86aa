/*
 * What a repository on the Hub holds at a revision: its commit, and every file with its size and hash.
 */
#ifndef QSTREAM_COMMON_HUB_LISTING_H
#define QSTREAM_COMMON_HUB_LISTING_H

#include "common/hub/hub.h"
#include "common/sha256.h"

enum { HUB_OID_HEX = 41 }; /* a SHA-1 in hexadecimal, NUL-terminated */

struct hub_file {
    char *path; /* inside the repository; '/' between folders. No empty, "." or ".." part, no control character */
    uint64_t size;
    bool lfs;                    /* large: known by the SHA-256 of its bytes, else by git's SHA-1 of them */
    uint8_t sha256[SHA256_SIZE]; /* where lfs */
    char oid[HUB_OID_HEX];       /* git's blob, of a large one that of its pointer */
};

struct hub_listing {
    struct hub_reference reference;
    char commit[HUB_OID_HEX];
    struct hub_file *files; /* sorted by path */
    size_t count, capacity;
};

/*
 * Asks the Hub: the revision's commit, then the tree of this commit, page by page. Copies the reference. A path that
 * would lead out of the folder is STATUS_BAD_INPUT. Free with hub_listing_free, also after an error.
 */
enum status hub_listing_read(struct hub *hub, const struct hub_reference *reference, struct hub_listing *listing,
                             struct error *error);
void hub_listing_free(struct hub_listing *listing);

/* For those who make one: an empty listing with a copy of the reference; free it also after an error. */
enum status hub_listing_begin(const struct hub_reference *reference, struct hub_listing *listing, struct error *error);

/* Appends a file, in no order (hub_tree_finish sorts). Takes file->path over, also when it fails; NULL: no memory. */
enum status hub_listing_add(struct hub_listing *listing, const struct hub_file *file, struct error *error);

/* NULL when there is none of that path. */
const struct hub_file *hub_listing_find(const struct hub_listing *listing, const char *path);

/* The name that huggingface_hub's cache gives the bytes: the SHA-256 of a large file, else git's SHA-1. */
enum { HUB_ETAG_HEX = SHA256_HEX };
const char *hub_file_etag(const struct hub_file *file, char etag[HUB_ETAG_HEX]);

/*
 * Checking a file's bytes: begin, add in order, end. end is false when the hash is not that of `file`.
 */
struct hub_check;
struct hub_check *hub_check_new(const struct hub_file *file); /* NULL when out of memory */
void hub_check_add(struct hub_check *check, const void *bytes, size_t size);
bool hub_check_end(struct hub_check *check);              /* then only free it, and: */
const char *hub_check_hex(const struct hub_check *check); /* the hash that it has */
void hub_check_free(struct hub_check *check);

/* Reads a file's bytes whole, at most `limit`, checks them, NUL-terminates them; the caller frees *bytes. A wrong hash
 * is tried again, then STATUS_IO. */
enum status hub_file_read(struct hub *hub, const struct hub_listing *listing, const struct hub_file *file, size_t limit,
                          char **bytes, size_t *length, struct error *error);

#endif
