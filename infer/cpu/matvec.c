#include "infer/matvec.h"

#include "infer/cpu/matvec_kernels.h"

const struct matvec_kernel *matvec_kernel(enum cpu_level level, enum weight_format format) {
#if defined __x86_64__
    if (level == CPU_AVX512)
        return &matvec_avx512[format];
    if (level == CPU_AVX2)
        return __builtin_cpu_is("amd") ? &matvec_avx2_amd[format] : &matvec_avx2[format];
#endif
    (void)level; /* arm64's compiler takes NEON for plain C */
    (void)format;
    return &matvec_portable;
}

memory_read_function *memory_read_kernel(enum cpu_level level) {
#if defined __x86_64__
    if (level == CPU_AVX512)
        return memory_read_avx512;
    if (level == CPU_AVX2)
        return memory_read_avx2;
#endif
    (void)level;
    return memory_read_portable;
}
