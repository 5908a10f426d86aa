#include "qstream/late_source.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct late_source {
    struct byte_source base;
    uint32_t shard;
    const struct companions *companions;
    pthread_mutex_t lock;
    struct byte_source *file; /* under `lock` */
};

static enum status late_read_at(struct byte_source *base, uint64_t offset, void *buffer, size_t size,
                                struct error *error) {
    struct late_source *source = (struct late_source *)base;
    bool held = false;
    enum status status = STATUS_OK;
    if (source->companions)
        status = companions_read(source->companions, source->shard, offset, buffer, size, &held, error);
    if (status != STATUS_OK || held)
        return status;
    pthread_mutex_lock(&source->lock);
    struct byte_source *file = source->file;
    pthread_mutex_unlock(&source->lock);
    return file ? byte_source_read_at(file, offset, buffer, size, error)
                : error_set(error, STATUS_IO,
                            "'%s' is not there to be read at byte %" PRIu64 ": this is a bug in qstream", base->name,
                            offset);
}

static enum status late_identify(struct byte_source *base, struct source_identity *now, struct error *error) {
    struct late_source *source = (struct late_source *)base;
    pthread_mutex_lock(&source->lock);
    enum status status = source->file ? byte_source_check_unchanged(source->file, error) : STATUS_OK;
    pthread_mutex_unlock(&source->lock);
    *now = base->identity;
    return status;
}

static void late_prefetch(struct byte_source *base, uint64_t offset, uint64_t size) {
    struct late_source *source = (struct late_source *)base;
    pthread_mutex_lock(&source->lock);
    if (source->file)
        byte_source_prefetch(source->file, offset, size);
    pthread_mutex_unlock(&source->lock);
}

static void late_close(struct byte_source *base) {
    struct late_source *source = (struct late_source *)base;
    byte_source_close(source->file);
    pthread_mutex_destroy(&source->lock);
    free(base->name);
    free(source);
}

enum status late_source_new(const struct byte_source *like, uint32_t shard, const struct companions *companions,
                            struct byte_source **out, struct error *error) {
    static const struct byte_source_operations operations = {
        .read_at = late_read_at,
        .identify = late_identify,
        .prefetch = late_prefetch,
        .close = late_close,
    };
    struct late_source *source = calloc(1, sizeof *source);
    char *name = strdup(like->name);
    if (!source || !name) {
        free(source);
        free(name);
        return error_set_memory(error);
    }
    source->base = (struct byte_source){.operations = &operations, .name = name, .identity = like->identity};
    source->shard = shard;
    source->companions = companions;
    pthread_mutex_init(&source->lock, NULL);
    *out = &source->base;
    return STATUS_OK;
}

struct byte_source *late_source_set(struct byte_source *base, struct byte_source *file) {
    struct late_source *source = (struct late_source *)base;
    pthread_mutex_lock(&source->lock);
    struct byte_source *before = source->file;
    source->file = file;
    pthread_mutex_unlock(&source->lock);
    return before;
}
