/*
 * The files of a checkpoint, wherever they are: a folder of this machine, or hf://org/name[@revision], a repository on the
 * Hub. Of the latter, files that are in the shared cache are read there; others are read from the Hub: small ones whole
 * and with their hash checked, large ones by ranges, without touching the disk.
 */
#ifndef QSTREAM_COMMON_FOLDER_H
#define QSTREAM_COMMON_FOLDER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/source.h"
#include "common/status.h"

struct folder;

/*
 * No folder at all, or no such repository: STATUS_BAD_INPUT. A repository's revision is resolved to its commit here, once.
 * Free with folder_close.
 */
enum status folder_open(const char *where, struct folder **folder, struct error *error);
void folder_close(struct folder *folder); /* NULL is fine */

const char *folder_name(const struct folder *folder); /* as given; for messages */

/* The path of a local folder; NULL of one on the Hub. Offline, the latter's snapshot in the cache is a local folder. */
const char *folder_path(const struct folder *folder);

/* "hf://org/name@COMMIT" of a folder on the Hub, offline too; NULL of one that was given by its path. */
const char *folder_repository(const struct folder *folder);

/* What the Hub says of the repository; NULL of a local folder. */
struct hub_listing;
const struct hub_listing *folder_listing(const struct folder *folder);

/*
 * Bytes of memory that reading from these folders takes beside what is read into: for those on the Hub, the client, the
 * blocks that were read by ranges and a small file of each. NULL among them is fine.
 */
uint64_t folders_memory(const struct folder *const *folders, size_t count);

/*
 * A file by its path inside the folder; "FOLDER/FILE" names it in messages. None of that name: STATUS_BAD_INPUT. The
 * source must be closed before the folder.
 */
enum status folder_file_open(const struct folder *folder, const char *file, struct byte_source **source,
                             struct error *error);

/* A small file whole, NUL-terminated; the caller frees *bytes. More than `limit` bytes: STATUS_BAD_INPUT. */
enum status folder_file_read(const struct folder *folder, const char *file, size_t limit, char **bytes, size_t *length,
                             struct error *error);

bool folder_has(const struct folder *folder, const char *file); /* a link that leads nowhere is none */

/* An entry of a folder. */
struct folder_entry {
    char *name; /* in its folder, bytes as they are: maybe no UTF-8 */
    enum folder_entry_kind { FOLDER_FILE, FOLDER_FOLDER, FOLDER_OTHER } kind; /* of what a link leads to */
    bool link;                                                                /* a symbolic link, of a local folder */
    uint64_t size;                                                            /* of a file */
    int problem; /* errno, of what cannot be looked at, such as a link that leads nowhere; else 0 */
};

/*
 * What there is of that name; `entry` gets no name. *found is false where there is nothing; a link that leads nowhere is
 * something. STATUS_IO when it cannot be told.
 */
enum status folder_look(const struct folder *folder, const char *file, struct folder_entry *entry, bool *found,
                        struct error *error);

/* The entries of the folder `inside` it ("" or "below/"), sorted by their bytes; "." and ".." left out. */
enum status folder_list(const struct folder *folder, const char *inside, struct folder_entry **entries, size_t *count,
                        struct error *error);
void folder_entries_free(struct folder_entry *entries, size_t count);

#endif
