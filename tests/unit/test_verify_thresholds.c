/*
 * verify: limits from a file and from options: which rule counts for which weight, and mistakes that name their rule.
 */
#include <math.h>

#include "tests/unit/fixtures.h"
#include "verify/thresholds.h"

static enum status read_text(struct fixture *fixture, struct thresholds *thresholds, const char *text) {
    char path[256];
    fixture_file(fixture, "limits.json", text);
    return thresholds_read(thresholds, fixture_path(fixture, "limits.json", path), &fixture->error);
}

#define FILE_OF(rules) "{\"schema\": \"qstream.thresholds/1\", \"name\": \"test\", \"rules\": [" rules "]}"

static void assert_limits(struct thresholds *thresholds, const char *module, enum role role, double sqnr, double rel) {
    struct limits limits;
    struct error error;
    assert_ok(thresholds_for(thresholds, module, role, &limits, &error), error);
    bool same = (isnan(sqnr) ? isnan(limits.min_sqnr_db) : limits.min_sqnr_db == sqnr) &&
                (isnan(rel) ? isnan(limits.max_rel_error) : limits.max_rel_error == rel);
    if (!same)
        fail_msg("%s: %g and %g instead of %g and %g", module, limits.min_sqnr_db, limits.max_rel_error, sqnr, rel);
}

static void given_no_rules_then_there_are_no_limits_and_none_is_unused(void **state) {
    struct fixture *fixture = *state;
    struct thresholds thresholds = {0};
    assert_limits(&thresholds, "a", ROLE_MLP, NAN, NAN);
    assert_ok(thresholds_check_used(&thresholds, &fixture->error), fixture->error);
    thresholds_free(&thresholds);
}

static void given_a_file_then_for_each_limit_the_last_rule_that_fits_counts(void **state) {
    struct fixture *fixture = *state;
    struct thresholds thresholds = {0};
    assert_ok(
        read_text(
            fixture, &thresholds,
            "{\"$schema\": \"s\", \"schema\": \"qstream.thresholds/1\", \"name\": \"test\", \"description\": \"d\","
            "\"rules\": [{\"min_sqnr_db\": 15, \"comment\": {}}, {\"role\": \"mlp\", \"min_sqnr_db\": 17.5,"
            "\"max_rel_error\": 0.5}, {\"match\": \"re:model\\\\.layers\\\\.0\\\\.\", \"max_rel_error\": 0.25},"
            "{\"role\": \"attention\", \"match\": \"*.0.*\", \"min_sqnr_db\": -3}]}"),
        fixture->error);
    assert_string_equal(thresholds.name, "test");
    assert_limits(&thresholds, "model.layers.1.mlp.up_proj", ROLE_MLP, 17.5, 0.5);
    assert_limits(&thresholds, "model.layers.0.mlp.up_proj", ROLE_MLP, 17.5, 0.25);
    assert_limits(&thresholds, "model.layers.1.self_attn.q_proj", ROLE_ATTENTION, 15, NAN);
    assert_limits(&thresholds, "model.layers.0.self_attn.q_proj", ROLE_ATTENTION, -3, 0.25);
    assert_limits(&thresholds, "lm_head", ROLE_HEAD, 15, NAN);
    assert_ok(thresholds_check_used(&thresholds, &fixture->error), fixture->error);
    thresholds_free(&thresholds);
}

static void given_options_then_they_come_after_the_file_in_whatever_order_both_were_read(void **state) {
    struct fixture *fixture = *state;
    for (int file_first = 0; file_first < 2; file_first++) {
        struct thresholds thresholds = {0};
        struct error *error = &fixture->error;
        if (file_first)
            assert_ok(read_text(fixture, &thresholds, FILE_OF("{\"min_sqnr_db\": 15}")), *error);
        assert_ok(thresholds_add(&thresholds, LIMIT_MIN_SQNR, "10", error), *error);
        assert_ok(thresholds_add(&thresholds, LIMIT_MIN_SQNR, "mlp=12.5", error), *error);
        assert_ok(thresholds_add(&thresholds, LIMIT_MAX_REL, "*.layers.0.*=0.25", error), *error);
        assert_ok(thresholds_add(&thresholds, LIMIT_MAX_REL, "re:a=b$=1e-1", error), *error);
        if (!file_first)
            assert_ok(read_text(fixture, &thresholds, FILE_OF("{\"min_sqnr_db\": 15}")), *error);
        assert_limits(&thresholds, "model.layers.0.mlp.up_proj", ROLE_MLP, 12.5, 0.25);
        assert_limits(&thresholds, "model.layers.1.q_proj", ROLE_ATTENTION, 10, NAN);
        assert_limits(&thresholds, "a=b", ROLE_OTHER, 10, 0.1); /* the last '=' counts */
        assert_ok(thresholds_check_used(&thresholds, error), *error);
        thresholds_free(&thresholds);
    }
}

static void given_a_word_that_is_a_role_then_it_is_one_and_else_a_pattern(void **state) {
    struct fixture *fixture = *state;
    for (int role = 0; role < ROLES; role++) {
        struct thresholds thresholds = {0};
        char argument[64];
        snprintf(argument, sizeof argument, "%s=5", role_name((enum role)role));
        assert_ok(thresholds_add(&thresholds, LIMIT_MIN_SQNR, argument, &fixture->error), fixture->error);
        for (int other = 0; other < ROLES; other++)
            assert_limits(&thresholds, "m", (enum role)other, other == role ? 5 : NAN, NAN);
        thresholds_free(&thresholds);
    }
    struct thresholds thresholds = {0};
    assert_ok(thresholds_add(&thresholds, LIMIT_MIN_SQNR, "lm_head=5", &fixture->error), fixture->error);
    assert_limits(&thresholds, "lm_head", ROLE_HEAD, 5, NAN);
    assert_limits(&thresholds, "other", ROLE_HEAD, NAN, NAN);
    thresholds_free(&thresholds);
}

static void given_an_argument_that_is_no_limit_then_the_option_is_named(void **state) {
    struct fixture *fixture = *state;
    static const char *const arguments[] = {"",    "x",     "mlp",    "mlp=",    "=5",  "5 ",     " 5",  "0x5", "nan",
                                            "inf", "1e999", "mlp=5x", "mlp=--5", "5=x", "re:(=5", "+-1", "1e",  "."};
    for (size_t i = 0; i < sizeof arguments / sizeof *arguments; i++)
        for (int limit = 0; limit < 2; limit++) {
            struct thresholds thresholds = {0};
            enum status status = thresholds_add(&thresholds, (enum limit)limit, arguments[i], &fixture->error);
            size_t count = thresholds.count;
            thresholds_free(&thresholds);
            if (status != STATUS_USAGE)
                fail_msg("'%s' gave status %d", arguments[i], (int)status);
            assert_contains(fixture->error.message, limit == LIMIT_MAX_REL ? "--max-rel" : "--min-sqnr");
            assert_int_equal(count, 0);
        }
    struct thresholds thresholds = {0};
    assert_refused(thresholds_add(&thresholds, LIMIT_MAX_REL, "-0.5", &fixture->error), STATUS_USAGE, fixture->error,
                   "-0.5");
    assert_ok(thresholds_add(&thresholds, LIMIT_MIN_SQNR, "-0.5", &fixture->error), fixture->error);
    assert_ok(thresholds_add(&thresholds, LIMIT_MAX_REL, "0", &fixture->error), fixture->error);
    thresholds_free(&thresholds);
}

static void given_a_rule_that_applies_to_no_weight_then_it_is_named_unless_it_is_optional(void **state) {
    struct fixture *fixture = *state;
    struct thresholds thresholds = {0};
    assert_ok(read_text(fixture, &thresholds,
                        FILE_OF("{\"role\": \"mlp\", \"min_sqnr_db\": 1}, {\"match\": \"no.such\", \"min_sqnr_db\": 1, "
                                "\"optional\": true}, {\"match\": \"none.either\", \"min_sqnr_db\": 1}")),
              fixture->error);
    assert_limits(&thresholds, "a", ROLE_MLP, 1, NAN);
    assert_refused(thresholds_check_used(&thresholds, &fixture->error), STATUS_USAGE, fixture->error, "rule 3");
    assert_contains(fixture->error.message, "none.either");
    assert_contains(fixture->error.message, "limits.json");
    thresholds_free(&thresholds);
    assert_ok(thresholds_add(&thresholds, LIMIT_MIN_SQNR, "mlps=17", &fixture->error), fixture->error);
    assert_limits(&thresholds, "a", ROLE_MLP, NAN, NAN);
    assert_refused(thresholds_check_used(&thresholds, &fixture->error), STATUS_USAGE, fixture->error,
                   "--min-sqnr mlps=17");
    thresholds_free(&thresholds);
}

static void given_a_file_that_is_wrong_then_file_and_rule_are_named_and_nothing_is_added(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"garbage", "not valid JSON"},
        {"", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"{\"schema\": \"qstream.thresholds/9\", \"name\": \"x\", \"rules\": [{\"min_sqnr_db\": 5}]}", "schema"},
        {"{\"schema\": \"qstream.thresholds/1\", \"name\": \"x\"}", "rules"},
        {"{\"schema\": \"qstream.thresholds/1\", \"name\": \"x\", \"rules\": []}", "rules"},
        {"{\"schema\": \"qstream.thresholds/1\", \"rules\": [{\"min_sqnr_db\": 5}]}", "name"},
        {"{\"schema\": \"qstream.thresholds/1\", \"name\": \"x\", \"ruls\": 1, \"rules\": [{\"min_sqnr_db\": 5}]}",
         "'ruls'"},
        {"{\"name\": 1, \"name\": 2}", "duplicate"},
        {FILE_OF("{\"min_sqnr_db\": 5}, 7"), "rule 2 is not an object"},
        {FILE_OF("{\"min_sqnr_db\": 5}, {\"role\": \"mlp\"}"), "rule 2 limits nothing"},
        {FILE_OF("{\"role\": \"mlps\", \"min_sqnr_db\": 5}"), "rule 1: the role 'mlps'"},
        {FILE_OF("{\"role\": 5, \"min_sqnr_db\": 5}"), "rule 1: the role"},
        {FILE_OF("{\"min_sqnr\": 5}"), "rule 1 has the unknown key 'min_sqnr'"},
        {FILE_OF("{\"min_sqnr_db\": \"5\"}"), "rule 1: \"min_sqnr_db\""},
        {FILE_OF("{\"min_sqnr_db\": 1e200}"), "rule 1: \"min_sqnr_db\""},
        {FILE_OF("{\"min_sqnr_db\": null}"), "rule 1: \"min_sqnr_db\""},
        {FILE_OF("{\"max_rel_error\": -1}"), "rule 1: \"max_rel_error\""},
        {FILE_OF("{\"match\": \"re:(\", \"max_rel_error\": 1}"), "rule 1: the pattern"},
        {FILE_OF("{\"match\": [], \"max_rel_error\": 1}"), "rule 1: \"match\""},
        {FILE_OF("{\"optional\": 1, \"max_rel_error\": 1}"), "rule 1: \"optional\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct thresholds thresholds = {0};
        assert_ok(thresholds_add(&thresholds, LIMIT_MAX_REL, "1", &fixture->error), fixture->error);
        enum status status = read_text(fixture, &thresholds, cases[i].text);
        assert_int_equal(thresholds.count, 1);
        thresholds_free(&thresholds);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, cases[i].says);
        assert_contains(fixture->error.message, "limits.json");
    }
    struct thresholds thresholds = {0};
    assert_refused(thresholds_read(&thresholds, "/no/such/limits.json", &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "/no/such/limits.json");
}

static void given_a_file_cut_anywhere_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    static const char text[] =
        FILE_OF("{\"role\": \"mlp\", \"min_sqnr_db\": 5, \"match\": \"re:a\", \"comment\": [1, {}]}");
    for (size_t length = 0; length < sizeof text - 1; length++) {
        struct thresholds thresholds = {0};
        char path[256];
        fixture_bytes(fixture, "limits.json", text, length);
        assert_int_equal(thresholds_read(&thresholds, fixture_path(fixture, "limits.json", path), &fixture->error),
                         STATUS_BAD_INPUT);
        thresholds_free(&thresholds);
    }
}

static void given_the_thresholds_that_come_with_qstream_then_they_are_read_and_fit_any_model(void **state) {
    struct fixture *fixture = *state;
    struct thresholds thresholds = {0};
    assert_ok(thresholds_read(&thresholds, "configs/mxfp4.thresholds.json", &fixture->error), fixture->error);
    assert_true(thresholds.count > 0);
    assert_ok(thresholds_check_used(&thresholds, &fixture->error), fixture->error); /* all are optional */
    struct limits limits;
    assert_ok(thresholds_for(&thresholds, "model.layers.0.mlp.up_proj", ROLE_MLP, &limits, &fixture->error),
              fixture->error);
    assert_true(limits.min_sqnr_db > 10 && limits.min_sqnr_db < 19); /* MXFP4 comes to some 19 dB */
    assert_ok(thresholds_for(&thresholds, "model.layers.0.self_attn.q_proj", ROLE_ATTENTION, &limits, &fixture->error),
              fixture->error);
    assert_true(limits.min_sqnr_db > 20 && limits.min_sqnr_db < 31); /* FP8 to some 31 dB */
    thresholds_free(&thresholds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_no_rules_then_there_are_no_limits_and_none_is_unused),
        TEST(given_a_file_then_for_each_limit_the_last_rule_that_fits_counts),
        TEST(given_options_then_they_come_after_the_file_in_whatever_order_both_were_read),
        TEST(given_a_word_that_is_a_role_then_it_is_one_and_else_a_pattern),
        TEST(given_an_argument_that_is_no_limit_then_the_option_is_named),
        TEST(given_a_rule_that_applies_to_no_weight_then_it_is_named_unless_it_is_optional),
        TEST(given_a_file_that_is_wrong_then_file_and_rule_are_named_and_nothing_is_added),
        TEST(given_a_file_cut_anywhere_then_it_is_refused),
        TEST(given_the_thresholds_that_come_with_qstream_then_they_are_read_and_fit_any_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
