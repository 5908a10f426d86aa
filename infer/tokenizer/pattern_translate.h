/*
 * From the regular expressions of tokenizers (Oniguruma's or Rust's dialect) to PCRE2's, where both mean the same.
 */
#ifndef QSTREAM_INFER_TOKENIZER_PATTERN_TRANSLATE_H
#define QSTREAM_INFER_TOKENIZER_PATTERN_TRANSLATE_H

#include "common/status.h"
#include "common/text.h"

enum pattern_dialect { DIALECT_ONIGURUMA, DIALECT_RUST };

/* What is to be known of a pattern besides its text. */
struct pattern_traits {
    bool categories; /* it asks for general categories: it has to see stand-ins (see unicode.h), else the text itself */
    size_t work;     /* what trying it at one place may cost between two callouts: characters, and members of classes,
                        each as often as it is repeated at least */
};

/*
 * Appends the pattern as PCRE2 (with PCRE2_UTF) has to read it. What the dialects read differently, and \s for one, is
 * rewritten; what cannot be is STATUS_BAD_INPUT with its name. Behind all that can match in more than one way stands a
 * callout (?C), where the matcher can be stopped.
 */
enum status pattern_translate(const char *regex, enum pattern_dialect dialect, struct text *out,
                              struct pattern_traits *traits, struct error *error);

#endif
