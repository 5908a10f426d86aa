/*
 * Writing a file whole or not at all: what was there stays until the new one is complete and synced. The new one has the
 * permissions of what was there.
 */
#ifndef QSTREAM_COMMON_NEW_FILE_H
#define QSTREAM_COMMON_NEW_FILE_H

#include <stdio.h>

#include "common/status.h"

struct new_file {
    FILE *stream;     /* write here; errors are seen by new_file_finish */
    const char *name; /* as given; not owned */
    char *temporary;  /* NULL: written through (standard output, a link, a device) */
};

/* Begins a file; "-" is standard output. */
enum status new_file_begin(const char *name, struct new_file *file, struct error *error);

/* Puts it in its place; after an error nothing of it is left. */
enum status new_file_finish(struct new_file *file, struct error *error);

/* In place of new_file_finish: nothing of it is left, and what was there stays. */
void new_file_discard(struct new_file *file);

/*
 * Whether it could be begun, before a long run whose result it is to take. Nothing is left behind, and what is there
 * stays.
 */
enum status new_file_probe(const char *name, struct error *error);

/* Both, with `size` bytes between. */
enum status new_file_write(const char *name, const void *bytes, size_t size, struct error *error);

#endif
