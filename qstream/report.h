/*
 * What a run tells people: the plan as a table or JSON, and the model card.
 */
#ifndef QSTREAM_QSTREAM_REPORT_H
#define QSTREAM_QSTREAM_REPORT_H

#include "qstream/plan.h"

/* A name for the source: org/name on the Hub or in a Hugging Face cache, else the folder's own name. Returns `out`. */
const char *source_name(const struct folder *source, char *out, size_t size);

/* The plan by role and format. `folder_bytes`: the exact size of the finished folder. */
void plan_table(const struct plan *plan, uint64_t folder_bytes, struct text *out);

/* The same as members of a JSON object (no braces around them). */
void plan_json(const struct plan *plan, uint64_t folder_bytes, struct text *out);

/* README.md of the output. Only figures that follow from the bytes written. */
void card_render(const struct plan *plan, const struct recipe *recipe, struct text *out);

#endif
