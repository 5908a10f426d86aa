/* The product behind cublasLtMatmul, in float32: d = alpha * op(a) * op(b) + beta * c, column-major (product.cc). */
#ifndef QSTREAM_CUDA_MODEL_PRODUCT_H
#define QSTREAM_CUDA_MODEL_PRODUCT_H

#include <cstddef>

#include "cublasLt.h"

namespace model {

struct matrix {
    const void *values;
    cudaDataType_t type;
    bool transposed;
    size_t leading;
};

struct product {
    size_t m, n, k;
    matrix a, b, c; /* op(a) [m, k], op(b) [k, n], c [m, n] */
    void *d;
    cudaDataType_t d_type;
    size_t d_leading;
    float alpha, beta; /* with beta 0 c is not read */
};

void product_run(const product &work);
size_t type_bytes(cudaDataType_t type);

} // namespace model

#endif
