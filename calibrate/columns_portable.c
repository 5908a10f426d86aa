#define COLUMN_KERNELS column_kernels_portable
#include "calibrate/columns_kernel.inc"
