/*
 * Names of repositories on the Hub: org/name[@revision] or name[@revision], of datasets datasets/org/name; as a MODEL
 * with hf:// before it. A revision is a branch, a tag, a commit or refs/pr/N; without one it is main.
 */
#ifndef QSTREAM_COMMON_HUB_REFERENCE_H
#define QSTREAM_COMMON_HUB_REFERENCE_H

#include <stdbool.h>

#include "common/status.h"

struct hub_reference {
    bool dataset;
    char *repository; /* "org/name", or "name" of the oldest ones */
    char *revision;
};

/* Whether `text` begins with hf://. */
bool hub_reference_is(const char *text);

/*
 * With or without hf://. STATUS_USAGE for what the Hub would not take (letters, digits, '-', '_' and '.', at most 96 of
 * them; no "--" or ".."; at most one '/') and for an empty revision. Free with hub_reference_free, also after an error.
 */
enum status hub_reference_parse(const char *text, struct hub_reference *reference, struct error *error);

/*
 * "hf://org/name[@revision]", for messages and manifests; "hf://datasets/..." of a dataset. `revision` NULL: without one. The
 * caller frees; NULL without memory.
 */
char *hub_reference_text(const struct hub_reference *reference, const char *revision);

/* Whether a revision is a commit, or another hash of git's: 40 lower-case hexadecimal digits. */
bool hub_is_commit(const char *revision);

void hub_reference_free(struct hub_reference *reference);

#endif
