/*
 * The device that the model plays, settings from the environment, errors and faults.
 *
 *     QSTREAM_MODEL_DEVICES     how many (1)
 *     QSTREAM_MODEL_CAPABILITY  80, 89, 90, 100, 120, 121 (90)
 *     QSTREAM_MODEL_MEMORY      bytes, or with K, M, G (8G)
 *     QSTREAM_MODEL_UNIFIED     1: shares the host's memory
 *     QSTREAM_MODEL_ORDER       forward, reverse or a number: the order of blocks, and of threads between barriers
 *     QSTREAM_MODEL_EAGER       streams that run as soon as they may, bit i for stream i; the others as late as they may (0)
 *     QSTREAM_MODEL_NO_MEMORY   number of the allocation, of the device or pinned, that fails, from 1 (0: none)
 *     QSTREAM_MODEL_FAIL        number of the operation on a stream at which the device breaks, from 1 (0: none)
 *     QSTREAM_MODEL_REPORT      file that is told of the memory that was used (memory.cc)
 *     QSTREAM_MODEL_POISON      byte that memory and shared memory are filled with (0xff: NaN in all formats)
 */
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <unistd.h>

#include "model.h"

namespace model {

std::recursive_mutex lock;

void fault(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("cuda model: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    abort();
}

std::string function_name(const void *function) {
    char address[32];
    snprintf(address, sizeof address, "at %p", function);
    Dl_info info;
    if (dladdr(function, &info) == 0)
        return address;
    char command[4300];
    snprintf(command, sizeof command, "addr2line -f -C -s -e '%s' 0x%zx 2>/dev/null", info.dli_fname,
             (size_t)((const char *)function - (const char *)info.dli_fbase));
    std::string name;
    if (FILE *const pipe = popen(command, "r")) {
        char line[1000];
        if (fgets(line, sizeof line, pipe) != nullptr)
            name.assign(line, strcspn(line, "\n"));
        pclose(pipe);
    }
    return name.empty() || name[0] == '?' ? address : name;
}

static uint64_t number(const char *name, uint64_t otherwise) {
    const char *const text = getenv(name);
    if (text == nullptr || *text == 0)
        return otherwise;
    char *end;
    uint64_t value = strtoull(text, &end, 0);
    for (const char *unit = "KMG"; *unit != 0; unit++)
        if (*end == *unit) {
            value <<= 10 * (unit - "KMG" + 1);
            end++;
            break;
        }
    if (end == text || *end != 0)
        fault("%s is '%s'", name, text);
    return value;
}

const settings &setting() {
    static const settings read = [] {
        settings s = {};
        s.devices = (int)number("QSTREAM_MODEL_DEVICES", 1);
        s.capability = (unsigned)number("QSTREAM_MODEL_CAPABILITY", 90);
        s.memory = number("QSTREAM_MODEL_MEMORY", (uint64_t)8 << 30);
        s.unified = number("QSTREAM_MODEL_UNIFIED", 0) != 0;
        s.eager = (unsigned)number("QSTREAM_MODEL_EAGER", 0);
        s.poison = (unsigned char)number("QSTREAM_MODEL_POISON", 0xff);
        s.no_memory = number("QSTREAM_MODEL_NO_MEMORY", 0);
        s.failure = number("QSTREAM_MODEL_FAIL", 0);
        const char *const order = getenv("QSTREAM_MODEL_ORDER");
        if (order == nullptr || *order == 0 || strcmp(order, "forward") == 0) {
            s.order = settings::FORWARD;
        } else if (strcmp(order, "reverse") == 0) {
            s.order = settings::REVERSE;
        } else {
            s.order = settings::RANDOM;
            s.seed = number("QSTREAM_MODEL_ORDER", 0);
        }
        return s;
    }();
    return read;
}

/* As the CUDA C++ Programming Guide's table of technical specifications has it. */
size_t shared_limit() {
    switch (setting().capability) {
    case 80:
        return (size_t)163 << 10;
    case 86:
    case 89:
    case 120:
    case 121:
        return (size_t)99 << 10;
    case 90:
    case 100:
    case 103:
        return (size_t)227 << 10;
    default:
        fault("QSTREAM_MODEL_CAPABILITY %u is not known", setting().capability);
    }
}

static thread_local cudaError_t last_error;
cudaError_t answer(cudaError_t error) {
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

} // namespace model

using namespace model;

cudaError_t cudaGetLastError() {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}
cudaError_t cudaPeekAtLastError() { return last_error; }

static const struct {
    cudaError_t error;
    const char *name, *text;
} ERRORS[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver", "driver is too old for the runtime"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
};

const char *cudaGetErrorName(cudaError_t error) {
    for (const auto &known : ERRORS)
        if (known.error == error)
            return known.name;
    return "cudaErrorUnknown";
}
const char *cudaGetErrorString(cudaError_t error) {
    for (const auto &known : ERRORS)
        if (known.error == error)
            return known.text;
    return "unknown error";
}

cudaError_t cudaGetDeviceCount(int *count) {
    *count = setting().devices;
    return answer(*count == 0 ? cudaErrorNoDevice : cudaSuccess);
}

static thread_local int current_device;
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= setting().devices)
        return answer(setting().devices == 0 ? cudaErrorNoDevice : cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int *device) {
    *device = current_device;
    return cudaSuccess;
}

/* Figures of an H100 where the capability says nothing else. */
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device < 0 || device >= setting().devices)
        return answer(cudaErrorInvalidDevice);
    const bool unified = setting().unified;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = 48 << 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = (int)shared_limit();
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = (int)shared_limit() + 1024;
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = unified ? 48 : 132;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = (int)setting().capability / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = (int)setting().capability % 10;
        break;
    case cudaDevAttrClockRate:
        *value = 1980000;
        break;
    case cudaDevAttrMemoryClockRate:
        *value = unified ? 4266000 : 2619000;
        break; /* kHz; two transfers each */
    case cudaDevAttrGlobalMemoryBusWidth:
        *value = unified ? 256 : 5120;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 50 << 20;
        break;
    case cudaDevAttrIntegrated:
        *value = unified;
        break;
    case cudaDevAttrCanMapHostMemory:
        *value = 1;
        break;
    case cudaDevAttrUnifiedAddressing:
        *value = 1;
        break;
    case cudaDevAttrPageableMemoryAccess:
        *value = unified;
        break;
    case cudaDevAttrPageableMemoryAccessUsesHostPageTables:
        *value = unified;
        break;
    case cudaDevAttrConcurrentManagedAccess:
        *value = 1;
        break;
    case cudaDevAttrCanUseHostPointerForRegisteredMem:
        *value = 1;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = shared_limit() < (size_t)100 << 10 ? 1536 : 2048;
        break;
    case cudaDevAttrMaxRegistersPerBlock:
        *value = 65536;
        break;
    case cudaDevAttrAsyncEngineCount:
        *value = 3;
        break;
    case cudaDevAttrMaxGridDimX:
        *value = 0x7fffffff;
        break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
        *value = 65535;
        break;
    default:
        return answer(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device) {
    if (device < 0 || device >= setting().devices)
        return answer(cudaErrorInvalidDevice);
    *properties = cudaDeviceProp{};
    const auto read = [=](cudaDeviceAttr attribute) {
        int value = 0;
        cudaDeviceGetAttribute(&value, attribute, device);
        return value;
    };
    snprintf(properties->name, sizeof properties->name, "Model of capability %u.%u", setting().capability / 10,
             setting().capability % 10);
    properties->totalGlobalMem = setting().memory;
    properties->sharedMemPerBlock = (size_t)read(cudaDevAttrMaxSharedMemoryPerBlock);
    properties->sharedMemPerBlockOptin = (size_t)read(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    properties->sharedMemPerMultiprocessor = (size_t)read(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
    properties->major = read(cudaDevAttrComputeCapabilityMajor);
    properties->minor = read(cudaDevAttrComputeCapabilityMinor);
    properties->multiProcessorCount = read(cudaDevAttrMultiProcessorCount);
    properties->warpSize = read(cudaDevAttrWarpSize);
    properties->maxThreadsPerBlock = read(cudaDevAttrMaxThreadsPerBlock);
    properties->maxThreadsPerMultiProcessor = read(cudaDevAttrMaxThreadsPerMultiProcessor);
    properties->regsPerBlock = read(cudaDevAttrMaxRegistersPerBlock);
    properties->memoryBusWidth = read(cudaDevAttrGlobalMemoryBusWidth);
    properties->l2CacheSize = read(cudaDevAttrL2CacheSize);
    properties->asyncEngineCount = read(cudaDevAttrAsyncEngineCount);
    properties->integrated = read(cudaDevAttrIntegrated);
    properties->canMapHostMemory = read(cudaDevAttrCanMapHostMemory);
    properties->unifiedAddressing = read(cudaDevAttrUnifiedAddressing);
    properties->pageableMemoryAccess = read(cudaDevAttrPageableMemoryAccess);
    properties->pageableMemoryAccessUsesHostPageTables = read(cudaDevAttrPageableMemoryAccessUsesHostPageTables);
    properties->maxGridSize[0] = read(cudaDevAttrMaxGridDimX);
    properties->maxGridSize[1] = properties->maxGridSize[2] = read(cudaDevAttrMaxGridDimY);
    properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = 1024;
    properties->maxThreadsDim[2] = 64;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
