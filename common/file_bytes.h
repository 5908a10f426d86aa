/*
 * Bytes of an open file at an offset, all of them: what pread(2) and pwrite(2) leave out is asked for again.
 */
#ifndef QSTREAM_COMMON_FILE_BYTES_H
#define QSTREAM_COMMON_FILE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False, with errno, when they cannot be read; EIO where the file ends before them. */
bool file_bytes_read(int fd, void *buffer, size_t size, uint64_t offset);

/* False, with errno, when they cannot be written. */
bool file_bytes_write(int fd, const void *bytes, size_t size, uint64_t offset);

#endif
