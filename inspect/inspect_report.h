/*
 * What inspect prints: tables for people, one JSON object for programs (docs/schemas/qstream.inspect-1.schema.json).
 */
#ifndef QSTREAM_INSPECT_INSPECT_REPORT_H
#define QSTREAM_INSPECT_INSPECT_REPORT_H

#include "common/text.h"
#include "inspect/inspection.h"

/* Which part of a checkpoint is reported. Zero-initialize; free with report_view_free. */
struct report_view {
    const struct inspection *inspection;
    const bool *chosen; /* one flag per tensor; NULL: all */
    bool stats;         /* inspection->statistics are filled and shown */
    /* The tensors of module m that belong to its weight: companions[companions_begin[m]] to [companions_begin[m + 1]]. */
    uint32_t *companions_begin, *companions;
    uint64_t *shard_tensors; /* how many each shard holds */
    uint64_t tensor_bytes;   /* of all tensors, chosen or not */
};

enum status report_view_make(const struct inspection *inspection, const bool *chosen, bool stats,
                             struct report_view *view, struct error *error);
void report_view_free(struct report_view *view);

/* Length field and header; 0 when the shard could not be read. */
uint64_t shard_header_bytes(const struct inspection *inspection, uint32_t shard);

/* Every chosen tensor, a row each, then what they come to by role and format, the files and the folder. */
enum status inspect_table(const struct report_view *view, struct text *out, struct error *error);

/* The chosen tensors in groups. */
enum status inspect_groups_table(const struct report_view *view, enum grouping grouping, struct text *out,
                                 struct error *error);

/* "totals" and "files" tell of the whole checkpoint, "by" and "tensors" of the chosen tensors. No newline at the end. */
enum status inspect_json(const struct report_view *view, struct text *out, struct error *error);

#endif
