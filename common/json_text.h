/*
 * JSON as text: finding a value without reprinting its surroundings. config.json is carried over byte for byte but
 * for one value, and Hugging Face's files hold things that a JSON library rejects or reprints differently
 * (integers beyond 64 bits, NaN, Infinity, 1e-05), so this scanner follows the grammar and copies spans.
 */
#ifndef QSTREAM_COMMON_JSON_TEXT_H
#define QSTREAM_COMMON_JSON_TEXT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "common/text.h"

/* A part of the text: [begin, end). */
struct json_span {
    size_t begin, end;
};

/* One member of an object: its key with the quotes, its value, both without white space around them. */
struct json_member {
    struct json_span key, value;
};

/*
 * Checks that `json` is one JSON object (RFC 8259, plus Python's NaN, Infinity and -Infinity; at most 128 levels
 * deep). `name` is for messages.
 */
enum status json_text_check(const char *name, const char *json, size_t length, struct error *error);

/*
 * Finds the member `key` of the object that `object` spans (json_text_check must have passed on the whole text).
 * False when there is none. With duplicate keys the last one counts, as in Python. Escapes in keys are not
 * decoded: a key that is written with escapes is not found.
 */
bool json_text_member(const char *json, struct json_span object, const char *key, struct json_member *member);

/* The span of the whole object, without the white space around it. */
struct json_span json_text_object(const char *json, size_t length);

/*
 * Appends to `out` the text with the top-level member `key` set to `value` (JSON text): replaced where it stands,
 * else added as the last member. If `nested` is not NULL, a member `key` inside the top-level object `nested` is
 * removed. All other bytes stay as they are.
 */
void json_text_splice(struct text *out, const char *json, size_t length, const char *key, const char *value,
                      const char *nested);

#endif
