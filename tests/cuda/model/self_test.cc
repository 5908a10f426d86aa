/*
 * Does the model find what it is there to find? Each case is a kernel or a use of the API, right or with one fault, and
 * self_test.sh knows what has to come of it under which build and order. `self_test CASE` prints "right" or what is
 * wrong; faults that the model or a sanitizer reports end it before that.
 */
#include <cstdio>
#include <vector>

#include <cublasLt.h>

#include "infer/cuda/numbers.cuh"
#include "infer/cuda/warp.cuh"

static cuda_device device;

void device_fail(cuda_device *failing, const char *what, cudaError_t error) {
    failing->failed = true;
    printf("%s: %s\n", what, cudaGetErrorName(error));
}

static void verdict(bool right) { printf("%s\n", right ? "right" : "wrong"); }

template <typename T> struct on_device {
    T *values;
    size_t count;
    explicit on_device(size_t n) : count(n) { cudaMalloc(&values, n * sizeof(T)); }
    explicit on_device(const std::vector<T> &from) : on_device(from.size()) {
        cudaMemcpy(values, from.data(), count * sizeof(T), cudaMemcpyHostToDevice);
    }
    on_device(const on_device &) = delete;
    ~on_device() { cudaFree(values); }
    std::vector<T> back() const {
        cudaStreamSynchronize(device.streams[CUDA_COMPUTE]);
        std::vector<T> result(count);
        cudaMemcpy(result.data(), values, count * sizeof(T), cudaMemcpyDeviceToHost);
        return result;
    }
};

enum { THREADS = 128 };

/* ---- barriers and shared memory ---- */

/* y[i] = i of the thread across: right with the barrier. */
__global__ void across(unsigned *y, bool barrier) {
    SHARED_MEMORY(memory);
    unsigned *const shared = (unsigned *)memory;
    shared[threadIdx.x] = threadIdx.x;
    if (barrier)
        __syncthreads();
    y[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
static void case_across(bool barrier) {
    on_device<unsigned> y(THREADS);
    launch(&device, "across", across, 1, THREADS, THREADS * sizeof(unsigned), y.values, barrier);
    bool right = true;
    const std::vector<unsigned> got = y.back();
    for (unsigned i = 0; i < THREADS; i++)
        right = right && got[i] == THREADS - 1 - i;
    verdict(right);
}
static void barrier_right() { case_across(true); }
static void barrier_missing() { case_across(false); }

/* The second use of the memory comes too early where there is one barrier a round. */
__global__ void rounds(unsigned *y, bool second) {
    SHARED_MEMORY(memory);
    unsigned *const shared = (unsigned *)memory;
    unsigned sum = 0;
    for (unsigned round = 0; round < 4; round++) {
        shared[threadIdx.x] = round * threadIdx.x;
        __syncthreads();
        sum += shared[blockDim.x - 1 - threadIdx.x];
        if (second)
            __syncthreads();
    }
    y[threadIdx.x] = sum;
}
static void case_rounds(bool second) {
    on_device<unsigned> y(THREADS);
    launch(&device, "rounds", rounds, 1, THREADS, THREADS * sizeof(unsigned), y.values, second);
    bool right = true;
    const std::vector<unsigned> got = y.back();
    for (unsigned i = 0; i < THREADS; i++)
        right = right && got[i] == 6 * (THREADS - 1 - i);
    verdict(right);
}
static void rounds_right() { case_rounds(true); }
static void rounds_one_barrier() { case_rounds(false); }

/* Lanes exchange through shared memory, with __syncwarp or with nothing. */
__global__ void lanes_across(unsigned *y, bool sync) {
    SHARED_MEMORY(memory);
    unsigned *const shared = (unsigned *)memory;
    shared[threadIdx.x] = threadIdx.x;
    if (sync)
        __syncwarp();
    else
        (void)__shfl_xor_sync(FULL_WARP, threadIdx.x, 1); /* meets, but orders no memory */
    y[threadIdx.x] = shared[threadIdx.x ^ 31];
}
static void case_lanes(bool sync) {
    on_device<unsigned> y(THREADS);
    launch(&device, "lanes", lanes_across, 1, THREADS, THREADS * sizeof(unsigned), y.values, sync);
    bool right = true;
    const std::vector<unsigned> got = y.back();
    for (unsigned i = 0; i < THREADS; i++)
        right = right && got[i] == (i ^ 31);
    verdict(right);
}
static void syncwarp_right() { case_lanes(true); }
static void syncwarp_missing() { case_lanes(false); }

__global__ void half_waits(unsigned *y) {
    if (threadIdx.x < 64)
        __syncthreads();
    y[threadIdx.x] = 1;
}
static void barrier_diverges() {
    on_device<unsigned> y(THREADS);
    launch(&device, "half waits", half_waits, 1, THREADS, 0, y.values);
    y.back();
}

__global__ void two_barriers(unsigned *y) {
    if (threadIdx.x < 64) {
        __syncthreads();
        y[threadIdx.x] = 1;
    } else {
        __syncthreads();
        y[threadIdx.x] = 2;
    }
}
static void barrier_other() {
    on_device<unsigned> y(THREADS);
    launch(&device, "two barriers", two_barriers, 1, THREADS, 0, y.values);
    y.back();
}

__global__ void lane_missing(unsigned *y) {
    if (threadIdx.x % WARP != 7)
        y[threadIdx.x] = __shfl_xor_sync(FULL_WARP, threadIdx.x, 1);
    else
        __syncthreads();
}
static void shuffle_without_lane() {
    on_device<unsigned> y(THREADS);
    launch(&device, "lane missing", lane_missing, 1, THREADS, 0, y.values);
    y.back();
}

/* One beyond the end of shared memory, read. */
__global__ void beyond(unsigned *y, unsigned by) {
    SHARED_MEMORY(memory);
    unsigned *const shared = (unsigned *)memory;
    shared[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = shared[threadIdx.x + by];
}
static void shared_overrun() {
    on_device<unsigned> y(THREADS);
    launch(&device, "beyond", beyond, 1, THREADS, THREADS * sizeof(unsigned), y.values, 1u);
    y.back();
}
static void memory_overrun() {
    on_device<unsigned> y(THREADS - 1);
    launch(&device, "across", across, 1, THREADS, THREADS * sizeof(unsigned), y.values, true);
    y.back();
}

/* A sum that counts on shared memory being zeros. Prints it: it differs with the poison. */
__global__ void uninitialized(unsigned *y) {
    SHARED_MEMORY(memory);
    y[threadIdx.x] = ((unsigned *)memory)[threadIdx.x];
}
static void shared_uninitialized() {
    on_device<unsigned> y(THREADS);
    launch(&device, "uninitialized", uninitialized, 1, THREADS, THREADS * sizeof(unsigned), y.values);
    printf("%08x\n", y.back()[THREADS - 1]);
}
static void memory_uninitialized() {
    on_device<unsigned> y(THREADS);
    printf("%08x\n", y.back()[THREADS - 1]);
}

/* ---- races between blocks ---- */

__global__ void all_write(unsigned *y, bool atomic) {
    if (threadIdx.x != 0)
        return;
    if (atomic)
        atomicAdd(y, blockIdx.x + 1);
    else
        *y = blockIdx.x;
}
static void blocks_race() {
    on_device<unsigned> y(1);
    launch(&device, "all write", all_write, 16, 32, 0, y.values, false);
    verdict(y.back()[0] == 15);
}
static void blocks_atomic() {
    on_device<unsigned> y(std::vector<unsigned>{0});
    launch(&device, "all write", all_write, 16, 32, 0, y.values, true);
    verdict(y.back()[0] == 16 * 17 / 2);
}

/* The last block to end sums what the others left: fences and an atomic order it. */
__global__ void last_sums(unsigned *parts, unsigned *ended, unsigned *y) {
    if (threadIdx.x != 0)
        return;
    parts[blockIdx.x] = blockIdx.x + 1;
    __threadfence();
    if (atomicAdd(ended, 1u) != gridDim.x - 1)
        return;
    __threadfence();
    unsigned sum = 0;
    for (unsigned i = 0; i < gridDim.x; i++)
        sum += parts[i];
    *y = sum;
}
static void last_block() {
    on_device<unsigned> parts(16), y(1), ended(std::vector<unsigned>{0});
    launch(&device, "last sums", last_sums, 16, 32, 0, parts.values, ended.values, y.values);
    verdict(y.back()[0] == 16 * 17 / 2);
}

/* ---- values ---- */

__global__ void shuffles(int *y) {
    const int lane = (int)threadIdx.x;
    y[lane] = __shfl_sync(FULL_WARP, lane, 5) + 100 * __shfl_xor_sync(FULL_WARP, lane, 3) +
              10000 * __shfl_down_sync(FULL_WARP, lane, 4) + 1000000 * __shfl_up_sync(FULL_WARP, lane, 2);
    y[32 + lane] = __shfl_sync(FULL_WARP, lane, 1, 8) + 100 * __shfl_down_sync(FULL_WARP, lane, 4, 8);
    y[64 + lane] = (int)__ballot_sync(FULL_WARP, lane % 3 == 0);
    y[96 + lane] = __any_sync(FULL_WARP, lane == 9) + 2 * __all_sync(FULL_WARP, lane < 32) +
                   4 * __any_sync(FULL_WARP, lane > 40) + 8 * __all_sync(FULL_WARP, lane < 31);
    const unsigned half = lane < 16 ? 0xffffu : 0xffff0000u;
    y[128 + lane] = lane < 16 ? __shfl_xor_sync(half, lane, 1) : (int)__shfl_xor_sync(half, (double)lane, 2);
}
static void warp_values() {
    on_device<int> y(160);
    launch(&device, "shuffles", shuffles, 1, 32, 0, y.values);
    const std::vector<int> got = y.back();
    bool right = true;
    for (int i = 0; i < 32; i++) {
        right = right && got[i] == 5 + 100 * (i ^ 3) + 10000 * (i < 28 ? i + 4 : i) + 1000000 * (i >= 2 ? i - 2 : i);
        right = right && got[32 + i] == i / 8 * 8 + 1 + 100 * (i % 8 < 4 ? i + 4 : i);
        right = right && (unsigned)got[64 + i] == 0x49249249u && got[96 + i] == 3;
        right = right && got[128 + i] == (i < 16 ? i ^ 1 : i ^ 2);
    }
    verdict(right);
}

__global__ void atomics(unsigned *u, unsigned long long *l, float *f) {
    atomicMin(&u[0], threadIdx.x + 3);
    atomicMax(&u[1], threadIdx.x);
    atomicAdd(&u[2], threadIdx.x);
    atomicMin(&l[0], (unsigned long long)threadIdx.x << 40);
    atomicMax(&l[1], (unsigned long long)threadIdx.x << 40);
    atomicAdd(&l[2], (unsigned long long)threadIdx.x << 40);
    atomicAdd(f, 0.5f);
}
static void atomic_values() {
    on_device<unsigned> u(std::vector<unsigned>{~0u, 0, 0});
    on_device<unsigned long long> l(std::vector<unsigned long long>{~0ull, 0, 0});
    on_device<float> f(std::vector<float>{0});
    launch(&device, "atomics", atomics, 1, 64, 0, u.values, l.values, f.values);
    const std::vector<unsigned> a = u.back();
    const std::vector<unsigned long long> b = l.back();
    verdict(a[0] == 3 && a[1] == 63 && a[2] == 63 * 32 && b[0] == 0 && b[1] == 63ull << 40 &&
            b[2] == (63ull * 32) << 40 && f.back()[0] == 32);
}

__global__ void intrinsics(unsigned *y) {
    y[0] = (unsigned)__dp4a((int)0x80ff017fu, (int)0x7f02ff7fu, 5);
    y[1] = __byte_perm(0x33221100u, 0x77665544u, 0x7250u);
    y[2] = __byte_perm(0x00008000u, 0, 0x9191u);
    y[3] = __funnelshift_r(0x80000001u, 3, 1);
    y[4] = (unsigned)__clz(1) + 100 * (unsigned)__popc(0xff);
}
static void intrinsic_values() {
    on_device<unsigned> y(5);
    launch(&device, "intrinsics", intrinsics, 1, 1, 0, y.values);
    const std::vector<unsigned> got = y.back();
    verdict((int)got[0] == 127 * 127 - 1 - 2 - 128 * 127 + 5 && got[1] == 0x77225500u && got[2] == 0xff80ff80u &&
            got[3] == 0xc0000000u && got[4] == 831);
}

/* a [16, 16], b [8, 16] (by columns), c and d [16, 8], loaded by the layout of the PTX ISA, each index by its formula there. */
__global__ void one_mma(const uint16_t *a, const uint16_t *b, const float *c, float *d) {
    const unsigned lane = threadIdx.x, group = lane >> 2, in_group = lane & 3;
    uint32_t a_registers[4] = {}, b_registers[2] = {};
    float c_registers[4], d_registers[4];
    for (unsigned i = 0; i < 8; i++) {
        const unsigned row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
        const unsigned column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
        a_registers[i / 2] |= (uint32_t)a[row * 16 + column] << 16 * (i & 1);
    }
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0);
        b_registers[i / 2] |= (uint32_t)b[group * 16 + row] << 16 * (i & 1);
        c_registers[i] = c[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)];
    }
    model_mma_m16n8k16_bf16(d_registers, a_registers, b_registers, c_registers);
    for (unsigned i = 0; i < 4; i++)
        d[(i < 2 ? group : group + 8) * 8 + in_group * 2 + (i & 1)] = d_registers[i];
}
static float small_value(unsigned i) { return (float)((int)(i * 37 % 29) - 14) / 4; }
static void mma_values() {
    std::vector<uint16_t> a(256), b(128);
    std::vector<float> c(128);
    for (unsigned i = 0; i < 256; i++)
        a[i] = bf16_code(small_value(i));
    for (unsigned i = 0; i < 128; i++) {
        b[i] = bf16_code(small_value(i + 5));
        c[i] = small_value(i + 11);
    }
    const on_device<uint16_t> a_(a), b_(b);
    const on_device<float> c_(c), d(128);
    launch(&device, "mma", one_mma, 1, 32, 0, a_.values, b_.values, c_.values, d.values);
    const std::vector<float> got = d.back();
    bool right = true;
    for (unsigned m = 0; m < 16; m++)
        for (unsigned n = 0; n < 8; n++) {
            float sum = c[m * 8 + n];
            for (unsigned k = 0; k < 16; k++)
                sum += bf16_value(a[m * 16 + k]) * bf16_value(b[n * 16 + k]);
            right = right && sum == got[m * 8 + n];
        }
    verdict(right);
}

__global__ void one_ldmatrix(unsigned *y) {
    SHARED_MEMORY(memory);
    uint16_t *const shared = (uint16_t *)memory;
    for (unsigned i = threadIdx.x; i < 256; i += 32)
        shared[i] = (uint16_t)i;
    __syncthreads();
    uint32_t r[4];
    model_ldmatrix(r, 4, false, shared + threadIdx.x * 8);
    for (unsigned i = 0; i < 4; i++)
        y[i * 32 + threadIdx.x] = r[i];
    model_ldmatrix(r, 4, true, shared + threadIdx.x * 8);
    for (unsigned i = 0; i < 4; i++)
        y[128 + i * 32 + threadIdx.x] = r[i];
}
static void ldmatrix_values() {
    on_device<unsigned> y(256);
    launch(&device, "ldmatrix", one_ldmatrix, 1, 32, 512, y.values);
    const std::vector<unsigned> got = y.back();
    bool right = true;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned lane = 0; lane < 32; lane++) {
            const unsigned row = lane / 4, column = lane % 4 * 2;
            right =
                right && got[i * 32 + lane] == ((i * 64 + row * 8 + column) | (i * 64 + row * 8 + column + 1) << 16);
            right = right &&
                    got[128 + i * 32 + lane] == ((i * 64 + column * 8 + row) | (i * 64 + (column + 1) * 8 + row) << 16);
        }
    verdict(right);
}

/* ---- cp.async ---- */

__global__ void copies(const unsigned *x, unsigned *y, bool wait) {
    SHARED_MEMORY(memory);
    unsigned *const shared = (unsigned *)memory;
    model_copy_async(&shared[4 * threadIdx.x], &x[4 * threadIdx.x], 16, 16);
    model_copy_async_commit();
    if (wait)
        model_copy_async_wait(0);
    __syncthreads();
    y[threadIdx.x] = shared[4 * (blockDim.x - 1 - threadIdx.x)];
}
static void case_copies(bool wait) {
    std::vector<unsigned> x(4 * THREADS);
    for (unsigned i = 0; i < 4 * THREADS; i++)
        x[i] = i;
    const on_device<unsigned> x_(x), y(THREADS);
    launch(&device, "copies", copies, 1, THREADS, 16 * THREADS, x_.values, y.values, wait);
    verdict(y.back()[1] == 4 * (THREADS - 2));
}
static void copy_async_right() { case_copies(true); }
static void copy_async_without_wait() { case_copies(false); }

/* ---- streams ---- */

__global__ void add_one(unsigned *x) { x[threadIdx.x]++; }
__global__ void move(const unsigned *x, unsigned *y) { y[threadIdx.x] = x[threadIdx.x]; }

static unsigned *pinned(unsigned value) {
    unsigned *memory;
    cudaHostAlloc(&memory, THREADS * sizeof(unsigned), cudaHostAllocDefault);
    for (unsigned i = 0; i < THREADS; i++)
        memory[i] = value;
    return memory;
}
static void copy_to(const on_device<unsigned> &to, const unsigned *from, cuda_stream stream) {
    cudaMemcpyAsync(to.values, from, THREADS * sizeof(unsigned), cudaMemcpyHostToDevice, device.streams[stream]);
}

/* A copy on one stream, its use on the other. */
static void case_event(bool wait) {
    unsigned *const source = pinned(7);
    const on_device<unsigned> x(THREADS), y(THREADS);
    copy_to(x, source, CUDA_COPY);
    cudaEventRecord(device.events[0], device.streams[CUDA_COPY]);
    if (wait)
        cudaStreamWaitEvent(device.streams[CUDA_COMPUTE], device.events[0]);
    launch(&device, "move", move, 1, THREADS, 0, x.values, y.values);
    verdict(y.back()[3] == 7);
    cudaDeviceSynchronize();
    cudaFreeHost(source);
}
static void event_right() { case_event(true); }
static void event_missing() { case_event(false); }

/* A copy into memory that a kernel of the other stream may still be reading. */
static void case_reuse(bool wait) {
    unsigned *const first = pinned(1), *const second = pinned(2);
    const on_device<unsigned> x(THREADS), y(THREADS);
    copy_to(x, first, CUDA_COMPUTE);
    cudaStreamSynchronize(device.streams[CUDA_COMPUTE]);
    launch(&device, "move", move, 1, THREADS, 0, x.values, y.values);
    cudaEventRecord(device.events[0], device.streams[CUDA_COMPUTE]);
    if (wait)
        cudaStreamWaitEvent(device.streams[CUDA_COPY], device.events[0]);
    copy_to(x, second, CUDA_COPY);
    verdict(y.back()[3] == 1);
    cudaDeviceSynchronize();
    cudaFreeHost(first);
    cudaFreeHost(second);
}
static void reuse_right() { case_reuse(true); }
static void reuse_missing() { case_reuse(false); }

/* The host writes its buffer again before the copy from it is over. */
static void case_host_buffer(bool wait) {
    unsigned *const buffer = pinned(1);
    const on_device<unsigned> x(THREADS);
    copy_to(x, buffer, CUDA_COPY);
    cudaEventRecord(device.events[0], device.streams[CUDA_COPY]);
    if (wait)
        cudaEventSynchronize(device.events[0]);
    buffer[3] = 2;
    cudaStreamSynchronize(device.streams[CUDA_COPY]);
    verdict(x.back()[3] == 1);
    cudaFreeHost(buffer);
}
static void host_buffer_right() { case_host_buffer(true); }
static void host_buffer_early() { case_host_buffer(false); }

static void freed_in_use() {
    on_device<unsigned> y(THREADS);
    unsigned *x;
    cudaMalloc(&x, THREADS * sizeof(unsigned));
    launch(&device, "move", move, 1, THREADS, 0, x, y.values);
    cudaFree(x);
    y.back();
}

static void graph_runs() {
    const on_device<unsigned> x(std::vector<unsigned>(THREADS, 0));
    const cudaStream_t stream = device.streams[CUDA_COMPUTE];
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    launch(&device, "add one", add_one, 1, THREADS, 0, x.values);
    launch(&device, "add one", add_one, 1, THREADS, 0, x.values);
    const bool captured = cudaStreamEndCapture(stream, &graph) == cudaSuccess;
    const bool made = cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess;
    const unsigned before = x.back()[0];
    for (unsigned i = 0; i < 3; i++)
        cudaGraphLaunch(executable, stream);
    verdict(captured && made && before == 0 && x.back()[0] == 6);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
}
static void graph_spoiled() {
    const cudaStream_t stream = device.streams[CUDA_COMPUTE];
    cudaGraph_t graph;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    const cudaError_t error = cudaStreamSynchronize(stream);
    verdict(error == cudaErrorStreamCaptureUnsupported &&
            cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
}

/* ---- what is asked for wrongly ---- */

static void host_pointer() {
    static unsigned x[THREADS];
    launch(&device, "add one", add_one, 1, THREADS, 0, x);
}
static void copy_wrong_way() {
    const on_device<unsigned> x(THREADS);
    unsigned y[THREADS] = {};
    cudaMemcpyAsync(x.values, y, sizeof y, cudaMemcpyDeviceToHost, device.streams[CUDA_COPY]);
}
static void copy_too_long() {
    const on_device<unsigned> x(THREADS);
    unsigned y[THREADS + 1] = {};
    cudaMemcpyAsync(x.values, y, sizeof y, cudaMemcpyHostToDevice, device.streams[CUDA_COPY]);
}
static cudaError_t try_launch(dim3 grid, dim3 block, size_t shared) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = device.streams[CUDA_COMPUTE];
    return cudaLaunchKernelEx(&config, add_one, (unsigned *)nullptr);
}
static void launch_limits() {
    verdict(try_launch(1, 1025, 0) == cudaErrorInvalidConfiguration &&
            try_launch(dim3(1, 65536), 32, 0) == cudaErrorInvalidConfiguration &&
            try_launch(dim3(1, 1, 65536), 32, 0) == cudaErrorInvalidConfiguration &&
            try_launch(1, 32, (48 << 10) + 1) == cudaErrorInvalidValue);
}
static void shared_too_large() {
    const on_device<unsigned> y(THREADS);
    launch(&device, "across", across, 1, THREADS, 100 << 10, y.values, true);
    verdict(y.back()[0] == THREADS - 1);
}
static void memory_limit() {
    void *memory = nullptr;
    size_t left, total;
    const bool refused = cudaMalloc(&memory, (size_t)9 << 30) == cudaErrorMemoryAllocation;
    const on_device<char> some(1000);
    cudaMemGetInfo(&left, &total);
    verdict(refused && memory == nullptr && total == (size_t)8 << 30 && total - left >= 1000);
}

/* ---- cuBLASLt ---- */

struct trial {
    cudaDataType_t type = CUDA_R_32F;
    uint64_t m = 48, n = 7, k = 80;
    bool a_transposed = true, b_transposed = false;
    uint32_t alignment = 16;
    size_t workspace = 4096, brought = 4096, offset = 0;
};

/* Status of the first step that fails. With success: whether the values are right. */
static cublasStatus_t product_try(const trial &trial, bool *right) {
    const auto code = [&](unsigned i, void *to) {
        const float value = small_value(i);
        if (trial.type == CUDA_R_32F)
            memcpy(to, &value, 4);
        else if (trial.type == CUDA_R_16BF)
            *(uint16_t *)to = bf16_code(value);
        else
            *(uint8_t *)to = e4m3_code(value);
    };
    const size_t bytes = trial.type == CUDA_R_32F ? 4 : trial.type == CUDA_R_16BF ? 2 : 1;
    std::vector<unsigned char> a(trial.offset + trial.m * trial.k * bytes), b(trial.n * trial.k * bytes);
    for (unsigned i = 0; i < trial.m * trial.k; i++)
        code(i, &a[trial.offset + i * bytes]);
    for (unsigned i = 0; i < trial.n * trial.k; i++)
        code(i + 3, &b[i * bytes]);
    const on_device<unsigned char> a_(a), b_(b), space(trial.brought);
    const on_device<float> d(trial.m * trial.n);

    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t matmul;
    cublasLtMatrixLayout_t layouts[3];
    cublasLtMatmulPreference_t preference;
    cublasLtCreate(&handle);
    cublasLtMatmulDescCreate(&matmul, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    const cublasOperation_t transposed = CUBLAS_OP_T;
    if (trial.a_transposed)
        cublasLtMatmulDescSetAttribute(matmul, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    if (trial.b_transposed)
        cublasLtMatmulDescSetAttribute(matmul, CUBLASLT_MATMUL_DESC_TRANSB, &transposed, sizeof transposed);
    const uint64_t a_rows = trial.a_transposed ? trial.k : trial.m, b_rows = trial.b_transposed ? trial.n : trial.k;
    cublasLtMatrixLayoutCreate(&layouts[0], trial.type, a_rows, trial.m * trial.k / a_rows, (int64_t)a_rows);
    cublasLtMatrixLayoutCreate(&layouts[1], trial.type, b_rows, trial.n * trial.k / b_rows, (int64_t)b_rows);
    cublasLtMatrixLayoutCreate(&layouts[2], CUDA_R_32F, trial.m, trial.n, (int64_t)trial.m);
    cublasLtMatmulPreferenceCreate(&preference);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &trial.workspace,
                                         sizeof trial.workspace);
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &trial.alignment,
                                         sizeof trial.alignment);
    cublasLtMatmulHeuristicResult_t result;
    int count;
    cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle, matmul, layouts[0], layouts[1], layouts[2],
                                                           layouts[2], preference, 1, &result, &count);
    const float one = 1, zero = 0;
    if (status == CUBLAS_STATUS_SUCCESS)
        status = cublasLtMatmul(handle, matmul, &one, a_.values + trial.offset, layouts[0], b_.values, layouts[1],
                                &zero, d.values, layouts[2], d.values, layouts[2], &result.algo, space.values,
                                trial.brought, device.streams[CUDA_COMPUTE]);
    const std::vector<float> got = d.back();
    *right = true;
    for (unsigned m = 0; m < trial.m && status == CUBLAS_STATUS_SUCCESS; m++)
        for (unsigned n = 0; n < trial.n; n++) {
            double sum = 0;
            for (unsigned k = 0; k < trial.k; k++) {
                const size_t i = trial.a_transposed ? m * trial.k + k : k * trial.m + m,
                             j = trial.b_transposed ? k * trial.n + n : n * trial.k + k;
                const auto value = [&](const std::vector<unsigned char> &from, size_t at, size_t offset) {
                    const unsigned char *const p = &from[offset + at * bytes];
                    return trial.type == CUDA_R_32F    ? *(const float *)p
                           : trial.type == CUDA_R_16BF ? bf16_value(*(const uint16_t *)p)
                                                       : e4m3_value(*p);
                };
                sum += (double)value(a, i, trial.offset) * value(b, j, 0);
            }
            *right = *right && fabs(got[n * trial.m + m] - sum) <= 1e-4;
        }
    for (const cublasLtMatrixLayout_t layout : layouts)
        cublasLtMatrixLayoutDestroy(layout);
    cublasLtMatmulDescDestroy(matmul);
    cublasLtMatmulPreferenceDestroy(preference);
    cublasLtDestroy(handle);
    return status;
}

static void product_values() {
    bool all = true, right;
    for (const cudaDataType_t type : {CUDA_R_32F, CUDA_R_16BF, CUDA_R_8F_E4M3})
        for (const uint64_t m : {16, 208})
            for (const uint64_t n : {1, 6, 50})
                for (const uint64_t k : {16, 400}) {
                    trial trial;
                    trial.type = type;
                    trial.m = m;
                    trial.n = n;
                    trial.k = k;
                    for (int transposed = 0; transposed < (type == CUDA_R_8F_E4M3 ? 1 : 4); transposed++) {
                        trial.a_transposed = transposed % 2 == 0;
                        trial.b_transposed = transposed >= 2;
                        all = product_try(trial, &right) == CUBLAS_STATUS_SUCCESS && right && all;
                    }
                }
    verdict(all);
}
static void product_rules() {
    const auto status = [](void (*change)(trial *)) {
        trial trial;
        bool right;
        change(&trial);
        return product_try(trial, &right);
    };
    bool all = status([](trial *) {}) == CUBLAS_STATUS_SUCCESS;
    all = all && status([](trial *t) { t->alignment = 256, t->offset = 16; }) == CUBLAS_STATUS_NOT_SUPPORTED;
    all = all && status([](trial *t) { t->alignment = 16, t->offset = 16; }) == CUBLAS_STATUS_SUCCESS;
    all = all && status([](trial *t) { t->brought = 4095; }) == CUBLAS_STATUS_INVALID_VALUE;
    all = all && status([](trial *t) { t->type = CUDA_R_8F_E4M3, t->k = 72; }) == CUBLAS_STATUS_NOT_SUPPORTED;
    all = all && status([](trial *t) { t->type = CUDA_R_8F_E4M3, t->m = 40; }) == CUBLAS_STATUS_NOT_SUPPORTED;
    all = all && status([](trial *t) { t->type = CUDA_R_8F_E4M3, t->alignment = 8; }) == CUBLAS_STATUS_NOT_SUPPORTED;
    all = all &&
          status([](trial *t) { t->type = CUDA_R_8F_E4M3, t->a_transposed = false; }) == CUBLAS_STATUS_NOT_SUPPORTED;
    verdict(all);
}
static void product_fp8() {
    trial trial;
    bool right;
    trial.type = CUDA_R_8F_E4M3;
    printf("%s\n", cublasLtGetStatusName(product_try(trial, &right)));
}

static void device_none() {
    int count = -1;
    verdict(cudaGetDeviceCount(&count) == cudaErrorNoDevice && count == 0);
}

#define CASE(name)                                                                                                     \
    { #name, name }
static const struct {
    const char *name;
    void (*run)();
} CASES[] = {CASE(barrier_right),
             CASE(barrier_missing),
             CASE(rounds_right),
             CASE(rounds_one_barrier),
             CASE(syncwarp_right),
             CASE(syncwarp_missing),
             CASE(barrier_diverges),
             CASE(barrier_other),
             CASE(shuffle_without_lane),
             CASE(shared_overrun),
             CASE(memory_overrun),
             CASE(shared_uninitialized),
             CASE(memory_uninitialized),
             CASE(blocks_race),
             CASE(blocks_atomic),
             CASE(last_block),
             CASE(warp_values),
             CASE(atomic_values),
             CASE(intrinsic_values),
             CASE(mma_values),
             CASE(ldmatrix_values),
             CASE(copy_async_right),
             CASE(copy_async_without_wait),
             CASE(event_right),
             CASE(event_missing),
             CASE(reuse_right),
             CASE(reuse_missing),
             CASE(host_buffer_right),
             CASE(host_buffer_early),
             CASE(freed_in_use),
             CASE(graph_runs),
             CASE(graph_spoiled),
             CASE(host_pointer),
             CASE(copy_wrong_way),
             CASE(copy_too_long),
             CASE(launch_limits),
             CASE(shared_too_large),
             CASE(memory_limit),
             CASE(product_values),
             CASE(product_rules),
             CASE(product_fp8),
             CASE(device_none)};

int main(int, char **arguments) {
    for (cudaStream_t &stream : device.streams)
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    for (cudaEvent_t &event : device.events)
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    const char *const name = arguments[1] == nullptr ? "" : arguments[1];
    bool found = false;
    for (const auto &known : CASES)
        if (strcmp(known.name, name) == 0) {
            known.run();
            found = true;
        }
    if (!found)
        fprintf(stderr, "no such case: '%s'\n", name);
    for (const cudaStream_t stream : device.streams)
        cudaStreamDestroy(stream);
    for (const cudaEvent_t event : device.events)
        cudaEventDestroy(event);
    return found ? 0 : 2;
}
