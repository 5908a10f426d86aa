#include "verify/verify_finding.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"

const char *verify_severity_name(enum verify_severity severity) {
    static const char *const names[VERIFY_SEVERITIES] = {"note", "warning", "error"};
    return names[severity];
}

enum status verify_find(struct verify_findings *findings, enum verify_severity severity, const char *id,
                        const char *subject, struct error *error, const char *format, ...) {
    size_t number = 0;
    while (number < VERIFY_FINDING_IDS - 1 && findings->ids[number].id && strcmp(findings->ids[number].id, id) != 0)
        number++;
    findings->ids[number].id = id;
    findings->by_severity[severity]++;
    if (++findings->ids[number].count > VERIFY_FINDINGS_KEPT)
        return STATUS_OK;
    if (!array_reserve(findings->items, findings->count + 1, &findings->capacity))
        return error_set_memory(error);
    struct text message = {0};
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(&message, format, arguments);
    va_end(arguments);
    char *copy = strdup(subject);
    if (!copy || message.failed || !message.bytes) {
        text_free(&message);
        free(copy);
        return error_set_memory(error);
    }
    findings->items[findings->count++] = (struct verify_finding){id, severity, copy, message.bytes};
    return STATUS_OK;
}

size_t verify_findings_left(const struct verify_findings *findings, const char *id) {
    for (size_t i = 0; i < VERIFY_FINDING_IDS && findings->ids[i].id; i++)
        if (strcmp(findings->ids[i].id, id) == 0)
            return findings->ids[i].count > VERIFY_FINDINGS_KEPT ? findings->ids[i].count - VERIFY_FINDINGS_KEPT : 0;
    return 0;
}

void verify_findings_free(struct verify_findings *findings) {
    for (size_t i = 0; i < findings->count; i++) {
        free(findings->items[i].subject);
        free(findings->items[i].message);
    }
    free(findings->items);
    *findings = (struct verify_findings){0};
}
