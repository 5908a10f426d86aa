/*
 * The cache that Hugging Face's tools share: CACHE/models--org--name/{blobs,refs,snapshots}, CACHE/.locks. What is
 * fetched here they find, and what they fetched is found here.
 */
#ifndef QSTREAM_COMMON_HUB_CACHE_H
#define QSTREAM_COMMON_HUB_CACHE_H

#include "common/hub/listing.h"

/* CACHE/models--org--name. The caller frees, as with all paths here; NULL without memory. */
char *hub_cache_repository(const struct hub_environment *environment, const struct hub_reference *reference);

/* CACHE/models--org--name/snapshots/COMMIT[/PATH]; `path` may be NULL. */
char *hub_cache_snapshot(const struct hub_environment *environment, const struct hub_reference *reference,
                         const char *commit, const char *path);

/* CACHE/models--org--name/blobs/ETAG. */
char *hub_cache_blob(const struct hub_environment *environment, const struct hub_reference *reference,
                     const char *etag);

/*
 * What the cache takes a revision for: itself where it is a commit, else what refs/REVISION says. False when it knows
 * nothing.
 */
bool hub_cache_commit(const struct hub_environment *environment, const struct hub_reference *reference,
                      char commit[HUB_OID_HEX]);

/* Marks a folder as one that backups may leave out (CACHEDIR.TAG), unless it is. */
enum status hub_cache_tag(const char *folder, struct error *error);

/* Makes the folders, and marks the cache. */
enum status hub_cache_prepare(const struct hub_environment *environment, const struct hub_reference *reference,
                              struct error *error);

/* refs/REVISION says `commit` from now on; of a revision that is a commit nothing is written. */
enum status hub_cache_reference_write(const struct hub_environment *environment, const struct hub_reference *reference,
                                      const char *commit, struct error *error);

/* snapshots/COMMIT/PATH becomes a relative link to the blob, which is there. */
enum status hub_cache_link(const struct hub_environment *environment, const struct hub_reference *reference,
                           const char *commit, const struct hub_file *file, struct error *error);

/* The file that huggingface_hub locks (file_lock.h) while it writes a blob. */
char *hub_cache_lock(const struct hub_environment *environment, const struct hub_reference *reference,
                     const char *etag);

#endif
