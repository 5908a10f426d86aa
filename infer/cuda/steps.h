/*
 * Weights on their way to a device, step by step: read into pinned memory by a thread of their own, copied while the
 * device computes on the step before. On a device that shares the host's memory they are used where they were read.
 */
#ifndef QSTREAM_INFER_CUDA_STEPS_H
#define QSTREAM_INFER_CUDA_STEPS_H

#include "infer/cuda/cuda.h"
#include "infer/model.h"
#include "infer/prefetch.h"

/* Where a step was read to, and where it is on the device. */
struct step_place {
    const unsigned char *host;
    void *device;
};

struct cuda_steps {
    const struct cuda *cuda;
    struct prefetch *prefetch;
    size_t steps;
    const uint64_t *sizes;
    bool resident;
    bool in_place;             /* computed on where it was read */
    void *slots[2];            /* of the device */
    void *addresses[2];        /* of the pinned buffers, as the device sees them */
    unsigned buffers;          /* that were allocated */
    struct step_place *places; /* [steps], of resident steps */
    struct step_place now;     /* of the step in use */
};

/*
 * `options`: steps, sizes, load, context; two buffers of pinned memory are used. resident: all steps are copied now, each
 * to a place of its own, and may be used in any order. Free with cuda_steps_close, also after an error.
 */
enum status cuda_steps_open(const struct cuda *cuda, const struct prefetch_options *options, bool resident,
                            struct cuda_steps *steps, struct error *error);
void cuda_steps_close(struct cuda_steps *steps);

/* Bytes that it takes: of pinned host memory, and of the device. */
uint64_t cuda_steps_host_bytes(const struct prefetch_options *options);
uint64_t cuda_steps_device_bytes(const struct cuda_info *info, const struct prefetch_options *options, bool resident);

/*
 * What is computed from now on may use step number `step` (in order, if not resident). What was called before
 * it may still be running, on the two steps before, but on none before these: so an interrupt is soon heeded.
 */
enum status cuda_steps_next(struct cuda_steps *steps, size_t step, struct error *error);

/* Moves the pointers of a weight or a layer of the step in use to the device. */
struct weight cuda_steps_weight(const struct cuda_steps *steps, const struct weight *weight);
struct layer cuda_steps_layer(const struct cuda_steps *steps, const struct layer *layer);

#endif
