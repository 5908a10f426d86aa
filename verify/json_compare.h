/*
 * Whether two JSON texts mean the same. Works on the texts, not on trees of values: integers beyond 64 bits, NaN,
 * Infinity and 1e-05 occur in Hugging Face's files.
 *
 * Objects are equal whatever the order of their members (of several with one name the last counts, as in Python),
 * strings when they are equal decoded, integers when they are the same integer, other numbers when they are the same
 * double: 1 is 1.0, but 2^53 is not 2^53 + 1.
 */
#ifndef QSTREAM_VERIFY_JSON_COMPARE_H
#define QSTREAM_VERIFY_JSON_COMPARE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/json_text.h"
#include "common/status.h"

/* A member of an object; its name is decoded, or as it is written (with quotes) where it cannot be. */
struct json_entry {
    size_t name, name_length; /* a piece of json_entries.names */
    struct json_span value;
};

/* The members of an object, sorted by name, each name once. */
struct json_entries {
    const char *json;
    struct text names;
    struct json_entry *items;
    size_t count;
};

/*
 * Lists the members of the object that begins at `object`. STATUS_BAD_INPUT when it is no object or not valid JSON, or
 * has more members than MEMBERS_MAX (millions). Free with json_entries_free, also after an error.
 */
enum status json_entries_list(const char *json, struct json_span object, struct json_entries *entries,
                              struct error *error);
void json_entries_free(struct json_entries *entries);

/* The member of that name, or NULL. */
const struct json_entry *json_entries_find(const struct json_entries *entries, const char *name, size_t length);

/* The name, NUL-terminated. */
const char *json_entry_name(const struct json_entries *entries, const struct json_entry *entry);

/*
 * Sets *same. What cannot be compared (invalid, nested far beyond what json_text_check accepts, too many members) is not
 * the same. Fails only without memory.
 */
enum status json_compare(const char *a, struct json_span span_a, const char *b, struct json_span span_b, bool *same,
                         struct error *error);

#endif
