#include "inspect/page.h"

#include "common/page.h"

/* inspect/page.html; made by the Makefile. */
extern const unsigned char inspect_page_html[];
extern const unsigned long inspect_page_html_size;

enum status page_write(const char *file, const struct text *inspect_json, const struct text *audit_json,
                       struct error *error) {
    const struct page_member members[] = {{"inspect", inspect_json}, {"audit", audit_json}};
    return page_embed(file, inspect_page_html, inspect_page_html_size, members, 2, error);
}
