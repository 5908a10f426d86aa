/*
 * Going through the members of an object and the elements of an array in large JSON texts, on common/json_scan.h.
 */
#ifndef QSTREAM_INFER_TOKENIZER_JSON_WALK_H
#define QSTREAM_INFER_TOKENIZER_JSON_WALK_H

#include "common/json_scan.h"
#include "common/status.h"

/*
 * To be called until *more is false. `open` and `close` are {} or []; *first is true before the first call. False: the
 * scanner has failed.
 */
bool walk_next(struct scanner *scan, char open, char close, bool *first, bool *more);

/* As walk_next for objects: also reads the key and the colon. */
bool walk_member(struct scanner *scan, bool *first, bool *more, struct json_span *key);

/* A scanner of what a span holds. */
struct scanner walk_into(const char *json, struct json_span span);

/* Whether the key or string is `name`. */
bool span_is(const char *json, struct json_span span, const char *name);

/*
 * Collects the values of the named members of an object; those not there, and null, are empty spans. A key that is
 * written with escapes, which might be one of them, fails.
 */
bool walk_collect(struct scanner *scan, const char *const *names, struct json_span *values, size_t count);

/* The error of a scanner that failed. */
enum status walk_error(const struct scanner *scan, struct error *error);

#endif
