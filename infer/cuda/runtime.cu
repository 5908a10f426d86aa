/*
 * The plug-in's own: devices, memory, streams, events, recorded operations, and the table through which the program calls
 * all the rest (see plugin.h). No kernel is here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cuda/device.cuh"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#ifdef __CUDACC_VER_MAJOR__
#define TOOLKIT TEXT(__CUDACC_VER_MAJOR__) "." TEXT(__CUDACC_VER_MINOR__)
#else
#define TOOLKIT "none"
#endif

enum { CAPABILITY_LEAST = 80, CAPABILITY_FP8 = 89 };

/* What is released at the latest when the device is closed. */
struct held_memory {
    void *address;
    bool host;
    held_memory *next;
};

struct cuda_graph {
    cudaGraphExec_t executable;
    struct opened_device *device;
    cuda_graph *next;
};

/* The device with what is the runtime's own. */
struct opened_device : cuda_device {
    held_memory *memory;
    cuda_graph *graphs;
    bool recording;
};

/* ---- failures ---- */

void device_fail_text(cuda_device *device, const char *text) {
    if (device->failed)
        return;
    device->failed = true;
    snprintf(device->message, sizeof device->message, "%s", text);
}

void device_fail(cuda_device *device, const char *what, cudaError_t error) {
    char text[CUDA_MESSAGE_MAX];
    snprintf(text, sizeof text, "%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
    device_fail_text(device, text);
    cudaGetLastError(); /* not to be found again by a call that is right */
}

namespace {

opened_device *opened(cuda_device *device) { return static_cast<opened_device *>(device); }

/* Threads have a current device each. */
void make_current(const cuda_device *device) { cudaSetDevice(device->number); }

/* Whether an operation is to be done. */
bool ready(const cuda_device *device) {
    if (!device->failed)
        make_current(device);
    return !device->failed;
}

const char *failure(const cuda_device *device) { return device->failed ? device->message : NULL; }

/* ---- devices ---- */

int device_count(char message[CUDA_MESSAGE_MAX]) {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0)
        return count;
    cudaGetLastError();
    cudaDriverGetVersion(&driver);
    if (error == cudaErrorInsufficientDriver && driver == 0)
        snprintf(message, CUDA_MESSAGE_MAX, "the NVIDIA driver is missing");
    else if (error == cudaErrorInsufficientDriver)
        snprintf(message, CUDA_MESSAGE_MAX, "the NVIDIA driver is too old for CUDA " TOOLKIT ": it is for CUDA %d.%d",
                 driver / 1000, driver % 1000 / 10);
    else if (error == cudaErrorNoDevice || error == cudaSuccess)
        snprintf(message, CUDA_MESSAGE_MAX, "no CUDA device");
    else
        snprintf(message, CUDA_MESSAGE_MAX, "CUDA cannot be used: %s", cudaGetErrorString(error));
    return -1;
}

int attribute(const cuda_device *device, cudaDeviceAttr which) {
    int value = 0;
    if (cudaDeviceGetAttribute(&value, which, device->number) != cudaSuccess) {
        cudaGetLastError();
        return 0; /* not known */
    }
    return value;
}

void info_fill(cuda_device *device, cuda_info *info) {
    static cudaDeviceProp properties; /* large */
    *info = {};
    if (device_check(device, "to ask the device for its name", cudaGetDeviceProperties(&properties, device->number)))
        snprintf(info->name, sizeof info->name, "%.*s", CUDA_NAME_MAX - 1, properties.name);
    info->major = (unsigned)attribute(device, cudaDevAttrComputeCapabilityMajor);
    info->minor = (unsigned)attribute(device, cudaDevAttrComputeCapabilityMinor);
    info->multiprocessors = (unsigned)attribute(device, cudaDevAttrMultiProcessorCount);
    size_t memory_free = 0, memory = 0;
    device_check(device, "to ask the device for its memory", cudaMemGetInfo(&memory_free, &memory));
    info->memory = memory;
    info->memory_free = memory_free;
    /* kHz; data on both edges of the clock */
    const double clock = 1e3 * attribute(device, cudaDevAttrMemoryClockRate),
                 bits = attribute(device, cudaDevAttrGlobalMemoryBusWidth);
    info->bandwidth = clock * 2 * bits / 8;
    info->unified = attribute(device, cudaDevAttrIntegrated) != 0;
    device->capability = info->major * 10 + info->minor;
    device->multiprocessors = info->multiprocessors;
    device->shared_most = (size_t)attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    info->fp8 = device->capability >= CAPABILITY_FP8;
}

void device_close(cuda_device *device);

void open_streams(cuda_device *device) {
    for (int i = 0; i < CUDA_STREAMS && !device->failed; i++)
        device_check(device, "to make a stream", cudaStreamCreateWithFlags(&device->streams[i], cudaStreamNonBlocking));
    for (int i = 0; i < CUDA_EVENTS && !device->failed; i++)
        device_check(device, "to make an event", cudaEventCreateWithFlags(&device->events[i], cudaEventDisableTiming));
}

cuda_device *device_open(int number, cuda_info *info, char message[CUDA_MESSAGE_MAX]) {
    const int count = device_count(message);
    if (count < 0)
        return NULL;
    if (number < 0 || number >= count) {
        snprintf(message, CUDA_MESSAGE_MAX, "there is no CUDA device %d: there %s %d, counted from 0", number,
                 count == 1 ? "is" : "are", count);
        return NULL;
    }
    opened_device *device = (opened_device *)calloc(1, sizeof *device);
    if (!device) {
        snprintf(message, CUDA_MESSAGE_MAX, "out of memory");
        return NULL;
    }
    device->number = number;
    if (device_check(device, "to use the device", cudaSetDevice(number)))
        info_fill(device, info);
    if (!device->failed && device->capability < CAPABILITY_LEAST) {
        char text[CUDA_MESSAGE_MAX];
        snprintf(text, sizeof text, "%s has compute capability %u.%u: 8.0 or above (Ampere) is needed", info->name,
                 info->major, info->minor);
        device_fail_text(device, text);
    }
    open_streams(device);
    if (device->failed) {
        memcpy(message, device->message, CUDA_MESSAGE_MAX);
        device_close(device);
        return NULL;
    }
    return device;
}

bool synchronize(cuda_device *device, cuda_stream stream) {
    make_current(device);
    device_check(device, "what was started on the device failed", cudaStreamSynchronize(device->streams[stream]));
    return !device->failed;
}

/* ---- memory ---- */

void *hold(cuda_device *device, void *address, bool host) {
    held_memory *held = (held_memory *)malloc(sizeof *held);
    if (!held) {
        host ? cudaFreeHost(address) : cudaFree(address);
        device_fail_text(device, "out of memory");
        return NULL;
    }
    *held = held_memory{address, host, opened(device)->memory};
    opened(device)->memory = held;
    return address;
}

void held_free(cuda_device *device, held_memory **place) {
    held_memory *held = *place;
    *place = held->next;
    device_check(device, "to release memory", held->host ? cudaFreeHost(held->address) : cudaFree(held->address));
    free(held);
}

void memory_release(cuda_device *device, void *address, bool host) {
    if (!address)
        return;
    make_current(device);
    for (held_memory **place = &opened(device)->memory; *place; place = &(*place)->next)
        if ((*place)->address == address && (*place)->host == host) {
            held_free(device, place);
            return;
        }
}

void memory_fail(cuda_device *device, const char *where, uint64_t bytes, cudaError_t error) {
    const double mib = 1 << 20;
    char text[CUDA_MESSAGE_MAX];
    size_t memory_free = 0, memory = 0;
    if (error != cudaErrorMemoryAllocation) {
        snprintf(text, sizeof text, "to have %.1f MiB of %s", (double)bytes / mib, where);
        device_fail(device, text, error);
        return;
    }
    cudaGetLastError();
    cudaMemGetInfo(&memory_free, &memory);
    snprintf(text, sizeof text, "there is too little %s: %.1f MiB are wanted; of the device's %.1f MiB, %.1f are free",
             where, (double)bytes / mib, (double)memory / mib, (double)memory_free / mib);
    device_fail_text(device, text);
}

void *allocate(cuda_device *device, uint64_t bytes) {
    if (!ready(device))
        return NULL;
    void *address = NULL;
    const cudaError_t error = cudaMalloc(&address, bytes ? bytes : 1);
    if (error != cudaSuccess) {
        memory_fail(device, "memory of the device", bytes, error);
        return NULL;
    }
    return hold(device, address, false);
}

void release(cuda_device *device, void *memory) { memory_release(device, memory, false); }

void *allocate_host(cuda_device *device, uint64_t bytes, void **address) {
    *address = NULL;
    if (!ready(device))
        return NULL;
    void *memory = NULL;
    const cudaError_t error = cudaHostAlloc(&memory, bytes ? bytes : 1, cudaHostAllocMapped | cudaHostAllocPortable);
    if (error != cudaSuccess) {
        memory_fail(device, "host memory that can be pinned", bytes, error);
        return NULL;
    }
    memory = hold(device, memory, true);
    if (memory && cudaHostGetDevicePointer(address, memory, 0) != cudaSuccess) {
        cudaGetLastError();
        *address = NULL;
    }
    return memory;
}

void release_host(cuda_device *device, void *memory) { memory_release(device, memory, true); }

void copy_in(cuda_device *device, cuda_stream stream, void *to, const void *from, uint64_t bytes) {
    if (bytes > 0 && ready(device))
        device_check(device, "to copy to the device",
                     cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, device->streams[stream]));
}

void copy_out(cuda_device *device, cuda_stream stream, void *to, const void *from, uint64_t bytes) {
    if (bytes > 0 && ready(device))
        device_check(device, "to copy from the device",
                     cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device->streams[stream]));
}

void clear(cuda_device *device, void *memory, uint64_t bytes) {
    if (bytes > 0 && ready(device))
        device_check(device, "to clear memory", cudaMemsetAsync(memory, 0, bytes, device->streams[CUDA_COMPUTE]));
}

/* ---- events ---- */

void event_record(cuda_device *device, unsigned event, cuda_stream stream) {
    if (ready(device))
        device_check(device, "to record an event", cudaEventRecord(device->events[event], device->streams[stream]));
}

void event_follow(cuda_device *device, unsigned event, cuda_stream stream) {
    if (ready(device))
        device_check(device, "to wait for an event",
                     cudaStreamWaitEvent(device->streams[stream], device->events[event], 0));
}

/* Waits after a failure too: the caller may use again what a copy still reads. */
void event_wait(cuda_device *device, unsigned event) {
    make_current(device);
    device_check(device, "what was started on the device failed", cudaEventSynchronize(device->events[event]));
}

/* ---- recorded operations ---- */

void graph_begin(cuda_device *device) {
    if (ready(device))
        opened(device)->recording =
            device_check(device, "to record operations",
                         cudaStreamBeginCapture(device->streams[CUDA_COMPUTE], cudaStreamCaptureModeThreadLocal));
}

cuda_graph *graph_end(cuda_device *device) {
    if (!opened(device)->recording)
        return NULL;
    make_current(device);
    opened(device)->recording = false;
    cudaGraph_t graph = NULL;
    device_check(device, "to record operations", cudaStreamEndCapture(device->streams[CUDA_COMPUTE], &graph));
    cuda_graph *result = device->failed ? NULL : (cuda_graph *)calloc(1, sizeof *result);
    if (result && device_check(device, "to make recorded operations ready",
                               cudaGraphInstantiate(&result->executable, graph, 0))) {
        result->device = opened(device);
        result->next = opened(device)->graphs;
        opened(device)->graphs = result;
    } else {
        if (!result)
            device_fail_text(device, "out of memory");
        free(result);
        result = NULL;
    }
    if (graph)
        cudaGraphDestroy(graph);
    return result;
}

void graph_run(cuda_device *device, cuda_graph *graph) {
    if (ready(device))
        device_check(device, "to run recorded operations",
                     cudaGraphLaunch(graph->executable, device->streams[CUDA_COMPUTE]));
}

void graph_free(cuda_graph *graph) {
    if (!graph)
        return;
    make_current(graph->device);
    cuda_graph **place = &graph->device->graphs;
    while (*place != graph)
        place = &(*place)->next;
    *place = graph->next;
    device_check(graph->device, "to release recorded operations", cudaGraphExecDestroy(graph->executable));
    free(graph);
}

void device_close(cuda_device *device) {
    if (!device)
        return;
    make_current(device);
    if (opened(device)->recording)
        graph_end(device);
    for (int i = 0; i < CUDA_STREAMS; i++)
        if (device->streams[i])
            cudaStreamSynchronize(device->streams[i]);
    products_close(device);
    while (opened(device)->graphs)
        graph_free(opened(device)->graphs);
    while (opened(device)->memory)
        held_free(device, &opened(device)->memory);
    for (int i = 0; i < CUDA_EVENTS; i++)
        if (device->events[i])
            cudaEventDestroy(device->events[i]);
    for (int i = 0; i < CUDA_STREAMS; i++)
        if (device->streams[i])
            cudaStreamDestroy(device->streams[i]);
    cudaGetLastError();
    free(opened(device));
}

/* ---- the table ---- */

/* An operation as the table has it: it does nothing after a failure, and finds its device whichever thread calls. */
template <auto RUN> struct operation;
template <typename... Parameters, void (*RUN)(cuda_device *, Parameters...)> struct operation<RUN> {
    static void call(cuda_device *device, Parameters... parameters) {
        if (ready(device))
            RUN(device, parameters...);
    }
};

double read_rate(cuda_device *device, const void *memory, uint64_t bytes) {
    return ready(device) ? run_read_rate(device, memory, bytes) : 0;
}

constexpr cuda_plugin table_make() {
    cuda_plugin table = {};
    table.version = CUDA_PLUGIN_VERSION;
    table.size = sizeof table;
    table.toolkit = TOOLKIT;
    table.device_count = device_count;
    table.open = device_open;
    table.close = device_close;
    table.failure = failure;
    table.synchronize = synchronize;
    table.allocate = allocate;
    table.release = release;
    table.allocate_host = allocate_host;
    table.release_host = release_host;
    table.copy_in = copy_in;
    table.copy_out = copy_out;
    table.clear = clear;
    table.event_record = event_record;
    table.event_follow = event_follow;
    table.event_wait = event_wait;
    table.graph_begin = graph_begin;
    table.graph_end = graph_end;
    table.graph_run = graph_run;
    table.graph_free = graph_free;
    table.read_rate = read_rate;
    table.operand = operation<run_operand>::call;
    table.unpack = operation<run_unpack>::call;
    table.product = operation<run_product>::call;
    table.finish_residual = operation<run_finish_residual>::call;
    table.finish_swiglu = operation<run_finish_swiglu>::call;
    table.finish_heads = operation<run_finish_heads>::call;
    table.attention = operation<run_attention>::call;
    table.head_update = operation<run_head_update>::call;
    table.compare = operation<run_compare>::call;
    table.finite_check = operation<run_finite_check>::call;
    table.codes_check = operation<run_codes_check>::call;
    table.prepared_bytes = prepared_bytes;
    table.prepare = operation<run_prepare>::call;
    table.matvec = operation<run_matvec>::call;
    table.step_attention_bytes = step_attention_bytes;
    table.step_attention = operation<run_step_attention>::call;
    table.cache_fill = operation<run_cache_fill>::call;
    return table;
}

constexpr cuda_plugin plugin = table_make();

} // namespace

extern "C" __attribute__((visibility("default"))) const cuda_plugin *qstream_cuda_plugin(void) { return &plugin; }
