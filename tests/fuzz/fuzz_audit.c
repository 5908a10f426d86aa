/*
 * A whole folder from one input (fuzz.h), as a stranger's upload: inspected and audited, everything reported about it
 * rendered, a corrected config.json written. The input's first byte chooses options.
 */
#include <jansson.h>

#include "inspect/audit_fix.h"
#include "inspect/audit_report.h"
#include "inspect/inspect_report.h"
#include "inspect/show.h"
#include "inspect/statistics.h"
#include "tests/fuzz/fuzz.h"

enum { READS_MAX = 1 << 20 }; /* data is a hole that reads as zeros; more of it tells nothing more */

static json_t *require_json(struct text *text) {
    REQUIRE(!text->failed);
    json_t *root = json_loadb(text->bytes, text->length, JSON_REJECT_DUPLICATES, NULL);
    REQUIRE(json_is_object(root));
    for (size_t i = 0; i < text->length; i++) /* what a terminal gets */
        REQUIRE((unsigned char)text->bytes[i] >= 0x20 || text->bytes[i] == '\n');
    text_free(text);
    return root;
}

static void require_printable(struct text *text) {
    REQUIRE(!text->failed);
    for (size_t i = 0; i < text->length; i++)
        REQUIRE((unsigned char)text->bytes[i] >= 0x20 || text->bytes[i] == '\n');
    text_free(text);
}

/* The report agrees with itself: counts, the matrix, a fix for everything. */
static void findings_check(const struct audit *audit) {
    struct text out = {0};
    audit_json(audit, true, &out);
    json_t *root = require_json(&out);
    REQUIRE(json_array_size(json_object_get(root, "findings")) == audit->findings.count);
    size_t index, listed = 0, counted = 0;
    json_t *item;
    json_array_foreach(json_object_get(root, "findings"), index, item) {
        REQUIRE(json_string_length(json_object_get(item, "message")) > 0);
        REQUIRE(json_string_length(json_object_get(item, "fix")) > 0);
        REQUIRE(json_integer_value(json_object_get(item, "count")) > 0);
    }
    listed = json_array_size(json_object_get(root, "modules"));
    json_array_foreach(json_object_get(root, "matrix"), index, item) {
        counted += (size_t)json_integer_value(json_object_get(item, "modules"));
    }
    REQUIRE(listed == counted);
    json_decref(root);
}

static void audit_everything(struct inspection *inspection, const struct audit_options *options) {
    struct audit audit;
    struct error error = {0};
    enum status status = audit_run(inspection, options, &audit, &error);
    REQUIRE(status == STATUS_OK);
    findings_check(&audit);
    struct text table = {0}, sarif = {0}, junit = {0};
    audit_table(&audit, &table);
    require_printable(&table);
    audit_sarif(&audit, &sarif);
    json_decref(require_json(&sarif));
    audit_junit(&audit, &junit);
    require_printable(&junit);
    audit_free(&audit);
}

/* What --fix writes is JSON, and an audit of it does not complain of the config's form. */
static void fix_check(const struct inspection *inspection) {
    struct error error = {0};
    char folder[512];
    snprintf(folder, sizeof folder, "%s/fixed", fuzz_folder());
    enum status status = audit_fix(inspection, folder, true, &error);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
}

static void report_everything(const struct inspection *inspection, bool stats) {
    struct report_view view = {0};
    struct text json = {0}, table = {0};
    struct error error = {0};
    REQUIRE(report_view_make(inspection, NULL, stats, &view, &error) == STATUS_OK);
    REQUIRE(inspect_json(&view, &json, &error) == STATUS_OK);
    json_decref(require_json(&json));
    REQUIRE(inspect_table(&view, &table, &error) == STATUS_OK);
    require_printable(&table);
    for (enum grouping grouping = 0; grouping < GROUPINGS; grouping++) {
        REQUIRE(inspect_groups_table(&view, grouping, &table, &error) == STATUS_OK);
        require_printable(&table);
    }
    report_view_free(&view);
}

static void show_some(const struct inspection *inspection) {
    for (size_t i = 0; i < inspection->checkpoint.tensor_count && i < 8; i++) {
        struct shown shown;
        struct error error = {0};
        enum status status =
            show_read(inspection, inspection->checkpoint.tensors[i].info.name, SHOW_JSON_VALUES, &shown, &error);
        REQUIRE(status == STATUS_OK || error.message[0]);
        if (status == STATUS_OK) {
            struct text json = {0}, table = {0};
            show_json(&shown, &json);
            json_decref(require_json(&json));
            show_table(&shown, &table);
            require_printable(&table);
        }
        shown_free(&shown);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct folder_input input = {0};
    struct inspection inspection;
    struct error error = {0};
    if (size < 1)
        return 0;
    folder_from_sections(data + 1, size - 1, &input);
    enum status status = inspection_open(fuzz_folder(), &inspection, &error);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
    if (status == STATUS_OK) {
        uint64_t bytes = 0;
        for (size_t i = 0; i < inspection.checkpoint.tensor_count; i++)
            bytes += inspection.checkpoint.tensors[i].info.size < READS_MAX ? inspection.checkpoint.tensors[i].info.size
                                                                            : READS_MAX;
        bool stats = data[0] & 1 && bytes < READS_MAX;
        const struct statistics_options read = {.jobs = 1, .quiet = true};
        if (stats)
            REQUIRE(statistics_gather(&inspection, NULL, &read, &error) == STATUS_OK);
        const struct audit_options options = {.loaders = data[0] & 2 ? FOR_ALL : FOR_VLLM | FOR_TRANSFORMERS,
                                              .headers_only = !stats,
                                              .reasons = true,
                                              .jobs = 1,
                                              .quiet = true};
        audit_everything(&inspection, &options);
        report_everything(&inspection, stats);
        fix_check(&inspection);
        show_some(&inspection);
    }
    inspection_close(&inspection);
    folder_clear();
    return 0;
}
