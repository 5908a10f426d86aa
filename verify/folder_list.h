/*
 * The files of a folder and of the folders below it, in a fixed order.
 */
#ifndef QSTREAM_VERIFY_FOLDER_LIST_H
#define QSTREAM_VERIFY_FOLDER_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "common/folder.h"

struct folder_list {
    char **files; /* paths inside the folder, '/' between their parts; sorted folder by folder */
    size_t count, capacity;
};

/*
 * Lists regular files; links to files are followed, links to folders are not. Left out: names that begin with a dot,
 * links that lead nowhere, folders more than 8 levels deep, folders for which `skip` (may be NULL) holds, and the
 * folder `except` (a path, may be NULL). STATUS_IO when a folder cannot be listed. Free with folder_list_free, also
 * after an error.
 */
typedef bool folder_skip(const char *name);
enum status folder_list_make(const struct folder *folder, folder_skip *skip, const char *except,
                             struct folder_list *list, struct error *error);
void folder_list_free(struct folder_list *list);

#endif
