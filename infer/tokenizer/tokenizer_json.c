#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/utf8.h"
#include "infer/tokenizer/json_walk.h"
#include "infer/tokenizer/nfc.h"
#include "infer/tokenizer/steps_json.h"
#include "infer/tokenizer/tokenizer_parts.h"

/* One reading of a tokenizer.json. */
struct reading {
    struct tokenizer *tokenizer;
    const char *json;
    struct error *error;
    struct text scratch;
};

static int shown_length(size_t length) { return length < 100 ? (int)length : 100; }

/* ---- the vocabulary ---- */

struct entry {
    const char *name;
    size_t length;
    uint64_t id;
};

struct entries {
    struct entry *items;
    size_t count, capacity;
};

static bool entries_add(struct entries *entries, struct entry entry) {
    if (!array_reserve(entries->items, entries->count + 1, &entries->capacity))
        return false;
    entries->items[entries->count++] = entry;
    return true;
}

/*
 * What a token decodes to: the bytes that its characters stand for; the text itself when one of them is not of the
 * byte-level alphabet.
 */
static enum status token_set(struct reading *reading, uint32_t id, const char *name, size_t length, bool special) {
    struct text *bytes = &reading->scratch;
    bool same = true;
    bytes->length = 0;
    for (size_t at = 0, step; at < length; at += step) {
        int byte = byte_level_byte(utf8_decode(name + at, length - at, &step, NULL));
        if (byte < 0) {
            same = true;
            break;
        }
        same = same && step == 1;
        char c = (char)byte;
        text_append(bytes, &c, 1);
    }
    const char *kept = name;
    if (!same) {
        kept = bytes->failed ? NULL : arena_copy(&reading->tokenizer->vocabulary.arena, bytes->bytes, bytes->length);
        length = bytes->length;
    }
    if (!kept)
        return error_set_memory(reading->error);
    reading->tokenizer->vocabulary.tokens[id] =
        (struct token){.bytes = kept, .length = (uint32_t)length, .special = special};
    return STATUS_OK;
}

static enum status vocabulary_scan(struct reading *reading, struct json_span span, struct entries *entries) {
    struct scanner scan = walk_into(reading->json, span);
    struct json_span key = {0};
    bool first = true, more;
    for (;;) {
        struct entry entry;
        if (!walk_member(&scan, &first, &more, &key))
            return walk_error(&scan, reading->error);
        if (!more)
            return STATUS_OK;
        reading->scratch.length = 0;
        if (!scan_string_decode(&scan, key, &reading->scratch) || !scan_unsigned(&scan, &entry.id))
            return walk_error(&scan, reading->error);
        entry.length = reading->scratch.length;
        entry.name = arena_copy(&reading->tokenizer->vocabulary.arena, reading->scratch.bytes, entry.length);
        if (!entry.name || !entries_add(entries, entry))
            return error_set_memory(reading->error);
    }
}

static enum status vocabulary_fill(struct reading *reading, const struct entries *entries) {
    struct vocabulary *vocabulary = &reading->tokenizer->vocabulary;
    for (size_t i = 0; i < entries->count; i++) {
        const struct entry *entry = &entries->items[i];
        if (entry->id >= TOKENS_MAX)
            return error_set(reading->error, STATUS_BAD_INPUT, "the token '%.*s' has the id %llu: ids are below %d",
                             shown_length(entry->length), entry->name, (unsigned long long)entry->id, TOKENS_MAX);
        enum status status = vocabulary_reserve(vocabulary, entry->id + 1, entries->count, reading->error);
        if (status != STATUS_OK)
            return status;
        uint32_t id = (uint32_t)entry->id;
        bool added;
        if (!name_table_add(&vocabulary->names, entry->name, entry->length, id, &added))
            return error_set_memory(reading->error);
        if (!added)
            return error_set(reading->error, STATUS_BAD_INPUT, "the token '%.*s' occurs twice",
                             shown_length(entry->length), entry->name);
        if (vocabulary->tokens[id].bytes)
            return error_set(reading->error, STATUS_BAD_INPUT, "two tokens have the id %u", id);
        status = token_set(reading, id, entry->name, entry->length, false);
        if (status != STATUS_OK)
            return status;
        if (entry->length > reading->tokenizer->bpe.name_max)
            reading->tokenizer->bpe.name_max = entry->length;
    }
    return STATUS_OK;
}

static enum status vocabulary_read(struct reading *reading, struct json_span span) {
    struct entries entries = {0};
    enum status status = vocabulary_scan(reading, span, &entries);
    if (status == STATUS_OK)
        status = vocabulary_fill(reading, &entries);
    free(entries.items);
    return status;
}

/* ---- the merges ---- */

/* "a b", or ["a", "b"]: appends both names to scratch, the length of the first to *left. False: a bad merge. */
static bool merge_scan(struct reading *reading, struct scanner *scan, size_t *left, bool *comment) {
    struct json_span span;
    struct text *names = &reading->scratch;
    bool first = true, more;
    names->length = 0;
    *comment = false;
    if (!scan_next_is(scan, '[')) {
        if (!scan_string(scan, &span) || !scan_string_decode(scan, span, names))
            return false;
        *comment = names->length >= 8 && memcmp(names->bytes, "#version", 8) == 0;
        const char *space = memchr(names->bytes, ' ', names->length);
        if (*comment)
            return true;
        if (!space || memchr(space + 1, ' ', names->length - (size_t)(space + 1 - names->bytes)))
            return scan_fail(scan, "a merge has to be two tokens with a space between them");
        *left = (size_t)(space - names->bytes);
        memmove(names->bytes + *left, space + 1, names->length - *left - 1);
        names->length--;
        return true;
    }
    for (int i = 0;; i++) {
        if (!walk_next(scan, '[', ']', &first, &more))
            return false;
        if (more != (i < 2))
            return scan_fail(scan, "a merge has to be two tokens");
        if (!more)
            return true;
        if (!scan_string(scan, &span) || !scan_string_decode(scan, span, names))
            return false;
        if (i == 0)
            *left = names->length;
    }
}

static enum status merge_add(struct reading *reading, size_t left, uint32_t rank) {
    const struct vocabulary *vocabulary = &reading->tokenizer->vocabulary;
    const struct text *names = &reading->scratch;
    const char *bytes = names->bytes;
    const struct {
        const char *name;
        size_t length;
    } parts[3] = {{bytes, left}, {bytes + left, names->length - left}, {bytes, names->length}};
    int32_t ids[3];
    for (int i = 0; i < 3; i++) {
        ids[i] = vocabulary_find(vocabulary, parts[i].name, parts[i].length);
        if (ids[i] < 0)
            return error_set(reading->error, STATUS_BAD_INPUT, "merge %u: '%.*s' is not in the vocabulary", rank,
                             shown_length(parts[i].length), parts[i].name);
    }
    return pair_table_set(&reading->tokenizer->bpe.pairs,
                          (struct pair_merge){(uint32_t)ids[0], (uint32_t)ids[1], rank, (uint32_t)ids[2]},
                          reading->error);
}

static enum status merges_read(struct reading *reading, struct json_span span) {
    struct scanner scan = walk_into(reading->json, span);
    bool first = true, more, comment;
    for (uint32_t rank = 0;;) {
        size_t left = 0;
        if (!walk_next(&scan, '[', ']', &first, &more))
            return walk_error(&scan, reading->error);
        if (!more)
            return STATUS_OK;
        if (!merge_scan(reading, &scan, &left, &comment))
            return walk_error(&scan, reading->error);
        enum status status = comment ? STATUS_OK : merge_add(reading, left, rank++);
        if (status != STATUS_OK)
            return status;
    }
}

/* ---- the model ---- */

enum model_part { TYPE, DROPOUT, UNK, PREFIX, SUFFIX, FUSE_UNK, FALLBACK, IGNORE_MERGES, VOCAB, MERGES, MODEL_PARTS };

static bool part_is(const struct reading *reading, struct json_span span, const char *text) {
    return span.end - span.begin == strlen(text) && memcmp(reading->json + span.begin, text, strlen(text)) == 0;
}

static bool part_is_missing(struct json_span span) { return span.begin == span.end; }

/* Options are of their types, and those that do what is not supported are off. */
static enum status options_check(const struct reading *reading, const struct json_span parts[MODEL_PARTS],
                                 const char *const names[MODEL_PARTS]) {
    static const char *const fine[MODEL_PARTS][2] = {
        [DROPOUT] = {"0", "0.0"},
        [PREFIX] = {"\"\""},
        [SUFFIX] = {"\"\""},
        [FUSE_UNK] = {"true", "false"},
        [FALLBACK] = {"true", "false"},
        [IGNORE_MERGES] = {"true", "false"},
    };
    for (size_t i = 0; i < MODEL_PARTS; i++) {
        bool good = part_is_missing(parts[i]) || !fine[i][0];
        for (size_t j = 0; j < 2 && !good; j++)
            good = fine[i][j] && part_is(reading, parts[i], fine[i][j]);
        if (!good)
            return error_set(reading->error, STATUS_BAD_INPUT, "the BPE option '%s': %.*s is not supported", names[i],
                             shown_length(parts[i].end - parts[i].begin), reading->json + parts[i].begin);
    }
    if (!part_is_missing(parts[UNK]) && reading->json[parts[UNK].begin] != '"')
        return error_set(reading->error, STATUS_BAD_INPUT, "its unk_token has to be a string");
    return STATUS_OK;
}

/* The tokens of single bytes. Those of UTF-8 that are missing are left out of texts, unless something is to be put. */
static enum status bytes_find(struct reading *reading, const struct json_span parts[MODEL_PARTS]) {
    struct bpe *bpe = &reading->tokenizer->bpe;
    bool missing = false;
    for (unsigned byte = 0; byte < 256; byte++) {
        char name[4];
        size_t length = utf8_encode(byte_level_character((uint8_t)byte), name);
        bpe->bytes[byte] = vocabulary_find(&reading->tokenizer->vocabulary, name, length);
        bool used = byte < 0xf5 && byte != 0xc0 && byte != 0xc1;
        missing = missing || (used && bpe->bytes[byte] < 0);
    }
    if (missing && (!part_is_missing(parts[UNK]) || part_is(reading, parts[FALLBACK], "true")))
        return error_set(reading->error, STATUS_BAD_INPUT, "the vocabulary lacks a byte, and %s is not supported",
                         part_is_missing(parts[UNK]) ? "byte_fallback" : "unk_token");
    return STATUS_OK;
}

static enum status model_read(struct reading *reading, struct json_span span) {
    static const char *const names[MODEL_PARTS] = {
        [TYPE] = "type",
        [DROPOUT] = "dropout",
        [UNK] = "unk_token",
        [PREFIX] = "continuing_subword_prefix",
        [SUFFIX] = "end_of_word_suffix",
        [FUSE_UNK] = "fuse_unk",
        [FALLBACK] = "byte_fallback",
        [IGNORE_MERGES] = "ignore_merges",
        [VOCAB] = "vocab",
        [MERGES] = "merges",
    };
    struct json_span parts[MODEL_PARTS];
    if (part_is_missing(span))
        return error_set(reading->error, STATUS_BAD_INPUT, "it has no 'model'");
    struct scanner scan = walk_into(reading->json, span);
    if (!walk_collect(&scan, names, parts, MODEL_PARTS))
        return walk_error(&scan, reading->error);
    if (!part_is_missing(parts[TYPE]) && !part_is(reading, parts[TYPE], "\"BPE\""))
        return error_set(reading->error, STATUS_BAD_INPUT, "the model type %.*s is not supported, only BPE",
                         shown_length(parts[TYPE].end - parts[TYPE].begin), reading->json + parts[TYPE].begin);
    if (part_is_missing(parts[VOCAB]) || part_is_missing(parts[MERGES]))
        return error_set(reading->error, STATUS_BAD_INPUT, "its model has no '%s'",
                         part_is_missing(parts[VOCAB]) ? names[VOCAB] : names[MERGES]);
    struct bpe *bpe = &reading->tokenizer->bpe;
    bpe->byte_level = true;
    bpe->whole_words = part_is(reading, parts[IGNORE_MERGES], "true");
    enum status status = options_check(reading, parts, names);
    if (status == STATUS_OK)
        status = vocabulary_read(reading, parts[VOCAB]);
    if (status == STATUS_OK)
        status = bytes_find(reading, parts);
    return status == STATUS_OK ? merges_read(reading, parts[MERGES]) : status;
}

/* ---- added tokens ---- */

/* Those read so far, each text once. */
struct added_list {
    struct added_token *tokens;
    size_t count, capacity;
    struct name_table places;
    uint32_t next_id; /* of the next one that is not in the vocabulary */
};

static bool flag(const json_t *token, const char *name, bool *good) {
    const json_t *value = json_object_get(token, name);
    *good = *good && json_is_boolean(value);
    return json_is_true(value);
}

/* The token's id is what the tokenizers library makes it: the vocabulary's, else the next that is free. */
static enum status added_id(struct reading *reading, struct added_list *list, struct added_token *token,
                            json_int_t given) {
    token->id = vocabulary_find(&reading->tokenizer->vocabulary, token->text, token->length);
    if (token->id < 0) {
        token->id = (int32_t)list->next_id++;
        enum status status =
            vocabulary_reserve(&reading->tokenizer->vocabulary, list->next_id, list->next_id, reading->error);
        if (status != STATUS_OK)
            return status;
        if (reading->tokenizer->vocabulary.tokens[token->id].bytes)
            return error_set(reading->error, STATUS_BAD_INPUT, "two tokens have the id %d", token->id);
    }
    if (given != token->id)
        return error_set(reading->error, STATUS_BAD_INPUT,
                         "the added token '%.*s' has the id %lld where the tokenizers library would give it %d",
                         shown_length(token->length), token->text, (long long)given, token->id);
    return STATUS_OK;
}

static enum status added_put(struct reading *reading, struct added_list *list, struct added_token token,
                             json_int_t given) {
    if (token.length > ADDED_TOKEN_MAX)
        return error_set(reading->error, STATUS_BAD_INPUT, "the added token '%.*s...' is too long",
                         shown_length(token.length), token.text);
    token.text = arena_copy(&reading->tokenizer->vocabulary.arena, token.text, token.length);
    if (!token.text)
        return error_set_memory(reading->error);
    uint32_t place = name_table_find(&list->places, token.text, token.length);
    if (place < list->count) { /* the same text again: what it says last counts */
        token.id = list->tokens[place].id;
        token.special = token.special || list->tokens[place].special;
        list->tokens[place] = token;
        return STATUS_OK;
    }
    enum status status = added_id(reading, list, &token, given);
    if (status != STATUS_OK)
        return status;
    if (!array_reserve(list->tokens, list->count + 1, &list->capacity))
        return error_set_memory(reading->error);
    if (!name_table_add(&list->places, token.text, token.length, (uint32_t)list->count, NULL))
        return error_set_memory(reading->error);
    list->tokens[list->count++] = token;
    return STATUS_OK;
}

static enum status added_read(struct reading *reading, struct added_list *list, struct json_span span) {
    json_error_t problem;
    json_t *json = json_loadb(reading->json + span.begin, span.end - span.begin, 0, &problem);
    const json_t *content = json_object_get(json, "content"), *id = json_object_get(json, "id");
    bool good = json_is_string(content) && json_is_integer(id);
    struct added_token token = {
        .text = json_string_value(content),
        .length = json_string_length(content),
        .single_word = flag(json, "single_word", &good),
        .strip_left = flag(json, "lstrip", &good),
        .strip_right = flag(json, "rstrip", &good),
        .normalized = flag(json, "normalized", &good),
        .special = flag(json, "special", &good),
    };
    enum status status = STATUS_OK;
    if (!good)
        status =
            error_set(reading->error, STATUS_BAD_INPUT, "an added token lacks its 'id', its 'content' or a flag: %.*s",
                      shown_length(span.end - span.begin), reading->json + span.begin);
    else if (token.length > 0) /* an empty one is passed over, as by the library */
        status = added_put(reading, list, token, json_integer_value(id));
    json_decref(json);
    return status;
}

/* Where the text is normalized, those that are looked for there are, too. */
static enum status added_normalize(struct reading *reading, struct added_token *token) {
    bool changed;
    reading->scratch.length = 0;
    enum status status = nfc_normalize(token->text, token->length, &reading->scratch, &changed, reading->error);
    if (status != STATUS_OK || !changed)
        return status;
    token->length = reading->scratch.length;
    token->text = arena_copy(&reading->tokenizer->vocabulary.arena, reading->scratch.bytes, token->length);
    return token->text ? STATUS_OK : error_set_memory(reading->error);
}

/* Makes the two sets that are searched for out of the list. */
static enum status added_share(struct reading *reading, const struct added_list *list) {
    struct tokenizer *tokenizer = reading->tokenizer;
    struct added_token *sets[2] = {calloc(list->count + 1, sizeof **sets), calloc(list->count + 1, sizeof **sets)};
    size_t counts[2] = {0};
    enum status status = sets[0] && sets[1] ? STATUS_OK : error_set_memory(reading->error);
    for (size_t i = 0; i < list->count && status == STATUS_OK; i++) {
        struct added_token token = list->tokens[i];
        if (!name_table_add(&tokenizer->vocabulary.added, token.text, token.length, (uint32_t)token.id, NULL))
            status = error_set_memory(reading->error);
        if (status == STATUS_OK && token.normalized && tokenizer->nfc)
            status = added_normalize(reading, &token);
        if (status == STATUS_OK)
            status = token_set(reading, (uint32_t)token.id, token.text, token.length, token.special);
        sets[token.normalized][counts[token.normalized]++] = token;
    }
    if (status != STATUS_OK) {
        free(sets[0]);
        free(sets[1]);
        return status;
    }
    status = added_tokens_make(&tokenizer->first, sets[0], counts[0], reading->error);
    enum status second =
        added_tokens_make(&tokenizer->normalized, sets[1], counts[1], status == STATUS_OK ? reading->error : NULL);
    return status != STATUS_OK ? status : second;
}

static enum status added_tokens_read(struct reading *reading, struct json_span span) {
    struct added_list list = {.next_id = (uint32_t)reading->tokenizer->vocabulary.names.count};
    struct scanner scan = walk_into(reading->json, span);
    bool first = true, more = !part_is_missing(span);
    enum status status = STATUS_OK;
    while (more && status == STATUS_OK) {
        struct json_span item;
        if (!walk_next(&scan, '[', ']', &first, &more) || (more && !scan_value(&scan, &item)))
            status = walk_error(&scan, reading->error);
        else if (more)
            status = added_read(reading, &list, item);
    }
    if (status == STATUS_OK)
        status = added_share(reading, &list);
    free(list.tokens);
    name_table_free(&list.places);
    return status;
}

/* ---- the file ---- */

enum file_part { VERSION, ADDED_TOKENS, NORMALIZER, PRE_TOKENIZER, POST_PROCESSOR, DECODER, MODEL, FILE_PARTS };

enum status tokenizer_json_read(struct tokenizer *tokenizer, const char *json, size_t length, struct error *error) {
    static const char *const names[FILE_PARTS] = {
        [VERSION] = "version",
        [ADDED_TOKENS] = "added_tokens",
        [NORMALIZER] = "normalizer",
        [PRE_TOKENIZER] = "pre_tokenizer",
        [POST_PROCESSOR] = "post_processor",
        [DECODER] = "decoder",
        [MODEL] = "model",
    };
    struct reading reading = {.tokenizer = tokenizer, .json = json, .error = error};
    struct scanner scan = {.json = json, .length = length};
    struct json_span parts[FILE_PARTS];
    if (!walk_collect(&scan, names, parts, FILE_PARTS))
        return walk_error(&scan, error);
    scan_space(&scan);
    if (scan.at != length) {
        scan_fail(&scan, "something follows the object");
        return walk_error(&scan, error);
    }
    tokenizer->bpe.vocabulary = &tokenizer->vocabulary;
    if (!part_is_missing(parts[VERSION]) && !part_is(&reading, parts[VERSION], "\"1.0\""))
        return error_set(error, STATUS_BAD_INPUT, "its version is not 1.0");
    enum status status = normalizer_json_read(json, parts[NORMALIZER], &tokenizer->nfc, error);
    if (status == STATUS_OK)
        status = pre_tokenizer_json_read(json, parts[PRE_TOKENIZER], &tokenizer->pre, error);
    if (status == STATUS_OK)
        status = decoder_json_check(json, parts[DECODER], error);
    if (status == STATUS_OK)
        status = model_read(&reading, parts[MODEL]);
    if (status == STATUS_OK)
        status = added_tokens_read(&reading, parts[ADDED_TOKENS]);
    const struct json_span post = parts[POST_PROCESSOR];
    if (status == STATUS_OK && !part_is_missing(post) &&
        !(tokenizer->post_processor = strndup(json + post.begin, post.end - post.begin)))
        status = error_set_memory(error);
    text_free(&reading.scratch);
    return status;
}
