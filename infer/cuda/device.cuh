/*
 * A device as the plug-in's files share it, and what kernels are written with. The files are compiled by nvcc, and for the
 * tests by a C++ compiler under the execution model of tests/cuda/model, which brings its own cuda_runtime.h. So kernels
 * keep to what is here and in the runtime API: dynamic shared memory only, no `<<<>>>`, PTX behind functions that
 * have a second body.
 */
#ifndef QSTREAM_INFER_CUDA_DEVICE_CUH
#define QSTREAM_INFER_CUDA_DEVICE_CUH

#include <cuda_runtime.h>

#include "infer/cuda/plugin.h"

enum { WARP = 32, FULL_WARP = 0xffffffff };

struct products; /* cuBLASLt and its workspace (product.cu) */

struct cuda_device {
    int number;
    unsigned capability; /* 89: 8.9 */
    unsigned multiprocessors;
    size_t shared_most; /* bytes of shared memory that a block may have */
    cudaStream_t streams[CUDA_STREAMS];
    cudaEvent_t events[CUDA_EVENTS];
    struct products *products;
    bool failed;
    char message[CUDA_MESSAGE_MAX]; /* of the first failure */
};

/* Keeps the first failure. */
void device_fail(cuda_device *device, const char *what, cudaError_t error);
void device_fail_text(cuda_device *device, const char *text);

static inline bool device_check(cuda_device *device, const char *what, cudaError_t error) {
    if (error != cudaSuccess)
        device_fail(device, what, error);
    return error == cudaSuccess;
}

/* Starts a kernel on the compute stream. `shared`: bytes of dynamic shared memory. */
template <typename... Parameters, typename... Arguments>
void launch(cuda_device *device, const char *what, void (*kernel)(Parameters...), dim3 grid, unsigned block,
            size_t shared, Arguments... arguments) {
    enum { SHARED_USUAL = 48 << 10 };
    if (device->failed || grid.x == 0 || grid.y == 0 || grid.z == 0)
        return;
    if (shared > SHARED_USUAL &&
        !device_check(device, what,
                      cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                           cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared)))
        return;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(block);
    config.dynamicSmemBytes = shared;
    config.stream = device->streams[CUDA_COMPUTE];
    device_check(device, what, cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

static inline unsigned ceil_div(uint64_t a, uint64_t b) { return (unsigned)((a + b - 1) / b); }

/* `name`: the block's dynamic shared memory, aligned to 16. */
#ifdef __CUDACC__
#define SHARED_MEMORY(name) extern __shared__ __align__(16) unsigned char name[]
#else
#define SHARED_MEMORY(name) unsigned char *const name = model_shared_memory()
#endif

/* ---- the operations of each file ---- */

void products_open(cuda_device *device);
void products_close(cuda_device *device);

void run_operand(cuda_device *device, const cuda_operand *operand);
void run_unpack(cuda_device *device, const weight *weight, uint32_t first, uint32_t rows, cuda_type type, void *out);
void run_product(cuda_device *device, const cuda_product *product);
void run_finish_residual(cuda_device *device, const cuda_result *result, float *hidden, uint32_t columns);
void run_finish_swiglu(cuda_device *device, const cuda_result results[2], cuda_type act, void *out, uint32_t columns);
void run_finish_heads(cuda_device *device, const cuda_result *result, const cuda_heads *heads);
void run_attention(cuda_device *device, const cuda_attention *attention);
void run_head_update(cuda_device *device, const cuda_result *results, unsigned sides, uint32_t vocabulary_row,
                     head_token *tokens);
void run_compare(cuda_device *device, const float *x, const float *b, uint32_t tokens, uint32_t columns, double *sums);
void run_finite_check(cuda_device *device, const float *x, uint64_t count, uint64_t *first);
void run_codes_check(cuda_device *device, const void *codes, uint64_t count, uint64_t *first);

uint64_t prepared_bytes(const weight *weight);
void run_prepare(cuda_device *device, const cuda_prepare *prepare);
void run_matvec(cuda_device *device, const cuda_matvec *items, unsigned count, cuda_matvec_use use, float *to);
uint64_t step_attention_bytes(const cuda_step_attention *attention);
void run_step_attention(cuda_device *device, const cuda_step_attention *attention);
void run_cache_fill(cuda_device *device, const void *source, cuda_type act, uint32_t tokens, uint32_t kv_heads,
                    uint32_t head_dim, cuda_type cache, void *to, uint32_t positions);
double run_read_rate(cuda_device *device, const void *memory, uint64_t bytes);

#endif
