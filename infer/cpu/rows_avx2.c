#if defined __x86_64__
#define ROW_KERNELS row_kernels_avx2
#include "infer/cpu/rows_kernel.inc"
#endif
