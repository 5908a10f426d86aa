#include "common/cpu.h"

#include <stdatomic.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
/* Bits of AT_HWCAP in the Linux arm64 ABI (Documentation/arch/arm64/elf_hwcaps.rst). */
enum { ARM64_HWCAP_ASIMD = 1 << 1, ARM64_HWCAP_SHA2 = 1 << 6 };
#endif

static const char *const level_names[CPU_LEVELS] = {"portable", "neon", "avx2", "avx512"};

/* What was detected: a bit per level, and SHA. Never zero once known: portable code runs anywhere. */
enum { FEATURE_SHA = 1 << CPU_LEVELS };

#if defined(__x86_64__)

static unsigned detect(void) {
    enum { LEAF7_EBX_SHA = 1 << 29 };
    unsigned features = 0, eax, ebx, ecx, edx;
    /* The compiler's runtime also asks whether the operating system saves the wide registers (XCR0). */
    __builtin_cpu_init();
    /* Not every compiler knows F16C by name; it uses AVX's registers. */
    bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
    bool avx2 =
        f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512vbmi");
    if (avx2)
        features |= 1 << CPU_AVX2;
    if (avx512)
        features |= 1 << CPU_AVX512;
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (ebx & LEAF7_EBX_SHA) != 0)
        features |= FEATURE_SHA;
    return features;
}

#elif defined(__aarch64__) && defined(__linux__)

static unsigned detect(void) {
    unsigned long capabilities = getauxval(AT_HWCAP);
    unsigned features = 0;
    if ((capabilities & ARM64_HWCAP_ASIMD) != 0)
        features |= 1 << CPU_NEON;
    if ((capabilities & ARM64_HWCAP_SHA2) != 0)
        features |= FEATURE_SHA;
    return features;
}

#elif defined(__aarch64__) && defined(__APPLE__)

static unsigned detect(void) { return 1 << CPU_NEON | FEATURE_SHA; }

#else

static unsigned detect(void) { return 0; }

#endif

/* Asking the processor may be slow (in a virtual machine it traps), so once. Two threads find the same. */
static unsigned features(void) {
    static atomic_uint known;
    unsigned found = atomic_load_explicit(&known, memory_order_relaxed);
    if (found == 0) {
        found = detect() | 1 << CPU_PORTABLE;
        atomic_store_explicit(&known, found, memory_order_relaxed);
    }
    return found;
}

bool cpu_has(enum cpu_level level) { return (unsigned)level < CPU_LEVELS && (features() >> level & 1) != 0; }

bool cpu_is_compiled(enum cpu_level level) {
#if defined(__x86_64__)
    return level == CPU_PORTABLE || level == CPU_AVX2 || level == CPU_AVX512;
#elif defined(__aarch64__)
    return level == CPU_PORTABLE || level == CPU_NEON;
#else
    return level == CPU_PORTABLE;
#endif
}

enum cpu_level cpu_best(void) {
    int level = CPU_LEVELS - 1;
    while (!cpu_has((enum cpu_level)level))
        level--;
    return (enum cpu_level)level;
}

const char *cpu_level_name(enum cpu_level level) {
    return (unsigned)level < CPU_LEVELS ? level_names[level] : "unknown";
}

enum cpu_level cpu_level_parse(const char *name) {
    int level = 0;
    while (level < CPU_LEVELS && strcmp(name, level_names[level]) != 0)
        level++;
    return (enum cpu_level)level;
}

bool cpu_has_sha(void) { return (features() & FEATURE_SHA) != 0; }
