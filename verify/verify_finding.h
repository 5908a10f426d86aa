/*
 * Findings of a verification: what is not as the source and the recipe want it.
 */
#ifndef QSTREAM_VERIFY_VERIFY_FINDING_H
#define QSTREAM_VERIFY_VERIFY_FINDING_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

enum verify_severity { VERIFY_NOTE, VERIFY_WARNING, VERIFY_ERROR, VERIFY_SEVERITIES };
const char *verify_severity_name(enum verify_severity severity);

struct verify_finding {
    const char *id; /* one of the words in docs/verify.md, static */
    enum verify_severity severity;
    char *subject; /* a tensor, a file, a key of config.json */
    char *message; /* one sentence or two: what is wrong, where, what it was expected to be */
};

/* Findings of one id that are kept; the rest is counted. */
enum { VERIFY_FINDINGS_KEPT = 200, VERIFY_FINDING_IDS = 48 };

struct verify_findings {
    struct verify_finding *items; /* in the order in which they were found */
    struct {
        const char *id;
        size_t count;
    } ids[VERIFY_FINDING_IDS]; /* all of each id */
    size_t count, capacity;
    size_t by_severity[VERIFY_SEVERITIES];
};

/*
 * Adds a finding; `id` must be a string literal, `subject` is copied, the message formatted. STATUS_IO without memory.
 * Not for several threads at once.
 */
enum status verify_find(struct verify_findings *findings, enum verify_severity severity, const char *id,
                        const char *subject, struct error *error, const char *format, ...)
    __attribute__((format(printf, 6, 7)));

/* How many findings of an id there are beyond those that were kept. */
size_t verify_findings_left(const struct verify_findings *findings, const char *id);

void verify_findings_free(struct verify_findings *findings);

#endif
