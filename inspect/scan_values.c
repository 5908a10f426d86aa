#include "inspect/scan_values.h"

#include <math.h>
#include <string.h>

#include "common/formats.h"

void bytes_count(const uint8_t *bytes, size_t size, uint64_t counts[256]) {
    enum { TABLES = 8, RUN = 1 << 30 }; /* equal neighbours go to different tables and do not wait for each other */
    uint32_t tables[TABLES][256];
    memset(counts, 0, 256 * sizeof *counts);
    while (size > 0) {
        size_t run = size < RUN ? size : RUN, at = 0;
        memset(tables, 0, sizeof tables);
        for (; at + TABLES <= run; at += TABLES) {
            uint64_t word;
            memcpy(&word, bytes + at, sizeof word);
            for (int i = 0; i < TABLES; i++)
                tables[i][word >> (8 * i) & 255]++;
        }
        for (; at < run; at++)
            tables[0][bytes[at]]++;
        for (int i = 0; i < TABLES; i++)
            for (int code = 0; code < 256; code++)
                counts[code] += tables[i][code];
        bytes += run;
        size -= run;
    }
}

/*
 * A float's bits without the sign order magnitudes as integers do; with the sign bit, flipped where it is set, they
 * order all values. So minimum and maximum are taken over integers, which compilers turn into vector instructions.
 * BITS: type of the bits, KEY: the signed type, INF: the bits of infinity, LEAST: those of the least normal number.
 */
#define FLOATS_SCAN(NAME, BITS, KEY, INF, LEAST, RUN, DECODE)                                                          \
    static void NAME(const uint8_t *bytes, size_t count, struct float_scan *scan) {                                    \
        enum { SHIFT = 8 * sizeof(BITS) - 1 };                                                                         \
        const BITS magnitude_mask = (BITS)(((BITS)1 << SHIFT) - 1);                                                    \
        const KEY most = (KEY)((INF)-1), least = (KEY)~most;                                                           \
        KEY low = most, high = least;                                                                                  \
        for (size_t begin = 0; begin < count; begin += (RUN)) {                                                        \
            size_t end = count - begin < (RUN) ? count : begin + (RUN);                                                \
            BITS nan = 0, infinite = 0, zero = 0, subnormal = 0, negative = 0; /* a run fits their width */            \
            for (size_t i = begin; i < end; i++) {                                                                     \
                BITS bits;                                                                                             \
                memcpy(&bits, bytes + i * sizeof bits, sizeof bits);                                                   \
                BITS magnitude = (BITS)(bits & magnitude_mask);                                                        \
                KEY key = (KEY)(bits ^ (BITS)((BITS)(0 - (bits >> SHIFT)) & magnitude_mask));                          \
                KEY for_low = magnitude < (INF) ? key : most, for_high = magnitude < (INF) ? key : least;              \
                low = for_low < low ? for_low : low;                                                                   \
                high = for_high > high ? for_high : high;                                                              \
                nan = (BITS)(nan + (magnitude > (INF)));                                                               \
                infinite = (BITS)(infinite + (magnitude == (INF)));                                                    \
                zero = (BITS)(zero + (magnitude == 0));                                                                \
                subnormal = (BITS)(subnormal + (magnitude < (LEAST)));                                                 \
                negative = (BITS)(negative + (bits > (BITS)((BITS)1 << SHIFT)));                                       \
            }                                                                                                          \
            scan->nan += nan;                                                                                          \
            scan->infinite += infinite;                                                                                \
            scan->zero += zero;                                                                                        \
            scan->subnormal += (uint64_t)(subnormal - zero);                                                           \
            scan->negative += negative;                                                                                \
        }                                                                                                              \
        scan->elements = count;                                                                                        \
        scan->min = scan->max = NAN;                                                                                   \
        if (scan->nan + scan->infinite < count) {                                                                      \
            BITS low_bits = (BITS)((BITS)low ^ (low < 0 ? magnitude_mask : 0));                                        \
            BITS high_bits = (BITS)((BITS)high ^ (high < 0 ? magnitude_mask : 0));                                     \
            scan->min = (double)DECODE(low_bits);                                                                      \
            scan->max = (double)DECODE(high_bits);                                                                     \
        }                                                                                                              \
    }

static double f64_decode(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

FLOATS_SCAN(bf16_scan, uint16_t, int16_t, 0x7f80u, 0x0080u, 32768, bf16_decode)
FLOATS_SCAN(f16_scan, uint16_t, int16_t, 0x7c00u, 0x0400u, 32768, f16_decode)
FLOATS_SCAN(f32_scan, uint32_t, int32_t, 0x7f800000u, 0x00800000u, 65536, float_from_bits)
FLOATS_SCAN(f64_scan, uint64_t, int64_t, 0x7ff0000000000000u, 0x0010000000000000u, 65536, f64_decode)

void floats_scan(enum dtype dtype, const uint8_t *bytes, size_t size, struct float_scan *scan) {
    *scan = (struct float_scan){.min = NAN, .max = NAN};
    if (dtype == DTYPE_BF16)
        bf16_scan(bytes, size / 2, scan);
    else if (dtype == DTYPE_F16)
        f16_scan(bytes, size / 2, scan);
    else if (dtype == DTYPE_F32)
        f32_scan(bytes, size / 4, scan);
    else if (dtype == DTYPE_F64)
        f64_scan(bytes, size / 8, scan);
}
