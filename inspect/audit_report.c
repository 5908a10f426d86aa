#include "inspect/audit_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/version.h"

/* ---- the matrix: role and format by loader ---- */

struct matrix_row {
    enum role role;
    enum stored_format format;
    uint64_t modules, by[LOADERS][OUTCOMES];
};

struct matrix {
    struct matrix_row rows[ROLES * STORED_FORMATS];
    size_t count;
};

static struct matrix_row *matrix_row(struct matrix *matrix, enum role role, enum stored_format format) {
    for (size_t i = 0; i < matrix->count; i++)
        if (matrix->rows[i].role == role && matrix->rows[i].format == format)
            return &matrix->rows[i];
    struct matrix_row *row = &matrix->rows[matrix->count++];
    *row = (struct matrix_row){.role = role, .format = format};
    return row;
}

static int by_role(const void *a, const void *b) {
    const struct matrix_row *x = a, *y = b;
    return x->role != y->role ? (int)x->role - (int)y->role : (int)x->format - (int)y->format;
}

static struct matrix *matrix_make(const struct audit *audit) {
    struct matrix *matrix = calloc(1, sizeof *matrix);
    for (size_t i = 0; matrix && i < audit->inspection->modules.count; i++) {
        const struct module *module = &audit->inspection->modules.items[i];
        if (!audit_module_counts(audit, i))
            continue;
        struct matrix_row *row = matrix_row(matrix, module->role, module->format);
        row->modules++;
        for (int loader = 0; loader < LOADERS; loader++)
            row->by[loader][audit->modules[i].by[loader].outcome]++;
    }
    if (matrix)
        qsort(matrix->rows, matrix->count, sizeof *matrix->rows, by_role);
    return matrix;
}

/* "as meant", or the worst that happens and to how many. */
static void cell_text(const struct matrix_row *row, enum loader loader, char out[48]) {
    static const enum outcome worst_first[] = {OUTCOME_REFUSES, OUTCOME_GARBAGE, OUTCOME_UNQUANTIZED, OUTCOME_UNKNOWN};
    static const char *const words[OUTCOMES] = {
        [OUTCOME_AS_MEANT] = "as meant", [OUTCOME_UNQUANTIZED] = "unquantized",
        [OUTCOME_REFUSES] = "refuses",   [OUTCOME_GARBAGE] = "garbage",
        [OUTCOME_UNKNOWN] = "-",
    };
    for (size_t i = 0; i < sizeof worst_first / sizeof *worst_first; i++) {
        uint64_t count = row->by[loader][worst_first[i]];
        if (count == 0)
            continue;
        if (count == row->modules)
            snprintf(out, 48, "%s", words[worst_first[i]]);
        else
            snprintf(out, 48, "%s (%" PRIu64 ")", words[worst_first[i]], count);
        return;
    }
    snprintf(out, 48, "%s", words[OUTCOME_AS_MEANT]);
}

/* ---- text ---- */

static void matrix_table(const struct audit *audit, struct text *out) {
    struct matrix *matrix = matrix_make(audit);
    if (!matrix) {
        out->failed = true;
        return;
    }
    text_printf(out, "%-10s %-14s %8s", "role", "format", "modules");
    for (enum loader loader = 0; loader < LOADERS; loader++)
        text_printf(out, "  %-18s", loader_title(loader));
    text_append_string(out, "\n");
    for (size_t i = 0; i < matrix->count; i++) {
        const struct matrix_row *row = &matrix->rows[i];
        text_printf(out, "%-10s %-14s %8" PRIu64, role_name(row->role), stored_format_name(row->format), row->modules);
        for (enum loader loader = 0; loader < LOADERS; loader++) {
            char cell[48];
            cell_text(row, loader, cell);
            text_printf(out, "  %-18s", cell);
        }
        text_append_string(out, "\n");
    }
    free(matrix);
}

void audit_table(const struct audit *audit, struct text *out) {
    const struct findings *findings = &audit->findings;
    matrix_table(audit, out);
    for (size_t i = 0; i < findings->count; i++) {
        const struct finding *finding = &findings->items[i];
        text_printf(out, "\n%s: %s: ", severity_name(finding->severity), finding_kind(finding->id)->name);
        text_append_escaped(out, finding->subject_count ? finding->subjects[0] : "");
        if (finding->count > 1)
            text_printf(out, " and %" PRIu64 " more", finding->count - 1);
        text_append_string(out, "\n    ");
        text_append_escaped(out, finding->message);
        text_append_string(out, "\n    fix: ");
        text_append_escaped(out, finding->fix);
        text_append_string(out, "\n");
    }
    text_append_string(out, findings->count ? "\n" : "\nclean: ");
    for (enum severity severity = SEVERITIES; severity-- > 0;) {
        size_t count = findings_count(findings, severity);
        text_printf(out, "%zu %s%s%s", count, severity_name(severity), text_plural(count), severity ? ", " : "\n");
    }
}

/* ---- JSON ---- */

static void json_or_null(struct text *out, const char *string) {
    if (string)
        text_append_json_ascii(out, string);
    else
        text_append_string(out, "null");
}

static void matrix_json(const struct audit *audit, struct text *out) {
    struct matrix *matrix = matrix_make(audit);
    if (!matrix) {
        out->failed = true;
        return;
    }
    for (size_t i = 0; i < matrix->count; i++) {
        const struct matrix_row *row = &matrix->rows[i];
        text_printf(out, "%s\n  {\"role\": \"%s\", \"format\": \"%s\", \"modules\": %" PRIu64, i ? "," : "",
                    role_name(row->role), stored_format_name(row->format), row->modules);
        for (enum loader loader = 0; loader < LOADERS; loader++) {
            text_printf(out, ", \"%s\": {", loader_name(loader));
            for (enum outcome outcome = 0; outcome < OUTCOMES; outcome++)
                text_printf(out, "%s\"%s\": %" PRIu64, outcome ? ", " : "", outcome_name(outcome),
                            row->by[loader][outcome]);
            text_append_string(out, "}");
        }
        text_append_string(out, "}");
    }
    free(matrix);
}

static void findings_json(const struct findings *findings, struct text *out) {
    for (size_t i = 0; i < findings->count; i++) {
        const struct finding *finding = &findings->items[i];
        text_printf(out, "%s\n  {\"id\": \"%s\", \"severity\": \"%s\", \"subject\": ", i ? "," : "",
                    finding_kind(finding->id)->name, severity_name(finding->severity));
        text_append_json_ascii(out, finding->subject_count ? finding->subjects[0] : "");
        text_append_string(out, ", \"message\": ");
        text_append_json_ascii(out, finding->message);
        text_append_string(out, ", \"fix\": ");
        text_append_json_ascii(out, finding->fix);
        text_append_string(out, ", \"loaders\": [");
        const char *separator = "";
        for (enum loader loader = 0; loader < LOADERS; loader++)
            if (finding->loaders & 1u << loader) {
                text_printf(out, "%s\"%s\"", separator, loader_name(loader));
                separator = ", ";
            }
        text_printf(out, "], \"count\": %" PRIu64 ", \"subjects\": [", finding->count);
        for (size_t s = 1; s < finding->subject_count; s++) {
            text_append_string(out, s > 1 ? ", " : "");
            text_append_json_ascii(out, finding->subjects[s]);
        }
        text_append_string(out, "]}");
    }
}

static void prediction_json(const struct audit *audit, const struct module_resolution *resolution,
                            const struct prediction *prediction, enum loader loader, struct text *out) {
    static const char *const resolutions[] = {"scheme", "unquantized", "raises"};
    const struct resolutions *r = &audit->resolutions;
    text_printf(out, ", \"%s\": {\"outcome\": \"%s\", \"reason\": ", loader_name(loader),
                outcome_name(prediction->outcome));
    json_or_null(out, prediction->reason);
    if (loader == LOADER_VLLM || loader == LOADER_TRANSFORMERS) {
        text_printf(out, ", \"resolution\": \"%s\", \"group\": ", resolutions[prediction->resolution]);
        bool scheme = prediction->resolution == RESOLVED_SCHEME;
        json_or_null(out, scheme && prediction->group != NO_ENTRY
                              ? audit->inspection->quant.groups[prediction->group].name
                              : NULL);
        text_append_string(out, ", \"target\": ");
        json_or_null(out, scheme && prediction->target != NO_ENTRY ? r->targets[prediction->target].text : NULL);
    }
    if (loader == LOADER_VLLM) {
        text_append_string(out, ", \"scheme\": ");
        json_or_null(out, prediction->resolution == RESOLVED_SCHEME ? prediction->scheme : NULL);
        text_append_string(out, ", \"layer\": ");
        json_or_null(out, resolution->layer == NO_LAYER ? NULL : r->layers[resolution->layer].name);
    }
    text_append_string(out, "}");
}

static void modules_json(const struct audit *audit, struct text *out) {
    const char *separator = "";
    text_append_string(out, ",\n \"modules\": [");
    for (size_t i = 0; i < audit->inspection->modules.count; i++) {
        const struct module *module = &audit->inspection->modules.items[i];
        char name[MODULE_NAME_MAX];
        if (!audit_module_counts(audit, i))
            continue;
        text_printf(out, "%s\n  {\"name\": ", separator);
        text_append_json_ascii(out, module_name_text(module, name));
        text_printf(out, ", \"role\": \"%s\", \"format\": \"%s\"", role_name(module->role),
                    stored_format_name(module->format));
        for (enum loader loader = 0; loader < LOADERS; loader++)
            prediction_json(audit, &audit->resolutions.modules[i], &audit->modules[i].by[loader], loader, out);
        text_append_string(out, "}");
        separator = ",";
    }
    text_append_string(out, "]");
}

void audit_json(const struct audit *audit, bool modules, struct text *out) {
    const struct findings *findings = &audit->findings;
    text_append_string(out, "{\"schema\": \"qstream.audit/1\", \"model\": ");
    text_append_json_ascii(out, audit->inspection->checkpoint.path);
    text_printf(out,
                ", \"clean\": %s,\n \"counts\": {\"error\": %zu, \"warning\": %zu, \"note\": %zu},\n \"loaders\": [",
                findings->count ? "false" : "true", findings_count(findings, SEVERITY_ERROR),
                findings_count(findings, SEVERITY_WARNING), findings_count(findings, SEVERITY_NOTE));
    for (enum loader loader = 0; loader < LOADERS; loader++) {
        text_printf(out, "%s\n  {\"name\": \"%s\", \"version\": \"%s\", \"error\": ", loader ? "," : "",
                    loader_name(loader), loader_version(loader));
        json_or_null(out, audit->config_error[loader]);
        text_append_string(out, "}");
    }
    text_append_string(out, "],\n \"matrix\": [");
    matrix_json(audit, out);
    text_append_string(out, "],\n \"findings\": [");
    findings_json(findings, out);
    text_append_string(out, "]");
    if (modules)
        modules_json(audit, out);
    text_append_string(out, "}\n");
}

/* ---- SARIF ---- */

void audit_sarif(const struct audit *audit, struct text *out) {
    const struct findings *findings = &audit->findings;
    text_append_string(out, "{\"$schema\": \"https://json.schemastore.org/sarif-2.1.0.json\", \"version\": \"2.1.0\",\n"
                            " \"runs\": [{\"tool\": {\"driver\": {\"name\": \"qstream\", \"version\": "
                            "\"" QSTREAM_VERSION "\", \"rules\": [");
    for (enum finding_id id = 0; id < FINDING_IDS; id++) {
        text_printf(out, "%s\n  {\"id\": \"%s\", \"shortDescription\": {\"text\": ", id ? "," : "",
                    finding_kind(id)->name);
        text_append_json_ascii(out, finding_kind(id)->summary);
        text_append_string(out, "}}");
    }
    text_append_string(out, "]}},\n  \"results\": [");
    for (size_t i = 0; i < findings->count; i++) {
        const struct finding *finding = &findings->items[i];
        struct text message = {0};
        text_printf(&message, "%s. Fix: %s", finding->message, finding->fix);
        text_printf(out, "%s\n  {\"ruleId\": \"%s\", \"ruleIndex\": %d, \"level\": \"%s\", \"message\": {\"text\": ",
                    i ? "," : "", finding_kind(finding->id)->name, (int)finding->id, severity_name(finding->severity));
        text_append_json_ascii(out, message.failed ? "" : message.bytes);
        out->failed |= message.failed;
        text_append_string(
            out, "}, \"locations\": [{\"physicalLocation\": {\"artifactLocation\": {\"uri\": \"config.json\"}}, "
                 "\"logicalLocations\": [");
        for (size_t s = 0; s < finding->subject_count; s++) {
            text_append_string(out, s ? ", {\"fullyQualifiedName\": " : "{\"fullyQualifiedName\": ");
            text_append_json_ascii(out, finding->subjects[s]);
            text_append_string(out, "}");
        }
        text_append_string(out, "]}]}");
        text_free(&message);
    }
    text_append_string(out, "]}]}\n");
}

/* ---- JUnit ---- */

static void append_xml(struct text *out, const char *string) {
    for (; *string; string++) {
        unsigned char c = (unsigned char)*string;
        if (c == '<')
            text_append_string(out, "&lt;");
        else if (c == '>')
            text_append_string(out, "&gt;");
        else if (c == '&')
            text_append_string(out, "&amp;");
        else if (c == '"')
            text_append_string(out, "&quot;");
        else if (c < 0x20 || c == 0x7f)
            text_printf(out, "\\x%02x", c); /* XML 1.0 has no way to write these */
        else if (c == 0xef && (unsigned char)string[1] == 0xbf && (unsigned char)string[2] >= 0xbe) {
            text_append_string(out, "\xef\xbf\xbd"); /* U+FFFE and U+FFFF are not characters of XML */
            string += 2;
        } else {
            text_append(out, string, 1);
        }
    }
}

void audit_junit(const struct audit *audit, struct text *out) {
    const struct findings *findings = &audit->findings;
    uint64_t failures = 0;
    for (enum finding_id id = 0; id < FINDING_IDS; id++) {
        bool failed = false;
        for (size_t i = 0; i < findings->count; i++)
            failed = failed || (findings->items[i].id == id && findings->items[i].severity >= audit->options.fail_on);
        failures += failed;
    }
    text_printf(out,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"qstream audit\" "
                "tests=\"%d\" failures=\"%" PRIu64 "\" errors=\"0\" skipped=\"0\">\n",
                FINDING_IDS, failures);
    for (enum finding_id id = 0; id < FINDING_IDS; id++) {
        text_printf(out, "<testcase classname=\"audit\" name=\"%s\">", finding_kind(id)->name);
        bool failed = false;
        for (size_t i = 0; i < findings->count; i++) {
            const struct finding *finding = &findings->items[i];
            if (finding->id != id)
                continue;
            bool error = finding->severity >= audit->options.fail_on;
            const char *element = error && !failed ? "failure" : "system-out";
            if (error && !failed)
                text_printf(out, "\n<failure type=\"%s\" message=\"", severity_name(finding->severity));
            else
                text_printf(out, "\n<%s>%s: ", element, severity_name(finding->severity));
            append_xml(out, finding->message);
            text_append_string(out, error && !failed ? "\">" : "\n");
            for (size_t s = 0; s < finding->subject_count; s++) {
                append_xml(out, finding->subjects[s]);
                text_append_string(out, "\n");
            }
            text_append_string(out, "fix: ");
            append_xml(out, finding->fix);
            text_printf(out, "</%s>", element);
            failed = failed || error;
        }
        text_append_string(out, "</testcase>\n");
    }
    text_append_string(out, "</testsuite>\n</testsuites>\n");
}
