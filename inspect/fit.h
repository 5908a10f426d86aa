/*
 * A module's tensors against the group of quantization_config that a loader gives it: which tensors the loader will
 * look for, and what it does with what it finds.
 *
 * vLLM 0.33 picks a scheme by the arguments (vllm_scheme.h); its parameters then take tensors by copy_, which converts values without a word, and refuse tensors
 * they do not know. transformers 5.23 with compressed-tensors 0.20: the group's format picks a compressor, the arguments
 * the shape of the scale; shapes must be exact, unknown tensors are skipped, missing ones made up.
 */
#ifndef QSTREAM_INSPECT_FIT_H
#define QSTREAM_INSPECT_FIT_H

#include "inspect/finding.h"
#include "inspect/inspection.h"

enum outcome {
    OUTCOME_AS_MEANT,
    OUTCOME_UNQUANTIZED, /* loads, the weight not quantized as stored */
    OUTCOME_REFUSES,     /* an error at load */
    OUTCOME_GARBAGE,     /* loads, and computes something else */
    OUTCOME_UNKNOWN,
    OUTCOMES
};
const char *outcome_name(enum outcome outcome); /* "as_meant" */

struct issue {
    enum finding_id id;
    enum outcome outcome;
    char detail[224];
};

enum { ISSUES_MAX = 8 };

struct fit {
    enum outcome outcome; /* the worst of the issues */
    const char *scheme;   /* vLLM's class; NULL: none */
    struct issue issues[ISSUES_MAX];
    size_t issue_count;
};

/* `expert`: one of routed experts. Only vLLM and transformers. */
void fit_check(const struct inspection *inspection, const struct module *module, const struct quant_group *group,
               enum loader loader, bool expert, struct fit *fit);

/* The format of tensors that a group's arguments describe, its format left aside; STORED_OTHER when none is known. */
enum stored_format args_stored_format(const struct quant_args *weights);

/* The name that compressed-tensors has for a stored format; NULL where it has none. */
const char *stored_format_ct_name(enum stored_format format);

#endif
