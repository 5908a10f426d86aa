#define LANES 4
#define MEASURE_NAME mxfp4_measure_portable
#include "verify/mxfp4_measure_kernel.inc"
