/*
 * What a server answers: log probabilities are taken from where they belong or refused with a reason, and nothing
 * that a stranger sends is believed.
 */
#include "common/utf8.h"
#include "tests/unit/fixtures.h"

#include <math.h>

#include "infer/server/answer.h"

/* The answer to a prompt whose logprobs are `logprobs`, with the usage that vLLM tells. */
static char *answer_text(const char *logprobs, int prompt, int completion) {
    char *text = text_format("{\"id\": \"cmpl-1\", \"choices\": [{\"index\": 0, \"text\": \"]}\\\"\", \"logprobs\": "
                             "{\"text_offset\": [0, 1], \"token_logprobs\": %s, \"tokens\": [\"a\", null]}}], "
                             "\"usage\": {\"prompt_tokens\": %d, \"completion_tokens\": %d}}",
                             logprobs, prompt, completion);
    assert_non_null(text);
    return text;
}

static void expect_wrong(const char *json, uint32_t tokens, uint32_t scored, const char *part) {
    float nll[16];
    struct error error = {{0}};
    if (answer_read_nll(json, strlen(json), tokens, scored, nll, &error) != ANSWER_WRONG)
        fail_msg("taken: %s", json);
    assert_contains(error.message, part);
}

static void expect_wrong_logprobs(const char *logprobs, uint32_t tokens, uint32_t scored, const char *part) {
    char *json = answer_text(logprobs, (int)tokens, 1);
    expect_wrong(json, tokens, scored, part);
    free(json);
}

static void given_an_answer_then_the_last_tokens_of_the_prompt_are_taken(void **state) {
    (void)state;
    static const struct {
        const char *logprobs;
        uint32_t tokens, scored;
        float nll[4];
    } cases[] = {
        {"[null, -1.5, -0.25, -3e0, -7]", 4, 3, {1.5F, 0.25F, 3}},
        {"[null, -1.5, -0.25, -3, -7]", 4, 1, {3}},
        {"[ null,-1.5 ,\n-0.25,\t-3 ]", 4, 2, {0.25F, 3}}, /* nothing was generated */
        {"[0.0, -1.5, -0.25, -3, -7]", 4, 3, {1.5F, 0.25F, 3}},
        {"[null, 7, NaN, -3, -7]", 4, 1, {3}}, /* context is not looked at */
        {"[null, 0, -0.0, 1e-5, -7]", 4, 3, {0, 0, -1e-5F}},
        {"[null, -9998.5, -7]", 2, 1, {9998.5F}},
        {"[null, -0.00000000000000000000000000000000000000000000000000000000000000000000000000000001]", 2, 1, {0}},
        {"[null, -2.5, null]", 2, 1, {2.5F}}, /* nor is what was generated */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *json = answer_text(cases[i].logprobs, (int)cases[i].tokens, 1);
        float nll[4] = {-1, -1, -1, -1};
        struct error error;
        if (answer_read_nll(json, strlen(json), cases[i].tokens, cases[i].scored, nll, &error) != ANSWER_TAKEN)
            fail_msg("%s: %s", json, error.message);
        for (uint32_t j = 0; j < cases[i].scored; j++)
            if (nll[j] != cases[i].nll[j] || (cases[i].nll[j] == 0 && signbit(nll[j])))
                fail_msg("%s: %u is %g", json, (unsigned)j, (double)nll[j]);
        assert_true(cases[i].scored == 4 || nll[cases[i].scored] == -1);
        free(json);
    }
}

static void given_no_usage_then_the_count_alone_has_to_do(void **state) {
    (void)state;
    static const char with_null[] = "{\"choices\": [{\"logprobs\": {\"token_logprobs\": [null, -2, -3]}}]}";
    static const char without[] =
        "{\"choices\": [{\"logprobs\": {\"token_logprobs\": [-1, -2, -3]}}], \"usage\": null}";
    float nll[2];
    struct error error;
    assert_int_equal(answer_read_nll(with_null, strlen(with_null), 3, 2, nll, &error), ANSWER_TAKEN);
    assert_true(nll[0] == 2 && nll[1] == 3);
    assert_int_equal(answer_read_nll(without, strlen(without), 2, 1, nll, &error), ANSWER_TAKEN);
    assert_true(nll[0] == 2);
    expect_wrong(without, 3, 2, "the first token's");
}

static void given_a_prompt_of_another_length_then_it_is_refused(void **state) {
    (void)state;
    char *bos = answer_text("[null, -1, -2, -3]", 4, 0), *cut = answer_text("[null, -1, -2]", 2, 1);
    expect_wrong(bos, 3, 2, "4 tokens in a prompt of 3");
    expect_wrong(cut, 3, 2, "2 tokens in a prompt of 3");
    free(bos);
    free(cut);
    expect_wrong_logprobs("[null, -1, -2, -3, -4]", 3, 2, "5 log probabilities for a prompt of 3");
    expect_wrong_logprobs("[null, -1, -2]", 4, 2, "3 log probabilities for a prompt of 4");
    expect_wrong_logprobs("[-2, -3, -4]", 3, 2, "the first token's");
    expect_wrong_logprobs("[-2]", 3, 2, "ignores \"echo\"");
    expect_wrong_logprobs("[]", 3, 2, "ignores \"echo\"");
    expect_wrong_logprobs("[]", 2, 1, "ignores \"echo\"");
}

static void given_numbers_that_are_no_log_probabilities_then_they_are_refused(void **state) {
    (void)state;
    expect_wrong_logprobs("[null, -1, null, -1]", 3, 2, "null stands for the log probability of token 2");
    expect_wrong_logprobs("[null, null, null, -1]", 3, 2, "null stands for the log probability of token 1");
    expect_wrong_logprobs("[null, -1, NaN, -1]", 3, 1, "token 2 is not a number");
    expect_wrong_logprobs("[null, -1, -Infinity, -1]", 3, 1, "token 2 for impossible");
    expect_wrong_logprobs("[null, -1, -9999.0, -1]", 3, 1, "token 2 for impossible");
    expect_wrong_logprobs("[null, -1, -1e999, -1]", 3, 1, "token 2 for impossible");
    expect_wrong_logprobs("[null, -1, Infinity, -1]", 3, 1, "above 0");
    expect_wrong_logprobs("[null, -1, 0.01, -1]", 3, 1, "above 0");
    expect_wrong_logprobs("[null, -1, 1e999, -1]", 3, 1, "above 0");
    expect_wrong_logprobs("[null, -1, \"-1\", -1]", 3, 1, "no number");
    expect_wrong_logprobs("[null, -1, [-1], -1]", 3, 1, "no number");
    expect_wrong_logprobs("[null, -1, true, -1]", 3, 1, "no number");
}

static void given_json_of_another_form_then_it_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{}",
        "{\"choices\": null}",
        "{\"choices\": {}}",
        "{\"choices\": []}",
        "{\"choices\": [[]]}",
        "{\"choices\": [null]}",
        "{\"choices\": [{}]}",
        "{\"choices\": [{\"logprobs\": null}]}",
        "{\"choices\": [{\"logprobs\": []}]}",
        "{\"choices\": [{\"logprobs\": {}}]}",
        "{\"choices\": [{\"logprobs\": {\"content\": []}}]}",
        "{\"choices\": [{\"logprobs\": {\"token_logprobs\": null}}]}",
        "{\"choices\": [{\"logprobs\": {\"token_logprobs\": {}}}]}",
        "{\"choices\": [{\"logprobs\": {\"token_logprobs\": \"[null, -1]\"}}]}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        expect_wrong(texts[i], 2, 1, "the answer");
}

static void given_an_answer_that_is_cut_anywhere_then_it_is_garbled(void **state) {
    (void)state;
    char *json = answer_text("[null, -1.5, -0.25, -3, -7]", 4, 1);
    float nll[3];
    struct error error;
    for (size_t length = 0; length < strlen(json); length++) {
        char *part = malloc(length + 1); /* of its own, so that a read behind its end is seen */
        assert_non_null(part);
        memcpy(part, json, length);
        if (answer_read_nll(part, length, 4, 3, nll, &error) != ANSWER_GARBLED)
            fail_msg("%.*s", (int)length, json);
        free(part);
    }
    free(json);
    static const char html[] = "<html>", array[] = "[1]";
    assert_int_equal(answer_read_nll(html, strlen(html), 4, 3, nll, &error), ANSWER_GARBLED);
    assert_int_equal(answer_read_nll(array, strlen(array), 4, 3, nll, &error), ANSWER_GARBLED);
}

/* ---- models ---- */

static enum answer_verdict model_of(const char *json, struct text *name, struct error *error) {
    text_free(name);
    return answer_read_model(json, strlen(json), name, error);
}

static void given_a_list_of_models_then_the_only_one_is_taken(void **state) {
    struct fixture *fixture = *state;
    struct text *name = &fixture->text;
    struct error error;
    assert_int_equal(model_of("{\"data\": [{\"id\": \"org/mod\\u00e8le\", \"x\": 1}]}", name, &error), ANSWER_TAKEN);
    assert_string_equal(name->bytes, "org/mod\xc3\xa8le");
    assert_int_equal(model_of("{\"data\": [{\"id\": \"a\"}, {\"id\": \"b\\n\"}]}", name, &error), ANSWER_WRONG);
    assert_contains(error.message, "2 models");
    assert_contains(error.message, "'a', 'b\\x0a'");
    assert_int_equal(model_of("{\"data\": []}", name, &error), ANSWER_WRONG);
    assert_contains(error.message, "no model");
    static const char *const bad[] = {
        "{}",
        "{\"data\": {}}",
        "{\"data\": [{}]}",
        "{\"data\": [1]}",
        "{\"data\": [{\"id\": 1}]}",
        "{\"data\": [{\"id\": \"\"}]}",
        "{\"data\": [{\"id\": \"\\u0000\"}]}",
        "{\"data\": [{\"id\": \"\\ud800\"}]}",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (model_of(bad[i], name, &error) != ANSWER_WRONG)
            fail_msg("taken: %s", bad[i]);
    assert_int_equal(model_of("{\"data\": [", name, &error), ANSWER_GARBLED);
}

static void given_many_models_then_ten_are_named(void **state) {
    struct fixture *fixture = *state;
    struct text list = {0};
    struct error error;
    text_append_string(&list, "{\"data\": [{\"id\": \"m0\"}");
    for (int i = 1; i < 3000; i++)
        text_printf(&list, ", {\"id\": \"m%d\"}", i);
    text_append_string(&list, "]}");
    assert_false(list.failed);
    assert_int_equal(model_of(list.bytes, &fixture->text, &error), ANSWER_WRONG);
    assert_contains(error.message, "3000 models");
    assert_contains(error.message, "'m9', ...");
    text_free(&list);
}

/* ---- errors ---- */

static void given_an_error_then_its_text_is_one_line(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *body, *line;
    } cases[] = {
        {"{\"error\": {\"message\": \"too long\", \"code\": 400}}", "too long"},
        {"{\"error\": \"no\"}", "no"},
        {"{\"object\": \"error\", \"message\": \"context of 2048\"}", "context of 2048"},
        {"{\"detail\": \"Not Found\"}", "Not Found"},
        {"{\"detail\": [{\"msg\": \"a\\nb\"}]}", "[{\"msg\": \"a\\nb\"}]"},
        {"{\"error\": null, \"message\": \"second\"}", "second"},
        {"{\"other\": 1}", "{\"other\": 1}"},
        {"  <h1>\r\n\t502   Bad\x1b[1m</h1>\n ", "<h1> 502 Bad [1m</h1>"},
        {"{\"error\": \"a\\u0000b\"}", "{\"error\": \"a\\u0000b\"}"},
        {"\xff\xfe", "\xff\xfe"}, /* error_set escapes it */
        {"", ""},
        {" \n ", ""},
        {"{\"error\": \"\"}", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        text_free(&fixture->text);
        answer_read_error(cases[i].body, strlen(cases[i].body), &fixture->text);
        assert_string_equal(fixture->text.bytes ? fixture->text.bytes : "", cases[i].line);
    }
}

static void given_a_long_error_then_whole_characters_of_it_are_kept(void **state) {
    struct fixture *fixture = *state;
    for (size_t shift = 0; shift < 4; shift++) {
        static const char euro[3] = {(char)0xe2, (char)0x82, (char)0xac};
        char body[2000] = {0};
        memset(body, 'x', shift);
        for (size_t at = shift; at + 3 < sizeof body; at += 3)
            memcpy(body + at, euro, sizeof euro);
        text_free(&fixture->text);
        answer_read_error(body, strlen(body), &fixture->text);
        assert_in_range(fixture->text.length, ANSWER_ERROR_MAX - 6, ANSWER_ERROR_MAX);
        assert_true(utf8_is_valid(fixture->text.bytes, strlen(fixture->text.bytes)));
        assert_true(text_ends_with(fixture->text.bytes, "..."));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_an_answer_then_the_last_tokens_of_the_prompt_are_taken),
        TEST(given_no_usage_then_the_count_alone_has_to_do),
        TEST(given_a_prompt_of_another_length_then_it_is_refused),
        TEST(given_numbers_that_are_no_log_probabilities_then_they_are_refused),
        TEST(given_json_of_another_form_then_it_is_refused),
        TEST(given_an_answer_that_is_cut_anywhere_then_it_is_garbled),
        TEST(given_a_list_of_models_then_the_only_one_is_taken),
        TEST(given_many_models_then_ten_are_named),
        TEST(given_an_error_then_its_text_is_one_line),
        TEST(given_a_long_error_then_whole_characters_of_it_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
