/*
 * Which instruction sets this processor has, found at run time.
 */
#ifndef QSTREAM_COMMON_CPU_H
#define QSTREAM_COMMON_CPU_H

#include <stdbool.h>

enum cpu_level {
    CPU_PORTABLE, /* plain C, any machine */
    CPU_NEON,     /* arm64 */
    CPU_AVX2,     /* x86-64 with AVX2, FMA and BMI2 */
    CPU_AVX512,   /* AVX-512 F, BW, DQ, VL and VBMI */
    CPU_LEVELS
};

/* The best level of this machine. */
enum cpu_level cpu_best(void);

bool cpu_has(enum cpu_level level);

/* Whether this program was compiled for it, too: what another machine could have. */
bool cpu_is_compiled(enum cpu_level level);

/* "portable", "neon", "avx2", "avx512": the words that --cpu takes. */
const char *cpu_level_name(enum cpu_level level);

/* The level of that name; CPU_LEVELS when there is none. */
enum cpu_level cpu_level_parse(const char *name);

/* Whether SHA-256 has its own instructions here (OpenSSL uses them when they exist). */
bool cpu_has_sha(void);

#endif
