/*
 * A file that is being downloaded: its bytes in their places and, behind them, a note of which have come. The file is cut
 * into chunks of equal size; of each, so many bytes from its beginning are there.
 *
 * The note is a header, which binds it to the file's size and hash, and a record for each chunk, with a checksum of its own
 * and rewritten every PARTIAL_NOTE_BYTES. A record that is not what it should be counts for nothing, a header or a length
 * that is not starts the file anew. A file of the right size without a note is one that was about to get its name. Whatever a
 * note says, only the hash decides in the end: bytes that a power failure took show there.
 *
 * Room for the whole file is taken when it is begun, where the file system can do that: a full disk shows then, and chunks
 * that grow beside each other lie in one piece. One process at a time has a partial file open (a lock on it, F_OFD_SETLK).
 */
#ifndef QSTREAM_COMMON_HUB_PARTIAL_H
#define QSTREAM_COMMON_HUB_PARTIAL_H

#include "common/hub/listing.h"

enum { PARTIAL_NOTE_BYTES = 1 << 20 };

struct partial;

/* Opens or makes `path` for `file`. *partial NULL with STATUS_OK: another process has it open. */
enum status partial_open(const char *path, const struct hub_file *file, struct partial **partial, struct error *error);
void partial_close(struct partial *partial); /* NULL is fine; what came is noted */

/* Bytes that the file at `path` has of `file`, and bytes that it takes on the disk; both 0 when there is none. */
void partial_look(const char *path, const struct hub_file *file, uint64_t *present, uint64_t *taken);

/* Bytes of a partial file when all of `file` is in it: more than the file has. */
uint64_t partial_bytes(const struct hub_file *file);

/* Chunks are numbered from 0, in the order of the file, without gaps. */
size_t partial_chunk_count(const struct partial *partial);
uint64_t partial_chunk_end(const struct partial *partial, size_t chunk);  /* offset in the file */
uint64_t partial_chunk_here(const struct partial *partial, size_t chunk); /* offset of its first byte that is missing */

uint64_t partial_present(const struct partial *partial); /* bytes, of all chunks */

/* The first byte from `offset` on that is missing; `offset` is one that is itself, or behind bytes that are there. */
uint64_t partial_frontier(const struct partial *partial, uint64_t offset);

/*
 * Takes bytes of the file at `offset`, where no byte before it is missing in its chunk; those that are there already are
 * left alone. Chunks may be written by different threads, one by one thread at a time.
 */
enum status partial_write(struct partial *partial, uint64_t offset, const void *bytes, size_t size,
                          struct error *error);

/* Reads bytes that are there. */
enum status partial_read(const struct partial *partial, uint64_t offset, void *buffer, size_t size,
                         struct error *error);

/* Forgets all bytes. Nobody may write meanwhile. */
enum status partial_restart(struct partial *partial, struct error *error);

/* Syncs a file that is complete and gives it its name. */
enum status partial_finish(struct partial *partial, const char *target, struct error *error);

/* Removes the file; it can only be closed then. */
void partial_remove(struct partial *partial);

#endif
