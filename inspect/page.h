/*
 * The report as one HTML page that needs no network: inspect/page.html with the JSON of inspect and audit in it.
 */
#ifndef QSTREAM_INSPECT_PAGE_H
#define QSTREAM_INSPECT_PAGE_H

#include "common/status.h"
#include "inspect/audit.h"
#include "inspect/inspect_report.h"

/*
 * Writes the page to `file`, whole or not at all: what was there stays until the new one is complete. "-" is standard
 * output. It takes no more memory for a larger checkpoint.
 */
enum status page_write(const char *file, const struct report_view *view, const struct audit *audit,
                       struct error *error);

#endif
