/*
 * The text of a perplexity run, or its tokens made elsewhere: reading, the variants of joining it, the hash that names it.
 */
#ifndef QSTREAM_INFER_REPORT_PPL_TEXT_H
#define QSTREAM_INFER_REPORT_PPL_TEXT_H

#include <stddef.h>
#include <stdint.h>

#include "common/sha256.h"
#include "common/status.h"
#include "common/text.h"
#include "infer/tokenizer/tokenizer.h"

enum text_join {
    TEXT_JOIN_RAW, /* the file as it is */
    TEXT_JOIN_HF   /* the rows of the data set on the Hub, with blank lines between */
};
const char *text_join_name(enum text_join join);

enum { PPL_TEXT_MAX = 256 << 20 };

/*
 * Appends the bytes of `file` ("-": standard input) to `text`; files, pipes and devices will do. STATUS_BAD_INPUT when
 * there is no such file, or more than `limit` bytes; none are fine, text->bytes is then "".
 */
enum status ppl_text_read(const char *file, size_t limit, struct text *text, struct error *error);

/*
 * Appends to `out` what `"\n\n".join(rows)` gives for the rows that Hugging Face's loader of WikiText makes of the file
 * `text`: a row for each line, with its newline; an empty row for each blank line. Ends of line are read as Python reads
 * them: "\r\n" and "\r" are "\n".
 */
void ppl_text_join_rows(const struct text *text, struct text *out);

/*
 * Appends the ids of a JSON array of token ids, `name` for messages. STATUS_BAD_INPUT when it is none, or an id is no
 * number from 0 to INT32_MAX.
 */
enum status ppl_tokens_parse(const char *name, const struct text *json, struct token_ids *tokens, struct error *error);

/*
 * Appends the token ids of `file`, as ppl_text_read takes it: of its text, by the tokenizer in `folder`, or, where that is
 * NULL, of the JSON array of ids that it holds. `hash` (may be NULL) gets the SHA-256 of its bytes.
 */
enum status ppl_tokens_read(const struct folder *folder, const char *file, struct token_ids *tokens,
                            char hash[SHA256_HEX], struct error *error);

/* SHA-256 of the ids as little-endian 32-bit integers, one behind the other, in hexadecimal. */
enum status ppl_tokens_hash(const int32_t *ids, size_t count, char hex[SHA256_HEX], struct error *error);

/*
 * The id of the token that begins a text: bos_token_id of config.json in `folder` (of the whole or of text_config), else
 * bos_token of tokenizer_config.json. STATUS_BAD_INPUT when neither says.
 */
enum status ppl_bos_id(const struct folder *folder, const struct tokenizer *tokenizer, int32_t *id,
                       struct error *error);

#endif
