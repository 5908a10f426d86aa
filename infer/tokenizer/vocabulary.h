/*
 * The tokens of a tokenizer: id, name and bytes of each.
 */
#ifndef QSTREAM_INFER_TOKENIZER_VOCABULARY_H
#define QSTREAM_INFER_TOKENIZER_VOCABULARY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/name_table.h"
#include "common/status.h"

enum { TOKENS_MAX = 1 << 24 }; /* ids stay below */

/* Memory that lives as long as the vocabulary: nothing in it moves. Zero-initialize. */
struct arena {
    struct arena_block *blocks;
    size_t used, size; /* of the first block */
};
char *arena_copy(struct arena *arena, const char *bytes, size_t length); /* NULL: out of memory */
void arena_free(struct arena *arena);

struct token {
    const char *bytes; /* what it decodes to; NULL: there is no such id */
    uint32_t length;
    bool special;
};

/* Zero-initialize. */
struct vocabulary {
    struct arena arena;
    struct token *tokens; /* by id */
    uint32_t size;        /* one more than the largest id */
    size_t capacity;
    /*
     * From what a token is called to its id. In tokenizer.json that is its text in the byte-level alphabet, in
     * tekken.json its bytes.
     */
    struct name_table names;
    struct name_table added; /* added tokens, by their text; they come first */
};

/*
 * Makes room for ids below `size`; `tokens` is how many tokens the file has. Ids far beyond their number are
 * STATUS_BAD_INPUT: a small file does not make a large table.
 */
enum status vocabulary_reserve(struct vocabulary *vocabulary, uint64_t size, uint64_t tokens, struct error *error);

/* The id of a name among the tokens that are not added; -1 when there is none. */
int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *name, size_t length);

void vocabulary_free(struct vocabulary *vocabulary);

/*
 * The byte-level alphabet of GPT-2: a printable character for each byte, U+0100 and on for those that are none.
 */
uint32_t byte_level_character(uint8_t byte);
int byte_level_byte(uint32_t point); /* -1: not of the alphabet */

#endif
