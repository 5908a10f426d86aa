/*
 * Text: growing strings, escaping, sizes for people.
 */
#ifndef QSTREAM_COMMON_TEXT_H
#define QSTREAM_COMMON_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Copies `text` to `out` (at most `size` bytes with the final NUL, whole characters) with every control character, C0,
 * DEL and C1, and every byte that is not UTF-8 written as \xNN, and every character that is not seen but moves others
 * (the direction of writing, line separators, joiners) as \uNNNN. Names in checkpoints come from strangers; what
 * reaches a terminal goes through here. The result is at most four times as long.
 */
void text_escape(char *out, size_t size, const char *text);

/*
 * A string that grows. Zero-initialize it; free with text_free. A failed allocation sets `failed` and turns all
 * later calls into no-ops, so that a long sequence of appends needs one check at its end. `bytes` is
 * NUL-terminated whenever it is not NULL.
 *
 * With `pass` it does not grow: what was appended goes there whenever it is some thousand bytes, and the text begins anew. At
 * the end text_pass_rest hands on what is left.
 */
struct text {
    char *bytes;
    size_t length;
    size_t capacity;
    bool failed;
    void (*pass)(void *to, const char *bytes, size_t length);
    void *to;
};

void text_append(struct text *text, const void *bytes, size_t length);
void text_append_string(struct text *text, const char *string);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(struct text *text, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
void text_append_json_string(struct text *text, const char *string); /* with its quotes; the input is UTF-8 */
/* The same in ASCII, for output that a terminal may show: all else is \uNNNN; bytes that are no UTF-8 are U+FFFD. */
void text_append_json_ascii(struct text *text, const char *string);
void text_append_escaped(struct text *text, const char *string);              /* as text_escape writes it */
void text_append_base64(struct text *text, const void *bytes, size_t length); /* RFC 4648, with its '=' */
void text_append_number(struct text *text, uint64_t number);
/* The shortest decimal that reads back as the same number; null when it is not finite. */
void text_append_json_real(struct text *text, double number);
void text_pass_rest(struct text *text);
void text_free(struct text *text);

/* Writes it to a stream, whose errors are seen there. */
void text_write(const struct text *text, FILE *stream);

/* strdup(3) of a formatted string; NULL when out of memory. */
char *text_format(const char *format, ...) __attribute__((format(printf, 1, 2)));

bool text_ends_with(const char *string, const char *suffix);

/* "1.38 GB", decimal units as disks and the Hub use them. Returns `out`. */
enum { TEXT_SIZE_MAX = 32 };
const char *text_size(uint64_t bytes, char out[TEXT_SIZE_MAX]);

/* The ending of a noun behind a number: "" or "s". */
const char *text_plural(size_t count);

/* MiB that hold so many bytes: what an option has to be at least. */
uint64_t text_mebibytes(uint64_t bytes);

/*
 * Reads a size: digits (a fraction is allowed before a unit), then nothing, K M G T (powers of 1024, as `K`,
 * `KiB`) or KB MB GB TB (powers of 1000). False when it is anything else, zero or too large.
 */
bool text_parse_size(const char *string, uint64_t *bytes);

#endif
