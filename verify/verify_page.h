/*
 * The report of verify as one HTML page that needs no network: verify/page.html with the JSON of --json in it.
 */
#ifndef QSTREAM_VERIFY_VERIFY_PAGE_H
#define QSTREAM_VERIFY_VERIFY_PAGE_H

#include "common/status.h"
#include "common/text.h"

/* Writes the page to `file`, whole or not at all; "-" is standard output. `verify_json` is what --json prints. */
enum status verify_page_write(const char *file, const struct text *verify_json, struct error *error);

#endif
