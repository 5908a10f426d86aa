/*
 * Byte sources: something of known size that can be read at any offset: a local file, or one on the Hub, by ranges
 * (hub/range_source.h). Every reader of checkpoints works on either.
 */
#ifndef QSTREAM_COMMON_SOURCE_H
#define QSTREAM_COMMON_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

/* What tells one state of a source from another. */
struct source_identity {
    uint64_t size;    /* bytes */
    int64_t mtime_ns; /* modification time in ns since the epoch; 0 where there is none */
    bool hashed;      /* `sha256` is what the Hub says its bytes have */
    uint8_t sha256[32];
};

struct byte_source;

struct byte_source_operations {
    enum status (*read_at)(struct byte_source *source, uint64_t offset, void *buffer, size_t size, struct error *error);
    /* Fills *now with the identity as it is at this moment. */
    enum status (*identify)(struct byte_source *source, struct source_identity *now, struct error *error);
    /* A hint that the range will be read soon. May do nothing. */
    void (*prefetch)(struct byte_source *source, uint64_t offset, uint64_t size);
    void (*close)(struct byte_source *source); /* frees the source */
};

/* The head of every implementation's own struct. */
struct byte_source {
    const struct byte_source_operations *operations;
    char *name;                      /* path or URL, for messages; owned */
    struct source_identity identity; /* when it was opened */
};

/* Opens a regular file. Not there: STATUS_BAD_INPUT; there but unreadable: STATUS_IO. */
enum status byte_source_open_file(const char *path, struct byte_source **source, struct error *error);

/* Bytes in memory as a source; takes them over (from malloc), also when it fails. `name` is copied. */
enum status byte_source_of_bytes(const char *name, char *bytes, size_t length, struct byte_source **source,
                                 struct error *error);

/*
 * Reads exactly `size` bytes at `offset`. Safe from several threads at once. A source that has become shorter is
 * STATUS_BAD_INPUT, a failing device STATUS_IO; both name the source and the offset.
 */
enum status byte_source_read_at(struct byte_source *source, uint64_t offset, void *buffer, size_t size,
                                struct error *error);

/* STATUS_BAD_INPUT when size or modification time are no longer what they were when the source was opened. */
enum status byte_source_check_unchanged(struct byte_source *source, struct error *error);

void byte_source_prefetch(struct byte_source *source, uint64_t offset, uint64_t size);

void byte_source_close(struct byte_source *source); /* NULL is fine */

/* Whether `path` is, or leads to, a regular file of so many bytes. */
bool file_has_size(const char *path, uint64_t size);

/* Bytes that a file of `size` bytes takes on the disk: blocks of 4096, as most file systems have them. */
uint64_t file_disk_bytes(uint64_t size);

/* Makes a folder and those above it. */
enum status folder_make(const char *path, struct error *error);

/* Makes the entries of a folder durable: files created, renamed or removed in it. */
enum status folder_sync(const char *path, struct error *error);

/* The same for the folder that `path` lies in. */
enum status folder_above_make(const char *path, struct error *error);
enum status folder_above_sync(const char *path, struct error *error);

/*
 * Reads a whole small file (JSON, recipes) into memory, NUL-terminated; the caller frees *bytes.
 * More than `limit` bytes: STATUS_BAD_INPUT.
 */
enum status file_read(const char *path, size_t limit, char **bytes, size_t *length, struct error *error);

#endif
