#include "verify/mxfp4_measure.h"

mxfp4_measure_fn *mxfp4_measure_for(enum cpu_level level) {
    switch (level) {
    case CPU_PORTABLE:
        return mxfp4_measure_portable;
#if defined(__x86_64__)
    case CPU_AVX2:
        return mxfp4_measure_avx2;
    case CPU_AVX512:
        return mxfp4_measure_avx512;
#elif defined(__aarch64__)
    case CPU_NEON:
        return mxfp4_measure_neon;
#endif
    default:
        return NULL;
    }
}
