/* cublasLt.h: descriptors, and the checks of a product; product.cc computes it. */
#include "cublasLt.h"

#include "model.h"
#include "product.h"

using namespace model;

struct model_cublas {
    bool open;
};

struct model_matmul {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasLtPointerMode_t pointers;
    cublasOperation_t a, b;
    uint32_t epilogue;
    int8_t fast;
    const float *a_scale, *b_scale;
};

struct model_layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t leading;
};

enum operand_name { A, B, C, D, OPERANDS };
/* What is promised of pointers where a preference says nothing. */
enum { ALIGNMENT_USUAL = 256, WORKSPACE_ALIGNMENT = 256, FP8_MULTIPLE = 16, FP8_CAPABILITY = 89 };

struct model_preference {
    uint64_t workspace;
    uint32_t alignment[OPERANDS];
};

/* An algorithm knows what it was chosen for, and may be used for nothing else. */
enum algorithm_field { SHAPE, TYPES, WORKSPACE, ALIGNMENT };
static_assert(ALIGNMENT + OPERANDS <= sizeof(cublasLtMatmulAlgo_t::data) / sizeof(uint64_t), "it has to have room");

static uint64_t mix(uint64_t a, uint64_t b) { return (a ^ b) * 0x9e3779b97f4a7c15u + (a >> 29); }

static const struct {
    const char *name, *text;
} STATUS[] = {{"CUBLAS_STATUS_SUCCESS", "success"},
              {"CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
              {"CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
              {"CUBLAS_STATUS_INVALID_VALUE", "an invalid value was used as a parameter"},
              {"CUBLAS_STATUS_ARCH_MISMATCH", "an absent device architectural feature is required"},
              {"CUBLAS_STATUS_EXECUTION_FAILED", "the GPU program failed to execute"},
              {"CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
              {"CUBLAS_STATUS_NOT_SUPPORTED", "the functionality is not supported"}};
const char *cublasLtGetStatusName(cublasStatus_t status) { return STATUS[status].name; }
const char *cublasLtGetStatusString(cublasStatus_t status) { return STATUS[status].text; }
size_t cublasLtGetVersion() { return 130000; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = new model_cublas{true};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- descriptors ---- */

template <typename T> static cublasStatus_t take(T *to, const void *value, size_t bytes) {
    if (value == nullptr || bytes != sizeof *to)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

/* Only this value is modelled. */
template <typename T> static cublasStatus_t take_only(T only, const void *value, size_t bytes) {
    T given;
    const cublasStatus_t status = take(&given, value, bytes);
    return status == CUBLAS_STATUS_SUCCESS && given != only ? CUBLAS_STATUS_NOT_SUPPORTED : status;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *matmul, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
    *matmul = new model_matmul{};
    (*matmul)->compute = compute;
    (*matmul)->scale = scale;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t matmul) {
    delete matmul;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t matmul, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_COMPUTE_TYPE:
        return take(&matmul->compute, value, bytes);
    case CUBLASLT_MATMUL_DESC_SCALE_TYPE:
        return take(&matmul->scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
        return take_only<int32_t>(CUBLASLT_POINTER_MODE_HOST, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return take(&matmul->a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return take(&matmul->b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return take_only<uint32_t>(CUBLASLT_EPILOGUE_DEFAULT, value, bytes);
    case CUBLASLT_MATMUL_DESC_FAST_ACCUM:
        return take(&matmul->fast, value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_POINTER:
        return take(&matmul->a_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_B_SCALE_POINTER:
        return take(&matmul->b_scale, value, bytes);
    case CUBLASLT_MATMUL_DESC_A_SCALE_MODE:
    case CUBLASLT_MATMUL_DESC_B_SCALE_MODE:
        return take_only<int32_t>(CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F, value, bytes);
    case CUBLASLT_MATMUL_DESC_D_SCALE_POINTER:
        break;
    }
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
    *layout = new model_layout{type, rows, columns, leading};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
        return take(&layout->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return take_only<int32_t>(CUBLASLT_ORDER_COL, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
        return take(&layout->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
        return take(&layout->columns, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
        return take(&layout->leading, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return take_only<int32_t>(1, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new model_preference{0, {ALIGNMENT_USUAL, ALIGNMENT_USUAL, ALIGNMENT_USUAL, ALIGNMENT_USUAL}};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return take(&preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES:
        return take(&preference->alignment[A], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES:
        return take(&preference->alignment[B], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES:
        return take(&preference->alignment[C], value, bytes);
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES:
        return take(&preference->alignment[D], value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* ---- what a product has to be like ---- */

struct shape {
    uint64_t m, n, k;
};

static cublasStatus_t shape_check(const model_matmul *matmul, const model_layout *const layouts[OPERANDS],
                                  shape *found) {
    for (int i = 0; i < OPERANDS; i++)
        if (layouts[i] == nullptr || layouts[i]->rows == 0 || layouts[i]->columns == 0 ||
            layouts[i]->leading < (int64_t)layouts[i]->rows)
            return CUBLAS_STATUS_INVALID_VALUE;
    const model_layout *const a = layouts[A], *const b = layouts[B], *const c = layouts[C], *const d = layouts[D];
    const bool a_transposed = matmul->a != CUBLAS_OP_N, b_transposed = matmul->b != CUBLAS_OP_N;
    *found = shape{a_transposed ? a->columns : a->rows, b_transposed ? b->rows : b->columns,
                   a_transposed ? a->rows : a->columns};
    const uint64_t b_k = b_transposed ? b->columns : b->rows;
    if (b_k != found->k || c->rows != found->m || c->columns != found->n || d->rows != found->m ||
        d->columns != found->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    return CUBLAS_STATUS_SUCCESS;
}

/* Tables of supported types, and the requirements of FP8 kernels, of cublasLtMatmul's documentation. */
static cublasStatus_t types_check(const model_matmul *matmul, const model_layout *const layouts[OPERANDS],
                                  const shape &shape) {
    const cudaDataType_t a = layouts[A]->type, c = layouts[C]->type, d = layouts[D]->type;
    if (matmul->scale != CUDA_R_32F || layouts[B]->type != a || c != d || a == CUDA_R_16F ||
        (matmul->compute != CUBLAS_COMPUTE_32F && matmul->compute != CUBLAS_COMPUTE_32F_PEDANTIC))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (d != CUDA_R_32F && (d != CUDA_R_16BF || a == CUDA_R_32F))
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (a != CUDA_R_8F_E4M3)
        return matmul->a_scale != nullptr || matmul->b_scale != nullptr ? CUBLAS_STATUS_INVALID_VALUE
                                                                        : CUBLAS_STATUS_SUCCESS;
    if (setting().capability < FP8_CAPABILITY || matmul->compute != CUBLAS_COMPUTE_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    if (matmul->a != CUBLAS_OP_T || matmul->b != CUBLAS_OP_N || shape.m % FP8_MULTIPLE != 0 ||
        shape.k % FP8_MULTIPLE != 0)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    for (int i = 0; i < OPERANDS; i++)
        if (layouts[i]->leading * type_bytes(layouts[i]->type) % FP8_MULTIPLE != 0)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    return CUBLAS_STATUS_SUCCESS;
}

/* Of everything but where the matrices are. */
static cublasStatus_t matmul_check(cublasLtHandle_t handle, const model_matmul *matmul,
                                   const model_layout *const layouts[OPERANDS], shape *shape) {
    if (handle == nullptr || !handle->open)
        return CUBLAS_STATUS_NOT_INITIALIZED;
    if (matmul == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = shape_check(matmul, layouts, shape);
    return status != CUBLAS_STATUS_SUCCESS ? status : types_check(matmul, layouts, *shape);
}

/* What an algorithm was chosen for, as two numbers. */
static void fingerprint(const model_matmul *matmul, const model_layout *const layouts[OPERANDS], uint64_t of[2]) {
    of[SHAPE] = of[TYPES] = 1;
    for (int i = 0; i < OPERANDS; i++) {
        of[SHAPE] = mix(mix(mix(of[SHAPE], layouts[i]->rows), layouts[i]->columns), (uint64_t)layouts[i]->leading);
        of[TYPES] = mix(of[TYPES], layouts[i]->type);
    }
    of[TYPES] = mix(mix(mix(of[TYPES], matmul->a), matmul->b), matmul->compute);
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int wanted,
                                              cublasLtMatmulHeuristicResult_t results[], int *count) {
    *count = 0;
    const model_layout *const layouts[OPERANDS] = {a, b, c, d};
    shape shape;
    if (wanted < 1 || preference == nullptr)
        return CUBLAS_STATUS_INVALID_VALUE;
    const cublasStatus_t status = matmul_check(handle, matmul, layouts, &shape);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    for (int i = 0; i < OPERANDS; i++) {
        const uint64_t least =
            layouts[A]->type == CUDA_R_8F_E4M3 ? (uint64_t)FP8_MULTIPLE : type_bytes(layouts[i]->type);
        if (preference->alignment[i] < least)
            return CUBLAS_STATUS_NOT_SUPPORTED;
    }
    /* as large as may be: the plug-in has to bring it */
    results[0] = cublasLtMatmulHeuristicResult_t{};
    uint64_t *const algorithm = results[0].algo.data;
    fingerprint(matmul, layouts, algorithm);
    algorithm[WORKSPACE] = results[0].workspaceSize = preference->workspace;
    for (int i = 0; i < OPERANDS; i++)
        algorithm[ALIGNMENT + i] = preference->alignment[i];
    results[0].wavesCount = 1;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t matmul, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    const model_layout *const layouts[OPERANDS] = {a_layout, b_layout, c_layout, d_layout};
    const void *const places[OPERANDS] = {a, b, c, d};
    shape shape;
    const cublasStatus_t status = matmul_check(handle, matmul, layouts, &shape);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    if (alpha == nullptr || beta == nullptr || a == nullptr || b == nullptr || c == nullptr || d == nullptr ||
        algorithm == nullptr || (c == d && c_layout->leading != d_layout->leading))
        return CUBLAS_STATUS_INVALID_VALUE;
    uint64_t chosen[2];
    fingerprint(matmul, layouts, chosen);
    if (chosen[SHAPE] != algorithm->data[SHAPE] || chosen[TYPES] != algorithm->data[TYPES] ||
        workspace_bytes < algorithm->data[WORKSPACE] ||
        (algorithm->data[WORKSPACE] > 0 && (workspace == nullptr || (uintptr_t)workspace % WORKSPACE_ALIGNMENT != 0)))
        return CUBLAS_STATUS_INVALID_VALUE;

    operation work = {"a product of cuBLASLt", nullptr, {}};
    const auto on_device = [&](const void *at, size_t bytes) {
        if (memory_lookup(at, bytes, "a product") == PAGEABLE)
            fault("a product of cuBLASLt is given the pointer %p, which is not into memory of the device", at);
        work.uses.push_back(memory_number(at));
    };
    for (int i = 0; i < OPERANDS; i++) {
        const model_layout *const layout = layouts[i];
        if ((uintptr_t)places[i] % algorithm->data[ALIGNMENT + i] != 0)
            return CUBLAS_STATUS_NOT_SUPPORTED;
        on_device(places[i],
                  ((layout->columns - 1) * (uint64_t)layout->leading + layout->rows) * type_bytes(layout->type));
    }
    const size_t workspace_used = algorithm->data[WORKSPACE];
    if (workspace_used > 0)
        on_device(workspace, workspace_used);
    const float *const a_scale = matmul->a_scale, *const b_scale = matmul->b_scale;
    for (const float *const scale : {a_scale, b_scale})
        if (scale != nullptr)
            on_device(scale, sizeof *scale);

    const auto matrix_of = [&](operand_name i, bool transposed) {
        return matrix{places[i], layouts[i]->type, transposed, (size_t)layouts[i]->leading};
    };
    product product = {};
    product.m = shape.m;
    product.n = shape.n;
    product.k = shape.k;
    product.a = matrix_of(A, matmul->a != CUBLAS_OP_N);
    product.b = matrix_of(B, matmul->b != CUBLAS_OP_N);
    product.c = matrix_of(C, false);
    product.d = d;
    product.d_type = d_layout->type;
    product.d_leading = (size_t)d_layout->leading;
    product.alpha = *(const float *)alpha;
    product.beta = *(const float *)beta;
    work.run = [=] {
        auto scaled = product;
        for (const float *const scale : {a_scale, b_scale})
            if (scale != nullptr)
                scaled.alpha *= *scale;
        product_run(scaled);
        if (workspace_used > 0) /* who keeps anything there loses it */
            memset(workspace, setting().poison, workspace_used < 4096 ? workspace_used : 4096);
    };
    return stream_put(stream, std::move(work)) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
