#include "inspect/page.h"

#include "common/page.h"
#include "inspect/audit_report.h"

/* inspect/page.html; made by the Makefile. */
extern const unsigned char inspect_page_html[];
extern const unsigned long inspect_page_html_size;

static enum status inspect_render(const void *view, struct text *out, struct error *error) {
    return inspect_json(view, out, error);
}

static enum status audit_render(const void *audit, struct text *out, struct error *error) {
    (void)error;
    audit_json(audit, false, out);
    return STATUS_OK;
}

enum status page_write(const char *file, const struct report_view *view, const struct audit *audit,
                       struct error *error) {
    const struct page_member members[] = {{.name = "inspect", .render = inspect_render, .context = view},
                                          {.name = "audit", .render = audit_render, .context = audit}};
    return page_embed(file, inspect_page_html, inspect_page_html_size, members, 2, error);
}
