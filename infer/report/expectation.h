/*
 * What a measurement is expected to give: one figure from the command line, or a case of a file in configs/ (schema
 * configs/ppl.schema.json), which also says how it is to be measured.
 */
#ifndef QSTREAM_INFER_REPORT_EXPECTATION_H
#define QSTREAM_INFER_REPORT_EXPECTATION_H

#include <stdbool.h>

#include "common/sha256.h"
#include "common/status.h"
#include "infer/perplexity.h"
#include "infer/report/ppl_text.h"

/* How a figure is measured, as far as it changes with it. */
struct ppl_variants {
    bool bos;
    enum text_join text_join;
    enum kv_cache kv_cache;
    bool activations_float;
    bool fused_scales;
    bool rope_bf16;
};

/* Which of them were said; of an expectation file, or on the command line. */
struct ppl_settings {
    struct ppl_protocol protocol;
    enum compute compute;
    struct ppl_variants variants;
    bool has_window, has_stride, has_windows, has_compute;
    bool has_bos, has_text_join, has_kv_cache, has_activations, has_fused_scales, has_rope;
};

const char *compute_name(enum compute compute);                    /* "auto", "bf16", "f32" */
const char *kv_cache_name(enum kv_cache kv_cache);                 /* "auto", "bf16", "fp8" */
const char *activations_name(bool activations_float);              /* "float", "as-served" */
const char *rope_frequencies_name(bool rope_bf16);                 /* "bf16", "f32" */
bool compute_parse(const char *word, enum compute *compute);       /* false: none of these */
bool kv_cache_parse(const char *word, enum kv_cache *kv_cache);    /* likewise */
bool text_join_parse(const char *word, enum text_join *join);      /* likewise */
bool activations_parse(const char *word, bool *activations_float); /* likewise */
bool rope_frequencies_parse(const char *word, bool *rope_bf16);    /* likewise */

/* How far a figure may be off: an absolute amount, or a share of the expected value. */
struct tolerance {
    double amount;
    bool relative;
};

/* Reads "0.5%" or "0.01". False when it is neither, negative or not finite. */
bool tolerance_parse(const char *text, struct tolerance *tolerance);

enum figure_status { FIGURE_GIVEN, FIGURE_REPRODUCED, FIGURE_PUBLISHED_ONLY };
const char *figure_status_name(enum figure_status status); /* "given", "reproduced", "published-only" */

/* One expected figure, and what was measured of it. */
struct ppl_check {
    char *name; /* "ppl", "nll", "window_nll[3]", ... */
    enum figure_status status;
    double expected;
    struct tolerance tolerance;
    bool measured; /* `value` is there; one that needs a baseline is not without one */
    double value;
};

struct expectation {
    char *file;         /* NULL: from the command line */
    char *name, *notes; /* of the file; notes may be NULL */
    char *model;        /* name and revision as one text, or NULL */
    char *test;         /* the name of the case, or NULL */
    char *test_notes;   /* of the case, or NULL */
    bool fresh;         /* there is no such file yet, or no such case */
    struct ppl_settings settings;
    char tokens_hash[SHA256_HEX]; /* "": not known */
    struct ppl_check *checks;
    size_t count;
    struct json_t *root; /* the file's tree, for the update */
};

/* An expectation of one figure, the perplexity. */
enum status expectation_of(double ppl, struct tolerance tolerance, struct expectation *expectation,
                           struct error *error);

/*
 * Reads the case `test` of the file at `path`; NULL: its only one. With `update`, a file or a case that is not there is
 * no error. STATUS_BAD_INPUT names what is wrong in the file, STATUS_USAGE the cases that there are when none was chosen.
 * Free with expectation_free, also after an error.
 */
enum status expectation_read(const char *path, const char *test, bool update, struct expectation *expectation,
                             struct error *error);
void expectation_free(struct expectation *expectation);

/*
 * Takes over what the file settles: `settings`, given on the command line, gets what it did not say itself.
 * STATUS_USAGE when the two contradict each other.
 */
enum status expectation_settle(const struct expectation *expectation, struct ppl_settings *settings,
                               struct error *error);

/* STATUS_BAD_INPUT when the tokens are not those that the figures were measured with. */
enum status expectation_check_tokens(const struct expectation *expectation, const char *hash, struct error *error);

/* Fills in what was measured. */
void expectation_judge(struct expectation *expectation, const struct ppl_result *result);

double check_allowed(const struct ppl_check *check); /* the largest absolute difference that passes */
bool check_passed(const struct ppl_check *check);    /* false when it was measured and is off, or is no number */
bool expectation_passed(const struct expectation *expectation);

/* "ppl 19.2 is 1.19 (6.6 %) above the expected 18.01; 0.5 % are allowed". */
void check_describe(const struct ppl_check *check, struct text *out);

/*
 * Writes the file anew with what was measured as the figures of the case, all of them reproduced, whole or not at all.
 * Names, notes, tolerances and other cases stay. A new figure gets `tolerance`.
 */
struct ppl_update {
    const char *model; /* for a new file: the folder's name */
    const struct ppl_settings *settings;
    const char *tokens_hash;
    size_t token_count;
    struct tolerance tolerance;
};
enum status expectation_update(struct expectation *expectation, const char *path, const char *test,
                               const struct ppl_update *update, const struct ppl_result *result, struct error *error);

#endif
