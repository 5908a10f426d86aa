/*
 * The journal of a run: which tiles are on disk, which shards are hashed. It promises only what is durable:
 * the caller syncs the data first, then appends. A record that was torn by a crash is dropped when the file
 * is read.
 *
 * File: a header of HEADER bytes (magic, version, the fingerprints, CRC-32), then records of 48 bytes
 * {u32 type, u32 first, u32 last, payload[32], u32 crc}, little-endian. The CRC of a record covers its bytes
 * and the fingerprints, so that a record of another run is never taken for one of this.
 */
#ifndef QSTREAM_QSTREAM_JOURNAL_H
#define QSTREAM_QSTREAM_JOURNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/sha256.h"
#include "common/status.h"

/* What the journal is bound to. Each part has its own hash so that a refusal can say what differs. */
struct fingerprint {
    uint8_t source[SHA256_SIZE];  /* names, sizes and times of the source's files, config.json's bytes */
    uint8_t recipe[SHA256_SIZE];  /* the recipe's bytes */
    uint8_t options[SHA256_SIZE]; /* rule, gamma, shard size, calibration, output version, ... */
};

enum journal_record_type {
    JOURNAL_TILES = 1,  /* tiles first..last are on disk */
    JOURNAL_SHARD = 2,  /* shard `first` is complete; payload: the SHA-256 of its file */
    JOURNAL_AMAX = 3,   /* job `first`: its weight's amax is the BF16 code `last` */
    JOURNAL_SOURCE = 4, /* tile `first`; payload: the SHA-256 of the source bytes it was made from */
};

struct journal_record {
    uint32_t type, first, last;
    uint8_t payload[SHA256_SIZE];
};

struct journal;

/* Called for each valid record of an existing journal, in order. */
typedef void journal_visit(void *context, const struct journal_record *record);

/*
 * Opens or creates the journal `path` and takes its lock (released by journal_close or the process's end).
 * An existing one must have the same fingerprint: another source is STATUS_BAD_INPUT, another recipe or other options
 * STATUS_USAGE. Someone else holds the lock: STATUS_USAGE.
 */
enum status journal_open(const char *path, const struct fingerprint *fingerprint, journal_visit *visit, void *context,
                         struct journal **journal, struct error *error);

/* Reads a journal that need not be continued; it must exist, match and not be locked by a running process. */
enum status journal_read(const char *path, const struct fingerprint *fingerprint, journal_visit *visit, void *context,
                         struct error *error);

/*
 * Appends records and syncs the file. After a failure the journal must not be used further: what it holds on
 * disk up to the last success stays valid.
 */
enum status journal_append(struct journal *journal, const struct journal_record *records, size_t count,
                           struct error *error);

void journal_close(struct journal *journal); /* NULL is fine */

#endif
