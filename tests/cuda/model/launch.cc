/* Launches of kernels: what is checked when one is asked for, and putting it on its stream. */
#include <cstdlib>
#include <map>

#include "model.h"

using namespace model;

enum { SHARED_USUAL = 48 << 10, THREADS_MOST = 1024, GRID_Y_MOST = 65535, BLOCK_Z_MOST = 64, PARAMETERS_MOST = 4096 };

static std::map<const void *, size_t> shared_allowed; /* cudaFuncSetAttribute */

cudaError_t cudaFuncSetAttribute(const void *function, cudaFuncAttribute attribute, int value) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (function == nullptr)
        return answer(cudaErrorInvalidDeviceFunction);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize)
        return cudaSuccess;
    if (value < 0 || (size_t)value > shared_limit())
        return answer(cudaErrorInvalidValue);
    shared_allowed[function] = (size_t)value;
    return cudaSuccess;
}

static size_t shared_most(const void *function) {
    const auto found = shared_allowed.find(function);
    return found == shared_allowed.end() ? (size_t)SHARED_USUAL : found->second;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, const void *function) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    *attributes = cudaFuncAttributes{};
    attributes->maxThreadsPerBlock = THREADS_MOST;
    attributes->maxDynamicSharedSizeBytes = (int)shared_most(function);
    return cudaSuccess;
}

/* The parameters' copy; freed with the last user. */
struct parameters {
    void *memory;
    explicit parameters(const model_kernel *kernel) : memory(malloc(kernel->bytes)) {
        if (memory == nullptr)
            fault("no memory");
        kernel->copy(memory, kernel->parameters);
    }
    parameters(const parameters &) = delete;
    parameters &operator=(const parameters &) = delete;
    ~parameters() { free(memory); }
};

cudaError_t model_launch(const cudaLaunchConfig_t *config, const model_kernel *kernel) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    const dim3 grid = config->gridDim, block = config->blockDim;
    if (kernel->function == nullptr)
        return answer(cudaErrorInvalidDeviceFunction);
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > GRID_Y_MOST ||
        grid.z > GRID_Y_MOST || block.x == 0 || block.y == 0 || block.z == 0 || block.x > THREADS_MOST ||
        block.y > THREADS_MOST || block.z > BLOCK_Z_MOST || (size_t)block.x * block.y * block.z > THREADS_MOST)
        return answer(cudaErrorInvalidConfiguration);
    if (config->dynamicSmemBytes > shared_most(kernel->function) || kernel->bytes > PARAMETERS_MOST)
        return answer(cudaErrorInvalidValue);
    if (config->numAttrs != 0)
        return answer(cudaErrorNotSupported);

    operation work;
    for (unsigned i = 0; i < kernel->pointer_count; i++) {
        const void *const pointer = kernel->pointers[i];
        const uint64_t number = memory_number(pointer);
        if (number != 0)
            work.uses.push_back(number);
        else if (pointer != nullptr)
            fault("kernel %s is given the pointer %p, which is not into memory of the device",
                  function_name(kernel->function).c_str(), pointer);
    }
    /* pointers in structs: words that are addresses of memory of the device */
    for (size_t i = 0; i + sizeof(void *) <= kernel->bytes; i += sizeof(void *)) {
        const void *word;
        memcpy(&word, (const char *)kernel->parameters + i, sizeof word);
        if (const uint64_t number = memory_number(word))
            work.uses.push_back(number);
    }
    const std::shared_ptr<parameters> copied = std::make_shared<parameters>(kernel);
    const launch prepared = {kernel->function, grid, block, config->dynamicSmemBytes, kernel->call, copied->memory};
    work.what = "a kernel";
    work.run = [prepared, copied] { launch_run(&prepared); };
    return stream_put(config->stream, std::move(work));
}
