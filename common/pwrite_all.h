/*
 * pwrite(2) until everything is written.
 */
#ifndef QSTREAM_COMMON_PWRITE_ALL_H
#define QSTREAM_COMMON_PWRITE_ALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* False when it cannot be, with errno. */
bool pwrite_all(int fd, const void *bytes, size_t size, uint64_t offset);

#endif
