/*
 * Calibrated rounding of a model's weights, layer by layer: the hidden states of the calibration tokens wait in a file,
 * the weights stream. Of each layer
 *
 *   1. the tokens are run up to the inputs of weights that are to be rounded; their Gram matrix is taken;
 *   2. the weights are rounded so that their outputs stay close (round.h), drawn a part of the way to what the source gives;
 *   3. the tokens go on through the rounded weights, so that later weights are rounded for what earlier ones give.
 *
 * For that part, the same tokens go through the source beside it.
 *
 * The output is read as a loader would read it, as a model whose other weights are there already: activations are rounded
 * as it says. The same bytes for any number of threads and any memory.
 */
#ifndef QSTREAM_CALIBRATE_CALIBRATE_H
#define QSTREAM_CALIBRATE_CALIBRATE_H

#include "common/cpu.h"
#include "common/sha256.h"
#include "infer/model.h"

struct calibrate_options {
    const char *source; /* the model as it was */
    /* Opens it as it becomes, or as it is planned; weights that are rounded need not be there yet. As model_open. */
    enum status (*output_open)(void *context, struct model *model, struct error *error);
    const char *states_folder;     /* for hidden states; what a run that was ended left there is used */
    uint8_t identity[SHA256_SIZE]; /* of source, output and options: states of another run are not taken */
    const int32_t *ids;            /* [windows * tokens]: calibration text */
    uint32_t windows, tokens;      /* of each window */
    double correction; /* 0: to what weights give for their inputs, 1: to what the source gives for its own */
    double damping;    /* share of the mean of the Gram matrix' diagonal that is added to it */
    bool bf16;         /* products of bf16 values */
    enum cpu_level cpu;
    unsigned jobs;
    uint64_t memory;
    bool quiet;
    /*
     * Whether a weight of a layer is to be rounded; it is MXFP4 in the output. A layer that is done has none left, and its
     * weights are there.
     */
    bool (*wanted)(void *context, uint32_t layer, enum layer_weight weight);
    /* A layer's rounded weights [LAYER_WEIGHTS], those wanted, to be kept for good when it returns. */
    enum status (*keep)(void *context, uint32_t layer, const struct weight *weights, struct error *error);
    /* Of a weight that is rounded to nearest, since its Gram matrix has values that are not finite. NULL: not wanted. */
    void (*note)(void *context, uint32_t layer, enum layer_weight weight);
    void *context;
};

struct calibrate_budget {
    uint64_t weights, gram, work, total; /* bytes of memory */
    uint64_t states;                     /* bytes on the disk, at most */
    double flops;
};

/*
 * The rate of this machine's matrix products on all threads, in floating-point operations a second: half a second is
 * spent on them.
 */
enum status calibrate_rate(const struct calibrate_options *options, double *rate, struct error *error);

/* What it takes; nothing is computed. Errors as calibrate_run. */
enum status calibrate_plan(const struct calibrate_options *options, struct calibrate_budget *budget,
                           struct error *error);

/*
 * Rounds all weights that are wanted. STATUS_BAD_INPUT when a model cannot be run, STATUS_USAGE when --memory is too small.
 */
enum status calibrate_run(const struct calibrate_options *options, struct error *error);

#endif
