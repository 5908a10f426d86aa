/*
 * The tokens that begin and end a text, as the files of a checkpoint say.
 *
 * Begin: what the post-processor of tokenizer.json puts before a text (a TemplateProcessing, BertProcessing or
 * RobertaProcessing, alone or in a Sequence), as
 * transformers 5 reads it, which does not look at add_bos_token of tokenizer_config.json either. With tekken.json and no
 * tokenizer.json: "<s>", as mistral-common's completions begin.
 * End: eos_token_id of generation_config.json and of config.json or its text_config, a number or a list.
 */
#ifndef QSTREAM_INFER_SPECIAL_TOKENS_H
#define QSTREAM_INFER_SPECIAL_TOKENS_H

#include "infer/tokenizer/tokenizer.h"

struct special_tokens {
    struct token_ids begin, end;
};

/* Free with special_tokens_free, also after an error. */
enum status special_tokens_read(const struct folder *folder, const struct tokenizer *tokenizer,
                                struct special_tokens *tokens, struct error *error);
void special_tokens_free(struct special_tokens *tokens);

#endif
