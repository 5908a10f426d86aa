#include "common/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"

/* Characters of Unicode's categories Cf, Zl and Zp: they show nothing, but reorder, join or break what is around them. */
static bool is_unseen(uint32_t code) {
    static const uint32_t ranges[][2] = {
        {0xad, 0xad},     {0x600, 0x605},   {0x61c, 0x61c},   {0x6dd, 0x6dd},   {0x70f, 0x70f},   {0x180e, 0x180e},
        {0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xe0000, 0xe007f},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (code >= ranges[i][0] && code <= ranges[i][1])
            return true;
    return false;
}

enum { ESCAPE_MAX = 12 };

/* Writes the first character as it is shown to `piece`, its length to *shown; returns how many bytes of `text` it is. */
static size_t escape_one(const char *text, char piece[ESCAPE_MAX], size_t *shown) {
    size_t length;
    bool good;
    uint32_t code = utf8_decode(text, UTF8_LENGTH_MAX, &length, &good);
    if (!good) { /* byte by byte */
        code = (unsigned char)*text;
        length = 1;
    }
    if (!good || code < 0x20 || (code >= 0x7f && code <= 0x9f)) {
        *shown = (size_t)snprintf(piece, ESCAPE_MAX, "\\x%02x", (unsigned)code);
    } else if (code > 0x9f && is_unseen(code)) {
        *shown = (size_t)snprintf(piece, ESCAPE_MAX, code > 0xffff ? "\\U%08x" : "\\u%04x", (unsigned)code);
    } else {
        memcpy(piece, text, length);
        *shown = length;
    }
    return length;
}

void text_escape(char *out, size_t size, const char *text) {
    size_t used = 0, shown;
    char piece[ESCAPE_MAX];
    while (*text) {
        text += escape_one(text, piece, &shown);
        if (used + shown >= size)
            break;
        memcpy(out + used, piece, shown);
        used += shown;
    }
    out[used] = '\0';
}

static bool text_reserve(struct text *text, size_t more) {
    if (text->failed)
        return false;
    if (more < text->capacity - text->length)
        return true;
    size_t capacity = text->capacity ? text->capacity : 256;
    while (capacity - text->length <= more) {
        if (capacity > SIZE_MAX / 2) {
            text->failed = true;
            return false;
        }
        capacity *= 2;
    }
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        text->failed = true;
        return false;
    }
    text->bytes = bytes;
    text->capacity = capacity;
    return true;
}

void text_pass_rest(struct text *text) {
    if (text->length > 0)
        text->pass(text->to, text->bytes, text->length);
    text->length = 0;
}

/* After each of the two functions that append. */
static void text_pass_much(struct text *text) {
    enum { MUCH = 1 << 16 };
    if (text->pass && text->length >= MUCH)
        text_pass_rest(text);
}

void text_append(struct text *text, const void *bytes, size_t length) {
    if (!text_reserve(text, length))
        return;
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
    text->bytes[text->length] = '\0';
    text_pass_much(text);
}

void text_append_string(struct text *text, const char *string) { text_append(text, string, strlen(string)); }

void text_vprintf(struct text *text, const char *format, va_list arguments) {
    va_list again;
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    if (length < 0 || !text_reserve(text, (size_t)length + 1)) {
        text->failed = true;
    } else {
        vsnprintf(text->bytes + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
        text_pass_much(text);
    }
    va_end(again);
}

void text_printf(struct text *text, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(text, format, arguments);
    va_end(arguments);
}

void text_append_json_string(struct text *text, const char *string) {
    text_append(text, "\"", 1);
    for (const char *c = string; *c; c++) {
        if (*c == '"' || *c == '\\') {
            const char escaped[2] = {'\\', *c};
            text_append(text, escaped, 2);
        } else if ((unsigned char)*c < 0x20) {
            text_printf(text, "\\u%04x", (unsigned char)*c);
        } else {
            text_append(text, c, 1);
        }
    }
    text_append(text, "\"", 1);
}

/* How many of the first bytes are printable ASCII, those of `but` excepted. */
static size_t plain_length(const char *string, const char *but) {
    size_t length = 0;
    while (string[length] >= 0x20 && string[length] < 0x7f && !strchr(but, string[length]))
        length++;
    return length;
}

void text_append_escaped(struct text *text, const char *string) {
    while (*string) {
        size_t plain = plain_length(string, ""), shown;
        char piece[ESCAPE_MAX];
        text_append(text, string, plain);
        string += plain;
        if (!*string)
            break;
        string += escape_one(string, piece, &shown);
        text_append(text, piece, shown);
    }
}

void text_append_json_ascii(struct text *text, const char *string) {
    text_append(text, "\"", 1);
    while (*string) {
        size_t plain = plain_length(string, "\"\\");
        text_append(text, string, plain);
        string += plain;
        if (!*string)
            break;
        size_t length;
        bool good;
        uint32_t code = utf8_decode(string, UTF8_LENGTH_MAX, &length, &good);
        if (code == '"' || code == '\\')
            text_printf(text, "\\%c", (char)code);
        else if (code > 0xffff)
            text_printf(text, "\\u%04x\\u%04x", 0xd800u + ((code - 0x10000) >> 10), 0xdc00u + (code & 0x3ffu));
        else
            text_printf(text, "\\u%04x", (unsigned)code);
        string += good ? length : 1;
    }
    text_append(text, "\"", 1);
}

void text_append_base64(struct text *text, const void *bytes, size_t length) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *in = bytes;
    for (size_t at = 0; at < length; at += 3) {
        const size_t left = length - at;
        const uint32_t bits =
            (uint32_t)in[at] << 16 | (left > 1 ? (uint32_t)in[at + 1] << 8 : 0) | (left > 2 ? (uint32_t)in[at + 2] : 0);
        const char four[] = {digits[bits >> 18], digits[bits >> 12 & 63], left > 1 ? digits[bits >> 6 & 63] : '=',
                             left > 2 ? digits[bits & 63] : '='};
        text_append(text, four, sizeof four);
    }
}

void text_append_number(struct text *text, uint64_t number) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    text_append(text, digits + at, sizeof digits - at);
}

void text_append_json_real(struct text *text, double number) {
    char digits[32];
    if (!isfinite(number)) {
        text_append_string(text, "null");
        return;
    }
    for (int precision = 6; precision <= 17; precision++) { /* 17 digits tell any two numbers apart */
        snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (strtod(digits, NULL) == number)
            break;
    }
    text_append_string(text, digits);
}

void text_free(struct text *text) {
    free(text->bytes);
    *text = (struct text){0};
}

void text_write(const struct text *text, FILE *stream) {
    if (text->length > 0)
        fwrite(text->bytes, 1, text->length, stream);
}

char *text_format(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *out = length < 0 ? NULL : malloc((size_t)length + 1);
    if (!out)
        return NULL;
    va_start(arguments, format);
    vsnprintf(out, (size_t)length + 1, format, arguments);
    va_end(arguments);
    return out;
}

bool text_ends_with(const char *string, const char *suffix) {
    size_t length = strlen(string), tail = strlen(suffix);
    return length >= tail && memcmp(string + length - tail, suffix, tail) == 0;
}

const char *text_size(uint64_t bytes, char out[TEXT_SIZE_MAX]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.5 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1000;
        unit++;
    }
    int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    snprintf(out, TEXT_SIZE_MAX, "%.*f %s", decimals, value, units[unit]);
    return out;
}

const char *text_plural(size_t count) { return count == 1 ? "" : "s"; }

uint64_t text_mebibytes(uint64_t bytes) { return (bytes >> 20) + ((bytes & ((1 << 20) - 1)) != 0); }

bool text_parse_size(const char *string, uint64_t *bytes) {
    const char *end = string + strspn(string, "0123456789");
    if (end == string)
        return false;
    if (*end == '.') {
        size_t digits = strspn(end + 1, "0123456789");
        if (digits == 0)
            return false;
        end += 1 + digits;
    }
    double value = strtod(string, NULL); /* no exponent can follow: 1e3 is refused below */
    static const char letters[] = "KMGTP";
    double factor = 1;
    if (*end) {
        const char *letter = strchr(letters, *end == 'k' ? 'K' : *end);
        if (letter && *letter) {
            int power = (int)(letter - letters) + 1;
            end++;
            bool decimal = *end == 'B';
            if (*end == 'i' && end[1] == 'B')
                end += 2;
            else if (*end == 'B')
                end++;
            factor = pow(decimal ? 1000 : 1024, power);
        } else if (*end == 'B') {
            end++;
        }
    }
    bool fraction = memchr(string, '.', (size_t)(end - string)) && factor == 1;
    value *= factor;
    if (*end || fraction || !(value >= 1) || value >= 9.2e18)
        return false;
    *bytes = (uint64_t)value;
    return true;
}
