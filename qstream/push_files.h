/*
 * The files of a finished folder that are pushed: all but hidden ones.
 */
#ifndef QSTREAM_QSTREAM_PUSH_FILES_H
#define QSTREAM_QSTREAM_PUSH_FILES_H

#include "common/folder.h"
#include "common/hub/upload.h"
#include "verify/manifest.h"

/*
 * Opens the files of `folder`, a local one, as those of `upload`. STATUS_CHECK_FAILED: it is unfinished (it has .qstream or
 * NAME.partial). STATUS_BAD_INPUT: there is something that a repository cannot hold, such as a link to a folder.
 */
enum status push_files_open(const struct folder *folder, struct upload *upload, struct error *error);

/*
 * Compares the hashes of the files with those of the manifest. STATUS_CHECK_FAILED names one that is not the manifest's,
 * or is not there. The model card may be another: people write it.
 */
enum status push_files_compare(const struct upload *upload, const struct manifest *manifest, struct error *error);

#endif
