#include "infer/prefetch.h"
#include "infer/space.h"

#include <pthread.h>
#include <stdlib.h>

struct prefetch {
    struct prefetch_options options;
    void **buffers;
    unsigned buffer_count;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    size_t loaded;   /* steps */
    size_t given;    /* steps given out; the last of them is in use */
    size_t released; /* steps whose buffers are free again */
    bool stop;
    enum status status; /* of the load that failed */
    struct error error;
};

static uint64_t largest(const struct prefetch_options *options) {
    uint64_t size = 0;
    for (size_t i = 0; i < options->steps; i++)
        size = options->sizes[i] > size ? options->sizes[i] : size;
    return size;
}

uint64_t prefetch_bytes(const struct prefetch_options *options) {
    uint64_t bytes = 0;
    for (size_t i = 0; options->keep && i < options->steps; i++)
        bytes += space_aligned(options->sizes[i]);
    return options->keep ? bytes : space_aligned(largest(options)) * options->buffers;
}

static void *load_all(void *context) {
    struct prefetch *prefetch = context;
    for (size_t step = 0; step < prefetch->options.steps; step++) {
        pthread_mutex_lock(&prefetch->lock);
        while (!prefetch->stop && step - prefetch->released >= prefetch->buffer_count)
            pthread_cond_wait(&prefetch->changed, &prefetch->lock);
        const bool stop = prefetch->stop;
        pthread_mutex_unlock(&prefetch->lock);
        if (stop)
            return NULL;
        struct error error;
        const enum status status = prefetch->options.load(prefetch->options.context, step,
                                                          prefetch->buffers[step % prefetch->buffer_count], &error);
        pthread_mutex_lock(&prefetch->lock);
        if (status == STATUS_OK) {
            prefetch->loaded = step + 1;
        } else {
            prefetch->status = status;
            prefetch->error = error;
        }
        pthread_cond_broadcast(&prefetch->changed);
        pthread_mutex_unlock(&prefetch->lock);
        if (status != STATUS_OK)
            return NULL;
    }
    return NULL;
}

enum status prefetch_start(const struct prefetch_options *options, struct prefetch **out, struct error *error) {
    struct prefetch *prefetch = calloc(1, sizeof *prefetch);
    *out = prefetch;
    if (!prefetch)
        return error_set_memory(error);
    prefetch->options = *options;
    prefetch->buffer_count = options->keep ? (unsigned)options->steps : options->buffers;
    pthread_mutex_init(&prefetch->lock, NULL);
    pthread_cond_init(&prefetch->changed, NULL);
    prefetch->buffers = calloc(prefetch->buffer_count, sizeof *prefetch->buffers);
    if (!prefetch->buffers)
        return error_set_memory(error);
    for (unsigned i = 0; i < prefetch->buffer_count; i++) {
        const uint64_t bytes = space_aligned(options->keep ? options->sizes[i] : largest(options));
        prefetch->buffers[i] =
            options->allocate ? options->allocate(options->allocator, bytes) : aligned_alloc(64, bytes);
        if (!prefetch->buffers[i])
            return error_set_memory(error);
    }
    if (pthread_create(&prefetch->thread, NULL, load_all, prefetch) != 0)
        return error_set(error, STATUS_IO, "a thread could not be started");
    prefetch->started = true;
    return STATUS_OK;
}

void prefetch_stop(struct prefetch *prefetch) {
    if (!prefetch)
        return;
    if (prefetch->started) {
        pthread_mutex_lock(&prefetch->lock);
        prefetch->stop = true;
        pthread_cond_broadcast(&prefetch->changed);
        pthread_mutex_unlock(&prefetch->lock);
        pthread_join(prefetch->thread, NULL);
    }
    for (unsigned i = 0; prefetch->buffers && i < prefetch->buffer_count; i++)
        if (prefetch->options.release && prefetch->buffers[i])
            prefetch->options.release(prefetch->options.allocator, prefetch->buffers[i]);
        else
            free(prefetch->buffers[i]);
    free(prefetch->buffers);
    pthread_cond_destroy(&prefetch->changed);
    pthread_mutex_destroy(&prefetch->lock);
    free(prefetch);
}

enum status prefetch_next(struct prefetch *prefetch, struct error *error) {
    pthread_mutex_lock(&prefetch->lock);
    prefetch->released = prefetch->given;
    const size_t wanted = prefetch->options.keep ? prefetch->options.steps : ++prefetch->given;
    pthread_cond_broadcast(&prefetch->changed);
    while (prefetch->loaded < wanted && prefetch->status == STATUS_OK)
        pthread_cond_wait(&prefetch->changed, &prefetch->lock);
    const bool ready = prefetch->loaded >= wanted;
    pthread_mutex_unlock(&prefetch->lock);
    if (ready)
        return STATUS_OK;
    *error = prefetch->error;
    return prefetch->status;
}

void *prefetch_buffer(const struct prefetch *prefetch, size_t step) {
    return prefetch->buffers[step % prefetch->buffer_count];
}
