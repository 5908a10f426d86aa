/*
 * Files of a repository as plain files in a folder of the user's, with what huggingface_hub keeps there: a note for each in
 * FOLDER/.cache/huggingface/download/PATH.metadata (commit, hash, time) says what the file is. It recognizes what was
 * fetched here, and what it fetched is recognized.
 *
 * A file comes to rest in the same folder of notes, under its hash, and is moved to its place when that is right: what is at
 * PATH is a whole file, an older one until then.
 */
#ifndef QSTREAM_COMMON_HUB_LOCAL_FOLDER_H
#define QSTREAM_COMMON_HUB_LOCAL_FOLDER_H

#include "common/hub/listing.h"

/* FOLDER/PATH. The caller frees, as with all paths here; NULL without memory. */
char *local_folder_path(const char *folder, const struct hub_file *file);

/* Where the file comes to rest before it gets its place, and the lock for both (file_lock.h). */
char *local_folder_target(const char *folder, const struct hub_file *file);
char *local_folder_lock(const char *folder, const struct hub_file *file);

/*
 * Whether FOLDER/PATH is the file: its note says so and is younger, or, where there is no such note, it has the right
 * hash. *noted: the note says so, with this commit.
 */
enum status local_folder_has(const char *folder, const char *commit, const struct hub_file *file, bool *has,
                             bool *noted, struct error *error);

/* Makes the folder of notes; of a file, the folders that it and its note lie in. */
enum status local_folder_prepare(const char *folder, struct error *error);
enum status local_folder_prepare_file(const char *folder, const struct hub_file *file, struct error *error);

/* Moves what is at the target, if it is there, to its place, and notes what FOLDER/PATH is. With the lock. */
enum status local_folder_place(const char *folder, const char *commit, const struct hub_file *file,
                               struct error *error);

#endif
