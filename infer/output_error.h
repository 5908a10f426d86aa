/*
 * How far the outputs of a checkpoint's linear layers are from another's on a text, weight by weight: both get the inputs
 * that the source gives, so that each figure is of its weight alone. It says what calibrated rounding is for, as the error
 * of weights does not.
 */
#ifndef QSTREAM_INFER_OUTPUT_ERROR_H
#define QSTREAM_INFER_OUTPUT_ERROR_H

#include <stdbool.h>

#include "common/cpu.h"
#include "common/status.h"
#include "infer/model.h"

struct output_error_options {
    const char *source, *output; /* folders */
    const int32_t *ids;          /* [windows * tokens] */
    uint32_t windows, tokens;    /* of each window */
    unsigned jobs;
    enum cpu_level cpu;
    uint64_t memory;
    const char *spill_folder; /* for hidden states that do not fit; NULL: TMPDIR or /tmp */
    bool quiet;
};

struct output_error {
    uint32_t layer;
    enum layer_weight weight;
    char *module;     /* name of the source's weight without ".weight" */
    double rel_error; /* sqrt(sum |W x - W' x|^2 / sum |W x|^2) over all tokens; in float32 */
};

/*
 * Of every weight of a layer that the output has in another format than the source, in the order of layers. Activations are
 * not rounded. STATUS_BAD_INPUT when one of them cannot be run, or they are not the same model; STATUS_USAGE when `memory`
 * is too small. Free with output_errors_free, also after an error.
 */
enum status output_errors_measure(const struct output_error_options *options, struct output_error **errors,
                                  size_t *count, struct error *error);
void output_errors_free(struct output_error *errors, size_t count);

#endif
