/*
 * qstream verify: is the folder the image of the source that its recipe wants, and how much was lost?
 */
#ifndef QSTREAM_VERIFY_VERIFICATION_H
#define QSTREAM_VERIFY_VERIFICATION_H

#include "verify/compare.h"
#include "verify/thresholds.h"

enum setting_from { FROM_DEFAULT, FROM_OPTION, FROM_MANIFEST, FROM_SCALES };
const char *setting_from_name(enum setting_from from); /* "default", "option", "manifest", "scales" */

enum rounding { ROUNDING_UNSET, ROUNDING_NEAREST, ROUNDING_ANY };

struct verify_options {
    const char *source, *folder;
    enum rounding rounding;
    enum known_rule rule; /* KNOWN_NONE: not given */
    const char *gamma;    /* NULL: not given */
    const char *recipe;   /* path, NULL: not given */
    struct thresholds *thresholds;
    double sample;        /* 1: all */
    unsigned part, parts; /* parts 0: all */
    bool hash;
    unsigned jobs;
    uint64_t memory; /* of the whole run */
    enum cpu_level cpu;
    bool quiet;
};

/* What `qstream verify` does when it is not told otherwise. */
struct verify_options verify_options_default(void);

/* How far the outputs of a linear layer are from the source's on a text; measured by the caller (infer/output_error.h). */
struct output_figure {
    const char *module;
    uint32_t layer;
    double rel_error;
};

struct verification {
    const struct verify_options *options;
    struct checkpoint source, output;
    struct modules source_modules, output_modules;
    struct manifest manifest;
    bool has_manifest, unfinished;
    struct wanted_recipe recipe;        /* of the option */
    const struct wanted_recipe *wanted; /* of the option or the manifest, or NULL */
    struct pairing pairing;
    struct compare_result compared;
    struct verify_findings findings;
    bool nearest;    /* a code that is not nearest is an error */
    bool calibrated; /* as the manifest says, and no option otherwise: MXFP4 codes and scales were chosen for outputs */
    enum setting_from rounding_from;
    enum known_rule rule;
    enum setting_from rule_from; /* FROM_DEFAULT: there is none */
    const char *gamma;
    const struct output_figure *outputs; /* [output_count], by layer; the caller's */
    size_t output_count;
    uint64_t output_tokens; /* 0: not measured */
};

/*
 * Opens both and finds out what is asked: what needs no values to be refused, is refused here. Free with
 * verification_close, also after an error.
 */
enum status verification_open(const struct verify_options *options, struct verification *verification,
                              struct error *error);

/*
 * Verifies what was opened. Findings are no failure of the function: verification_passed tells. STATUS_BAD_INPUT when the
 * source is damaged or the folder holds no checkpoint.
 */
enum status verification_run(struct verification *verification, struct error *error);
bool verification_passed(const struct verification *verification);
void verification_close(struct verification *verification);

/* The part of it that compares tensors, once both checkpoints are open and the settings are known. */
enum status verification_compare(struct verification *verification, struct error *error);

/* What the weights came to, judged; the last step of verification_compare. */
enum status verification_judge(struct verification *verification, struct error *error);

/* Codes of a weight that are not nearest, those left out that its rule makes so. */
uint64_t not_nearest_of(const struct verification *verification, const struct figures *figures);

/* Figures of several weights together. */
struct total {
    uint64_t tensors;
    struct figures figures;
    struct sums sums;
    bool mxfp4; /* all of them are */
};
void total_add(struct total *total, const struct comparison *comparison);

/* Weights that were read, the worst SQNR first; *count of them. The caller frees; NULL without memory. */
const struct comparison **verification_worst(const struct verification *verification, size_t *count);

/* The layers that quantized weights are in, ascending; *count of them. The caller frees; NULL without memory. */
int *verification_layers(const struct verification *verification, size_t *count);

/* The weights of one group, or, where `group` is UINT32_MAX, of one layer. */
struct total total_of(const struct verification *verification, uint32_t group, int layer);

/* The JSON object of docs/schemas/qstream.verify-1.schema.json. */
enum status verification_json(const struct verification *verification, struct text *out, struct error *error);

/* Tables by role and by layer, the ten worst weights, findings, and the verdict. */
enum status verification_table(const struct verification *verification, struct text *out, struct error *error);

#endif
