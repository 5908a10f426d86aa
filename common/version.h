#ifndef QSTREAM_COMMON_VERSION_H
#define QSTREAM_COMMON_VERSION_H

#define QSTREAM_VERSION "0.1.0"

/* Raised whenever the bytes that a run writes, or the geometry of its tiles, change. */
enum { QSTREAM_OUTPUT_VERSION = 1 };

#endif
