#include "infer/tokenizer/json_walk.h"

#include <string.h>

bool walk_next(struct scanner *scan, char open, char close, bool *first, bool *more) {
    *more = true;
    if (*first) {
        if (!scan_expect(scan, open, open == '{' ? "an object was expected" : "an array was expected"))
            return false;
        *first = false;
        if (!scan_next_is(scan, close))
            return true;
    } else if (scan_next_is(scan, ',')) {
        scan->at++;
        return true;
    }
    *more = false;
    return scan_expect(scan, close, close == '}' ? "',' or '}' was expected" : "',' or ']' was expected");
}

bool walk_member(struct scanner *scan, bool *first, bool *more, struct json_span *key) {
    if (!walk_next(scan, '{', '}', first, more))
        return false;
    return !*more || (scan_string(scan, key) && scan_expect(scan, ':', "':' was expected"));
}

struct scanner walk_into(const char *json, struct json_span span) {
    return (struct scanner){.json = json, .at = span.begin, .length = span.end};
}

bool span_is(const char *json, struct json_span span, const char *name) {
    size_t length = strlen(name);
    return span.end - span.begin == length + 2 && memcmp(json + span.begin + 1, name, length) == 0;
}

bool walk_collect(struct scanner *scan, const char *const *names, struct json_span *values, size_t count) {
    bool first = true, more;
    struct json_span key = {0}, value;
    memset(values, 0, count * sizeof *values);
    for (;;) {
        if (!walk_member(scan, &first, &more, &key))
            return false;
        if (!more)
            return true;
        if (memchr(scan->json + key.begin, '\\', key.end - key.begin))
            return scan_fail(scan, "a key with an escape is not supported");
        if (!scan_value(scan, &value))
            return false;
        if (value.end - value.begin == 4 && memcmp(scan->json + value.begin, "null", 4) == 0)
            value = (struct json_span){0};
        for (size_t i = 0; i < count; i++)
            if (span_is(scan->json, key, names[i]))
                values[i] = value;
    }
}

enum status walk_error(const struct scanner *scan, struct error *error) {
    if (scan->problem == scan_memory)
        return error_set_memory(error);
    size_t line = 1;
    for (size_t i = 0; i < scan->at && i < scan->length; i++)
        line += scan->json[i] == '\n';
    return error_set(error, STATUS_BAD_INPUT, "%s (line %zu, byte %zu)",
                     scan->problem ? scan->problem : "not valid JSON", line, scan->at);
}
