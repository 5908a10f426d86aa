/*
 * The companions of a run (schedule.h): tensors that are read beside others and lie in shards that are not there then. They
 * are fetched by themselves before the run begins and kept in one file, whole or not at all, so that a run that goes on
 * reads what the earlier one read. They come without a hash: once their own shard is there and its hash was right, they
 * are compared with it.
 *
 * File: magic (8 bytes), version (u32), count (u32), a SHA-256 of what it is for, the tensors' bytes in the order of the
 * schedule, and the SHA-256 of everything before. Little-endian.
 */
#ifndef QSTREAM_QSTREAM_COMPANIONS_H
#define QSTREAM_QSTREAM_COMPANIONS_H

#include "common/sha256.h"
#include "qstream/schedule.h"

struct companions;

/* Bytes of the file for a schedule; 0 when it has no companions. */
uint64_t companions_file_bytes(const struct schedule *schedule);

/*
 * Opens the file at `path`. *companions is NULL when there is none, or it is not whole, or not for this source (`source`,
 * of the fingerprint) and these companions. The schedule must outlive it.
 */
enum status companions_open(const char *path, const struct schedule *schedule, const uint8_t source[SHA256_SIZE],
                            struct companions **companions, struct error *error);

/* Reads bytes of a source's shard, wherever they are. Called by several threads at once. */
typedef enum status companions_read_function(void *context, uint32_t shard, uint64_t offset, void *buffer, size_t size,
                                             struct error *error);

/* Makes the file, several reads at a time, and has it durable. */
enum status companions_make(const char *path, const struct schedule *schedule, const uint8_t source[SHA256_SIZE],
                            companions_read_function *read, void *context, struct error *error);

/* Reads bytes of a shard that lie in a companion. *held is false, and nothing is read, when they do not. */
enum status companions_read(const struct companions *companions, uint32_t shard, uint64_t offset, void *buffer,
                            size_t size, bool *held, struct error *error);

/*
 * Compares the companions that lie in a shard with its bytes, in `file`. STATUS_CHECK_FAILED when they differ; the message
 * names the tensor.
 */
enum status companions_compare(const struct companions *companions, uint32_t shard, struct byte_source *file,
                               struct error *error);

void companions_close(struct companions *companions); /* NULL is fine */

#endif
