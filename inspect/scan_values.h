/*
 * The inner loops of the statistics: one pass over a buffer of values, at the speed of memory.
 */
#ifndef QSTREAM_INSPECT_SCAN_VALUES_H
#define QSTREAM_INSPECT_SCAN_VALUES_H

#include "common/safetensors.h"

/* How often each byte value occurs in `size` bytes. */
void bytes_count(const uint8_t *bytes, size_t size, uint64_t counts[256]);

struct float_scan {
    uint64_t elements, nan, infinite, zero, subnormal, negative;
    double min, max; /* of the finite values, NaN when there is none */
};

/* `bytes` holds `size` bytes of BF16, F16, F32 or F64 values (a rest that is no whole value is ignored). */
void floats_scan(enum dtype dtype, const uint8_t *bytes, size_t size, struct float_scan *scan);

#endif
