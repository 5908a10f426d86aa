#include "infer/tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/utf8.h"
#include "infer/tokenizer/nfc.h"
#include "infer/tokenizer/tokenizer_parts.h"
#include "infer/tokenizer/unicode.h"

enum status token_ids_append(struct token_ids *tokens, int32_t id, struct error *error) {
    if (!array_reserve(tokens->ids, tokens->count + 1, &tokens->capacity))
        return error_set_memory(error);
    tokens->ids[tokens->count++] = id;
    return STATUS_OK;
}

void token_ids_free(struct token_ids *tokens) {
    free(tokens->ids);
    *tokens = (struct token_ids){0};
}

/* ---- opening ---- */

typedef enum status (*file_reader)(struct tokenizer *tokenizer, const char *json, size_t length, struct error *error);

static enum status tokenizer_read(const struct folder *folder, const char *file, file_reader read,
                                  struct tokenizer *tokenizer, struct error *error) {
    char *json;
    size_t length;
    enum status status = folder_file_read(folder, file, TOKENIZER_FILE_MAX, &json, &length, error);
    if (status != STATUS_OK)
        return status;
    struct error inner;
    status = read(tokenizer, json, length, &inner);
    free(json);
    if (status != STATUS_OK)
        return error_set(error, status, "'%s/%s': %s", folder_name(folder), file, inner.message);
    tokenizer->bpe.vocabulary = &tokenizer->vocabulary;
    return STATUS_OK;
}

enum status tokenizer_open(const struct folder *folder, struct tokenizer **tokenizer, struct error *error) {
    static const struct {
        const char *name;
        file_reader read;
    } files[] = {{"tokenizer.json", tokenizer_json_read}, {"tekken.json", tekken_json_read}};
    *tokenizer = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!folder_has(folder, files[i].name))
            continue;
        struct tokenizer *made = calloc(1, sizeof *made);
        enum status status =
            made ? tokenizer_read(folder, files[i].name, files[i].read, made, error) : error_set_memory(error);
        if (status == STATUS_OK)
            *tokenizer = made;
        else
            tokenizer_close(made);
        return status;
    }
    return error_set(error, STATUS_BAD_INPUT, "'%s' has no tokenizer: neither tokenizer.json nor tekken.json is there",
                     folder_name(folder));
}

void tokenizer_close(struct tokenizer *tokenizer) {
    if (!tokenizer)
        return;
    added_tokens_free(&tokenizer->first);
    added_tokens_free(&tokenizer->normalized);
    pre_tokenizer_free(&tokenizer->pre);
    pair_table_free(&tokenizer->bpe.pairs);
    vocabulary_free(&tokenizer->vocabulary);
    free(tokenizer->post_processor);
    free(tokenizer);
}

/* ---- asking ---- */

const char *tokenizer_post_processor(const struct tokenizer *tokenizer) { return tokenizer->post_processor; }

uint32_t tokenizer_size(const struct tokenizer *tokenizer) { return tokenizer->vocabulary.size; }

int32_t tokenizer_id(const struct tokenizer *tokenizer, const char *token) {
    uint32_t added = name_table_find(&tokenizer->vocabulary.added, token, strlen(token));
    return added != NAME_UNKNOWN ? (int32_t)added : vocabulary_find(&tokenizer->vocabulary, token, strlen(token));
}

/* ---- encoding ---- */

/* One call of tokenizer_encode. */
struct encoding {
    const struct tokenizer *tokenizer;
    struct split_scratch *split;
    struct bpe_scratch *bpe;
    struct token_ids *ids;
    struct text normalized, shown; /* of one piece, and used again for the next */
};

static enum status word_take(void *context, struct piece word, struct error *error) {
    struct encoding *encoding = context;
    return bpe_encode(&encoding->tokenizer->bpe, encoding->bpe, word.text, word.length, encoding->ids, error);
}

static enum status plain_encode(struct encoding *encoding, const char *text, size_t length, struct error *error) {
    struct piece piece = {text, text, length};
    encoding->shown.length = 0;
    if (unicode_stand_in(text, length, &encoding->shown))
        piece.shown = encoding->shown.bytes;
    if (encoding->shown.failed)
        return error_set_memory(error);
    return pre_tokenizer_run(&encoding->tokenizer->pre, encoding->split, piece, word_take, encoding, error);
}

/* Goes through the text for added tokens: their ids, and `between` for all else. */
static enum status added_encode(struct encoding *encoding, const struct added_tokens *added,
                                enum status (*between)(struct encoding *, const char *, size_t, struct error *),
                                const char *text, size_t length, struct error *error) {
    struct added_search search = {.text = text, .length = length};
    for (size_t taken = 0;;) {
        const struct added_token *token;
        size_t begin, end;
        enum status status = added_tokens_next(added, encoding->split, &search, &token, &begin, &end, error);
        if (status == STATUS_OK && taken < begin)
            status = between(encoding, text + taken, begin - taken, error);
        if (status == STATUS_OK && token)
            status = token_ids_append(encoding->ids, token->id, error);
        if (status != STATUS_OK || !token)
            return status;
        taken = end;
    }
}

static enum status normalized_encode(struct encoding *encoding, const char *text, size_t length, struct error *error) {
    const struct tokenizer *tokenizer = encoding->tokenizer;
    if (tokenizer->nfc) {
        bool changed;
        encoding->normalized.length = 0;
        enum status status = nfc_normalize(text, length, &encoding->normalized, &changed, error);
        if (status != STATUS_OK)
            return status;
        if (changed) {
            text = encoding->normalized.bytes;
            length = encoding->normalized.length;
        }
    }
    return added_encode(encoding, &tokenizer->normalized, plain_encode, text, length, error);
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t length,
                             struct token_ids *tokens, struct error *error) {
    struct encoding encoding = {.tokenizer = tokenizer, .ids = tokens};
    struct text repaired = {0};
    if (utf8_valid_length(text, length) < length) {
        utf8_repair(text, length, &repaired);
        if (repaired.failed) {
            text_free(&repaired);
            return error_set_memory(error);
        }
        text = repaired.bytes;
        length = repaired.length;
    }
    enum status status = split_scratch_open(length, &encoding.split, error);
    if (status == STATUS_OK)
        status = bpe_scratch_open(&tokenizer->bpe, length, &encoding.bpe, error);
    if (status == STATUS_OK)
        status = added_encode(&encoding, &tokenizer->first, normalized_encode, text, length, error);
    bpe_scratch_close(encoding.bpe);
    split_scratch_close(encoding.split);
    text_free(&encoding.normalized);
    text_free(&encoding.shown);
    text_free(&repaired);
    return status;
}

/* ---- decoding ---- */

enum status tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, bool special,
                             struct text *text, struct error *error) {
    const struct vocabulary *vocabulary = &tokenizer->vocabulary;
    for (size_t i = 0; i < count; i++) {
        const struct token *token =
            ids[i] >= 0 && (uint32_t)ids[i] < vocabulary->size ? &vocabulary->tokens[ids[i]] : NULL;
        if (!token || !token->bytes)
            return error_set(error, STATUS_BAD_INPUT, "the tokenizer has no token %d (number %zu of the ids)", ids[i],
                             i);
        if (special || !token->special)
            text_append(text, token->bytes, token->length);
    }
    return text->failed ? error_set_memory(error) : STATUS_OK;
}
