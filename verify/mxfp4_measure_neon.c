#if defined(__aarch64__)
#include <arm_neon.h>

#define LANES 4
#define MEASURE_NAME mxfp4_measure_neon
#define MIN_LANES(a, b) ((lanes)vminq_f32((float32x4_t)(a), (float32x4_t)(b)))
#define MAX_LANES(a, b) ((lanes)vmaxq_f32((float32x4_t)(a), (float32x4_t)(b)))
#include "verify/mxfp4_measure_kernel.inc"
#endif
