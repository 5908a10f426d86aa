#include "infer/cpu/rows.h"

const struct row_kernels *row_kernels_of(enum cpu_level level) {
#if defined __x86_64__
    if (level == CPU_AVX512)
        return &row_kernels_avx512;
    if (level == CPU_AVX2)
        return &row_kernels_avx2;
#endif
    (void)level; /* arm64's compiler takes NEON for plain C */
    return &row_kernels_portable;
}
