#include "infer/cuda/steps.h"

#include <stdlib.h>

#include "infer/cuda/lay.h"

/* Events, by slot: the step there was copied; what was computed on it is done. */
enum { EVENT_COPIED, EVENT_USED = 2 };

static uint64_t largest(const struct prefetch_options *options) {
    uint64_t size = 0;
    for (size_t i = 0; i < options->steps; i++)
        size = options->sizes[i] > size ? options->sizes[i] : size;
    return size;
}

uint64_t cuda_steps_host_bytes(const struct prefetch_options *options) { return 2 * cuda_aligned(largest(options)); }

uint64_t cuda_steps_device_bytes(const struct cuda_info *info, const struct prefetch_options *options, bool resident) {
    uint64_t bytes = 0;
    for (size_t i = 0; resident && i < options->steps; i++)
        bytes += cuda_aligned(options->sizes[i]);
    return resident ? bytes : info->unified ? 0 : 2 * cuda_aligned(largest(options));
}

/* Buffers are asked for in the order of their numbers. */
static void *pinned_allocate(void *context, uint64_t bytes) {
    struct cuda_steps *steps = context;
    return steps->cuda->plugin->allocate_host(steps->cuda->device, bytes, &steps->addresses[steps->buffers++]);
}

static void pinned_release(void *context, void *buffer) {
    const struct cuda_steps *steps = context;
    steps->cuda->plugin->release_host(steps->cuda->device, buffer);
}

/* The next step, read; the copy of the one before is over, or what was computed where it lies. */
static enum status step_take(struct cuda_steps *steps, size_t step, struct error *error) {
    if (step > 0)
        steps->cuda->plugin->event_wait(steps->cuda->device,
                                        (steps->in_place ? EVENT_USED : EVENT_COPIED) + (unsigned)((step - 1) % 2));
    enum status status = cuda_status(steps->cuda, error);
    if (status == STATUS_OK)
        status = prefetch_next(steps->prefetch, error);
    if (status == STATUS_OK)
        steps->now.host = prefetch_buffer(steps->prefetch, step);
    return status;
}

/* Begins to copy the step that was taken; what is computed from now on waits for it. */
static void step_copy(struct cuda_steps *steps, size_t step, void *to) {
    const struct cuda_plugin *plugin = steps->cuda->plugin;
    struct cuda_device *device = steps->cuda->device;
    const unsigned slot = step % 2;
    plugin->event_follow(device, EVENT_USED + slot, CUDA_COPY); /* of the step before in this slot */
    plugin->copy_in(device, CUDA_COPY, to, steps->now.host, steps->sizes[step]);
    plugin->event_record(device, EVENT_COPIED + slot, CUDA_COPY);
    plugin->event_follow(device, EVENT_COPIED + slot, CUDA_COMPUTE);
    steps->now.device = to;
}

static enum status all_load(struct cuda_steps *steps, struct error *error) {
    steps->places = calloc(steps->steps, sizeof *steps->places);
    enum status status = steps->places ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0; status == STATUS_OK && i < steps->steps; i++) {
        void *to;
        status = cuda_allocate(steps->cuda, steps->sizes[i], &to, error);
        if (status == STATUS_OK)
            status = step_take(steps, i, error);
        if (status == STATUS_OK) {
            step_copy(steps, i, to);
            steps->places[i] = steps->now;
        }
    }
    const enum status copied = cuda_finish(steps->cuda, status == STATUS_OK ? error : NULL);
    prefetch_stop(steps->prefetch); /* no copy reads the pinned memory any more */
    steps->prefetch = NULL;
    return status == STATUS_OK ? copied : status;
}

enum status cuda_steps_open(const struct cuda *cuda, const struct prefetch_options *options, bool resident,
                            struct cuda_steps *steps, struct error *error) {
    *steps = (struct cuda_steps){.cuda = cuda,
                                 .steps = options->steps,
                                 .sizes = options->sizes,
                                 .resident = resident,
                                 .in_place = cuda->info.unified && !resident};
    enum status status = STATUS_OK;
    for (unsigned i = 0; status == STATUS_OK && !resident && !steps->in_place && i < 2; i++)
        status = cuda_allocate(cuda, cuda_aligned(largest(options)), &steps->slots[i], error);
    if (status != STATUS_OK)
        return status;
    struct prefetch_options prefetch = *options;
    prefetch.buffers = 2;
    prefetch.keep = false;
    prefetch.allocate = pinned_allocate;
    prefetch.release = pinned_release;
    prefetch.allocator = steps;
    status = prefetch_start(&prefetch, &steps->prefetch, error);
    if (status != STATUS_OK) {
        cuda_status(cuda, error); /* has more to say of memory that could not be pinned */
        return status;
    }
    if (steps->in_place && (!steps->addresses[0] || !steps->addresses[1]))
        return error_set(error, STATUS_IO, "%s does not see pinned memory, though it shares the host's",
                         cuda->info.name);
    return resident ? all_load(steps, error) : STATUS_OK;
}

void cuda_steps_close(struct cuda_steps *steps) {
    if (!steps->cuda)
        return;
    for (enum cuda_stream stream = CUDA_COMPUTE; stream < CUDA_STREAMS; stream++)
        steps->cuda->plugin->synchronize(steps->cuda->device, stream); /* nothing reads what is released now */
    prefetch_stop(steps->prefetch);
    for (unsigned i = 0; i < 2; i++)
        steps->cuda->plugin->release(steps->cuda->device, steps->slots[i]);
    for (size_t i = 0; steps->places && i < steps->steps; i++)
        steps->cuda->plugin->release(steps->cuda->device, steps->places[i].device);
    free(steps->places);
    *steps = (struct cuda_steps){0};
}

enum status cuda_steps_next(struct cuda_steps *steps, size_t step, struct error *error) {
    if (step > 0)
        steps->cuda->plugin->event_record(steps->cuda->device, EVENT_USED + (unsigned)((step - 1) % 2), CUDA_COMPUTE);
    if (steps->resident) {
        steps->cuda->plugin->event_wait(steps->cuda->device, EVENT_USED + (unsigned)(step % 2));
        steps->now = steps->places[step];
        return cuda_status(steps->cuda, error);
    }
    const enum status status = step_take(steps, step, error);
    if (status != STATUS_OK)
        return status;
    if (steps->in_place)
        steps->now.device = steps->addresses[step % 2];
    else
        step_copy(steps, step, steps->slots[step % 2]);
    return cuda_status(steps->cuda, error);
}

/* ---- addresses ---- */

static const void *moved(const struct cuda_steps *steps, const void *host) {
    if (!host)
        return NULL;
    return (const unsigned char *)steps->now.device + ((const unsigned char *)host - steps->now.host);
}

struct weight cuda_steps_weight(const struct cuda_steps *steps, const struct weight *weight) {
    struct weight there = *weight;
    there.codes = moved(steps, weight->codes);
    there.exponents = moved(steps, weight->exponents);
    there.scales = moved(steps, weight->scales);
    there.bias = moved(steps, weight->bias);
    return there;
}

struct layer cuda_steps_layer(const struct cuda_steps *steps, const struct layer *layer) {
    struct layer there;
    for (enum layer_weight i = 0; i < LAYER_WEIGHTS; i++)
        there.weights[i] = cuda_steps_weight(steps, &layer->weights[i]);
    there.attention_norm = moved(steps, layer->attention_norm);
    there.mlp_norm = moved(steps, layer->mlp_norm);
    return there;
}
