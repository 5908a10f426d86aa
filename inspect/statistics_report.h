/*
 * What the statistics of a tensor say, for people and for programs. A quantized weight is told together with its
 * scales, so their statistics must have been gathered too.
 */
#ifndef QSTREAM_INSPECT_STATISTICS_REPORT_H
#define QSTREAM_INSPECT_STATISTICS_REPORT_H

#include "common/text.h"
#include "inspect/inspection.h"

/* One line without its end: "scale 2^-12..2^-6, median 2^-9, zero 11.2 %". Appends nothing where there are none. */
void statistics_append_line(const struct inspection *inspection, uint32_t tensor, struct text *out);

/* A JSON object, "stats" of docs/schemas/qstream.inspect-1.schema.json. False, and nothing, where there are none. */
bool statistics_append_json(const struct inspection *inspection, uint32_t tensor, struct text *out);

#endif
