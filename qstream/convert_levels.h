/*
 * The sets of conversions, one per instruction set; convert_for chooses. Each is compiled from the same plain
 * loops (convert_kernel.inc) with the compiler flags of its level, plus what that level does better by hand.
 */
#ifndef QSTREAM_QSTREAM_CONVERT_LEVELS_H
#define QSTREAM_QSTREAM_CONVERT_LEVELS_H

#include "qstream/convert.h"

#if defined(__x86_64__)
extern const struct convert convert_avx2;
extern const struct convert convert_avx512;
#elif defined(__aarch64__)
extern const struct convert convert_neon;
#endif

#endif
