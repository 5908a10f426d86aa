#include "verify/verify_page.h"

#include "common/page.h"

/* verify/page.html; made by the Makefile. */
extern const unsigned char verify_page_html[];
extern const unsigned long verify_page_html_size;

enum status verify_page_write(const char *file, const struct text *verify_json, struct error *error) {
    const struct page_member members[] = {{.name = "verify", .json = verify_json}};
    return page_embed(file, verify_page_html, verify_page_html_size, members, 1, error);
}
