#include <inttypes.h>
#include <string.h>

#include "common/new_file.h"
#include "common/page.h"
#include "infer/report/ppl_report.h"

/* infer/report/page.html; made by the Makefile. */
extern const unsigned char infer_report_page_html[];
extern const unsigned long infer_report_page_html_size;

enum status ppl_report_page(const char *file, const struct text *json, struct error *error) {
    const struct page_member members[] = {{.name = "ppl", .json = json}};
    return page_embed(file, infer_report_page_html, infer_report_page_html_size, members, 1, error);
}

/* ---- JUnit ---- */

/* Text of XML 1.0; what a terminal would not show as it is, is written out first. */
static void xml_put(struct text *out, const char *string) {
    struct text plain = {0};
    text_append_escaped(&plain, string);
    for (const char *at = plain.bytes; at && *at; at++) {
        if (strncmp(at, "\xef\xbf", 2) == 0 && (unsigned char)at[2] >= 0xbe) {
            text_append_string(out, "\xef\xbf\xbd"); /* U+FFFE and U+FFFF are no characters of XML */
            at += 2;
            continue;
        }
        switch (*at) {
        case '<':
            text_append_string(out, "&lt;");
            break;
        case '>':
            text_append_string(out, "&gt;");
            break;
        case '&':
            text_append_string(out, "&amp;");
            break;
        case '"':
            text_append_string(out, "&quot;");
            break;
        default:
            text_append(out, at, 1);
        }
    }
    out->failed = out->failed || plain.failed;
    text_free(&plain);
}

static void status_put(const struct ppl_check *check, struct text *out) {
    if (check->status != FIGURE_GIVEN)
        text_printf(out, " (%s)", figure_status_name(check->status));
}

static void case_put(const struct expectation *expectation, const struct ppl_check *check, struct text *out) {
    struct text message = {0};
    check_describe(check, &message);
    text_append_string(out, "<testcase classname=\"ppl");
    if (expectation->name) {
        text_append_string(out, ".");
        xml_put(out, expectation->name);
    }
    if (expectation->test) {
        text_append_string(out, ".");
        xml_put(out, expectation->test);
    }
    text_append_string(out, "\" name=\"");
    xml_put(out, check->name);
    const char *element = !check->measured ? "skipped" : check_passed(check) ? "system-out" : "failure";
    text_printf(out, "\">\n<%s", element);
    if (check->measured && check_passed(check)) {
        text_append_string(out, ">");
        xml_put(out, message.bytes ? message.bytes : "");
        status_put(check, out);
        text_printf(out, "</%s>\n", element);
    } else {
        text_append_string(out, " message=\"");
        xml_put(out, message.bytes ? message.bytes : "");
        status_put(check, out);
        text_append_string(out, "\"/>\n");
    }
    text_append_string(out, "</testcase>\n");
    out->failed = out->failed || message.failed;
    text_free(&message);
}

enum status ppl_report_junit(const char *file, const struct ppl_report *report, struct error *error) {
    const struct expectation *expectation = report->expectation;
    size_t failures = 0, skipped = 0;
    for (size_t i = 0; i < expectation->count; i++) {
        failures += !check_passed(&expectation->checks[i]);
        skipped += !expectation->checks[i].measured;
    }
    struct text out = {0};
    text_printf(&out,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"qstream ppl\" "
                "tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\" time=\"%.3f\">\n",
                expectation->count, failures, skipped, report->result->seconds);
    for (size_t i = 0; i < expectation->count; i++)
        case_put(expectation, &expectation->checks[i], &out);
    text_append_string(&out, "</testsuite>\n</testsuites>\n");
    enum status status = out.failed ? error_set_memory(error) : new_file_write(file, out.bytes, out.length, error);
    text_free(&out);
    return status;
}

/* ---- tokens ---- */

enum status ppl_report_tokens(const char *file, const struct ppl_report *report, struct error *error) {
    const struct ppl_result *result = report->result;
    struct new_file out;
    enum status status = new_file_begin(file, &out, error);
    if (status != STATUS_OK)
        return status;
    fputs(result->has_baseline ? "position\tid\tnll\tbaseline_nll\tkl\tagrees\n" : "position\tid\tnll\n", out.stream);
    for (size_t i = 0; i < result->tokens_scored; i++) {
        const struct ppl_token *token = &result->tokens[i];
        fprintf(out.stream, "%" PRIu32 "\t%" PRId32 "\t%.9g", token->position, token->id, (double)token->nll);
        if (result->has_baseline)
            fprintf(out.stream, "\t%.9g\t%.9g\t%d", (double)token->baseline_nll, (double)token->kl, token->agrees);
        fputc('\n', out.stream);
    }
    return new_file_finish(&out, error);
}
