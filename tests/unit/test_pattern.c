/*
 * Name patterns: regular expressions as Python's re.match reads them, globs over the whole name, and no hang.
 */
#include "tests/unit/fixtures.h"

#include <time.h>

static bool matches(const char *text, const char *name) {
    struct pattern *pattern;
    struct error error;
    bool result = false;
    assert_ok(pattern_new(text, &pattern, &error), error);
    enum status status = pattern_match(pattern, name, &result, &error);
    pattern_free(pattern);
    assert_ok(status, error);
    return result;
}

struct example {
    const char *pattern, *name;
    bool matches;
};

static void examples_check(const struct example *examples, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (matches(examples[i].pattern, examples[i].name) != examples[i].matches)
            fail_msg("'%s' on '%s'", examples[i].pattern, examples[i].name);
}

static void given_a_regex_then_it_matches_from_the_start_and_not_to_the_end(void **state) {
    (void)state;
    static const struct example examples[] = {
        {"re:model", "model.layers", true},
        {"re:layers", "model.layers", false},
        {"re:.*layers", "model.layers.0", true},
        {"re:.*lm_head$", "lm_head", true},
        {"re:.*lm_head$", "lm_head.weight", false},
        {"re:a|b", "ba", true}, /* each alternative is anchored, as in re.match */
        {"re:a|b", "cb", false},
        {"re:a|xb", "ab", true},
        {"re:", "anything", true},
        {"re:", "", true},
        {"re:$", "", true},
        {"re:.+", "", false},
        {"re:a.b", "a.b", true},
        {"re:a\\.b", "axb", false},
        {"re:(?i)MODEL", "model", true},
        {"re:MODEL", "model", false},
        {"re:model\\.layers\\.\\d+\\.mlp\\.(gate|up|down)_proj$", "model.layers.12.mlp.up_proj", true},
        {"re:model\\.layers\\.\\d+\\.mlp\\.(gate|up|down)_proj$", "model.layers.x.mlp.up_proj", false},
        {"re:(?!.*vision).*proj", "model.q_proj", true},
        {"re:(?!.*vision).*proj", "vision.q_proj", false},
        {"re:(?P<n>a)(?P=n)", "aa", true},
        {"re:.$", "\xc3\xa9", true}, /* one character, two bytes */
        {"re:\\d", "\xd9\xa1", false},
    };
    examples_check(examples, sizeof examples / sizeof *examples);
}

static void given_a_glob_then_it_matches_the_whole_name(void **state) {
    (void)state;
    static const struct example examples[] = {
        {"lm_head", "lm_head", true},
        {"lm_head", "lm_head.x", false},
        {"lm_head", "x.lm_head", false},
        {"*.mlp.*", "model.layers.0.mlp.up_proj", true},
        {"*.mlp.*", "model.layers.0.mlpx.up_proj", false},
        {"*proj", "a/b.q_proj", true}, /* neither dots nor slashes stop a star */
        {"*", ".hidden", true},
        {"*", "", true},
        {"", "", true},
        {"", "a", false},
        {"layer.?", "layer.7", true},
        {"layer.?", "layer.17", false},
        {"layer.[0-3]", "layer.3", true},
        {"layer.[0-3]", "layer.4", false},
        {"layer.[!0-3]", "layer.4", true},
        {"a.b", "axb", false}, /* a dot is a dot */
        {"a+", "aa", false},
        {"Re:a", "a", false},
        {"Re:a", "Re:a", true},
    };
    examples_check(examples, sizeof examples / sizeof *examples);
}

static void given_a_pattern_then_it_tells_its_text_and_kind(void **state) {
    (void)state;
    struct pattern *pattern;
    struct error error;
    assert_ok(pattern_new("re:a$", &pattern, &error), error);
    assert_string_equal(pattern_text(pattern), "re:a$");
    assert_true(pattern_is_regex(pattern));
    pattern_free(pattern);
    assert_ok(pattern_new("a*", &pattern, &error), error);
    assert_string_equal(pattern_text(pattern), "a*");
    assert_false(pattern_is_regex(pattern));
    pattern_free(pattern);
    pattern_free(NULL);
}

static void given_an_invalid_regex_then_the_error_names_the_place(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"re:a(b", "'re:a(b' is not a valid regular expression"},
        {"re:a(b", "(at 3)"},
        {"re:*a", "(at 0)"},
        {"re:[a", "(at 2)"},
        {"re:a\\", "not a valid"},
        {"re:a)", "not a valid"},
        {"re:(?<n", "not a valid"},
        {"re:\xff", "not a valid"},
        {"re:\\C", "not a valid"},
        {"re:((((a{1000}){1000}){1000}){1000})", "too large"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pattern *pattern;
        struct error error;
        assert_refused(pattern_new(cases[i].text, &pattern, &error), STATUS_BAD_INPUT, error, cases[i].part);
        assert_null(pattern);
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static void given_catastrophic_backtracking_then_an_error_in_bounded_time(void **state) {
    (void)state;
    static const char *const patterns[] = {"re:(a+)+$", "re:(a|aa)+$", "re:(.*)*(.*)*(.*)*x", "re:((a?)+)+\\1$"};
    char name[60];
    memset(name, 'a', sizeof name);
    strcpy(name + sizeof name - 2, "b");
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct pattern *pattern;
        struct error error;
        bool result = true;
        double start = seconds();
        assert_ok(pattern_new(patterns[i], &pattern, &error), error);
        enum status status = pattern_match(pattern, name, &result, &error);
        pattern_free(pattern);
        assert_true(seconds() - start < 10);
        assert_false(result);
        if (i < 2)
            assert_refused(status, STATUS_BAD_INPUT, error, "match limit exceeded");
        else
            assert_true(status == STATUS_OK || status == STATUS_BAD_INPUT);
    }
}

static void given_a_name_that_is_not_utf8_then_a_regex_says_so(void **state) {
    (void)state;
    struct pattern *pattern;
    struct error error;
    bool result = true;
    assert_ok(pattern_new("re:.*", &pattern, &error), error);
    enum status status = pattern_match(pattern, "a\xff", &result, &error);
    pattern_free(pattern);
    assert_refused(status, STATUS_BAD_INPUT, error, "UTF-8");
    assert_false(result);
}

static void given_a_glob_of_many_stars_then_it_ends_soon(void **state) {
    (void)state;
    char name[201], stars[64] = "";
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 20; i++)
        strcat(stars, "*a");
    strcat(stars, "b");
    double start = seconds();
    assert_false(matches(stars, name));
    assert_true(seconds() - start < 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_regex_then_it_matches_from_the_start_and_not_to_the_end),
        cmocka_unit_test(given_a_glob_then_it_matches_the_whole_name),
        cmocka_unit_test(given_a_pattern_then_it_tells_its_text_and_kind),
        cmocka_unit_test(given_an_invalid_regex_then_the_error_names_the_place),
        cmocka_unit_test(given_catastrophic_backtracking_then_an_error_in_bounded_time),
        cmocka_unit_test(given_a_name_that_is_not_utf8_then_a_regex_says_so),
        cmocka_unit_test(given_a_glob_of_many_stars_then_it_ends_soon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
