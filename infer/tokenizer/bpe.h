/*
 * Byte-pair encoding of one word: of all neighbours that may merge, the pair of the lowest rank, the leftmost of them,
 * until none may.
 */
#ifndef QSTREAM_INFER_TOKENIZER_BPE_H
#define QSTREAM_INFER_TOKENIZER_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "infer/tokenizer/pair_table.h"
#include "infer/tokenizer/tokenizer.h"
#include "infer/tokenizer/vocabulary.h"

struct bpe {
    const struct vocabulary *vocabulary;
    int32_t
        bytes[256]; /* the token of each byte; -1: the byte is left out of the text, as the tokenizers library does */
    struct pair_table pairs;
    bool whole_words; /* a word that is a token is not merged (ignore_merges) */
    bool byte_level;  /* the vocabulary's names are in the byte-level alphabet */
    size_t name_max;  /* bytes of the longest name */
};

/* What encoding needs of its own in each thread; `length` is about that of the text. */
struct bpe_scratch;
enum status bpe_scratch_open(const struct bpe *bpe, size_t length, struct bpe_scratch **scratch, struct error *error);
void bpe_scratch_close(struct bpe_scratch *scratch); /* NULL is fine */

/* Appends the ids of one word, in time n log n. */
enum status bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *word, size_t length,
                       struct token_ids *ids, struct error *error);

#endif
