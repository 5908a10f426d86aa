/*
 * How quick memory can be read: all of the device reads it, 16 bytes per lane, READ_AT_ONCE of them on their way, and does
 * nothing else. The bound of products of one token. Memory should be several times the second cache.
 */
#include "infer/cuda/codes.cuh"
#include "infer/cuda/device.cuh"

enum { READ_THREADS = 256, READ_BLOCKS = 8, READ_AT_ONCE = 8, READ_RUNS = 5 };

/* Blocks take runs of READ_AT_ONCE * READ_THREADS chunks in turn. */
__global__ static void __launch_bounds__(READ_THREADS) read_kernel(const uint4 *from, size_t chunks, uint32_t *out) {
    uint32_t sum = 0;
    const size_t run = (size_t)READ_AT_ONCE * READ_THREADS;
    for (size_t at = blockIdx.x * run + threadIdx.x; at < chunks; at += gridDim.x * run) {
        uint4 v[READ_AT_ONCE];
        UNROLL
        for (int i = 0; i < READ_AT_ONCE; i++) {
            const size_t chunk = at + (size_t)i * READ_THREADS;
            v[i] = chunk < chunks ? load_once(from + chunk) : make_uint4(0, 0, 0, 0);
        }
        UNROLL
        for (int i = 0; i < READ_AT_ONCE; i++)
            sum += v[i].x ^ v[i].y ^ v[i].z ^ v[i].w;
    }
    if (out)
        atomicAdd(out, sum); /* never, but a compiler cannot know */
}

double run_read_rate(cuda_device *device, const void *memory, uint64_t bytes) {
    const size_t chunks = bytes / sizeof(uint4);
    const cudaStream_t stream = device->streams[CUDA_COMPUTE];
    cudaEvent_t begin, end;
    if (device->failed || chunks == 0 || !device_check(device, "read_rate", cudaEventCreate(&begin)))
        return 0;
    if (!device_check(device, "read_rate", cudaEventCreate(&end))) {
        cudaEventDestroy(begin);
        return 0;
    }
    float least = 0;
    for (int i = 0; i < READ_RUNS && !device->failed; i++) {
        float milliseconds = 0;
        device_check(device, "read_rate", cudaEventRecord(begin, stream));
        launch(device, "read_rate", read_kernel, dim3(device->multiprocessors * READ_BLOCKS), READ_THREADS, 0,
               (const uint4 *)memory, chunks, (uint32_t *)NULL);
        device_check(device, "read_rate", cudaEventRecord(end, stream));
        device_check(device, "read_rate", cudaEventSynchronize(end));
        if (!device->failed)
            device_check(device, "read_rate", cudaEventElapsedTime(&milliseconds, begin, end));
        least = i == 0 || milliseconds < least ? milliseconds : least;
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    enum { MILLISECONDS = 1000 };
    return device->failed || !(least > 0) ? 0 : (double)bytes * MILLISECONDS / (double)least;
}
