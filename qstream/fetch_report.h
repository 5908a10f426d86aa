/*
 * What a fetch tells: before it begins, and as a table or JSON.
 */
#ifndef QSTREAM_QSTREAM_FETCH_REPORT_H
#define QSTREAM_QSTREAM_FETCH_REPORT_H

#include "common/text.h"
#include "qstream/fetch.h"

/* Some lines: the commit, files and bytes, what is there already, what is left out and why, and the room for it. */
void fetch_summary(const struct fetch *fetch, struct text *out);

/* Every file of the repository. */
void fetch_table(const struct fetch *fetch, struct text *out);

/* The object of the schema qstream.fetch/1. `text`: the file that a named dataset's text goes to; NULL: none. */
void fetch_json(const struct fetch *fetch, bool dry_run, const char *text, struct text *out);

#endif
