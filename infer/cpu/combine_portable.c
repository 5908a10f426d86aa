#define COMBINE combine_portable
#include "infer/cpu/combine_kernel.inc"
