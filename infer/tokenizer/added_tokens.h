/*
 * Added tokens: texts that are found before anything is cut into words, as the tokenizers library finds them.
 */
#ifndef QSTREAM_INFER_TOKENIZER_ADDED_TOKENS_H
#define QSTREAM_INFER_TOKENIZER_ADDED_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "infer/tokenizer/split_pattern.h"

enum { ADDED_TOKEN_MAX = 1 << 10 }; /* bytes: what a place of the text may cost */

struct added_token {
    const char *text;
    size_t length;
    int32_t id;
    bool single_word; /* only where no letter or digit is next to it */
    bool strip_left;  /* takes the white space before it */
    bool strip_right; /* takes the white space behind it */
    bool normalized;  /* looked for in the normalized text */
    bool special;
};

/* Zero-initialize. */
struct added_tokens {
    struct added_token *tokens; /* sorted by text */
    size_t count;
    uint32_t first[257];                  /* where the texts that begin with each byte begin */
    struct split_pattern *word_character; /* opened when a token is single_word */
};

/*
 * Takes over the `count` tokens (their texts belong to somebody else) and makes them ready to be found. None may be
 * empty. Two with one text are STATUS_BAD_INPUT.
 */
enum status added_tokens_make(struct added_tokens *added, struct added_token *tokens, size_t count,
                              struct error *error);
void added_tokens_free(struct added_tokens *added);

/* Going through a text; begin with `at` and `done` 0. */
struct added_search {
    const char *text;
    size_t length;
    size_t at;   /* where to look next */
    size_t done; /* the end of what was taken before */
};

/*
 * The next token, the leftmost and of those the longest: *token, and [*begin, *end), its text with what it strips.
 * *begin may lie before the end of the token found before it when that one stripped white space that is this token.
 * *token is NULL when there is no other.
 */
enum status added_tokens_next(const struct added_tokens *added, struct split_scratch *scratch,
                              struct added_search *search, const struct added_token **token, size_t *begin, size_t *end,
                              struct error *error);

#endif
