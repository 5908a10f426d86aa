/*
 * UTF-8 (RFC 3629) of unknown origin: no overlong forms, no surrogates, nothing above U+10FFFF.
 */
#ifndef QSTREAM_COMMON_UTF8_H
#define QSTREAM_COMMON_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct text;

enum { UTF8_LENGTH_MAX = 4, UTF8_REPLACEMENT = 0xfffd };

/*
 * The code point that `bytes` begin with, and its length; `length` is at least 1. Where they are no UTF-8 the value is
 * UTF8_REPLACEMENT and *step the length of the longest part of a character that they begin with, at least 1: what
 * Python's errors="replace" makes one U+FFFD of. *good (may be NULL) tells which. No byte is read behind one that ends
 * the character: of a string with its NUL, `length` may be UTF8_LENGTH_MAX.
 */
uint32_t utf8_decode(const char *bytes, size_t length, size_t *step, bool *good);

/* Writes 1 to 4 bytes; returns their number. */
size_t utf8_encode(uint32_t point, char out[UTF8_LENGTH_MAX]);

/* Whether the byte is one of a character's, but not its first. */
static inline bool utf8_continues(char byte) { return ((unsigned char)byte & 0xc0) == 0x80; }

/* How many of the bytes at the front are ASCII. */
size_t ascii_length(const char *bytes, size_t length);

/* How many of the bytes at the front are whole characters. */
size_t utf8_valid_length(const char *bytes, size_t length);

/* Whether all of them are whole characters, none of them NUL. */
bool utf8_is_valid(const char *bytes, size_t length);

/* Appends the bytes with U+FFFD for what is not UTF-8. */
void utf8_repair(const char *bytes, size_t length, struct text *out);

#endif
