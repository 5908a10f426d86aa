#include "infer/tokenizer/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "infer/tokenizer/unicode.h"

static int token_compare(const void *a, const void *b) {
    const struct added_token *left = a, *right = b;
    size_t shorter = left->length < right->length ? left->length : right->length;
    int order = memcmp(left->text, right->text, shorter);
    return order ? order : (left->length > right->length) - (left->length < right->length);
}

enum status added_tokens_make(struct added_tokens *added, struct added_token *tokens, size_t count,
                              struct error *error) {
    *added = (struct added_tokens){.tokens = tokens, .count = count};
    bool single_word = false;
    if (count > 0)
        qsort(tokens, count, sizeof *tokens, token_compare);
    for (size_t i = 0; i < count; i++) {
        if (i > 0 && token_compare(&tokens[i - 1], &tokens[i]) == 0)
            return error_set(error, STATUS_BAD_INPUT, "the added token '%.*s' occurs twice",
                             (int)(tokens[i].length < 100 ? tokens[i].length : 100), tokens[i].text);
        single_word = single_word || tokens[i].single_word;
        added->first[(unsigned char)tokens[i].text[0] + 1]++;
    }
    for (size_t i = 0; i < 256; i++)
        added->first[i + 1] += added->first[i];
    /* \w of Rust's regex crate */
    return single_word ? split_pattern_open("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", PATTERN_OWN,
                                            &added->word_character, error)
                       : STATUS_OK;
}

void added_tokens_free(struct added_tokens *added) {
    free(added->tokens);
    split_pattern_close(added->word_character);
    *added = (struct added_tokens){0};
}

/* The first token of [low, high), sorted, whose byte at `depth` is not less than `byte`. */
static size_t byte_bound(const struct added_tokens *added, size_t low, size_t high, size_t depth, unsigned byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if ((unsigned char)added->tokens[middle].text[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The longest token that the text begins with; NULL when there is none. */
static const struct added_token *token_at(const struct added_tokens *added, const char *text, size_t length) {
    size_t low = added->first[(unsigned char)text[0]], high = added->first[(unsigned char)text[0] + 1];
    const struct added_token *longest = NULL;
    /* Of the tokens [low, high) the first `depth` bytes are the text's. */
    for (size_t depth = 1; low < high; depth++) {
        if (added->tokens[low].length == depth)
            longest = &added->tokens[low++];
        if (depth == length)
            break;
        low = byte_bound(added, low, high, depth, (unsigned char)text[depth]);
        high = byte_bound(added, low, high, depth, (unsigned char)text[depth] + 1u);
    }
    return longest;
}

/* Whether a letter, digit or the like begins at `at`. */
static enum status is_word(const struct added_tokens *added, struct split_scratch *scratch, const char *text,
                           size_t length, size_t at, bool *word, struct error *error) {
    struct text known = {0};
    size_t step, begin, end;
    utf8_decode(text + at, length - at, &step, NULL);
    bool newer = unicode_stand_in(text + at, step, &known);
    enum status status = known.failed
                             ? error_set_memory(error)
                             : split_pattern_next(added->word_character, scratch, newer ? known.bytes : text + at, step,
                                                  0, &begin, &end, error);
    *word = status == STATUS_OK && begin == 0 && end == step;
    text_free(&known);
    return status;
}

static size_t character_before(const char *text, size_t at) {
    do
        at--;
    while (at > 0 && utf8_continues(text[at]));
    return at;
}

static enum status stands_alone(const struct added_tokens *added, struct split_scratch *scratch,
                                const struct added_search *search, size_t begin, size_t end, bool *alone,
                                struct error *error) {
    bool before = false, behind = false;
    enum status status = STATUS_OK;
    if (begin > 0)
        status = is_word(added, scratch, search->text, search->length, character_before(search->text, begin), &before,
                         error);
    if (status == STATUS_OK && end < search->length)
        status = is_word(added, scratch, search->text, search->length, end, &behind, error);
    *alone = !before && !behind;
    return status;
}

static size_t spaces_before(const char *text, size_t least, size_t at) {
    while (at > least) {
        size_t before = character_before(text, at), step;
        if (!unicode_is_space(utf8_decode(text + before, at - before, &step, NULL)))
            break;
        at = before;
    }
    return at;
}

static size_t spaces_behind(const char *text, size_t length, size_t at) {
    size_t step;
    while (at < length && unicode_is_space(utf8_decode(text + at, length - at, &step, NULL)))
        at += step;
    return at;
}

enum status added_tokens_next(const struct added_tokens *added, struct split_scratch *scratch,
                              struct added_search *search, const struct added_token **token, size_t *begin, size_t *end,
                              struct error *error) {
    const char *text = search->text;
    *token = NULL;
    *begin = *end = search->length;
    if (added->count == 0)
        search->at = search->length;
    while (search->at < search->length) {
        unsigned char first = (unsigned char)text[search->at];
        const struct added_token *found = added->first[first] == added->first[first + 1]
                                              ? NULL
                                              : token_at(added, text + search->at, search->length - search->at);
        if (!found) {
            search->at++;
            continue;
        }
        size_t from = search->at, to = from + found->length;
        search->at = to; /* the next one begins behind this one even when this one is not taken */
        if (found->single_word) {
            bool alone;
            enum status status = stands_alone(added, scratch, search, from, to, &alone, error);
            if (status != STATUS_OK)
                return status;
            if (!alone)
                continue;
        }
        /* What an earlier token took is white space; not going over it again keeps this linear. */
        if (found->strip_left)
            from = from > search->done ? spaces_before(text, search->done, from) : search->done;
        if (found->strip_right)
            to = spaces_behind(text, search->length, to > search->done ? to : search->done);
        if (from >= to)
            continue; /* white space that an earlier token took whole: the library drops it, or panics */
        *token = found;
        *begin = from;
        *end = to;
        search->done = to;
        return STATUS_OK;
    }
    return STATUS_OK;
}
