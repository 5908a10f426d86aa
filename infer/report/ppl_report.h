/*
 * What `qstream ppl` tells: one measurement, or its plan, as a table, as JSON (qstream.ppl/1), as a page for browsers, as
 * JUnit XML, and token by token.
 */
#ifndef QSTREAM_INFER_REPORT_PPL_REPORT_H
#define QSTREAM_INFER_REPORT_PPL_REPORT_H

#include "infer/report/expectation.h"

/* Everything that a report says. Nothing is owned. Zero-initialize. */
struct ppl_report {
    const char *model;    /* folder as given; NULL: none, with a server */
    const char *baseline; /* folder, or NULL */
    const char *server;   /* URL, or NULL */
    const char *text;     /* file of the text or of the tokens, "-": standard input */
    bool text_is_tokens;
    size_t token_count; /* of the whole text */
    const char *tokens_hash;
    const struct ppl_settings *settings;
    uint64_t memory; /* the limit of the run */
    bool planned;    /* nothing was measured */
    const struct ppl_result *result;
    const struct expectation *expectation; /* judged, unless planned; or NULL */
};

/* Appends the table for a terminal. Fails only without memory, as the others do. */
enum status ppl_report_table(const struct ppl_report *report, struct text *out, struct error *error);

/* Appends the verdicts of the expected figures that `failed_only` asks for, a line each, and the sum. */
void ppl_report_verdicts(const struct ppl_report *report, bool failed_only, struct text *out);

/* Appends one object of the schema qstream.ppl/1, without a newline. */
enum status ppl_report_json(const struct ppl_report *report, struct text *out, struct error *error);

/* Writes the page to `file`, whole or not at all; "-" is standard output. `json` is what ppl_report_json gives. */
enum status ppl_report_page(const char *file, const struct text *json, struct error *error);

/* Writes a test case for each expected figure. The report has an expectation. */
enum status ppl_report_junit(const char *file, const struct ppl_report *report, struct error *error);

/* Writes a line of columns with tabs between for each scored token, below a line of their names. */
enum status ppl_report_tokens(const char *file, const struct ppl_report *report, struct error *error);

#endif
