#include "calibrate/columns.h"

const struct column_kernels *column_kernels_of(enum cpu_level level) {
#if defined __x86_64__
    if (level == CPU_AVX512)
        return &column_kernels_avx512;
    if (level == CPU_AVX2)
        return &column_kernels_avx2;
#endif
    (void)level;
    return &column_kernels_portable;
}
