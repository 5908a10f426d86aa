/*
 * The pass over all weights: every window through layer 0, then every window through layer 1, ..., then the head.
 */
#ifndef QSTREAM_INFER_PPL_PASS_H
#define QSTREAM_INFER_PPL_PASS_H

#include "infer/ppl_setup.h"

/*
 * Fills result->tokens and, with a baseline, result->layers; the setup's windows stay. Errors as ppl_run,
 * STATUS_INTERRUPTED after a signal.
 */
enum status ppl_pass_run(struct ppl_setup *setup, const int32_t *ids, struct ppl_result *result, struct error *error);

#endif
