/*
 * Cutting text into the words that are encoded on their own: a chain of steps, each of which cuts what the one before
 * it left.
 */
#ifndef QSTREAM_INFER_TOKENIZER_PRE_TOKENIZER_H
#define QSTREAM_INFER_TOKENIZER_PRE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "infer/tokenizer/split_pattern.h"

enum split_behavior {
    SPLIT_REMOVED,              /* what matches disappears */
    SPLIT_ISOLATED,             /* it is a word */
    SPLIT_MERGED_WITH_PREVIOUS, /* it ends the word before it */
    SPLIT_MERGED_WITH_NEXT,     /* it begins the word behind it */
    SPLIT_CONTIGUOUS            /* neighbours that match are one word */
};

struct pre_step {
    struct split_pattern *pattern; /* NULL: put a space before what begins with none */
    enum split_behavior behavior;
    bool invert; /* what does not match is what matches */
};

enum { PRE_STEPS_MAX = 16 };

struct pre_tokenizer {
    struct pre_step steps[PRE_STEPS_MAX];
    size_t count;
};

/* Adds a step. Takes the pattern over, even when it fails. */
enum status pre_tokenizer_add(struct pre_tokenizer *pre, struct pre_step step, struct error *error);
void pre_tokenizer_free(struct pre_tokenizer *pre);

/*
 * A part of the text. `shown` is what patterns that ask for categories see in its place, as long as it: the same, or
 * with stand-ins (see unicode.h).
 */
struct piece {
    const char *text, *shown;
    size_t length;
};

/* Gets each word, none empty, in order. */
typedef enum status (*word_taker)(void *context, struct piece word, struct error *error);

enum status pre_tokenizer_run(const struct pre_tokenizer *pre, struct split_scratch *scratch, struct piece piece,
                              word_taker take, void *context, struct error *error);

#endif
