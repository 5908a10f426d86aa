/*
 * ppl: reading a text, joining rows as the data set's loader does, lists of tokens, their hash, the first token.
 */
#include "infer/report/ppl_text.h"
#include "tests/unit/fixtures.h"

static struct text text_of(const char *bytes) {
    struct text text = {0};
    text_append(&text, bytes, strlen(bytes));
    return text;
}

static void assert_joined(const char *raw, const char *wanted) {
    struct text text = text_of(raw), out = {0};
    text_append_string(&out, "");
    ppl_text_join_rows(&text, &out);
    assert_string_equal(out.bytes ? out.bytes : "", wanted);
    text_free(&text);
    text_free(&out);
}

/* Expected: Python, "\n\n".join(line if line.strip() else "" for line in open(file)). */
static void given_lines_then_rows_keep_their_newline_blank_ones_nothing_and_two_newlines_are_between(void **state) {
    (void)state;
    assert_joined(" \n = Title = \n \n Body .\n \n", "\n\n = Title = \n\n\n\n\n Body .\n\n\n");
    assert_joined("a", "a");
    assert_joined("a\n", "a\n");
    assert_joined("a\nb", "a\n\n\nb");
    assert_joined("a\n\nb\n", "a\n\n\n\n\nb\n");
    assert_joined("\n", "");
    assert_joined("\n\n", "\n\n");
    assert_joined("a\n \t\x0b\f\x1f", "a\n\n\n");
    assert_joined("a\n\xc2\xa0\xe3\x80\x80\xc2\x85\nb", "a\n\n\n\n\nb");
    assert_joined("\xc2\xa0x\n\xe2\x80\x8b\n", "\xc2\xa0x\n\n\n\xe2\x80\x8b\n"); /* U+200B is no space */
    assert_joined("a\r\nb\rc", "a\n\n\nb\n\n\nc");
    assert_joined("a\n\r\nb", "a\n\n\n\n\nb");
}

static void assert_tokens(const char *json, const char *wanted) {
    struct text text = text_of(json), told = {0};
    struct token_ids tokens = {0};
    struct error error;
    assert_ok(ppl_tokens_parse("ids.json", &text, &tokens, &error), error);
    text_append_string(&told, "");
    for (size_t i = 0; i < tokens.count; i++)
        text_printf(&told, "%d ", tokens.ids[i]);
    assert_string_equal(told.bytes ? told.bytes : "", wanted);
    text_free(&text);
    text_free(&told);
    token_ids_free(&tokens);
}

static void given_an_array_of_ids_then_they_are_read(void **state) {
    (void)state;
    assert_tokens("[1,2,3]", "1 2 3 ");
    assert_tokens(" [ 0 , 2147483647 ]\n", "0 2147483647 ");
    assert_tokens("[]", "");
}

static void given_anything_else_then_file_and_place_are_named(void **state) {
    struct fixture *fixture = *state;
    static const char *const wrong[] = {"",
                                        "{}",
                                        "[1,",
                                        "[1",
                                        "[1 2]",
                                        "[1,]",
                                        "[-1]",
                                        "[1.5]",
                                        "[1e3]",
                                        "[2147483648]",
                                        "[01]",
                                        "[\"1\"]",
                                        "[null]",
                                        "[[1]]",
                                        "[1] []",
                                        "[1]x",
                                        "[,]",
                                        "nul",
                                        "[99999999999999999999]"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct text text = text_of(wrong[i]);
        struct token_ids tokens = {0};
        text_append_string(&text, "");
        assert_refused(ppl_tokens_parse("ids.json", &text, &tokens, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                       "'ids.json' is no list of tokens: byte");
        text_free(&text);
        token_ids_free(&tokens);
    }
}

/* Expected: sha256sum. */
static void given_a_file_of_ids_then_they_are_read_and_its_bytes_hashed(void **state) {
    struct fixture *fixture = *state;
    struct token_ids tokens = {0};
    char path[256], hash[SHA256_HEX];
    fixture_bytes(fixture, "ids", "[97, 98]\n", 9);
    fixture_path(fixture, "ids", path);
    assert_ok(ppl_tokens_read(NULL, path, &tokens, hash, &fixture->error), fixture->error);
    assert_int_equal(tokens.count, 2);
    assert_int_equal(tokens.ids[1], 98);
    assert_string_equal(hash, "31ac600683e81ea2b443505a36297b54b310c9c0cf4125b036a9d8a1d5c48cda");
    token_ids_free(&tokens);
    fixture_bytes(fixture, "ids", "[97", 3);
    assert_refused(ppl_tokens_read(NULL, path, &tokens, NULL, &fixture->error), STATUS_BAD_INPUT, fixture->error, path);
    token_ids_free(&tokens);
}

/* Expected: hashlib.sha256(numpy.array(ids, "<i4").tobytes()). */
static void given_ids_then_the_hash_is_that_of_little_endian_words(void **state) {
    struct fixture *fixture = *state;
    char hex[SHA256_HEX];
    const int32_t few[] = {1, 256, 131071};
    assert_ok(ppl_tokens_hash(few, 3, hex, &fixture->error), fixture->error);
    assert_string_equal(hex, "0ca35d08c5ea2047c59e3af3e355c56f441946449a493ff4942ad0789c69550e");
    int32_t *many = malloc(10000 * sizeof *many);
    assert_non_null(many);
    for (int32_t i = 0; i < 10000; i++)
        many[i] = 7 * i;
    assert_ok(ppl_tokens_hash(many, 10000, hex, &fixture->error), fixture->error);
    assert_string_equal(hex, "28e0a675af0c439d8f8cce2642ad25e9553fe5b975f677a43da7cad1706a9862");
    free(many);
    assert_ok(ppl_tokens_hash(NULL, 0, hex, &fixture->error), fixture->error);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void given_a_file_then_all_of_it_is_read_up_to_the_limit(void **state) {
    struct fixture *fixture = *state;
    struct text text = {0};
    char path[256];
    fixture_bytes(fixture, "text", "a\0b\xff", 4);
    fixture_path(fixture, "text", path);
    assert_ok(ppl_text_read(path, 4, &text, &fixture->error), fixture->error);
    assert_int_equal(text.length, 4);
    assert_memory_equal(text.bytes, "a\0b\xff", 4);
    text_free(&text);
    assert_refused(ppl_text_read(path, 3, &text, &fixture->error), STATUS_BAD_INPUT, fixture->error, "more than");
    text_free(&text);
    fixture_bytes(fixture, "empty", "", 0);
    assert_ok(ppl_text_read(fixture_path(fixture, "empty", path), 3, &text, &fixture->error), fixture->error);
    assert_string_equal(text.bytes, "");
    assert_refused(ppl_text_read(fixture_path(fixture, "none", path), 3, &text, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "none");
    assert_refused(ppl_text_read(fixture->path, 3, &text, &fixture->error), STATUS_IO, fixture->error, fixture->path);
    text_free(&text);
}

static enum status bos_id(struct fixture *fixture, int32_t *id) {
    struct folder *folder;
    assert_ok(folder_open(fixture->path, &folder, &fixture->error), fixture->error);
    enum status status = ppl_bos_id(folder, NULL, id, &fixture->error);
    folder_close(folder);
    return status;
}

static void given_a_config_then_its_bos_token_is_found_wherever_it_stands(void **state) {
    struct fixture *fixture = *state;
    int32_t id = -1;
    static const struct {
        const char *config;
        int32_t id;
    } good[] = {{"{\"bos_token_id\": 1}", 1},
                {"{\"huge\": 1000000000000000019884624838656, \"bos_token_id\": 128000}", 128000},
                {"{\"text_config\": {\"bos_token_id\": 7}}", 7},
                {"{\"bos_token_id\": null, \"text_config\": {\"bos_token_id\": 0}}", 0},
                {"{\"bos_token_id\": 2, \"text_config\": {\"bos_token_id\": 3}}", 2}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        fixture_file(fixture, "config.json", good[i].config);
        assert_ok(bos_id(fixture, &id), fixture->error);
        assert_int_equal(id, good[i].id);
    }
    static const char *const wrong[] = {"{}",
                                        "{\"bos_token_id\": null}",
                                        "{\"bos_token_id\": -1}",
                                        "{\"bos_token_id\": \"<s>\"}",
                                        "{\"bos_token_id\": 1.5}",
                                        "{\"bos_token_id\": [1]}",
                                        "{\"bos_token_id\": 4294967297}",
                                        "{\"text_config\": [], \"other\": {\"bos_token_id\": 1}}"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fixture_file(fixture, "config.json", wrong[i]);
        assert_refused(bos_id(fixture, &id), STATUS_BAD_INPUT, fixture->error, "without --bos");
    }
    fixture_file(fixture, "config.json", "{");
    assert_refused(bos_id(fixture, &id), STATUS_BAD_INPUT, fixture->error, "config.json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_lines_then_rows_keep_their_newline_blank_ones_nothing_and_two_newlines_are_between),
        TEST(given_an_array_of_ids_then_they_are_read),
        TEST(given_anything_else_then_file_and_place_are_named),
        TEST(given_a_file_of_ids_then_they_are_read_and_its_bytes_hashed),
        TEST(given_ids_then_the_hash_is_that_of_little_endian_words),
        TEST(given_a_file_then_all_of_it_is_read_up_to_the_limit),
        TEST(given_a_config_then_its_bos_token_is_found_wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
