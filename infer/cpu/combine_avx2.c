#if defined __x86_64__
#define COMBINE combine_avx2
#include "infer/cpu/combine_kernel.inc"
#endif
