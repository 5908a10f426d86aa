/*
 * What the cache knows of a repository's files without asking the Hub: huggingface_hub's list of a commit's files,
 * models--org--name/trees/COMMIT.json, where there is one, else what lies in the snapshot.
 */
#ifndef QSTREAM_COMMON_HUB_CACHE_LISTING_H
#define QSTREAM_COMMON_HUB_CACHE_LISTING_H

#include "common/hub/cache.h"

/*
 * As hub_listing_read, from the cache. *whole: the list is that of the repository, not only of what is there (of which
 * links that lead nowhere are said to have one byte). STATUS_IO when the cache has nothing of the revision.
 */
enum status hub_cache_listing(const struct hub_environment *environment, const struct hub_reference *reference,
                              struct hub_listing *listing, bool *whole, struct error *error);

/*
 * Writes the list to trees/COMMIT.json in `folder`, unless it is there: only of a snapshot that has every file, since
 * huggingface_hub, offline, refuses a snapshot that lacks one of the list.
 */
enum status hub_cache_listing_write(const char *folder, const struct hub_listing *listing, struct error *error);

#endif
