/*
 * Recipes: rules in order, the first match decides, mistakes are named.
 */
#include "tests/unit/fixtures.h"

#define RECIPE(rules) "{\"schema\": \"qstream.recipe/1\", \"name\": \"n\", \"rules\": [" rules "]}"

static const struct recipe_rule *rule_for(struct fixture *fixture, const char *module) {
    const struct recipe_rule *rule;
    assert_ok(recipe_rule_for(&fixture->recipe, module, &rule, &fixture->error), fixture->error);
    return rule;
}

static void given_rules_then_the_first_that_matches_decides(void **state) {
    struct fixture *fixture = *state;
    fixture_recipe(fixture, "{\"match\": \"special\", \"format\": \"keep\"},"
                            "{\"match\": \"re:.*mlp\", \"format\": \"mxfp4\"},"
                            "{\"match\": \"re:.*\", \"format\": \"fp8\", \"strategy\": \"tensor\"}");
    assert_int_equal(fixture->recipe.count, 3);
    assert_string_equal(fixture->recipe.name, "test");
    assert_int_equal(rule_for(fixture, "special")->format, FORMAT_KEEP);
    assert_int_equal(rule_for(fixture, "a.mlp.b")->format, FORMAT_MXFP4);
    assert_int_equal(rule_for(fixture, "a.mlp.c")->format, FORMAT_MXFP4);
    assert_int_equal(rule_for(fixture, "other")->format, FORMAT_FP8);
    assert_true(rule_for(fixture, "other")->per_tensor);
    assert_int_equal(fixture->recipe.rules[0].matches, 1);
    assert_int_equal(fixture->recipe.rules[1].matches, 2);
    assert_int_equal(fixture->recipe.rules[2].matches, 2);
    assert_ok(recipe_check_used(&fixture->recipe, &fixture->error), fixture->error);
}

static void given_no_rule_that_matches_then_none_decides(void **state) {
    struct fixture *fixture = *state;
    fixture_recipe(fixture, "{\"match\": \"a\", \"format\": \"keep\"}");
    assert_null(rule_for(fixture, "b"));
    assert_int_equal(fixture->recipe.rules[0].matches, 0);
}

static void given_a_rule_that_matches_nothing_then_only_an_optional_one_is_forgiven(void **state) {
    struct fixture *fixture = *state;
    fixture_recipe(fixture, "{\"match\": \"used\", \"format\": \"keep\"},"
                            "{\"match\": \"may be\", \"format\": \"keep\", \"optional\": true},"
                            "{\"match\": \"re:must be\", \"format\": \"keep\", \"optional\": false}");
    assert_non_null(rule_for(fixture, "used"));
    assert_refused(recipe_check_used(&fixture->recipe, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "rule 3, 're:must be', matches no weight");
    assert_non_null(rule_for(fixture, "must be"));
    assert_ok(recipe_check_used(&fixture->recipe, &fixture->error), fixture->error);
    assert_true(fixture->recipe.rules[1].optional);
    assert_false(fixture->recipe.rules[2].optional);
}

static void given_fp8_rules_then_the_strategy_is_channel_unless_tensor_is_said(void **state) {
    struct fixture *fixture = *state;
    fixture_recipe(fixture, "{\"match\": \"a\", \"format\": \"fp8\"},"
                            "{\"match\": \"b\", \"format\": \"fp8\", \"strategy\": \"channel\"},"
                            "{\"match\": \"c\", \"format\": \"fp8\", \"strategy\": \"tensor\", \"comment\": \"why\"}");
    assert_false(fixture->recipe.rules[0].per_tensor);
    assert_false(fixture->recipe.rules[1].per_tensor);
    assert_true(fixture->recipe.rules[2].per_tensor);
    assert_string_equal(recipe_format_name(FORMAT_FP8), "fp8");
    assert_string_equal(recipe_format_name(FORMAT_MXFP4), "mxfp4");
    assert_string_equal(recipe_format_name(FORMAT_KEEP), "keep");
}

static void given_a_mistake_then_the_recipe_and_the_rule_are_named(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"", "is not valid JSON"},
        {"{\n\n", "(line 3)"},
        {"[]", "it is not a JSON object"},
        {"{\"name\": \"n\", \"rules\": [{\"match\": \"a\", \"format\": \"keep\"}]}", "\"schema\" is not"},
        {"{\"schema\": \"qstream.recipe/2\", \"name\": \"n\", \"rules\": []}", "\"schema\" is not"},
        {"{\"schema\": 1, \"name\": \"n\", \"rules\": []}", "\"schema\" is not"},
        {"{\"schema\": \"qstream.recipe/1\", \"rules\": [{\"match\": \"a\", \"format\": \"keep\"}]}",
         "needs a \"name\""},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"n\"}", "a list of \"rules\""},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"n\", \"rules\": {}}", "a list of \"rules\""},
        {RECIPE(""), "a list of \"rules\""},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"n\", \"rules\": [{\"match\": \"a\", \"format\": \"keep\"}], "
         "\"rule\": 1}",
         "it has the unknown key 'rule'"},
        {"{\"schema\": \"qstream.recipe/1\", \"schema\": \"qstream.recipe/1\"}", "duplicate object key"},
        {RECIPE("{\"match\": \"a\", \"format\": \"keep\"}, {\"match\": \"b\", \"fromat\": \"keep\"}"),
         "rule 2 has the unknown key 'fromat'"},
        {RECIPE("{\"match\": \"a\"}"), "rule 1 needs the strings \"match\" and \"format\""},
        {RECIPE("{\"format\": \"keep\"}"), "rule 1 needs the strings"},
        {RECIPE("{\"match\": 1, \"format\": \"keep\"}"), "rule 1 needs the strings"},
        {RECIPE("\"a\""), "rule 1 needs the strings"},
        {RECIPE("{\"match\": \"a\", \"format\": \"MXFP4\"}"), "format 'MXFP4' is none of mxfp4, fp8 and keep"},
        {RECIPE("{\"match\": \"a\", \"format\": \"int4\"}"), "format 'int4' is none of"},
        {RECIPE("{\"match\": \"a\", \"format\": \"keep\", \"optional\": 1}"), "\"optional\" is neither true nor false"},
        {RECIPE("{\"match\": \"a\", \"format\": \"keep\", \"optional\": \"true\"}"),
         "\"optional\" is neither true nor false"},
        {RECIPE("{\"match\": \"a\", \"format\": \"fp8\", \"strategy\": \"block\"}"), "\"strategy\" is \"channel\""},
        {RECIPE("{\"match\": \"a\", \"format\": \"fp8\", \"strategy\": null}"), "\"strategy\" is \"channel\""},
        {RECIPE("{\"match\": \"a\", \"format\": \"mxfp4\", \"strategy\": \"channel\"}"), "goes with fp8"},
        {RECIPE("{\"match\": \"a\", \"format\": \"keep\", \"strategy\": \"tensor\"}"), "goes with fp8"},
        {RECIPE("{\"match\": \"a\", \"format\": \"keep\"}, {\"match\": \"re:a(\", \"format\": \"keep\"}"),
         "rule 2: the pattern 're:a(' is not a valid regular expression"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum status status =
            recipe_parse("my.json", cases[i].json, strlen(cases[i].json), &fixture->recipe, &fixture->error);
        recipe_free(&fixture->recipe);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, cases[i].part);
        assert_contains(fixture->error.message, "'my.json'");
    }
}

static void given_a_recipe_file_then_it_is_read_and_its_bytes_are_kept(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    static const char json[] = " " RECIPE("{\"match\": \"a\", \"format\": \"keep\"}") "\n";
    fixture_file(fixture, "recipe.json", json);
    assert_ok(recipe_read(fixture_path(fixture, "recipe.json", path), &fixture->recipe, &fixture->error),
              fixture->error);
    assert_int_equal(fixture->recipe.length, strlen(json));
    assert_string_equal(fixture->recipe.bytes, json);
    recipe_free(&fixture->recipe);
    enum status status = recipe_read(fixture_path(fixture, "none.json", path), &fixture->recipe, &fixture->error);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "none.json");
    assert_refused(recipe_read(fixture->path, &fixture->recipe, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "is not a regular file");
}

static void given_a_pattern_that_explodes_then_the_match_is_refused(void **state) {
    struct fixture *fixture = *state;
    const struct recipe_rule *rule;
    fixture_recipe(fixture, "{\"match\": \"re:(a+)+$\", \"format\": \"keep\"}");
    assert_refused(recipe_rule_for(&fixture->recipe, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", &rule, &fixture->error),
                   STATUS_BAD_INPUT, fixture->error, "match limit");
    assert_null(rule);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_rules_then_the_first_that_matches_decides),
        TEST(given_no_rule_that_matches_then_none_decides),
        TEST(given_a_rule_that_matches_nothing_then_only_an_optional_one_is_forgiven),
        TEST(given_fp8_rules_then_the_strategy_is_channel_unless_tensor_is_said),
        TEST(given_a_mistake_then_the_recipe_and_the_rule_are_named),
        TEST(given_a_recipe_file_then_it_is_read_and_its_bytes_are_kept),
        TEST(given_a_pattern_that_explodes_then_the_match_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
