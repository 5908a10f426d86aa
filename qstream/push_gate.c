#include "qstream/push_gate.h"

#include <inttypes.h>

#include "inspect/audit_report.h"
#include "verify/verification.h"

void gate_result_free(struct gate_result *result) {
    text_free(&result->summary);
    text_free(&result->table);
    text_free(&result->json);
}

static enum status result_check(const struct gate_result *result, struct error *error) {
    const bool failed = result->summary.failed || result->table.failed || result->json.failed;
    return failed ? error_set_memory(error) : STATUS_OK;
}

static void counts_put(struct text *out, size_t errors, size_t warnings) {
    text_printf(out, "%zu error%s, %zu warning%s", errors, errors == 1 ? "" : "s", warnings, warnings == 1 ? "" : "s");
}

enum status gate_audit(const char *folder, bool quiet, struct gate_result *result, struct error *error) {
    struct inspection inspection = {0};
    struct audit audit = {0};
    struct audit_options options = audit_options_default();
    options.quiet = quiet;
    enum status status = inspection_open(folder, &inspection, error);
    if (status == STATUS_OK)
        status = audit_run(&inspection, &options, &audit, error);
    if (status == STATUS_OK) {
        const size_t errors = findings_count(&audit.findings, SEVERITY_ERROR);
        text_append_string(&result->summary, "audit: ");
        counts_put(&result->summary, errors, findings_count(&audit.findings, SEVERITY_WARNING));
        audit_table(&audit, &result->table);
        audit_json(&audit, false, &result->json);
        status = result_check(result, error);
        if (status == STATUS_OK && !audit_passed(&audit))
            status = error_set(error, STATUS_CHECK_FAILED, "nothing was sent: the audit of '%s' has %zu error%s",
                               folder, errors, errors == 1 ? "" : "s");
    }
    audit_free(&audit);
    inspection_close(&inspection);
    return status;
}

enum status gate_verify(const char *source, const char *folder, bool quiet, struct gate_result *result,
                        struct error *error) {
    struct verification verification = {0};
    struct verify_options options = verify_options_default();
    options.source = source;
    options.folder = folder;
    options.quiet = quiet;
    enum status status = verification_run(&options, &verification, error);
    if (status == STATUS_OK)
        status = verification_table(&verification, &result->table, error);
    if (status == STATUS_OK)
        status = verification_json(&verification, &result->json, error);
    if (status == STATUS_OK) {
        const size_t *counts = verification.findings.by_severity;
        text_append_string(&result->summary, "verify: ");
        counts_put(&result->summary, counts[VERIFY_ERROR], counts[VERIFY_WARNING]);
        text_append_string(&result->summary, "; source ");
        text_append_escaped(&result->summary, source);
        status = result_check(result, error);
        if (status == STATUS_OK && !verification_passed(&verification))
            status = error_set(error, STATUS_CHECK_FAILED, "nothing was sent: '%s' is not the image of '%s'", folder,
                               source);
    }
    verification_close(&verification);
    return status;
}
