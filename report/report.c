#include "report/report.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/page.h"
#include "common/source.h"

/* Pages of the commands and of the whole; made by the Makefile. */
extern const unsigned char report_page_html[], inspect_page_html[], verify_page_html[], infer_report_page_html[];
extern const unsigned long report_page_html_size, inspect_page_html_size, verify_page_html_size,
    infer_report_page_html_size;

/* A part may have so many bytes: ten times what a checkpoint of a hundred thousand tensors comes to. */
static const size_t bytes_most = (size_t)1 << 30;

static const struct {
    const char *name, *schema;
} parts[REPORT_PARTS] = {{"inspect", "qstream.inspect/1"},
                         {"audit", "qstream.audit/1"},
                         {"verify", "qstream.verify/1"},
                         {"ppl", "qstream.ppl/1"}};

void report_free(struct report *report) {
    for (enum report_part part = 0; part < REPORT_PARTS; part++)
        text_free(&report->json[part]);
}

/* Which part it is, by its schema. */
static enum status part_find(const char *path, const char *bytes, size_t length, enum report_part *part,
                             struct error *error) {
    json_error_t problem;
    json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &problem);
    if (!root)
        return error_set(error, STATUS_BAD_INPUT, "'%s' is no JSON, line %d: %s", path, problem.line, problem.text);
    const char *schema = json_string_value(json_object_get(root, "schema"));
    for (*part = 0; schema && *part < REPORT_PARTS; ++*part)
        if (strcmp(schema, parts[*part].schema) == 0)
            break;
    const enum status status = schema && *part < REPORT_PARTS
                                   ? STATUS_OK
                                   : error_set(error, STATUS_BAD_INPUT,
                                               "'%s' is not what --json of inspect, audit, verify or ppl prints", path);
    json_decref(root);
    return status;
}

enum status report_add(struct report *report, const char *path, struct error *error) {
    char *bytes = NULL;
    size_t length = 0;
    enum report_part part;
    enum status status = file_read(path, bytes_most, &bytes, &length, error);
    if (status == STATUS_OK)
        status = part_find(path, bytes, length, &part, error);
    if (status == STATUS_OK && report->json[part].length > 0)
        status = error_set(error, STATUS_USAGE, "'%s': the output of %s is there already", path, parts[part].name);
    if (status == STATUS_OK) {
        text_append(&report->json[part], bytes, length);
        if (report->json[part].failed)
            status = error_set_memory(error);
    }
    free(bytes);
    return status;
}

/* The pages of the commands as an object of strings. */
static void pages_put(struct text *out) {
    static const struct {
        const char *name;
        const unsigned char *page;
        const unsigned long *size;
    } pages[] = {{"inspect", inspect_page_html, &inspect_page_html_size},
                 {"verify", verify_page_html, &verify_page_html_size},
                 {"ppl", infer_report_page_html, &infer_report_page_html_size}};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        struct text page = {0};
        text_append(&page, (const char *)pages[i].page, *pages[i].size);
        text_printf(out, "%c\"%s\":", i ? ',' : '{', pages[i].name);
        text_append_json_string(out, page.failed ? "" : page.bytes);
        out->failed |= page.failed;
        text_free(&page);
    }
    text_append_string(out, "}");
}

enum status report_write(const struct report *report, const char *file, struct error *error) {
    if (report->json[REPORT_AUDIT].length > 0 && report->json[REPORT_INSPECT].length == 0)
        return error_set(
            error, STATUS_USAGE,
            "an audit is shown beside what is in the checkpoint: give the output of 'qstream inspect --json', too");
    struct page_member members[REPORT_PARTS + 1];
    bool any = false;
    for (enum report_part part = 0; part < REPORT_PARTS; part++) {
        members[part] = (struct page_member){.name = parts[part].name, .json = &report->json[part]};
        any |= report->json[part].length > 0;
    }
    if (!any)
        return error_set(error, STATUS_USAGE, "there is nothing to show");
    struct text pages = {0};
    pages_put(&pages);
    members[REPORT_PARTS] = (struct page_member){.name = "pages", .json = &pages};
    const enum status status =
        page_embed(file, report_page_html, report_page_html_size, members, REPORT_PARTS + 1, error);
    text_free(&pages);
    return status;
}
