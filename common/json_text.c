#include "common/json_text.h"

#include <ctype.h>
#include <string.h>

#include "common/json_scan.h"
#include "common/utf8.h"

enum { DEPTH_MAX = 128 };

const char scan_memory[] = "out of memory";

bool scan_fail(struct scanner *scan, const char *problem) {
    if (!scan->problem)
        scan->problem = problem;
    return false;
}

void scan_space(struct scanner *scan) {
    while (scan->at < scan->length) {
        char c = scan->json[scan->at];
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n')
            return;
        scan->at++;
    }
}

bool scan_next_is(struct scanner *scan, char wanted) {
    scan_space(scan);
    return scan->at < scan->length && scan->json[scan->at] == wanted;
}

bool scan_expect(struct scanner *scan, char wanted, const char *problem) {
    if (!scan_next_is(scan, wanted))
        return scan_fail(scan, problem);
    scan->at++;
    return true;
}

/* From the backslash to the last byte of its escape. */
static bool scan_escape(struct scanner *scan) {
    if (++scan->at >= scan->length)
        return false;
    char kind = scan->json[scan->at];
    if (kind != 'u')
        return kind && strchr("\"\\/bfnrt", kind);
    for (int i = 0; i < 4; i++)
        if (++scan->at >= scan->length || !isxdigit((unsigned char)scan->json[scan->at]))
            return false;
    return true;
}

bool scan_string(struct scanner *scan, struct json_span *span) {
    if (!scan_next_is(scan, '"'))
        return scan_fail(scan, "a string was expected");
    span->begin = scan->at++;
    while (scan->at < scan->length && scan->json[scan->at] != '"') {
        unsigned char c = (unsigned char)scan->json[scan->at];
        if (c < 0x20)
            return scan_fail(scan, "a control character in a string");
        if (c == '\\' && !scan_escape(scan))
            return scan_fail(scan,
                             scan->at < scan->length ? "an escape that JSON does not have" : "a string without an end");
        scan->at++;
    }
    if (scan->at >= scan->length) {
        scan->at = scan->length;
        return scan_fail(scan, "a string without an end");
    }
    span->end = ++scan->at;
    return true;
}

static bool scan_word(struct scanner *scan, const char *word) {
    size_t length = strlen(word);
    if (scan->length - scan->at < length || memcmp(scan->json + scan->at, word, length) != 0)
        return false;
    scan->at += length;
    return true;
}

static size_t scan_digits(struct scanner *scan) {
    size_t start = scan->at;
    while (scan->at < scan->length && scan->json[scan->at] >= '0' && scan->json[scan->at] <= '9')
        scan->at++;
    return scan->at - start;
}

static bool scan_number(struct scanner *scan) {
    if (scan->json[scan->at] == '-')
        scan->at++;
    if (scan->python && scan_word(scan, "Infinity"))
        return true;
    size_t start = scan->at;
    size_t digits = scan_digits(scan);
    if (digits == 0 || (digits > 1 && scan->json[start] == '0'))
        return scan_fail(scan, "not a JSON value");
    if (scan->at < scan->length && scan->json[scan->at] == '.') {
        scan->at++;
        if (scan_digits(scan) == 0)
            return scan_fail(scan, "a number without digits behind its point");
    }
    if (scan->at < scan->length && (scan->json[scan->at] | 0x20) == 'e') {
        scan->at++;
        if (scan->at < scan->length && (scan->json[scan->at] == '+' || scan->json[scan->at] == '-'))
            scan->at++;
        if (scan_digits(scan) == 0)
            return scan_fail(scan, "a number without digits in its exponent");
    }
    return true;
}

static bool scan_nested(struct scanner *scan, int depth, struct json_span *span);

/*
 * Scans an object; when `key` is not NULL, *found is set to the last member of that name.
 * `key` is compared with the raw bytes between the quotes.
 */
static bool scan_object(struct scanner *scan, int depth, const char *key, struct json_member *found) {
    if (!scan_expect(scan, '{', "an object was expected"))
        return false;
    if (scan_next_is(scan, '}')) {
        scan->at++;
        return true;
    }
    for (;;) {
        struct json_member member = {0};
        if (!scan_string(scan, &member.key) || !scan_expect(scan, ':', "':' was expected") ||
            !scan_nested(scan, depth, &member.value))
            return false;
        size_t length = member.key.end - member.key.begin - 2;
        if (key && strlen(key) == length && memcmp(scan->json + member.key.begin + 1, key, length) == 0)
            *found = member;
        if (scan_next_is(scan, ',')) {
            scan->at++;
            continue;
        }
        return scan_expect(scan, '}', "',' or '}' was expected");
    }
}

static bool scan_array(struct scanner *scan, int depth) {
    scan->at++;
    if (scan_next_is(scan, ']')) {
        scan->at++;
        return true;
    }
    for (;;) {
        struct json_span value;
        if (!scan_nested(scan, depth, &value))
            return false;
        if (scan_next_is(scan, ',')) {
            scan->at++;
            continue;
        }
        return scan_expect(scan, ']', "',' or ']' was expected");
    }
}

static bool scan_nested(struct scanner *scan, int depth, struct json_span *span) {
    scan_space(scan);
    if (scan->at >= scan->length)
        return scan_fail(scan, "the text ends too early");
    if (depth >= DEPTH_MAX)
        return scan_fail(scan, "nested too deeply");
    span->begin = scan->at;
    bool good;
    switch (scan->json[scan->at]) {
    case '{':
        good = scan_object(scan, depth + 1, NULL, NULL);
        break;
    case '[':
        good = scan_array(scan, depth + 1);
        break;
    case '"': {
        struct json_span string;
        good = scan_string(scan, &string);
        break;
    }
    default:
        good = scan_word(scan, "true") || scan_word(scan, "false") || scan_word(scan, "null") ||
               (scan->python && (scan_word(scan, "NaN") || scan_word(scan, "Infinity"))) || scan_number(scan);
    }
    span->end = scan->at;
    return good;
}

bool scan_value(struct scanner *scan, struct json_span *span) { return scan_nested(scan, 0, span); }

static int hex_digits(const char *text) {
    int value = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        value = value << 4 | (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    return value;
}

bool scan_string_decode(struct scanner *scan, struct json_span span, struct text *out) {
    const char *at = scan->json + span.begin + 1, *end = scan->json + span.end - 1;
    size_t start = out->length;
    text_append(out, "", 0);
    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        text_append(out, at, (size_t)((escape ? escape : end) - at));
        if (!escape)
            break;
        static const char kinds[] = "bfnrt", values[] = "\b\f\n\r\t";
        at = escape + 2;
        if (escape[1] != 'u') {
            const char *kind = strchr(kinds, escape[1]);
            text_append(out, kind ? values + (kind - kinds) : escape + 1, 1);
            continue;
        }
        uint32_t point = (uint32_t)hex_digits(at);
        at += 4;
        if (point >= 0xd800 && point < 0xdc00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
            uint32_t low = (uint32_t)hex_digits(at + 2);
            if (low < 0xdc00 || low > 0xdfff)
                return scan_fail(scan, "half of a surrogate pair");
            point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00);
            at += 6;
        }
        if (point >= 0xd800 && point < 0xe000)
            return scan_fail(scan, "half of a surrogate pair");
        if (point == 0)
            return scan_fail(scan, "a NUL character in a string");
        char character[UTF8_LENGTH_MAX];
        text_append(out, character, utf8_encode(point, character));
    }
    if (out->failed)
        return scan_fail(scan, scan_memory);
    if (!utf8_is_valid(out->bytes + start, out->length - start))
        return scan_fail(scan, "a string that is not UTF-8");
    return true;
}

bool scan_unsigned(struct scanner *scan, uint64_t *value) {
    scan_space(scan);
    size_t start = scan->at;
    uint64_t number = 0;
    while (scan->at < scan->length && scan->json[scan->at] >= '0' && scan->json[scan->at] <= '9') {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(scan->json[scan->at] - '0'), &number) || number > INT64_MAX)
            return scan_fail(scan, "a number that is too large");
        scan->at++;
    }
    char next = scan->at < scan->length ? scan->json[scan->at] : ' ';
    bool leading_zero = scan->at - start > 1 && scan->json[start] == '0';
    if (scan->at == start || leading_zero || next == '.' || next == 'e' || next == 'E')
        return scan_fail(scan, "a number that is no size");
    *value = number;
    return true;
}

enum status json_text_check(const char *name, const char *json, size_t length, struct error *error) {
    struct scanner scan = {.json = json, .python = true, .length = length};
    bool good = scan_object(&scan, 0, NULL, NULL);
    if (good) {
        scan_space(&scan);
        if (scan.at != length)
            good = scan_fail(&scan, "something follows the object");
    }
    if (!good) {
        size_t line = 1;
        for (size_t i = 0; i < scan.at && i < length; i++)
            line += json[i] == '\n';
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not valid JSON: %s (line %zu, byte %zu)", name, scan.problem,
                         line, scan.at);
    }
    return STATUS_OK;
}

struct json_span json_text_object(const char *json, size_t length) {
    struct scanner scan = {.json = json, .python = true, .length = length};
    scan_space(&scan);
    struct json_span span = {scan.at, length};
    while (span.end > span.begin && json[span.end - 1] != '}')
        span.end--;
    return span;
}

bool json_text_member(const char *json, struct json_span object, const char *key, struct json_member *member) {
    struct scanner scan = {.json = json, .python = true, .at = object.begin, .length = object.end};
    struct json_member found = {0};
    if (!scan_object(&scan, 0, key, &found) || found.key.end == 0)
        return false;
    *member = found;
    return true;
}

/* The span to cut so that `member` disappears together with one of the commas next to it. */
static struct json_span removal(const char *json, struct json_member member) {
    struct json_span cut = {member.key.begin, member.value.end};
    size_t after = cut.end, before = cut.begin;
    while (strchr(" \t\r\n", json[after]) && json[after])
        after++;
    while (before > 0 && strchr(" \t\r\n", json[before - 1]))
        before--;
    if (json[before - 1] == ',')
        cut.begin = before - 1;
    else if (json[after] == ',')
        cut.end = after + 1;
    return cut;
}

/* Appends the text without the members `key` of its top-level object `nested`. */
static void append_without(struct text *out, const char *json, size_t length, const char *key, const char *nested) {
    struct json_member object, member;
    text_append(out, json, length);
    while (!out->failed && json_text_member(out->bytes, json_text_object(out->bytes, out->length), nested, &object) &&
           out->bytes[object.value.begin] == '{' && json_text_member(out->bytes, object.value, key, &member)) {
        struct json_span cut = removal(out->bytes, member);
        memmove(out->bytes + cut.begin, out->bytes + cut.end, out->length - cut.end + 1);
        out->length -= cut.end - cut.begin;
    }
}

void json_text_splice(struct text *out, const char *json, size_t length, const char *key, const char *value,
                      const char *nested) {
    struct text kept = {0};
    if (nested) {
        append_without(&kept, json, length, key, nested);
        if (kept.failed) {
            out->failed = true;
            text_free(&kept);
            return;
        }
        json = kept.bytes;
        length = kept.length;
    }
    struct json_span top = json_text_object(json, length);
    struct json_member member;
    if (json_text_member(json, top, key, &member)) {
        text_append(out, json, member.value.begin);
        text_append_string(out, value);
        text_append(out, json + member.value.end, length - member.value.end);
    } else {
        size_t last = top.end - 1; /* the closing brace, then what comes before it */
        while (strchr(" \t\r\n", json[last - 1]))
            last--;
        text_append(out, json, last);
        text_append_string(out, json[last - 1] == '{' ? "\n  \"" : ",\n  \"");
        text_append_string(out, key);
        text_append_string(out, "\": ");
        text_append_string(out, value);
        text_append(out, json + last, length - last);
    }
    text_free(&kept);
}
