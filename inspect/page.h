/*
 * The report as one HTML page that needs no network: inspect/page.html with the JSON of inspect and audit in it.
 */
#ifndef QSTREAM_INSPECT_PAGE_H
#define QSTREAM_INSPECT_PAGE_H

#include "common/status.h"
#include "common/text.h"

/*
 * Writes the page to `file`, whole or not at all: what was there stays until the new one is complete. "-" is standard
 * output. `audit_json` may be NULL. Both are what --json prints.
 */
enum status page_write(const char *file, const struct text *inspect_json, const struct text *audit_json,
                       struct error *error);

#endif
