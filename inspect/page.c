#include "inspect/page.h"

#include <stdio.h>
#include <string.h>

#include "common/new_file.h"

/* inspect/page.html; made by the Makefile. */
extern const unsigned char page_html[];
extern const unsigned long page_html_size;

static const char place[] = "@DATA@";

/* In a script element "<" could begin "</script>" or "<!--"; in JSON it occurs in strings only, where it can be \u003c. */
static void json_put(FILE *out, const struct text *json) {
    if (!json || json->length == 0) {
        fputs("null", out);
        return;
    }
    const char *from = json->bytes, *end = json->bytes + json->length, *found;
    while ((found = memchr(from, '<', (size_t)(end - from)))) {
        fwrite(from, 1, (size_t)(found - from), out);
        fputs("\\u003c", out);
        from = found + 1;
    }
    fwrite(from, 1, (size_t)(end - from), out);
}

static void page_put(FILE *out, const struct text *inspect_json, const struct text *audit_json) {
    const char *page = (const char *)page_html;
    const char *data = memmem(page, page_html_size, place, strlen(place));
    size_t before = data ? (size_t)(data - page) : page_html_size;
    fwrite(page, 1, before, out);
    if (!data)
        return;
    fputs("{\"inspect\":", out);
    json_put(out, inspect_json);
    fputs(",\"audit\":", out);
    json_put(out, audit_json);
    fputs("}", out);
    fwrite(data + strlen(place), 1, page_html_size - before - strlen(place), out);
}

enum status page_write(const char *file, const struct text *inspect_json, const struct text *audit_json,
                       struct error *error) {
    struct new_file page;
    if ((inspect_json && inspect_json->failed) || (audit_json && audit_json->failed))
        return error_set_memory(error);
    enum status status = new_file_begin(file, &page, error);
    if (status != STATUS_OK)
        return status;
    page_put(page.stream, inspect_json, audit_json);
    return new_file_finish(&page, error);
}
