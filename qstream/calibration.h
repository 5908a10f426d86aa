/*
 * Calibrated rounding as a part of a run: which jobs it makes instead of the tile executor, the text, and how its results
 * reach the shards and the journal.
 */
#ifndef QSTREAM_QSTREAM_CALIBRATION_H
#define QSTREAM_QSTREAM_CALIBRATION_H

#include "calibrate/calibrate.h"
#include "infer/tokenizer/tokenizer.h"
#include "qstream/execute.h"
#include "qstream/publish.h"
#include "qstream/quantize_arguments.h"

struct calibration {
    struct token_ids tokens;
    struct plan_calibration settings;
    bool *jobs; /* [job_count]: weights that are rounded by it */
};

/*
 * Reads the text and fills settings: before the plan is made, which they are a part of. STATUS_BAD_INPUT when the text has
 * too few tokens. Free with calibration_free, also after an error.
 */
enum status calibration_read(const struct quantize_arguments *arguments, const struct folder *source,
                             struct calibration *calibration, struct error *error);

/*
 * Looks at what is to be done, and what it takes; touches nothing. *rate: what this machine computes, in floating-point
 * operations a second, with --dry-run only. STATUS_USAGE when the recipe leaves nothing to
 * calibrate or --memory is too small, STATUS_BAD_INPUT when the model cannot be run.
 */
enum status calibration_plan(struct calibration *calibration, const struct plan *plan,
                             const struct publication *publication, const struct quantize_arguments *arguments,
                             struct calibrate_budget *budget, double *rate, struct error *error);

/*
 * After calibration_plan. Makes all that `options` ask for: first the jobs that need no calibration, then the others layer by layer. As execute,
 * which it uses. `publication` has config.json and the index as they will be.
 */
enum status calibration_execute(struct calibration *calibration, const struct plan *plan,
                                const struct publication *publication, const struct quantize_arguments *arguments,
                                const struct execute_options *options, const struct fingerprint *fingerprint,
                                struct run_state *state, struct error *error);

void calibration_free(struct calibration *calibration);

#endif
