/*
 * The part of the CUDA runtime that the plug-in uses, as a model of it for tests on the CPU. Found before NVIDIA's header
 * by -Itests/cuda/model, it lets a C++ compiler build the .cu files of infer/cuda; see README.md for what runs how. Names and behaviour
 * follow NVIDIA's documentation of the runtime API, values of enums are the model's own.
 *
 * What the API would answer with an error, the model answers with that error. What it would let pass and a kernel would
 * die of, or silently be wrong, ends the process with a line that starts with "cuda model:".
 */
#ifndef QSTREAM_CUDA_MODEL_RUNTIME_H
#define QSTREAM_CUDA_MODEL_RUNTIME_H

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "device_builtins.h"

#define CUDART_VERSION 13000

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue,
    cudaErrorMemoryAllocation,
    cudaErrorInvalidConfiguration,
    cudaErrorInvalidDevice,
    cudaErrorInvalidDeviceFunction,
    cudaErrorInvalidResourceHandle,
    cudaErrorInsufficientDriver,
    cudaErrorNoDevice,
    cudaErrorNotReady,
    cudaErrorNotSupported,
    cudaErrorLaunchFailure,
    cudaErrorLaunchOutOfResources,
    cudaErrorStreamCaptureUnsupported,
    cudaErrorStreamCaptureInvalidated,
    cudaErrorIllegalState,
    cudaErrorUnknown
};

struct model_stream;
struct model_event;
struct model_graph;
typedef model_stream *cudaStream_t; /* NULL is no stream here: the plug-in has its own */
typedef model_event *cudaEvent_t;
typedef model_graph *cudaGraph_t;
typedef model_graph *cudaGraphExec_t;

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum { cudaStreamDefault = 0, cudaStreamNonBlocking = 1 };
enum { cudaEventDefault = 0, cudaEventBlockingSync = 1, cudaEventDisableTiming = 2 };
enum { cudaEventWaitDefault = 0 };
enum { cudaHostAllocDefault = 0, cudaHostAllocPortable = 1, cudaHostAllocMapped = 2, cudaHostAllocWriteCombined = 4 };
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize, cudaFuncAttributePreferredSharedMemoryCarveout };
enum { cudaSharedmemCarveoutDefault = -1, cudaSharedmemCarveoutMaxL1 = 0, cudaSharedmemCarveoutMaxShared = 100 };

enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock,
    cudaDevAttrMaxSharedMemoryPerBlock,
    cudaDevAttrMaxSharedMemoryPerBlockOptin,
    cudaDevAttrMaxSharedMemoryPerMultiprocessor,
    cudaDevAttrWarpSize,
    cudaDevAttrMultiProcessorCount,
    cudaDevAttrComputeCapabilityMajor,
    cudaDevAttrComputeCapabilityMinor,
    cudaDevAttrClockRate,
    cudaDevAttrMemoryClockRate,
    cudaDevAttrGlobalMemoryBusWidth,
    cudaDevAttrL2CacheSize,
    cudaDevAttrIntegrated,
    cudaDevAttrCanMapHostMemory,
    cudaDevAttrUnifiedAddressing,
    cudaDevAttrPageableMemoryAccess,
    cudaDevAttrPageableMemoryAccessUsesHostPageTables,
    cudaDevAttrConcurrentManagedAccess,
    cudaDevAttrCanUseHostPointerForRegisteredMem,
    cudaDevAttrMaxThreadsPerMultiProcessor,
    cudaDevAttrMaxRegistersPerBlock,
    cudaDevAttrAsyncEngineCount,
    cudaDevAttrMaxGridDimX,
    cudaDevAttrMaxGridDimY,
    cudaDevAttrMaxGridDimZ
};

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, maxThreadsPerMultiProcessor, regsPerBlock;
    int memoryBusWidth, l2CacheSize, asyncEngineCount;
    int integrated, canMapHostMemory, unifiedAddressing, pageableMemoryAccess, pageableMemoryAccessUsesHostPageTables;
    int maxGridSize[3], maxThreadsDim[3];
};

struct cudaFuncAttributes {
    size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
    int maxThreadsPerBlock, numRegs, maxDynamicSharedSizeBytes;
};

struct cudaLaunchAttribute {
    int id;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs; /* none are modelled */
    unsigned numAttrs;
};

/* ---- devices ---- */

cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);

/* ---- memory ---- */

cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **memory, size_t bytes);
template <typename T> cudaError_t cudaMalloc(T **memory, size_t bytes) { return cudaMalloc((void **)memory, bytes); }
cudaError_t cudaFree(void *memory);
cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
template <typename T> cudaError_t cudaHostAlloc(T **memory, size_t bytes, unsigned flags) {
    return cudaHostAlloc((void **)memory, bytes, flags);
}
cudaError_t cudaMallocHost(void **memory, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);

/* ---- streams, events, graphs ---- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags = 0);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

/* ---- kernels ---- */

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value);
template <typename... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute attribute, int value) {
    return cudaFuncSetAttribute((const void *)kernel, attribute, value);
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function);

/* One launch as the model keeps it: `call` is the kernel with its parameters, for one thread. */
struct model_kernel {
    const void *function;
    void (*call)(const void *parameters);
    const void *parameters; /* copied */
    size_t bytes;           /* of parameters */
    void (*copy)(void *to, const void *from);
    const void *pointers[64]; /* parameters that are pointers */
    unsigned pointer_count;
};
cudaError_t model_launch(const cudaLaunchConfig_t *config, const model_kernel *kernel);

template <typename T> static inline void model_note_pointer(model_kernel *kernel, const T &parameter) {
    if constexpr (std::is_pointer_v<T>)
        if (kernel->pointer_count < 64)
            kernel->pointers[kernel->pointer_count++] = (const void *)parameter;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(Parameters...),
                               Arguments &&...arguments) {
    static_assert((std::is_trivially_copyable_v<std::decay_t<Parameters>> && ...), "parameters are copied as bytes");
    using kernel_type = void (*)(Parameters...);
    using parameters_type = std::tuple<kernel_type, std::decay_t<Parameters>...>;
    const parameters_type parameters(kernel, std::forward<Arguments>(arguments)...);
    model_kernel launch = {};
    launch.function = (const void *)kernel;
    launch.parameters = &parameters;
    launch.bytes = sizeof parameters;
    launch.copy = [](void *to, const void *from) { new (to) parameters_type(*(const parameters_type *)from); };
    launch.call = [](const void *p) {
        std::apply([](kernel_type k, const std::decay_t<Parameters> &...values) { k(values...); },
                   *(const parameters_type *)p);
    };
    std::apply([&](kernel_type, const auto &...values) { (model_note_pointer(&launch, values), ...); }, parameters);
    return model_launch(config, &launch);
}

#endif
