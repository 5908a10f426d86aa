/*
 * What the Hub's API answers about a repository, as it is read into a listing: the commit of a revision, and the pages of a
 * commit's tree (GET /api/models/REPOSITORY/tree/COMMIT?recursive=true: an array of {type, path, size, oid, lfs: {oid, size}}).
 * All of it may be hostile. `name` is for messages.
 */
#ifndef QSTREAM_COMMON_HUB_TREE_H
#define QSTREAM_COMMON_HUB_TREE_H

#include "common/hub/listing.h"

/* The member `sha` of a revision's JSON: 40 lower-case hexadecimal digits. */
enum status hub_tree_commit(const char *name, const char *json, size_t length, char commit[HUB_OID_HEX],
                            struct error *error);

/* Appends a page's files. */
enum status hub_tree_page(const char *name, const char *json, size_t length, struct hub_listing *listing,
                          struct error *error);

/* After the last page: sorts the files; a path twice, or one that is file and folder, is STATUS_BAD_INPUT. */
enum status hub_tree_finish(struct hub_listing *listing, struct error *error);

/* The target of rel="next" of a Link field (RFC 8288); NULL when there is none. The caller frees. */
char *hub_tree_next(const char *field);

/* Whether a path stays inside its folder: see hub_file.path. */
bool hub_tree_path_is_safe(const char *path);

#endif
