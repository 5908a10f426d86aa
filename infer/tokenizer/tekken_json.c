#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/tokenizer/json_walk.h"
#include "infer/tokenizer/tokenizer_parts.h"

enum {
    BYTES = 256,            /* the first tokens are the single bytes */
    TEKKEN_TOKEN_MAX = 256, /* bytes; Mistral's longest has 78 */
    SPECIAL_MAX = 1 << 20,
    CONFIG_MAX = 1 << 20 /* bytes of the config and of the special tokens, each */
};

struct tekken {
    struct tokenizer *tokenizer;
    const char *json;
    struct error *error;
    uint32_t special; /* ids below are special tokens */
    uint32_t ranks;   /* how many of the tokens of the file are used */
};

static enum status part_load(const struct tekken *tekken, struct json_span span, const char *name, json_t **part) {
    json_error_t problem;
    *part = NULL;
    if (span.begin == span.end || span.end - span.begin > CONFIG_MAX)
        return error_set(tekken->error, STATUS_BAD_INPUT, "its '%s' is %s", name,
                         span.begin == span.end ? "missing" : "too long");
    *part = json_loadb(tekken->json + span.begin, span.end - span.begin, 0, &problem);
    return *part ? STATUS_OK
                 : error_set(tekken->error, STATUS_BAD_INPUT, "its '%s' cannot be read: %s", name, problem.text);
}

/* ---- the config ---- */

static enum status config_take(struct tekken *tekken, const json_t *config) {
    const json_t *vocab_size = json_object_get(config, "default_vocab_size");
    const json_t *special = json_object_get(config, "default_num_special_tokens");
    const char *pattern = json_string_value(json_object_get(config, "pattern"));
    json_int_t all = json_integer_value(vocab_size), of_them = json_integer_value(special);
    if (!json_is_integer(vocab_size) || !json_is_integer(special) || of_them < 0 || of_them > SPECIAL_MAX ||
        all > TOKENS_MAX || all - of_them < BYTES)
        return error_set(tekken->error, STATUS_BAD_INPUT,
                         "default_vocab_size or default_num_special_tokens of its config is missing or no size");
    if (!pattern)
        return error_set(tekken->error, STATUS_BAD_INPUT, "its config has no pattern");
    tekken->special = (uint32_t)of_them;
    tekken->ranks = (uint32_t)(all - of_them);
    struct split_pattern *compiled;
    enum status status = split_pattern_open(pattern, PATTERN_RUST, &compiled, tekken->error);
    /* Words are what matches; tiktoken drops what is between them. */
    return status == STATUS_OK ? pre_tokenizer_add(&tekken->tokenizer->pre,
                                                   (struct pre_step){compiled, SPLIT_REMOVED, true}, tekken->error)
                               : status;
}

/* *old is set for the versions whose special tokens need not be in the file. */
static enum status config_read(struct tekken *tekken, struct json_span span, bool *old) {
    static const char *const old_versions[] = {"v1", "v2", "v3", "v7"};
    json_t *config;
    enum status status = part_load(tekken, span, "config", &config);
    const char *version = json_string_value(json_object_get(config, "version"));
    *old = false;
    for (size_t i = 0; i < sizeof old_versions / sizeof *old_versions && version; i++)
        *old = *old || strcmp(version, old_versions[i]) == 0;
    if (status == STATUS_OK)
        status = config_take(tekken, config);
    json_decref(config);
    return status;
}

/* ---- special tokens ---- */

static enum status special_add(struct tekken *tekken, uint32_t id, const char *text) {
    struct vocabulary *vocabulary = &tekken->tokenizer->vocabulary;
    size_t length = strlen(text);
    const char *kept = arena_copy(&vocabulary->arena, text, length);
    bool added;
    if (!kept || !name_table_add(&vocabulary->added, kept, length, id, &added))
        return error_set_memory(tekken->error);
    if (!added)
        return error_set(tekken->error, STATUS_BAD_INPUT, "the special token '%.100s' occurs twice", text);
    vocabulary->tokens[id] = (struct token){.bytes = kept, .length = (uint32_t)length, .special = true};
    return STATUS_OK;
}

static enum status special_list(struct tekken *tekken, const json_t *list, uint32_t *count) {
    size_t i;
    const json_t *item;
    if (!json_is_array(list) || json_array_size(list) > tekken->special)
        return error_set(tekken->error, STATUS_BAD_INPUT,
                         "its special_tokens are no list, or more than its config says");
    json_array_foreach(list, i, item) {
        const char *text = json_string_value(json_object_get(item, "token_str"));
        const json_t *rank = json_object_get(item, "rank");
        if (!text || !json_is_integer(rank) || json_integer_value(rank) != (json_int_t)i)
            return error_set(tekken->error, STATUS_BAD_INPUT, "special token %zu has no text or another rank", i);
        enum status status = special_add(tekken, (uint32_t)i, text);
        if (status != STATUS_OK)
            return status;
    }
    *count = (uint32_t)json_array_size(list);
    return STATUS_OK;
}

/* Those of the file, or of mistral-common where the file has none, then fillers. */
static enum status special_read(struct tekken *tekken, struct json_span span, bool old) {
    static const char *const usual[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "[INST]",
                                        "[/INST]",
                                        "[AVAILABLE_TOOLS]",
                                        "[/AVAILABLE_TOOLS]",
                                        "[TOOL_RESULTS]",
                                        "[/TOOL_RESULTS]",
                                        "[TOOL_CALLS]",
                                        "[IMG]",
                                        "<pad>",
                                        "[IMG_BREAK]",
                                        "[IMG_END]",
                                        "[PREFIX]",
                                        "[MIDDLE]",
                                        "[SUFFIX]",
                                        "[SYSTEM_PROMPT]",
                                        "[/SYSTEM_PROMPT]",
                                        "[TOOL_CONTENT]"};
    enum { USUAL = sizeof usual / sizeof *usual };
    uint32_t count = 0;
    enum status status = STATUS_OK;
    if (span.begin < span.end) {
        json_t *list;
        status = part_load(tekken, span, "special_tokens", &list);
        if (status == STATUS_OK)
            status = special_list(tekken, list, &count);
        json_decref(list);
    } else if (!old || tekken->special < USUAL) {
        status = error_set(tekken->error, STATUS_BAD_INPUT, "its special_tokens are missing");
    } else {
        for (; count < USUAL && status == STATUS_OK; count++)
            status = special_add(tekken, count, usual[count]);
    }
    for (; count < tekken->special && status == STATUS_OK; count++) {
        char filler[32];
        snprintf(filler, sizeof filler, "<SPECIAL_%u>", count);
        status = special_add(tekken, count, filler);
    }
    return status;
}

/* ---- tokens ---- */

/* Appends what base64 with padding stands for. */
static bool base64_decode(const char *text, size_t length, struct text *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (length % 4 != 0)
        return false;
    for (size_t at = 0; at < length; at += 4) {
        uint32_t group = 0;
        size_t padding =
            at + 4 < length ? 0 : (size_t)(text[at + 3] == '=') + (text[at + 2] == '=' && text[at + 3] == '=');
        for (size_t i = 0; i < 4; i++) {
            const char *digit = i < 4 - padding && text[at + i] ? strchr(digits, text[at + i]) : digits;
            if (!digit)
                return false;
            group = group << 6 | (uint32_t)(digit - digits);
        }
        char bytes[3] = {(char)(group >> 16), (char)(group >> 8), (char)group};
        text_append(out, bytes, 3 - padding);
    }
    return true;
}

static enum status token_add(struct tekken *tekken, uint32_t rank, struct scanner *scan, const struct json_span *parts,
                             struct text *encoded, struct text *bytes) {
    struct vocabulary *vocabulary = &tekken->tokenizer->vocabulary;
    struct scanner number = walk_into(tekken->json, parts[0]);
    uint64_t given = UINT64_MAX;
    encoded->length = bytes->length = 0;
    if (parts[0].begin == parts[0].end || !scan_unsigned(&number, &given) || given != rank)
        return error_set(tekken->error, STATUS_BAD_INPUT, "token %u has another rank, or none", rank);
    if (parts[1].end - parts[1].begin < 2 || tekken->json[parts[1].begin] != '"' ||
        !scan_string_decode(scan, parts[1], encoded) || !base64_decode(encoded->bytes, encoded->length, bytes) ||
        bytes->length == 0 || bytes->length > TEKKEN_TOKEN_MAX)
        return error_set(tekken->error, STATUS_BAD_INPUT, "the token_bytes of token %u are not base64 of 1 to %d bytes",
                         rank, TEKKEN_TOKEN_MAX);
    if (bytes->failed)
        return error_set_memory(tekken->error);
    if (rank < BYTES && (bytes->length != 1 || (unsigned char)bytes->bytes[0] != rank))
        return error_set(tekken->error, STATUS_BAD_INPUT, "token %u is not the byte %u", rank, rank);
    uint32_t id = tekken->special + rank;
    const char *kept = arena_copy(&vocabulary->arena, bytes->bytes, bytes->length);
    bool added;
    if (!kept || !name_table_add(&vocabulary->names, kept, bytes->length, id, &added))
        return error_set_memory(tekken->error);
    if (!added)
        return error_set(tekken->error, STATUS_BAD_INPUT, "token %u occurs twice", rank);
    vocabulary->tokens[id] = (struct token){.bytes = kept, .length = (uint32_t)bytes->length};
    if (bytes->length > tekken->tokenizer->bpe.name_max)
        tekken->tokenizer->bpe.name_max = bytes->length;
    if (rank < BYTES)
        tekken->tokenizer->bpe.bytes[rank] = (int32_t)id;
    return STATUS_OK;
}

static enum status tokens_read(struct tekken *tekken, struct json_span span) {
    static const char *const names[] = {"rank", "token_bytes"};
    struct scanner scan = walk_into(tekken->json, span);
    struct text encoded = {0}, bytes = {0};
    bool first = true, more = true;
    enum status status = STATUS_OK;
    for (uint32_t rank = 0; rank < tekken->ranks && status == STATUS_OK; rank++) {
        struct json_span parts[2];
        if (!walk_next(&scan, '[', ']', &first, &more) || (more && !walk_collect(&scan, names, parts, 2)))
            status = walk_error(&scan, tekken->error);
        else if (!more)
            status = error_set(tekken->error, STATUS_BAD_INPUT, "its config speaks of %u tokens, its vocab has %u",
                               tekken->ranks, rank);
        else
            status = token_add(tekken, rank, &scan, parts, &encoded, &bytes);
    }
    text_free(&encoded);
    text_free(&bytes);
    return status;
}

/*
 * Merging goes by the rank of what two neighbours make (as in tiktoken): each cut of a token into two others is a pair.
 */
static enum status pairs_make(struct tekken *tekken) {
    const struct vocabulary *vocabulary = &tekken->tokenizer->vocabulary;
    struct pair_table *pairs = &tekken->tokenizer->bpe.pairs;
    enum status status = pair_table_reserve(pairs, (size_t)tekken->ranks * 2, tekken->error);
    for (uint32_t rank = BYTES; rank < tekken->ranks && status == STATUS_OK; rank++) {
        const struct token *token = &vocabulary->tokens[tekken->special + rank];
        for (uint32_t cut = 1; cut < token->length && status == STATUS_OK; cut++) {
            int32_t left = vocabulary_find(vocabulary, token->bytes, cut);
            int32_t right = left < 0 ? -1 : vocabulary_find(vocabulary, token->bytes + cut, token->length - cut);
            if (right >= 0)
                status = pair_table_set(
                    pairs, (struct pair_merge){(uint32_t)left, (uint32_t)right, rank, tekken->special + rank},
                    tekken->error);
        }
    }
    return status;
}

enum status tekken_json_read(struct tokenizer *tokenizer, const char *json, size_t length, struct error *error) {
    static const char *const names[] = {"config", "special_tokens", "vocab"};
    struct tekken tekken = {.tokenizer = tokenizer, .json = json, .error = error};
    struct scanner scan = {.json = json, .python = true, .length = length};
    struct json_span parts[3];
    bool old;
    if (!walk_collect(&scan, names, parts, 3))
        return walk_error(&scan, error);
    scan_space(&scan);
    if (scan.at != length) {
        scan_fail(&scan, "something follows the object");
        return walk_error(&scan, error);
    }
    if (parts[2].begin == parts[2].end)
        return error_set(error, STATUS_BAD_INPUT, "its vocab is missing");
    tokenizer->bpe.vocabulary = &tokenizer->vocabulary;
    tokenizer->bpe.whole_words = true;
    enum status status = config_read(&tekken, parts[0], &old);
    uint64_t size = (uint64_t)tekken.special + tekken.ranks;
    if (status == STATUS_OK) /* a token of the vocab takes 30 bytes or more */
        status = vocabulary_reserve(&tokenizer->vocabulary, size, length / 16, error);
    if (status == STATUS_OK)
        status = special_read(&tekken, parts[1], old);
    if (status == STATUS_OK)
        status = tokens_read(&tekken, parts[2]);
    return status == STATUS_OK ? pairs_make(&tekken) : status;
}
