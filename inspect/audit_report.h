/*
 * The audit's results as text for people, and as JSON, SARIF 2.1.0 and JUnit XML for programs.
 */
#ifndef QSTREAM_INSPECT_AUDIT_REPORT_H
#define QSTREAM_INSPECT_AUDIT_REPORT_H

#include "inspect/audit.h"

void audit_table(const struct audit *audit, struct text *out);
void audit_json(const struct audit *audit, bool modules, struct text *out); /* schema qstream.audit/1 */
void audit_sarif(const struct audit *audit, struct text *out);
void audit_junit(const struct audit *audit, struct text *out);

#endif
