/*
 * Tokenizers as checkpoints ship them: text to token ids and back, the same ids as Hugging Face's tokenizers
 * (tokenizer.json) and mistral-common (tekken.json) give.
 */
#ifndef QSTREAM_INFER_TOKENIZER_TOKENIZER_H
#define QSTREAM_INFER_TOKENIZER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/folder.h"
#include "common/status.h"
#include "common/text.h"

struct tokenizer; /* read only once it is open: several threads may use one */

/* Ids that grow. Zero-initialize; free with token_ids_free. */
struct token_ids {
    int32_t *ids;
    size_t count, capacity;
};
enum status token_ids_append(struct token_ids *tokens, int32_t id, struct error *error);
void token_ids_free(struct token_ids *tokens);

/*
 * Opens the tokenizer of the model in `folder`: tokenizer.json, else tekken.json. What it asks for and is not supported
 * (a model other than BPE, an unknown pre-tokenizer) is STATUS_BAD_INPUT with its name. Free with tokenizer_close.
 */
enum status tokenizer_open(const struct folder *folder, struct tokenizer **tokenizer, struct error *error);
void tokenizer_close(struct tokenizer *tokenizer); /* NULL is fine */

/* The member post_processor of tokenizer.json, as JSON: it tells the tokens around a text. NULL when there is none. */
const char *tokenizer_post_processor(const struct tokenizer *tokenizer);

/* One more than the largest id that it can give. */
uint32_t tokenizer_size(const struct tokenizer *tokenizer);

/* The id of the token with that text, special ones included ("<s>"); -1 when there is none. */
int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token);

/*
 * Appends the ids of `length` bytes of text: no BOS, nothing that a template would add, as
 * `tokenizer.encode(text, add_special_tokens=False)`; added tokens in the text are found, as there (in tekken.json's
 * control tokens are not text). Bytes that are not UTF-8 are read as U+FFFD, as Python's errors="replace" reads them.
 */
enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                             struct token_ids *tokens, struct error *error);

/*
 * Appends the bytes of the ids, special tokens included if `special`. The bytes of one id need not be whole
 * characters. An id that the tokenizer does not have is STATUS_BAD_INPUT.
 */
enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, bool special,
                             struct text *text, struct error *error);

#endif
