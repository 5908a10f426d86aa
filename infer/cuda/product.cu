/*
 * Products of many tokens, by cuBLASLt. y [tokens, rows] row by row is, column by column, the matrix [rows, tokens]: the
 * transpose of the weight, which lies there as [columns, rows], times the operands, which lie there as [columns, tokens].
 * All types are summed in float32, without TF32, and FP8 without its fast accumulation, which has 14 bits.
 * Bound by compute from a few hundred tokens on.
 */
#include <stdio.h>
#include <stdlib.h>

#include <cublasLt.h>

#include "infer/cuda/device.cuh"
#include "infer/cuda/values.cuh"

namespace {

/* What a pass repeats are the shapes of a layer's weights and of the head, with full and with last groups of tokens. */
enum { PLANS = 64, ALIGNMENT_MOST = 256 };

const size_t workspace_usual = 32 << 20, workspace_hopper = 64 << 20; /* from compute capability 9.0 on */

struct plan_key {
    cuda_type type;
    uint32_t tokens, rows, columns;
    uint32_t x_alignment, weight_alignment, y_alignment;
};

/* How a product is computed; `size` of algorithm's workspace is within ours. */
struct plan {
    plan_key key;
    bool any;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t weight, x, y;
    cublasLtMatmulAlgo_t algorithm;
};

} // namespace

struct products {
    cublasLtHandle_t handle;
    void *workspace;
    size_t workspace_size;
    plan plans[PLANS];
    unsigned next; /* plan that is given up for a new one */
};

namespace {

const char *type_name(cuda_type type) { return type == CUDA_F32 ? "F32" : type == CUDA_BF16 ? "BF16" : "FP8"; }

void product_fail(cuda_device *device, const plan_key &key, const char *what, cublasStatus_t status) {
    char text[CUDA_MESSAGE_MAX];
    snprintf(text, sizeof text, "a product of %u tokens with a weight of [%u, %u] in %s: %s: %s", key.tokens, key.rows,
             key.columns, type_name(key.type), what, cublasLtGetStatusString(status));
    device_fail_text(device, text);
}

/* The largest power of two that divides the address and what is between rows. */
uint32_t alignment_of(const void *address, uint64_t row_bytes) {
    const uint64_t bits = (uint64_t)(uintptr_t)address | row_bytes | ALIGNMENT_MOST;
    return (uint32_t)(bits & (~bits + 1));
}

bool keys_equal(const plan_key &a, const plan_key &b) {
    return a.type == b.type && a.tokens == b.tokens && a.rows == b.rows && a.columns == b.columns &&
           a.x_alignment == b.x_alignment && a.weight_alignment == b.weight_alignment && a.y_alignment == b.y_alignment;
}

void plan_free(plan *plan) {
    if (plan->operation)
        cublasLtMatmulDescDestroy(plan->operation);
    if (plan->weight)
        cublasLtMatrixLayoutDestroy(plan->weight);
    if (plan->x)
        cublasLtMatrixLayoutDestroy(plan->x);
    if (plan->y)
        cublasLtMatrixLayoutDestroy(plan->y);
    *plan = {};
}

/* Keeps the first status that is not success. */
struct status_chain {
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    bool good() const { return status == CUBLAS_STATUS_SUCCESS; }
    template <typename Call> void then(Call call) {
        if (good())
            status = call();
    }
};

void plan_describe(plan *plan, status_chain *chain) {
    const plan_key &key = plan->key;
    const cudaDataType_t type = key.type == CUDA_F32    ? CUDA_R_32F
                                : key.type == CUDA_BF16 ? CUDA_R_16BF
                                                        : CUDA_R_8F_E4M3;
    const cublasOperation_t transposed = CUBLAS_OP_T, plain = CUBLAS_OP_N;
    const int8_t fast = 0;
    chain->then([&] { return cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F); });
    const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const void *value, size_t size) {
        chain->then([&] { return cublasLtMatmulDescSetAttribute(plan->operation, attribute, value, size); });
    };
    set(CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    set(CUBLASLT_MATMUL_DESC_TRANSB, &plain, sizeof plain);
    if (key.type == CUDA_E4M3)
        set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast);
    chain->then([&] { return cublasLtMatrixLayoutCreate(&plan->weight, type, key.columns, key.rows, key.columns); });
    chain->then([&] { return cublasLtMatrixLayoutCreate(&plan->x, type, key.columns, key.tokens, key.columns); });
    chain->then([&] { return cublasLtMatrixLayoutCreate(&plan->y, CUDA_R_32F, key.rows, key.tokens, key.rows); });
}

/* The fastest algorithm by the library's own estimate: it depends on the key alone, so that runs repeat. */
void plan_choose(const products *products, plan *plan, status_chain *chain) {
    cublasLtMatmulPreference_t preference = NULL;
    chain->then([&] { return cublasLtMatmulPreferenceCreate(&preference); });
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const void *value, size_t size) {
        chain->then([&] { return cublasLtMatmulPreferenceSetAttribute(preference, attribute, value, size); });
    };
    const plan_key &key = plan->key;
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &products->workspace_size, sizeof products->workspace_size);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &key.weight_alignment, sizeof key.weight_alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &key.x_alignment, sizeof key.x_alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &key.y_alignment, sizeof key.y_alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &key.y_alignment, sizeof key.y_alignment);
    cublasLtMatmulHeuristicResult_t result = {};
    int count = 0;
    chain->then([&] {
        return cublasLtMatmulAlgoGetHeuristic(products->handle, plan->operation, plan->weight, plan->x, plan->y,
                                              plan->y, preference, 1, &result, &count);
    });
    chain->then([&] { return count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : result.state; });
    plan->algorithm = result.algo;
    if (preference)
        cublasLtMatmulPreferenceDestroy(preference);
}

/* The plan of a product; NULL: a failure. */
plan *plan_of(cuda_device *device, const plan_key &key) {
    products *products = device->products;
    for (unsigned i = 0; i < PLANS; i++)
        if (products->plans[i].any && keys_equal(products->plans[i].key, key))
            return &products->plans[i];
    plan *plan = &products->plans[products->next];
    products->next = (products->next + 1) % PLANS;
    plan_free(plan);
    plan->key = key;
    status_chain chain;
    plan_describe(plan, &chain);
    plan_choose(products, plan, &chain);
    plan->any = chain.good();
    if (!plan->any)
        product_fail(device, key, "cuBLASLt has no way to compute it", chain.status);
    return plan->any ? plan : NULL;
}

} // namespace

void products_open(cuda_device *device) {
    if (device->failed || device->products)
        return;
    products *opened = (products *)calloc(1, sizeof *opened);
    if (!opened) {
        device_fail_text(device, "out of memory");
        return;
    }
    device->products = opened;
    const cublasStatus_t status = cublasLtCreate(&opened->handle);
    if (status != CUBLAS_STATUS_SUCCESS) {
        char text[CUDA_MESSAGE_MAX];
        snprintf(text, sizeof text, "cuBLASLt cannot be used: %s", cublasLtGetStatusString(status));
        device_fail_text(device, text);
        return;
    }
    opened->workspace_size = device->capability >= 90 ? workspace_hopper : workspace_usual;
    if (!device_check(device, "to have the workspace of products, 32 or 64 MiB",
                      cudaMalloc(&opened->workspace, opened->workspace_size)))
        opened->workspace = NULL;
}

void products_close(cuda_device *device) {
    products *opened = device->products;
    if (!opened)
        return;
    for (unsigned i = 0; i < PLANS; i++)
        plan_free(&opened->plans[i]);
    if (opened->handle)
        cublasLtDestroy(opened->handle);
    cudaFree(opened->workspace);
    free(opened);
    device->products = NULL;
}

void run_product(cuda_device *device, const cuda_product *product) {
    if (device->failed || product->tokens == 0 || product->rows == 0)
        return;
    products_open(device); /* at the first product: a generation may never have one */
    if (device->failed)
        return;
    const uint64_t row_bytes = (uint64_t)product->columns * type_bytes(product->type);
    const plan_key key = {product->type,
                          product->tokens,
                          product->rows,
                          product->columns,
                          alignment_of(product->x, row_bytes),
                          alignment_of(product->weight, row_bytes),
                          alignment_of(product->y, (uint64_t)product->rows * sizeof(float))};
    const plan *plan = plan_of(device, key);
    if (!plan)
        return;
    const float one = 1, zero = 0;
    const products *products = device->products;
    const cublasStatus_t status =
        cublasLtMatmul(products->handle, plan->operation, &one, product->weight, plan->weight, product->x, plan->x,
                       &zero, product->y, plan->y, product->y, plan->y, &plan->algorithm, products->workspace,
                       products->workspace_size, device->streams[CUDA_COMPUTE]);
    if (status != CUBLAS_STATUS_SUCCESS)
        product_fail(device, key, "cuBLASLt cannot start it", status);
}
