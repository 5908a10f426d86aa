/*
 * Streams are queues, and what is put on one is run late: when somebody synchronizes with it, or another stream needs an
 * event of it. So what was not waited for has not happened yet, and shows. A stream named by QSTREAM_MODEL_EAGER runs
 * as early as it may instead: together, the two show waits that are missing in either direction. Graphs keep what was
 * recorded and put it on a stream at each launch.
 */
#include <chrono>
#include <deque>
#include <set>

#include "model.h"

using model::operation;

struct queued {
    operation work;
    enum { WORK, RECORD, WAIT } kind;
    cudaEvent_t event;
    uint64_t number; /* of the event's records */
};

struct model_stream {
    std::deque<queued> queue;
    unsigned number;
    bool capturing, capture_failed, running;
    std::vector<queued> captured;
};

struct model_event {
    uint64_t recorded, over; /* records put on streams, and run */
    cudaStream_t stream;     /* of the last record */
    std::chrono::steady_clock::time_point when;
    bool timing;
};

struct model_graph {
    std::vector<queued> operations;
};

namespace model {

static std::vector<cudaStream_t> streams;
static std::set<cudaEvent_t> events;
static unsigned streams_made, capturing_count;
static uint64_t operations; /* that were put on streams */
typedef std::lock_guard<std::recursive_mutex> guard;

static bool known(cudaStream_t stream) {
    for (const cudaStream_t open : streams)
        if (open == stream)
            return true;
    return false;
}

bool stream_capturing(cudaStream_t stream) { return known(stream) && stream->capturing; }

static void event_reach(cudaEvent_t event, uint64_t number);

static void run_first(cudaStream_t stream) {
    queued first = std::move(stream->queue.front());
    stream->queue.pop_front();
    switch (first.kind) {
    case queued::WAIT:
        event_reach(first.event, first.number);
        break;
    case queued::RECORD:
        if (events.count(first.event) != 0) {
            first.event->over = first.number;
            first.event->when = std::chrono::steady_clock::now();
        }
        break;
    case queued::WORK:
        for (const uint64_t number : first.work.uses)
            if (!memory_alive(number))
                fault("%s uses memory that was released before it ran", first.work.what.c_str());
        first.work.run();
        break;
    }
}

/* Streams that are eager go on as far as events let them. */
static void run_eager() {
    static bool inside;
    if (setting().eager == 0 || inside)
        return;
    inside = true;
    for (bool moved = true; moved;) {
        moved = false;
        for (const cudaStream_t stream : streams)
            if ((setting().eager >> stream->number & 1) != 0)
                while (!stream->queue.empty()) {
                    const queued &first = stream->queue.front();
                    if (first.kind == queued::WAIT && events.count(first.event) != 0 &&
                        first.event->over < first.number)
                        break;
                    run_first(stream);
                    moved = true;
                }
    }
    inside = false;
}

void stream_drain(cudaStream_t stream) {
    while (!stream->queue.empty()) {
        run_first(stream);
        run_eager();
    }
}

/* Until that record is over. */
static void event_reach(cudaEvent_t event, uint64_t number) {
    while (events.count(event) != 0 && event->over < number) {
        cudaStream_t holder = nullptr;
        for (const cudaStream_t stream : streams)
            for (const queued &item : stream->queue)
                if (item.kind == queued::RECORD && item.event == event && item.number == number)
                    holder = stream;
        if (holder == nullptr)
            fault("a wait for an event whose record is nowhere");
        run_first(holder);
        run_eager();
    }
}

static cudaError_t put(cudaStream_t stream, queued &&item) {
    if (!known(stream))
        return answer(cudaErrorInvalidResourceHandle);
    if (stream->capturing) {
        stream->captured.push_back(std::move(item));
        return cudaSuccess;
    }
    stream->queue.push_back(std::move(item));
    run_eager();
    return cudaSuccess;
}

/* A device that has broken: operations are dropped, and who waits is told. */
static bool broken() { return setting().failure != 0 && operations >= setting().failure; }

cudaError_t stream_put(cudaStream_t stream, operation &&work) {
    if (broken())
        return answer(cudaErrorLaunchFailure);
    operations++;
    if (broken())
        return cudaSuccess; /* found when somebody waits */
    return put(stream, queued{std::move(work), queued::WORK, nullptr, 0});
}

static queued item_record(cudaEvent_t event, cudaStream_t stream) {
    event->recorded++;
    event->stream = stream;
    return queued{{}, queued::RECORD, event, event->recorded};
}

/* Waiting while something is recorded spoils the recording. */
static bool capture_spoiled() {
    for (const cudaStream_t stream : streams)
        if (stream->capturing)
            stream->capture_failed = true;
    return capturing_count > 0;
}

} // namespace model

using namespace model;

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    const guard held(lock);
    if (flags > cudaStreamNonBlocking)
        return answer(cudaErrorInvalidValue);
    *stream = new model_stream{};
    (*stream)->number = streams_made++;
    streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const guard held(lock);
    if (!known(stream))
        return answer(cudaErrorInvalidResourceHandle);
    stream_drain(stream);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream)
            streams.erase(streams.begin() + (ptrdiff_t)i);
    if (streams.empty())
        streams_made = 0; /* the next device's streams have the same numbers */
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const guard held(lock);
    if (!known(stream))
        return answer(cudaErrorInvalidResourceHandle);
    if (capture_spoiled())
        return answer(cudaErrorStreamCaptureUnsupported);
    stream_drain(stream);
    return broken() ? answer(cudaErrorLaunchFailure) : cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    const guard held(lock);
    if (!known(stream))
        return answer(cudaErrorInvalidResourceHandle);
    if (!stream->queue.empty()) { /* who asks again and again gets on */
        run_first(stream);
        return cudaErrorNotReady;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
    const guard held(lock);
    if (capture_spoiled())
        return answer(cudaErrorStreamCaptureUnsupported);
    for (const cudaStream_t stream : streams)
        stream_drain(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const guard held(lock);
    if (events.count(event) == 0)
        return answer(cudaErrorInvalidResourceHandle);
    if (event->recorded == 0)
        return cudaSuccess;
    return put(stream, queued{{}, queued::WAIT, event, event->recorded});
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    const guard held(lock);
    *event = new model_event{};
    (*event)->timing = (flags & cudaEventDisableTiming) == 0;
    events.insert(*event);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    const guard held(lock);
    if (events.erase(event) == 0)
        return answer(cudaErrorInvalidResourceHandle);
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const guard held(lock);
    if (events.count(event) == 0 || !known(stream))
        return answer(cudaErrorInvalidResourceHandle);
    return put(stream, item_record(event, stream));
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const guard held(lock);
    if (events.count(event) == 0)
        return answer(cudaErrorInvalidResourceHandle);
    if (capture_spoiled())
        return answer(cudaErrorStreamCaptureUnsupported);
    event_reach(event, event->recorded);
    return broken() ? answer(cudaErrorLaunchFailure) : cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    const guard held(lock);
    if (events.count(event) == 0)
        return answer(cudaErrorInvalidResourceHandle);
    return event->over < event->recorded ? cudaErrorNotReady : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    const guard held(lock);
    if (events.count(start) == 0 || events.count(end) == 0 || !start->timing || !end->timing || start->recorded == 0 ||
        end->recorded == 0)
        return answer(cudaErrorInvalidResourceHandle);
    if (start->over < start->recorded || end->over < end->recorded)
        return answer(cudaErrorNotReady);
    *milliseconds = std::chrono::duration<float, std::milli>(end->when - start->when).count();
    return cudaSuccess;
}

/* ---- graphs ---- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    const guard held(lock);
    if (!known(stream))
        return answer(cudaErrorInvalidResourceHandle);
    if (stream->capturing)
        return answer(cudaErrorIllegalState);
    stream->capturing = true;
    stream->capture_failed = false;
    stream->captured.clear();
    capturing_count++;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    const guard held(lock);
    *graph = nullptr;
    if (!known(stream) || !stream->capturing)
        return answer(cudaErrorIllegalState);
    stream->capturing = false;
    capturing_count--;
    if (stream->capture_failed)
        return answer(cudaErrorStreamCaptureInvalidated);
    *graph = new model_graph{std::move(stream->captured)};
    stream->captured.clear();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long) {
    const guard held(lock);
    if (graph == nullptr)
        return answer(cudaErrorInvalidValue);
    *executable = new model_graph(*graph);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    const guard held(lock);
    if (executable == nullptr)
        return answer(cudaErrorInvalidValue);
    for (const queued &item : executable->operations) {
        queued again = item;
        const cudaError_t error = put(stream, std::move(again));
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete executable;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
