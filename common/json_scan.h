/*
 * The scanner behind json_text.h, for readers of large JSON files (headers, indices) that go through the text once
 * and keep what they need instead of a tree. Every function returns false when the text is not what it should be;
 * `problem` then says why, `at` where.
 */
#ifndef QSTREAM_COMMON_JSON_SCAN_H
#define QSTREAM_COMMON_JSON_SCAN_H

#include <stdint.h>

#include "common/json_text.h"

struct scanner {
    const char *json;
    size_t at, length;
    bool python;         /* NaN and Infinity are values, as Python's json writes them */
    const char *problem; /* what is wrong at `at`, once something is */
};

extern const char scan_memory[]; /* the problem "out of memory", of which the text is innocent */

bool scan_fail(struct scanner *scan, const char *problem); /* the first problem stays; false */
void scan_space(struct scanner *scan);
bool scan_next_is(struct scanner *scan, char wanted); /* skips white space, consumes nothing else */
bool scan_expect(struct scanner *scan, char wanted, const char *problem);

/* Any value; *span gets its place. */
bool scan_value(struct scanner *scan, struct json_span *span);

/* A string; *span includes the quotes. */
bool scan_string(struct scanner *scan, struct json_span *span);

/* Appends the decoded string of a span from scan_string: UTF-8 without NUL, or it fails. */
bool scan_string_decode(struct scanner *scan, struct json_span span, struct text *out);

/* A number of digits only, at most INT64_MAX. */
bool scan_unsigned(struct scanner *scan, uint64_t *value);

#endif
