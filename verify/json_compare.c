#include "verify/json_compare.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/json_scan.h"

enum { DEPTH_MAX = 256, MEMBERS_MAX = 4 << 20 }; /* deeper than any text that json_text_check accepts */

/* ---- the members of an object ---- */

static int names_compare(const struct text *names_a, const struct json_entry *a, const struct text *names_b,
                         const struct json_entry *b) {
    size_t shorter = a->name_length < b->name_length ? a->name_length : b->name_length;
    int order = memcmp(names_a->bytes + a->name, names_b->bytes + b->name, shorter);
    return order ? order : (a->name_length > b->name_length) - (a->name_length < b->name_length);
}

/* By name; of equals the one that stands later in the text comes first. */
static int by_name(const void *a, const void *b, void *context) {
    const struct json_entry *x = a, *y = b;
    int order = names_compare(context, x, context, y);
    return order ? order : (x->value.begin < y->value.begin) - (x->value.begin > y->value.begin);
}

/* Appends a name and the NUL behind it. */
static bool name_append(struct scanner *scan, struct json_span key, struct json_entries *entries,
                        struct json_entry *entry) {
    struct text *names = &entries->names;
    entry->name = names->length;
    struct scanner trial = {.json = scan->json, .length = scan->length, .python = true};
    if (!scan_string_decode(&trial, key, names) && !names->failed) {
        names->length = entry->name;
        text_append(names, scan->json + key.begin, key.end - key.begin);
    }
    entry->name_length = names->length - entry->name;
    text_append(names, "", 1);
    return !names->failed;
}

static enum status entry_add(struct json_entries *entries, size_t *capacity, struct scanner *scan, struct json_span key,
                             struct json_span value, struct error *error) {
    if (entries->count == MEMBERS_MAX)
        return error_set(error, STATUS_BAD_INPUT, "an object has more than %d members", MEMBERS_MAX);
    if (!array_reserve(entries->items, entries->count + 1, capacity))
        return error_set_memory(error);
    struct json_entry *entry = &entries->items[entries->count++];
    entry->value = value;
    return name_append(scan, key, entries, entry) ? STATUS_OK : error_set_memory(error);
}

/* Consumes the object. */
static enum status object_list(struct scanner *scan, struct json_entries *entries, struct error *error) {
    size_t capacity = 0;
    entries->json = scan->json;
    bool good = scan_expect(scan, '{', "an object was expected");
    bool more = good && !scan_next_is(scan, '}');
    while (good && more) {
        struct json_span key, value;
        good = scan_string(scan, &key) && scan_expect(scan, ':', "':' was expected") && scan_value(scan, &value);
        enum status status = good ? entry_add(entries, &capacity, scan, key, value, error) : STATUS_OK;
        if (status != STATUS_OK)
            return status;
        more = good && scan_next_is(scan, ',');
        scan->at += more;
    }
    if (!good || !scan_expect(scan, '}', "',' or '}' was expected"))
        return error_set(error, STATUS_BAD_INPUT, "invalid JSON: %s (byte %zu)", scan->problem, scan->at);
    if (entries->count == 0)
        return STATUS_OK;
    qsort_r(entries->items, entries->count, sizeof *entries->items, by_name, &entries->names);
    size_t kept = 1;
    for (size_t i = 1; i < entries->count; i++)
        if (names_compare(&entries->names, &entries->items[i], &entries->names, &entries->items[kept - 1]) != 0)
            entries->items[kept++] = entries->items[i];
    entries->count = kept;
    return STATUS_OK;
}

enum status json_entries_list(const char *json, struct json_span object, struct json_entries *entries,
                              struct error *error) {
    *entries = (struct json_entries){0};
    struct scanner scan = {.json = json, .python = true, .at = object.begin, .length = object.end};
    return object_list(&scan, entries, error);
}

void json_entries_free(struct json_entries *entries) {
    text_free(&entries->names);
    free(entries->items);
    *entries = (struct json_entries){0};
}

const char *json_entry_name(const struct json_entries *entries, const struct json_entry *entry) {
    return entries->names.bytes + entry->name;
}

const struct json_entry *json_entries_find(const struct json_entries *entries, const char *name, size_t length) {
    size_t low = 0, high = entries->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct json_entry *entry = &entries->items[middle];
        size_t shorter = entry->name_length < length ? entry->name_length : length;
        int order = memcmp(name, entries->names.bytes + entry->name, shorter);
        if (order == 0 && entry->name_length == length)
            return entry;
        if (order > 0 || (order == 0 && length > entry->name_length))
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- values ---- */

/* What compares two values; the scanners stand at them, and behind them when they are the same. */
struct comparer {
    struct scanner a, b;
    struct error *error;
    enum status status; /* not STATUS_OK: out of memory */
};

static bool same_value(struct comparer *comparer, int depth);

static bool same_bytes(const struct comparer *comparer, struct json_span a, struct json_span b) {
    return a.end - a.begin == b.end - b.begin &&
           memcmp(comparer->a.json + a.begin, comparer->b.json + b.begin, a.end - a.begin) == 0;
}

/* Whether two strings are the same, escapes decoded; those that cannot be decoded have to be written the same. */
static bool same_string(struct comparer *comparer) {
    struct json_span a, b;
    if (!scan_string(&comparer->a, &a) || !scan_string(&comparer->b, &b))
        return false;
    if (same_bytes(comparer, a, b))
        return true;
    struct text first = {0}, second = {0};
    struct scanner scan_a = comparer->a, scan_b = comparer->b;
    bool same = scan_string_decode(&scan_a, a, &first) && scan_string_decode(&scan_b, b, &second) &&
                first.length == second.length && memcmp(first.bytes, second.bytes, first.length) == 0;
    if (first.failed || second.failed)
        comparer->status = error_set_memory(comparer->error);
    text_free(&first);
    text_free(&second);
    return same;
}

static bool is_integer(const char *text, size_t length) {
    size_t start = length > 0 && text[0] == '-';
    for (size_t i = start; i < length; i++)
        if (text[i] < '0' || text[i] > '9')
            return false;
    return length > start;
}

/* A number's text, with an end of its own. Numbers that are longer than that only equal themselves. */
enum { NUMBER_MAX = 400 };

static bool same_number(const char *a, size_t length_a, const char *b, size_t length_b) {
    char text_a[NUMBER_MAX + 1] = "", text_b[NUMBER_MAX + 1] = "";
    if (length_a > NUMBER_MAX || length_b > NUMBER_MAX)
        return false;
    memcpy(text_a, a, length_a);
    memcpy(text_b, b, length_b);
    if (is_integer(text_a, length_a) && is_integer(text_b, length_b)) /* without leading zeros: JSON has none */
        return strcmp(strcmp(text_a, "-0") == 0 ? "0" : text_a, strcmp(text_b, "-0") == 0 ? "0" : text_b) == 0;
    return strtod(text_a, NULL) == strtod(text_b, NULL);
}

static bool is_number(char c) { return c == '-' || (c >= '0' && c <= '9'); }

/* Words and numbers. */
static bool same_scalar(struct comparer *comparer) {
    struct json_span a, b;
    if (!scan_value(&comparer->a, &a) || !scan_value(&comparer->b, &b))
        return false;
    if (same_bytes(comparer, a, b))
        return true;
    const char *text_a = comparer->a.json + a.begin, *text_b = comparer->b.json + b.begin;
    return is_number(*text_a) && is_number(*text_b) && same_number(text_a, a.end - a.begin, text_b, b.end - b.begin);
}

static bool same_array(struct comparer *comparer, int depth) {
    struct scanner *a = &comparer->a, *b = &comparer->b;
    a->at++;
    b->at++;
    for (bool first = true;; first = false) {
        bool end = scan_next_is(a, ']');
        if (end != scan_next_is(b, ']'))
            return false;
        if (end) {
            a->at++;
            b->at++;
            return true;
        }
        if (!first && (!scan_expect(a, ',', "") || !scan_expect(b, ',', "")))
            return false;
        if (!same_value(comparer, depth))
            return false;
    }
}

static bool same_object(struct comparer *comparer, int depth) {
    struct json_entries a = {0}, b = {0};
    struct error error;
    enum status status = object_list(&comparer->a, &a, &error);
    if (status == STATUS_OK)
        status = object_list(&comparer->b, &b, &error);
    if (status != STATUS_OK && status != STATUS_BAD_INPUT)
        comparer->status = error_set_memory(comparer->error);
    bool same = status == STATUS_OK && a.count == b.count;
    const struct scanner behind_a = comparer->a, behind_b = comparer->b;
    for (size_t i = 0; same && i < a.count; i++) {
        comparer->a.at = a.items[i].value.begin;
        comparer->b.at = b.items[i].value.begin;
        same = names_compare(&a.names, &a.items[i], &b.names, &b.items[i]) == 0 && same_value(comparer, depth);
    }
    comparer->a = behind_a;
    comparer->b = behind_b;
    json_entries_free(&a);
    json_entries_free(&b);
    return same;
}

static bool same_value(struct comparer *comparer, int depth) {
    struct scanner *a = &comparer->a, *b = &comparer->b;
    scan_space(a);
    scan_space(b);
    if (depth == DEPTH_MAX || a->at >= a->length || b->at >= b->length)
        return false;
    char kind = a->json[a->at], other = b->json[b->at];
    if (kind != other && !(is_number(kind) && is_number(other)))
        return false;
    return kind == '{'   ? same_object(comparer, depth + 1)
           : kind == '[' ? same_array(comparer, depth + 1)
           : kind == '"' ? same_string(comparer)
                         : same_scalar(comparer);
}

enum status json_compare(const char *a, struct json_span span_a, const char *b, struct json_span span_b, bool *same,
                         struct error *error) {
    struct comparer comparer = {
        .a = {.json = a, .python = true, .at = span_a.begin, .length = span_a.end},
        .b = {.json = b, .python = true, .at = span_b.begin, .length = span_b.end},
        .error = error,
    };
    *same = same_value(&comparer, 0);
    scan_space(&comparer.a);
    scan_space(&comparer.b);
    *same = *same && comparer.a.at == span_a.end && comparer.b.at == span_b.end; /* nothing follows */
    return comparer.status;
}
