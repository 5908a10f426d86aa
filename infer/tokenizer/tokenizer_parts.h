/*
 * What a tokenizer consists of, and the readers of the two kinds of files.
 */
#ifndef QSTREAM_INFER_TOKENIZER_TOKENIZER_PARTS_H
#define QSTREAM_INFER_TOKENIZER_TOKENIZER_PARTS_H

#include "infer/tokenizer/added_tokens.h"
#include "infer/tokenizer/bpe.h"
#include "infer/tokenizer/pre_tokenizer.h"
#include "infer/tokenizer/tokenizer.h"
#include "infer/tokenizer/vocabulary.h"

struct tokenizer {
    struct vocabulary vocabulary;
    struct bpe bpe;
    bool nfc;                              /* text is normalized after the first search for added tokens */
    struct added_tokens first, normalized; /* looked for in the text as it is, and in the normalized text */
    struct pre_tokenizer pre;
    char *post_processor; /* of tokenizer.json, as JSON; NULL: none */
};

/* Limits on the files: Llama 3's and Tekken's have 9 to 20 MB. */
enum { TOKENIZER_FILE_MAX = 1 << 28 };

/*
 * Fill a tokenizer that is zero-initialized from the text of a file. Its messages do not name the file. The caller
 * frees the tokenizer's parts also when it fails.
 */
enum status tokenizer_json_read(struct tokenizer *tokenizer, const char *json, size_t length, struct error *error);
enum status tekken_json_read(struct tokenizer *tokenizer, const char *json, size_t length, struct error *error);

#endif
