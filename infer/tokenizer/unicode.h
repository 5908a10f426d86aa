/*
 * Characters: reading UTF-8 of unknown origin, and the difference between PCRE2's Unicode and that of the libraries
 * whose ids are to be matched.
 */
#ifndef QSTREAM_INFER_TOKENIZER_UNICODE_H
#define QSTREAM_INFER_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/text.h"

/*
 * The code point that `bytes` begin with, and its length; `length` is at least 1. Where they are no UTF-8 the value is
 * UNICODE_REPLACEMENT and *step the length of the longest part of a character that they begin with, at least 1: what
 * Python's errors="replace" makes one U+FFFD of. *good (may be NULL) tells which.
 */
enum { UNICODE_REPLACEMENT = 0xfffd };
uint32_t utf8_decode(const char *bytes, size_t length, size_t *step, bool *good);

/* Writes 1 to 4 bytes; returns their number. */
size_t utf8_encode(uint32_t point, char out[4]);

/* How many of the bytes at the front are ASCII. */
size_t ascii_length(const char *bytes, size_t length);

/* How many of the bytes at the front are whole characters. */
size_t utf8_valid_length(const char *bytes, size_t length);

/* Appends the text with U+FFFD for what is not UTF-8. */
void utf8_repair(const char *bytes, size_t length, struct text *out);

/* Unicode's White_Space: what \s means in the libraries' patterns. */
bool unicode_is_space(uint32_t point);

/*
 * PCRE2 10.42 knows the characters of Unicode 14, the libraries' patterns those of Unicode 16. Before matching, each
 * character that is newer is replaced by one of the same general category and the same length in UTF-8. True when
 * there is one; the text so changed is then appended to *out, as long as the original.
 */
bool unicode_stand_in(const char *bytes, size_t length, struct text *out);

/* Whether of each newer character and its stand-in the range has both or neither, so that no replacing is noticed. */
bool unicode_range_is_whole(uint32_t first, uint32_t last);

#endif
