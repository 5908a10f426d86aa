/* What the model's files share; kernels and the plug-in do not see it. */
#ifndef QSTREAM_CUDA_MODEL_MODEL_H
#define QSTREAM_CUDA_MODEL_MODEL_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#ifdef __SANITIZE_ADDRESS__
#define MODEL_ASAN
#endif
/* MODEL_TSAN comes from the build: the model itself is compiled without ThreadSanitizer, so that only accesses of kernels
 * and of the program are seen. */

namespace model {

/* ---- faults and settings ---- */

/* Prints "cuda model: ..." and aborts. */
[[noreturn]] void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Name of a kernel from its debug information; its address where there is none. */
std::string function_name(const void *function);
/* Keeps the error for cudaGetLastError and returns it. */
cudaError_t answer(cudaError_t error);

struct settings {
    int devices;
    unsigned capability;
    uint64_t memory;
    bool unified;
    enum { FORWARD, REVERSE, RANDOM } order;
    uint64_t seed;
    unsigned eager;       /* bit i: stream i runs what it is given as soon as it may */
    unsigned char poison; /* byte that memory is filled with */
    uint64_t no_memory;   /* number of the allocation that fails; 0: none */
    uint64_t failure;     /* number of the operation at which the device breaks; 0: none */
};
const settings &setting();
size_t shared_limit(); /* bytes that a block may have */

/* One for all of the API. */
extern std::recursive_mutex lock;

/* ---- memory ---- */

enum memory_kind { PAGEABLE, DEVICE, PINNED };
/* Of the memory that holds [at, at + bytes); PAGEABLE where the model has not given it out. A range that leaves its
 * allocation is a fault. */
memory_kind memory_lookup(const void *at, size_t bytes, const char *what);
/* Number of the allocation that `at` lies in; 0: none. */
uint64_t memory_number(const void *at);
bool memory_alive(uint64_t number);

/* ---- streams ---- */

struct operation {
    std::string what; /* for faults */
    std::function<void()> run;
    std::vector<uint64_t> uses; /* allocations that have to be there still */
};
/* Puts it on a stream, or into the graph that is being recorded. */
cudaError_t stream_put(cudaStream_t stream, operation &&work);
bool stream_capturing(cudaStream_t stream);
void stream_drain(cudaStream_t stream);

/* ---- kernels ---- */

struct launch {
    const void *function;
    dim3 grid, block;
    size_t shared;
    void (*call)(const void *parameters);
    const void *parameters;
};
/* Runs all blocks (block.cc). */
void launch_run(const launch *work);

} // namespace model

#endif
