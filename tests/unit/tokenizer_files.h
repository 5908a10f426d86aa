/*
 * What the tests of tokenizers share: small tokenizer.json and tekken.json files, and the ids that texts have. In both
 * kinds the first 256 tokens are the bytes: in tokenizer.json byte b is the token b, so that a text that nothing merges
 * has its own bytes as ids.
 */
#ifndef QSTREAM_TESTS_UNIT_TOKENIZER_FILES_H
#define QSTREAM_TESTS_UNIT_TOKENIZER_FILES_H

#include "infer/tokenizer/tokenizer.h"
#include "tests/unit/fixtures.h"

/* JSON; where a part is NULL it is as the comment says. */
struct tokenizer_parts_json {
    const char *vocab;         /* members behind the 256 bytes: "\"ab\": 256" */
    const char *merges;        /* elements: "\"a b\"" */
    const char *model;         /* members before vocab and merges: "\"ignore_merges\": true," */
    const char *added;         /* elements */
    const char *normalizer;    /* null */
    const char *pre_tokenizer; /* ByteLevel without a pattern: a text is one word */
    const char *decoder;       /* ByteLevel */
};

struct tokenizer_test {
    struct fixture *fixture;
    struct tokenizer *tokenizer;
    struct token_ids ids;
    struct text text;
    struct error error;
};

#define TOKENIZER_TEST(name) cmocka_unit_test_setup_teardown(name, tokenizer_setup, tokenizer_teardown)

#define SPLIT(kind, pattern, behavior, invert)                                                                         \
    "{\"type\": \"Split\", \"pattern\": {\"" kind "\": \"" pattern "\"}, \"behavior\": \"" behavior "\", \"invert\": " \
    "" invert "}"
#define SEQUENCE(steps) "{\"type\": \"Sequence\", \"pretokenizers\": [" steps "]}"
#define BYTE_LEVEL                                                                                                     \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}"
#define GPT2 "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true}"

/* A token with `flags` set, the last of a name counts: ADDED("<s>", 256, NORMALIZED). */
#define ADDED(text, id, flags)                                                                                         \
    "{\"id\": " #id ", \"content\": \"" text "\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "      \
    "\"normalized\": false, \"special\": false" flags "}"
#define NORMALIZED ", \"normalized\": true"

static inline int tokenizer_setup(void **state) {
    struct tokenizer_test *test = calloc(1, sizeof *test);
    void *fixture;
    if (!test || fixture_setup(&fixture) != 0)
        return -1;
    test->fixture = fixture;
    *state = test;
    return 0;
}

static inline void tokenizer_forget(struct tokenizer_test *test) {
    tokenizer_close(test->tokenizer);
    test->tokenizer = NULL;
    token_ids_free(&test->ids);
    text_free(&test->text);
}

static inline int tokenizer_teardown(void **state) {
    struct tokenizer_test *test = *state;
    void *fixture = test->fixture;
    tokenizer_forget(test);
    fixture_teardown(&fixture);
    free(test);
    return 0;
}

/* GPT-2's character for a byte. */
static inline unsigned byte_character(unsigned byte) {
    unsigned next = 0x100;
    for (unsigned other = 0;; other++) {
        bool printable = (other >= 0x21 && other <= 0x7e) || (other >= 0xa1 && other <= 0xff && other != 0xad);
        if (other == byte)
            return printable ? byte : next;
        next += !printable;
    }
}

static inline void tokenizer_json_write(struct tokenizer_test *test, struct tokenizer_parts_json parts) {
    struct text json = {0};
    text_printf(&json, "{\"version\": \"1.0\", \"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s,",
                parts.added ? parts.added : "", parts.normalizer ? parts.normalizer : "null",
                parts.pre_tokenizer ? parts.pre_tokenizer : BYTE_LEVEL);
    text_printf(&json, "\"decoder\": %s, \"model\": {\"type\": \"BPE\", %s \"vocab\": {",
                parts.decoder ? parts.decoder : "{\"type\": \"ByteLevel\"}", parts.model ? parts.model : "");
    for (unsigned byte = 0; byte < 256; byte++)
        text_printf(&json, "%s\"\\u%04x\": %u", byte ? ", " : "", byte_character(byte), byte);
    text_printf(&json, "%s%s}, \"merges\": [%s]}}", parts.vocab ? ", " : "", parts.vocab ? parts.vocab : "",
                parts.merges ? parts.merges : "");
    assert_false(json.failed);
    fixture_file(test->fixture, "tokenizer.json", json.bytes);
    text_free(&json);
}

/*
 * A tekken.json with `special` special tokens, the 256 bytes and `tokens` more, as JSON objects with rank and
 * token_bytes; `members` come before config ("\"special_tokens\": [...],").
 */
static inline void tekken_json_write(struct tokenizer_test *test, const char *pattern, const char *members,
                                     unsigned special, unsigned tokens, const char *objects) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct text json = {0};
    text_printf(&json, "{%s \"config\": {\"pattern\": \"%s\", \"num_vocab_tokens\": 1000, \"default_vocab_size\": %u,",
                members, pattern, special + 256 + tokens);
    text_printf(&json, "\"default_num_special_tokens\": %u, \"version\": \"v3\"}, \"vocab\": [", special);
    for (unsigned byte = 0; byte < 256; byte++)
        text_printf(&json, "%s{\"rank\": %u, \"token_bytes\": \"%c%c==\", \"token_str\": null}", byte ? ", " : "", byte,
                    digits[byte >> 2], digits[(byte & 3) << 4]);
    text_printf(&json, "%s%s]}", *objects ? ", " : "", objects);
    assert_false(json.failed);
    fixture_file(test->fixture, "tekken.json", json.bytes);
    text_free(&json);
}

static inline enum status tokenizer_of_files(struct tokenizer_test *test) {
    struct folder *folder;
    assert_ok(folder_open(test->fixture->path, &folder, &test->error), test->error);
    enum status status = tokenizer_open(folder, &test->tokenizer, &test->error);
    folder_close(folder);
    return status;
}

static inline void tokenizer_given_files(struct tokenizer_test *test) {
    tokenizer_forget(test);
    assert_ok(tokenizer_of_files(test), test->error);
}

static inline void tokenizer_given(struct tokenizer_test *test, struct tokenizer_parts_json parts) {
    tokenizer_json_write(test, parts);
    tokenizer_given_files(test);
}

/* ---- ids and texts ---- */

static inline void bytes_encode_as(struct tokenizer_test *test, const char *text, size_t length, const int32_t *ids,
                                   size_t count) {
    test->ids.count = 0;
    assert_ok(tokenizer_encode(test->tokenizer, text, length, &test->ids, &test->error), test->error);
    for (size_t i = 0; i < test->ids.count && i < count; i++)
        if (test->ids.ids[i] != ids[i])
            fail_msg("'%s': id %zu is %d, not %d", text, i, (int)test->ids.ids[i], (int)ids[i]);
    if (test->ids.count != count)
        fail_msg("'%s' has %zu ids, not %zu", text, test->ids.count, count);
}

/* The ids of a text, given behind it. */
#define assert_encodes(test, text, ...)                                                                                \
    do {                                                                                                               \
        const int32_t expected_[] = {__VA_ARGS__};                                                                     \
        bytes_encode_as((test), (text), strlen(text), expected_, sizeof expected_ / sizeof *expected_);                \
    } while (0)

/* The text has the ids of another one's bytes: nothing in it was merged. */
static inline void assert_encodes_as_bytes(struct tokenizer_test *test, const char *text, const char *bytes) {
    int32_t ids[1024];
    size_t count = strlen(bytes);
    assert_in_range(count, 0, 1024);
    for (size_t i = 0; i < count; i++)
        ids[i] = (unsigned char)bytes[i];
    bytes_encode_as(test, text, strlen(text), ids, count);
}

#define assert_decodes(test, is_special, expected, ...)                                                                \
    do {                                                                                                               \
        const int32_t ids_[] = {__VA_ARGS__};                                                                          \
        (test)->text.length = 0;                                                                                       \
        assert_ok(tokenizer_decode((test)->tokenizer, ids_, sizeof ids_ / sizeof *ids_, (is_special), &(test)->text,   \
                                   &(test)->error),                                                                    \
                  (test)->error);                                                                                      \
        assert_int_equal((test)->text.length, strlen(expected));                                                       \
        assert_memory_equal((test)->text.bytes, (expected), strlen(expected));                                         \
    } while (0)

#endif
