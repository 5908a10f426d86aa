#include "infer/weight.h"

size_t weight_row_bytes(const struct weight *weight) {
    const size_t columns = weight->columns;
    switch (weight->format) {
    case WEIGHT_F32:
        return columns * 4;
    case WEIGHT_F16:
    case WEIGHT_BF16:
        return columns * 2;
    case WEIGHT_MXFP4:
        return columns / 2;
    default:
        return columns;
    }
}
