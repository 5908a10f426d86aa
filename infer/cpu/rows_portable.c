#define ROW_KERNELS row_kernels_portable
#include "infer/cpu/rows_kernel.inc"
