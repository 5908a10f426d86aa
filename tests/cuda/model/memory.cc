/*
 * Memory of the device and pinned memory: allocated to the byte, so that AddressSanitizer sees what leaves it, filled
 * with poison, and known by address, so that copies can be checked.
 */
#include <cstdio>
#include <cstdlib>
#include <map>

#include "model.h"

namespace model {

struct allocation {
    size_t bytes;
    memory_kind kind;
    uint64_t number;
};

/* More is left as it comes: a test that takes all of the device's memory does not use it all. */
static const size_t POISON_MOST = (size_t)64 << 20;
enum { ALIGNMENT = 256 };

static std::map<uintptr_t, allocation> allocations;
static std::map<uint64_t, uintptr_t> alive; /* by number */
static uint64_t last_number;

/* Bytes of a kind that are given out, and the most that ever were. */
static struct { uint64_t now, most; } held[PINNED + 1];

/* Written when the program ends: the most bytes that were held of each kind, and what was never released. */
static struct report {
    ~report() {
        const char *const path = getenv("QSTREAM_MODEL_REPORT");
        FILE *const file = path != nullptr && *path != 0 ? fopen(path, "w") : nullptr;
        if (file == nullptr)
            return;
        fprintf(file, "{\"device\": %llu, \"pinned\": %llu, \"left\": %llu, \"allocations\": %llu}\n",
                (unsigned long long)held[DEVICE].most, (unsigned long long)held[PINNED].most,
                (unsigned long long)(held[DEVICE].now + held[PINNED].now), (unsigned long long)last_number);
        fclose(file);
    }
} at_exit;

static const std::pair<const uintptr_t, allocation> *find(const void *at) {
    auto after = allocations.upper_bound((uintptr_t)at);
    if (after == allocations.begin())
        return nullptr;
    --after;
    return (uintptr_t)at - after->first < after->second.bytes ? &*after : nullptr;
}

memory_kind memory_lookup(const void *at, size_t bytes, const char *what) {
    const auto *const found = find(at);
    if (found == nullptr)
        return PAGEABLE;
    const size_t offset = (uintptr_t)at - found->first;
    if (bytes > found->second.bytes - offset)
        fault("%s of %zu bytes at offset %zu of an allocation of %zu", what, bytes, offset, found->second.bytes);
    return found->second.kind;
}

uint64_t memory_number(const void *at) {
    const auto *const found = find(at);
    return found == nullptr ? 0 : found->second.number;
}
bool memory_alive(uint64_t number) { return alive.count(number) != 0; }

static cudaError_t allocate(void **memory, size_t bytes, memory_kind kind) {
    *memory = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    void *got;
    if (++last_number == setting().no_memory || posix_memalign(&got, ALIGNMENT, bytes) != 0)
        return answer(cudaErrorMemoryAllocation);
    memset(got, setting().poison, bytes < POISON_MOST ? bytes : POISON_MOST);
    allocations[(uintptr_t)got] = allocation{bytes, kind, last_number};
    alive[last_number] = (uintptr_t)got;
    held[kind].now += bytes;
    held[kind].most = held[kind].now > held[kind].most ? held[kind].now : held[kind].most;
    *memory = got;
    return cudaSuccess;
}

static cudaError_t release(void *memory, memory_kind kind) {
    if (memory == nullptr)
        return cudaSuccess;
    const auto found = allocations.find((uintptr_t)memory);
    if (found == allocations.end() || found->second.kind != kind)
        return answer(cudaErrorInvalidValue);
    held[kind].now -= found->second.bytes;
    alive.erase(found->second.number);
    allocations.erase(found);
    free(memory);
    return cudaSuccess;
}

} // namespace model

using namespace model;

cudaError_t cudaMemGetInfo(size_t *free, size_t *total) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    *total = setting().memory;
    *free = setting().memory - held[DEVICE].now;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes > setting().memory - held[DEVICE].now)
        return answer(cudaErrorMemoryAllocation);
    return allocate(memory, bytes, DEVICE);
}
cudaError_t cudaFree(void *memory) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return release(memory, DEVICE);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return allocate(memory, bytes, PINNED);
}
cudaError_t cudaMallocHost(void **memory, size_t bytes) { return cudaHostAlloc(memory, bytes, cudaHostAllocDefault); }
cudaError_t cudaFreeHost(void *memory) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    return release(memory, PINNED);
}
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (flags != 0 || memory_lookup(host, 1, "an address") != PINNED)
        return answer(cudaErrorInvalidValue);
    *device = host; /* unified addressing */
    return cudaSuccess;
}

static const char *side(memory_kind kind) {
    return kind == DEVICE ? "of the device" : kind == PINNED ? "pinned" : "of the host (or freed)";
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes == 0)
        return cudaSuccess;
    if (to == nullptr || from == nullptr)
        return answer(cudaErrorInvalidValue);
    const memory_kind target = memory_lookup(to, bytes, "a copy to memory"),
                      source = memory_lookup(from, bytes, "a copy from memory");
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice,
               from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    /* pinned memory has addresses on both sides */
    if (kind != cudaMemcpyDefault && ((target != PINNED && to_device != (target == DEVICE)) ||
                                      (source != PINNED && from_device != (source == DEVICE))))
        fault("a copy of kind %d from memory %s to memory %s", kind, side(source), side(target));
    operation copy = {"a copy", nullptr, {}};
    if (target != PAGEABLE)
        copy.uses.push_back(memory_number(to));
    if (source != PAGEABLE)
        copy.uses.push_back(memory_number(from));
    /* a device that reads the host's page tables takes all memory for pinned */
    if (source == PAGEABLE && !setting().unified &&
        !stream_capturing(stream)) { /* has left the source when the call returns */
        std::shared_ptr<std::vector<char>> staged =
            std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
        copy.run = [=] { memcpy(to, staged->data(), bytes); };
    } else {
        copy.run = [=] { memcpy(to, from, bytes); };
    }
    const cudaError_t error = stream_put(stream, std::move(copy));
    if (error == cudaSuccess && target == PAGEABLE && !setting().unified && !stream_capturing(stream))
        stream_drain(stream); /* is there when the call returns */
    return error;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    cudaStream_t stream;
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, stream);
    if (error == cudaSuccess)
        error = cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
    return error;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
    const std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes == 0)
        return cudaSuccess;
    if (to == nullptr)
        return answer(cudaErrorInvalidValue);
    if (memory_lookup(to, bytes, "a memset") == PAGEABLE)
        fault("a memset of memory of the host (or freed)");
    return stream_put(stream, operation{"a memset", [=] { memset(to, value, bytes); }, {memory_number(to)}});
}
