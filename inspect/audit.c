#include "inspect/audit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/thread_team.h"

const char *module_name_text(const struct module *module, char out[MODULE_NAME_MAX]) {
    snprintf(out, MODULE_NAME_MAX, "%.*s", (int)module->name_length, module->name);
    return out;
}

void audit_find(struct audit *audit, enum finding_id id, enum severity severity, unsigned loaders, const char *cause,
                const char *subject, const char *fix, const char *format, ...) {
    struct text message = {0};
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(&message, format, arguments);
    va_end(arguments);
    if (message.failed)
        audit->findings.failed = true;
    else
        finding_add(&audit->findings, id, severity, loaders, cause, subject, message.bytes, fix);
    text_free(&message);
}

bool audit_module_counts(const struct audit *audit, size_t module) {
    return audit->resolutions.modules[module].candidate;
}

bool audit_module_faulty(const struct audit *audit, size_t module) {
    const struct prediction *by = audit->modules[module].by;
    return audit_module_counts(audit, module) && audit->predicted &&
           (by[LOADER_VLLM].outcome != OUTCOME_AS_MEANT || by[LOADER_TRANSFORMERS].outcome != OUTCOME_AS_MEANT);
}

static bool any_quantized(const struct inspection *inspection) {
    for (size_t i = 0; i < inspection->modules.count; i++)
        if (module_is_quantized(&inspection->modules.items[i]))
            return true;
    return false;
}

static bool is_compressed_tensors(const struct inspection *inspection) {
    const char *method = inspection->quant.method;
    return inspection->quantization &&
           (inspection->quant.group_count > 0 || (method && strncasecmp(method, "compressed", 10) == 0));
}

/* A module that no rule of a method predicts. */
static void predictions_unknown(struct audit *audit) {
    for (size_t i = 0; i < audit->inspection->modules.count; i++)
        for (int loader = 0; loader < LOADERS; loader++) {
            bool plain = !module_is_quantized(&audit->inspection->modules.items[i]);
            audit->modules[i].by[loader] = (struct prediction){
                .outcome = plain && audit->plain ? OUTCOME_AS_MEANT : OUTCOME_UNKNOWN,
                .resolution = RESOLVED_PLAIN,
                .group = NO_ENTRY,
                .target = NO_ENTRY,
            };
        }
}

/* No predicted failure goes without a finding. */
static void failures_cover(struct audit *audit) {
    bool preset = false;
    for (size_t g = 0; g < audit->inspection->quant.group_count; g++)
        preset = preset || audit->inspection->quant.groups[g].preset;
    if (findings_count(&audit->findings, SEVERITY_ERROR) > 0 || preset)
        return;
    for (int loader = LOADER_VLLM; loader <= LOADER_TRANSFORMERS; loader++) {
        for (size_t i = 0; i < audit->inspection->modules.count; i++) {
            enum outcome outcome = audit->modules[i].by[loader].outcome;
            if (!audit_module_counts(audit, i) || outcome == OUTCOME_AS_MEANT || outcome == OUTCOME_UNKNOWN)
                continue;
            char name[MODULE_NAME_MAX];
            audit_find(audit, SCHEME_UNSUPPORTED, SEVERITY_ERROR, 1u << loader, "uncovered",
                       module_name_text(&audit->inspection->modules.items[i], name),
                       "describe the module in quantization_config as its tensors are (audit --fix writes that)",
                       "%s is expected to fail on this module", loader_title((enum loader)loader));
        }
    }
}

struct audit_options audit_options_default(void) {
    return (struct audit_options){
        .loaders = FOR_VLLM | FOR_TRANSFORMERS, .fail_on = SEVERITY_ERROR, .jobs = processor_count()};
}

bool audit_passed(const struct audit *audit) {
    for (enum severity severity = audit->options.fail_on; severity < SEVERITIES; severity++)
        if (findings_count(&audit->findings, severity) > 0)
            return false;
    return true;
}

enum status audit_run(struct inspection *inspection, const struct audit_options *options, struct audit *audit,
                      struct error *error) {
    *audit = (struct audit){.inspection = inspection, .options = *options};
    audit->findings.loaders = options->loaders;
    audit->modules = calloc(inspection->modules.count + 1, sizeof *audit->modules);
    if (!audit->modules)
        return error_set_memory(error);
    enum status status = resolutions_make(inspection, &audit->resolutions, error);
    if (status != STATUS_OK)
        return status;
    audit->predicted = is_compressed_tensors(inspection);
    audit->plain = !inspection->quantization && !any_quantized(inspection);
    audit_files(audit);
    audit_config(audit);
    if (audit->predicted) {
        unsigned loaders = audit->findings.loaders;
        audit_patterns(audit);
        bool invalid = audit->config_error[LOADER_VLLM] || audit->config_error[LOADER_TRANSFORMERS];
        if (invalid)
            audit->findings.loaders = 0; /* what follows from it is no finding of its own */
        status = audit_modules(audit, error);
        audit_entries(audit);
        audit_formats(audit);
        audit->findings.loaders = loaders;
        audit_other_loaders(audit);
    } else {
        predictions_unknown(audit);
    }
    if (status == STATUS_OK && !options->headers_only)
        status = audit_values(audit, error);
    if (status == STATUS_OK)
        status = audit_architecture(audit, error);
    if (status == STATUS_OK)
        failures_cover(audit);
    if (status == STATUS_OK && audit->findings.failed)
        status = error_set_memory(error);
    findings_sort(&audit->findings);
    return status;
}

void audit_free(struct audit *audit) {
    for (size_t i = 0; audit->modules && i < audit->inspection->modules.count; i++)
        for (int loader = 0; loader < LOADERS; loader++)
            free(audit->modules[i].by[loader].reason);
    for (int loader = 0; loader < LOADERS; loader++)
        free(audit->config_error[loader]);
    free(audit->modules);
    findings_free(&audit->findings);
    resolutions_free(&audit->resolutions);
    *audit = (struct audit){0};
}
