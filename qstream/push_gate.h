/*
 * What a folder has to pass before it is pushed: the audit, and the verification against its source, as 'qstream audit' and
 * 'qstream verify' run them without options.
 */
#ifndef QSTREAM_QSTREAM_PUSH_GATE_H
#define QSTREAM_QSTREAM_PUSH_GATE_H

#include <stdbool.h>

#include "common/status.h"
#include "common/text.h"
#include "verify/manifest.h"

struct gate_result {
    struct text summary; /* a line, without its end */
    struct text table;   /* the command's own output, for people */
    struct text json;    /* and as an object */
};
void gate_result_free(struct gate_result *result);

/* STATUS_CHECK_FAILED when the audit has errors: the table has them. Free the result, also after an error, as below. */
enum status gate_audit(const char *folder, bool quiet, struct gate_result *result, struct error *error);

/* STATUS_CHECK_FAILED when the folder is not the image of `source`. */
enum status gate_verify(const char *source, const char *folder, bool quiet, struct gate_result *result,
                        struct error *error);

/*
 * In place of gate_verify: the report of a verification that was made before ('qstream verify --hash --json'), of these very
 * files, all of them and all of their values: the report names the manifest's hash, and the manifest names the files'.
 * STATUS_CHECK_FAILED when the report is of other files or of less. *source is the report's.
 */
enum status gate_verified(const char *report, const struct manifest *manifest, struct gate_result *result,
                          char **source, struct error *error);

#endif
