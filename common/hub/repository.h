/*
 * A repository on the Hub as folder.h wants it: what its listing says it holds, and its files, from the shared cache where
 * they are in it.
 */
#ifndef QSTREAM_COMMON_HUB_REPOSITORY_H
#define QSTREAM_COMMON_HUB_REPOSITORY_H

#include "common/folder.h"
#include "common/hub/listing.h"

struct repository {
    struct hub *hub;
    struct hub_listing listing;
    struct repository *next;
};

/*
 * Asks for the listing, once per process: a revision is one commit for the whole run. Not to be freed; for any number of
 * threads. Errors as hub_listing_read.
 */
enum status repository_open(struct hub *hub, const struct hub_reference *reference,
                            const struct repository **repository, struct error *error);

/*
 * As folder_file_open, folder_file_read, folder_look and folder_list, whose entries here come in no order; `name` is the
 * folder's, for messages.
 */
enum status repository_file_open(const struct repository *repository, const char *name, const char *file,
                                 struct byte_source **source, struct error *error);
enum status repository_file_read(const struct repository *repository, const char *name, const char *file, size_t limit,
                                 char **bytes, size_t *length, struct error *error);
bool repository_look(const struct repository *repository, const char *file, struct folder_entry *entry);
enum status repository_list(const struct repository *repository, const char *inside, struct folder_entry **entries,
                            size_t *count, struct error *error);

/* Bytes of the largest file that repository_file_open keeps whole. */
uint64_t repository_file_most(const struct repository *repository);

#endif
