/*
 * The patterns by which tokenizers cut text into words, on PCRE2.
 */
#ifndef QSTREAM_INFER_TOKENIZER_SPLIT_PATTERN_H
#define QSTREAM_INFER_TOKENIZER_SPLIT_PATTERN_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

struct split_pattern; /* read only once it is open */

enum pattern_kind {
    PATTERN_ONIGURUMA, /* as in a tokenizer.json; see pattern_translate.h */
    PATTERN_RUST,      /* as in a tekken.json */
    PATTERN_LITERAL,   /* the text itself */
    PATTERN_OWN        /* PCRE2's own dialect */
};

/* What cannot be supported, or matches nothing at all, is STATUS_BAD_INPUT. Free with split_pattern_close. */
enum status split_pattern_open(const char *text, enum pattern_kind kind, struct split_pattern **pattern,
                               struct error *error);
void split_pattern_close(struct split_pattern *pattern); /* NULL is fine */

/* Whether the pattern is to be matched to text with stand-ins for new characters (see unicode.h), not to the text. */
bool split_pattern_by_category(const struct split_pattern *pattern);

/* What matching needs of its own in each thread; made for a text of that length and all its parts. */
struct split_scratch;
enum status split_scratch_open(size_t length, struct split_scratch **scratch, struct error *error);
void split_scratch_close(struct split_scratch *scratch); /* NULL is fine */

/*
 * The first match at or behind `from` in text that is UTF-8: [*begin, *end), not empty. Without one *begin and *end are
 * `length`. A pattern that needs too many steps for the text is STATUS_BAD_INPUT, on every machine alike.
 */
enum status split_pattern_next(const struct split_pattern *pattern, struct split_scratch *scratch, const char *text,
                               size_t length, size_t from, size_t *begin, size_t *end, struct error *error);

#endif
