/*
 * One page for browsers from what `--json` of inspect, audit, verify and ppl printed: report/page.html with the pages of these
 * commands and their JSON in it.
 */
#ifndef QSTREAM_REPORT_REPORT_H
#define QSTREAM_REPORT_REPORT_H

#include "common/status.h"
#include "common/text.h"

enum report_part { REPORT_INSPECT, REPORT_AUDIT, REPORT_VERIFY, REPORT_PPL, REPORT_PARTS };

struct report {
    struct text json[REPORT_PARTS]; /* empty: not given */
};

/* Free with report_free. */
void report_free(struct report *report);

/*
 * Takes the part that is in `path`, told by its "schema". STATUS_BAD_INPUT when it is no JSON or no
 * such part, STATUS_USAGE when that part is there already.
 */
enum status report_add(struct report *report, const char *path, struct error *error);

/*
 * Writes the page to `file`, whole or not at all; "-" is standard output. STATUS_USAGE when there is nothing to show, or an
 * audit without the inspection that it is shown with.
 */
enum status report_write(const struct report *report, const char *file, struct error *error);

#endif
