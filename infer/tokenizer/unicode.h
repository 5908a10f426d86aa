/*
 * Classes of characters, and the difference between PCRE2's Unicode and that of the libraries whose ids are to be
 * matched.
 */
#ifndef QSTREAM_INFER_TOKENIZER_UNICODE_H
#define QSTREAM_INFER_TOKENIZER_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/text.h"

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
