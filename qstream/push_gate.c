#include "qstream/push_gate.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/source.h"
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
    text_printf(out, "%zu error%s, %zu warning%s", errors, text_plural(errors), warnings, text_plural(warnings));
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
                               folder, errors, text_plural(errors));
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
    enum status status = verification_open(&options, &verification, error);
    if (status == STATUS_OK)
        status = verification_run(&verification, error);
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

/* ---- a report of before ---- */

static bool says(const json_t *object, const char *key, const char *wanted) {
    const char *value = json_string_value(json_object_get(object, key));
    return value && strcmp(value, wanted) == 0;
}

/* Why a report is not enough; NULL when it is. */
static const char *report_lack(const json_t *root, const struct manifest *manifest) {
    const json_t *settings = json_object_get(root, "settings"), *read = json_object_get(root, "read");
    const json_t *tiles = json_object_get(read, "tiles");
    char hex[SHA256_HEX];
    if (!says(root, "schema", "qstream.verify/1"))
        return "it is no report of 'qstream verify --json'";
    if (!says(root, "manifest", sha256_hex(manifest->sha256, hex)))
        return "it is of another folder, or of another state of it: its manifest is not the qstream.json that is there";
    if (!says(root, "verdict", "pass"))
        return "the verification failed";
    if (!json_is_true(json_object_get(settings, "hash")))
        return "it does not tell of which bytes the files were: make it with --hash";
    if (!says(root, "state", "complete") || !json_is_null(json_object_get(settings, "sample")) ||
        !json_is_null(json_object_get(settings, "part")) || !json_is_integer(tiles) ||
        !json_equal(tiles, json_object_get(read, "tiles_total")))
        return "it is of a part of the values only";
    if (!says(settings, "rounding", manifest->rounding) || says(settings, "rule_from", "option"))
        return "it was made with options that ask for less than the manifest";
    return NULL;
}

enum status gate_verified(const char *report, const struct manifest *manifest, struct gate_result *result,
                          char **source, struct error *error) {
    enum { REPORT_BYTES_MOST = 256 << 20 };
    char *bytes = NULL;
    size_t length = 0;
    json_t *root = NULL;
    *source = NULL;
    enum status status = file_read(report, REPORT_BYTES_MOST, &bytes, &length, error);
    if (status == STATUS_OK)
        root = json_loadb(bytes, length, 0, NULL);
    if (status == STATUS_OK && !json_is_object(root))
        status = error_set(error, STATUS_BAD_INPUT, "'%s' is no report of 'qstream verify --json'", report);
    const char *lack = status == STATUS_OK ? report_lack(root, manifest) : NULL;
    if (lack)
        status =
            error_set(error, STATUS_CHECK_FAILED, "nothing was sent: the report '%s' is not enough: %s", report, lack);
    const char *named = json_string_value(json_object_get(root, "source"));
    if (status == STATUS_OK && !(*source = strdup(named ? named : "")))
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        text_append_string(&result->summary, "verify: passed before; source ");
        text_append_escaped(&result->summary, *source);
        text_append(&result->json, bytes, length - (bytes[length - 1] == '\n')); /* one object has some bytes */
        status = result_check(result, error);
    }
    json_decref(root);
    free(bytes);
    return status;
}
