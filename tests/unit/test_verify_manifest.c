/*
 * verify: the manifest and recipes as the verifier reads them: what is there arrives, and whatever a stranger writes
 * there is refused with the file and the member, never followed out of the folder.
 */
#include "tests/unit/fixtures.h"
#include "verify/manifest.h"

#define DIGEST "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0eff"

static const char whole[] =
    "{\"schema\": \"qstream.manifest/1\", \"qstream\": \"0.1.0\", \"output_version\": 1,\n"
    " \"fingerprint\": {\"source\": \"" DIGEST "\", \"recipe\": \"" DIGEST "\", \"options\": \"" DIGEST "\"},\n"
    " \"rule\": \"qstream\", \"gamma\": \"layernorm\", \"rounding\": \"nearest\", \"ties\": \"toward zero\",\n"
    " \"tensor_bytes\": 4711,\n"
    " \"source\": {\"name\": \"org/model\", \"files\": [{\"name\": \"model.safetensors\", \"size\": 12, \"mtime_ns\": "
    "-1}]},\n"
    " \"recipe\": {\"schema\": \"qstream.recipe/1\", \"name\": \"mine\", \"rules\": [\n"
    "  {\"match\": \"*.mlp.*\", \"format\": \"mxfp4\", \"optional\": true, \"comment\": [1]},\n"
    "  {\"match\": \"re:.*proj$\", \"format\": \"fp8\", \"strategy\": \"channel\"}]},\n"
    " \"files\": [{\"name\": \"model.safetensors\", \"size\": 0, \"sha256\": \"" DIGEST "\"},\n"
    "  {\"name\": \"chat_templates/a b.jinja\", \"size\": 9007199254740993, \"sha256\": \"" DIGEST "\"}]}\n";

/* `whole` with the first `part` replaced; the caller frees. */
static char *edited(const char *part, const char *replacement) {
    const char *at = strstr(whole, part);
    if (!at)
        fail_msg("the test's manifest does not hold %s", part);
    char *text = text_format("%.*s%s%s", (int)(at - whole), whole, replacement, at + strlen(part));
    assert_non_null(text);
    return text;
}

static enum status read_manifest(struct fixture *fixture, struct manifest *manifest, bool *found) {
    struct folder *folder;
    assert_ok(folder_open(fixture->path, &folder, &fixture->error), fixture->error);
    enum status status = manifest_read(folder, manifest, found, &fixture->error);
    folder_close(folder);
    return status;
}

static enum status read_text(struct fixture *fixture, const char *text, size_t length, struct manifest *manifest) {
    bool found = false;
    fixture_bytes(fixture, "qstream.json", text, length);
    enum status status = read_manifest(fixture, manifest, &found);
    assert_true(found);
    return status;
}

static void assert_manifest_refused(struct fixture *fixture, const char *part, const char *replacement,
                                    const char *says) {
    struct manifest manifest;
    char *text = edited(part, replacement);
    enum status status = read_text(fixture, text, strlen(text), &manifest);
    free(text);
    manifest_free(&manifest);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, says);
    assert_contains(fixture->error.message, "qstream.json");
}

static void given_a_manifest_then_all_of_it_is_read(void **state) {
    struct fixture *fixture = *state;
    struct manifest manifest;
    assert_ok(read_text(fixture, whole, strlen(whole), &manifest), fixture->error);
    assert_string_equal(manifest.rule, "qstream");
    assert_string_equal(manifest.gamma, "layernorm");
    assert_string_equal(manifest.rounding, "nearest");
    assert_string_equal(manifest.ties, "toward zero");
    assert_int_equal(manifest.tensor_bytes, 4711);
    assert_string_equal(manifest.recipe.name, "mine");
    assert_int_equal(manifest.recipe.count, 2);
    assert_int_equal(manifest.source_count, 1);
    assert_string_equal(manifest.sources[0].name, "model.safetensors");
    assert_int_equal(manifest.sources[0].size, 12);
    assert_int_equal(manifest.file_count, 2);
    assert_int_equal(manifest.files[0].size, 0);
    assert_string_equal(manifest.files[1].name, "chat_templates/a b.jinja");
    assert_int_equal(manifest.files[1].size, 9007199254740993);
    assert_int_equal(manifest.files[1].sha256[1], 0x11);
    assert_int_equal(manifest.files[1].sha256[31], 0xff);
    manifest_free(&manifest);
}

static void given_no_manifest_then_that_is_no_error(void **state) {
    struct fixture *fixture = *state;
    struct manifest manifest;
    bool found = true;
    assert_ok(read_manifest(fixture, &manifest, &found), fixture->error);
    assert_false(found);
    manifest_free(&manifest);
}

static void given_a_manifest_that_is_a_folder_or_a_link_to_nowhere_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct manifest manifest;
    char path[256];
    bool found = false;
    assert_int_equal(symlink("nowhere", fixture_path(fixture, "qstream.json", path)), 0);
    assert_refused(read_manifest(fixture, &manifest, &found), STATUS_BAD_INPUT, fixture->error, "qstream.json");
    assert_true(found);
    manifest_free(&manifest);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0777), 0);
    assert_refused(read_manifest(fixture, &manifest, &found), STATUS_BAD_INPUT, fixture->error, "not a regular file");
    manifest_free(&manifest);
}

static void given_members_that_are_missing_or_of_another_kind_then_each_is_named(void **state) {
    static const struct {
        const char *part, *replacement, *says;
    } cases[] = {
        {"qstream.manifest/1", "qstream.manifest/2", "\"schema\" is not"},
        {"\"schema\": \"qstream.manifest/1\", ", "", "\"schema\" is not"},
        {"\"rule\": \"qstream\"", "\"rule\": \"rtn\"", "\"rule\" is 'rtn'"},
        {"\"rule\": \"qstream\"", "\"rule\": 3", "\"rule\" is not a string"},
        {"\"rule\": \"qstream\",", "", "\"rule\" is missing"},
        {"layernorm", "rmsnorm", "\"gamma\""},
        {"nearest", "stochastic", "\"rounding\""},
        {"toward zero", "away", "\"ties\""},
        {"4711", "-1", "\"tensor_bytes\" is not a number of bytes"},
        {"4711", "1.5", "\"tensor_bytes\""},
        {"4711", "\"4711\"", "\"tensor_bytes\""},
        {"4711", "18446744073709551616", "not valid JSON"},
        {"\"tensor_bytes\": 4711,", "", "\"tensor_bytes\" is missing"},
        {"[{\"name\": \"model.safetensors\", \"size\": 12, \"mtime_ns\": -1}]", "[]", "source: \"files\""},
        {"[{\"name\": \"model.safetensors\", \"size\": 12, \"mtime_ns\": -1}]", "7", "source: \"files\""},
        {"{\"name\": \"model.safetensors\", \"size\": 12, \"mtime_ns\": -1}", "null", "source.files[0]: it is not"},
        {"\"size\": 12", "\"size\": []", "source.files[0]: \"size\""},
        {"qstream.recipe/1", "qstream.recipe/7", "recipe: \"schema\""},
        {"\"name\": \"mine\", ", "", "recipe: \"name\" is missing"},
        {"\"format\": \"mxfp4\"", "\"format\": \"int4\"", "recipe: rule 1: the format 'int4'"},
        {"\"optional\": true", "\"optional\": 1", "recipe: rule 1: \"optional\""},
        {"re:.*proj$", "re:(", "recipe: rule 2: the pattern"},
        {"\"strategy\": \"channel\"", "\"strategy\": \"block\"", "recipe: rule 2: \"strategy\""},
        {"\"comment\"", "\"coment\"", "recipe: rule 1 has the unknown key 'coment'"},
        {"\"size\": 0,", "", "files[0]: \"size\" is missing"},
        {"\"size\": 9007199254740993", "\"size\": -9", "files[1]: \"size\""},
        {"\"qstream\": \"0.1.0\"", "\"rule\": \"mse\"", "duplicate"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_manifest_refused(*state, cases[i].part, cases[i].replacement, cases[i].says);
}

static void given_texts_that_are_no_manifest_then_they_are_refused(void **state) {
    struct fixture *fixture = *state;
    static const char *const texts[] = {
        "", "garbage", "[]", "null", "7", "{}", "{\"files\": {}}", "\xff\xfe", "{\"a\": \"\\u0000\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct manifest manifest;
        enum status status = read_text(fixture, texts[i], strlen(texts[i]), &manifest);
        manifest_free(&manifest);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, "qstream.json");
    }
}

static void given_names_that_lead_out_of_the_folder_or_hold_control_characters_then_they_are_refused(void **state) {
    static const char *const names[] = {
        "../secret", "/etc/passwd", "a/../../b",     "a/..",  "..",        ".",         "",    "a//b",          "a/",
        "/",         "a/./b",       "a\\u001b[31mb", "a\\nb", "a\\u007fb", "a\\u0085b", "./a", "a/b/../../../c"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_manifest_refused(*state, "chat_templates/a b.jinja", names[i], "files[1]: \"name\"");
        assert_manifest_refused(*state, "\"files\": [{\"name\": \"model.safetensors\"",
                                "\"files\": [{\"name\": \"../model.safetensors\"", "source.files[0]: \"name\"");
    }
    char *name = malloc(2001);
    assert_non_null(name);
    memset(name, 'x', 2000);
    name[2000] = '\0';
    assert_manifest_refused(*state, "chat_templates/a b.jinja", name, "files[1]: \"name\"");
    free(name);
}

static void given_unusual_names_inside_the_folder_then_they_are_taken(void **state) {
    struct fixture *fixture = *state;
    static const char *const names[] = {"..a",
                                        "a..",
                                        "...",
                                        ".hidden",
                                        "a/.b",
                                        ("gr\xc3\xb6\xc3\x9f"
                                         "e"),
                                        "a\\\\b",
                                        "a/b/c/d/e",
                                        "~"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct manifest manifest;
        char *text = edited("chat_templates/a b.jinja", names[i]);
        enum status status = read_text(fixture, text, strlen(text), &manifest);
        free(text);
        manifest_free(&manifest);
        assert_ok(status, fixture->error);
    }
}

static void given_a_name_that_is_listed_twice_then_it_is_refused(void **state) {
    assert_manifest_refused(*state, "chat_templates/a b.jinja", "model.safetensors",
                            "'model.safetensors' is listed twice");
    assert_manifest_refused(*state, "\"mtime_ns\": -1}",
                            "\"mtime_ns\": -1}, {\"name\": \"model.safetensors\", \"size\": 1}",
                            "source.files[1]: 'model.safetensors' is listed twice");
}

static void given_digests_that_are_none_then_they_are_refused(void **state) {
    static const char *const digests[] = {"",
                                          "0",
                                          "zz112233445566778899aabbccddeeff000102030405060708090a0b0c0d0eff",
                                          "00112233445566778899AABBCCDDEEFF000102030405060708090A0B0C0D0EFF",
                                          "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0eff00",
                                          "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e f"};
    for (size_t i = 0; i < sizeof digests / sizeof *digests; i++) {
        char *with = text_format("\"size\": 0, \"sha256\": \"%s\"", digests[i]);
        assert_non_null(with);
        assert_manifest_refused(*state, "\"size\": 0, \"sha256\": \"" DIGEST "\"", with, "files[0]: \"sha256\"");
        free(with);
    }
    assert_manifest_refused(*state, "\"size\": 0, \"sha256\": \"" DIGEST "\"", "\"size\": 0, \"sha256\": 7",
                            "files[0]: \"sha256\"");
}

static void given_a_manifest_beyond_the_limit_then_it_is_not_read(void **state) {
    struct fixture *fixture = *state;
    struct manifest manifest;
    char path[256];
    bool found;
    fixture_file(fixture, "qstream.json", whole);
    assert_int_equal(truncate(fixture_path(fixture, "qstream.json", path), (64 << 20) + 1), 0);
    assert_refused(read_manifest(fixture, &manifest, &found), STATUS_BAD_INPUT, fixture->error, "more than");
    manifest_free(&manifest);
}

static void given_every_cut_and_every_changed_byte_then_reading_ends_and_errors_say_why(void **state) {
    struct fixture *fixture = *state;
    static const char others[] = {'"', '\\', '{', '9', '\0', (char)0xff, '/'};
    for (size_t at = 0; at < strlen(whole); at++) {
        struct manifest manifest;
        assert_true(at == strlen(whole) - 1 || read_text(fixture, whole, at, &manifest) == STATUS_BAD_INPUT);
        if (at < strlen(whole) - 1)
            manifest_free(&manifest);
        char text[sizeof whole];
        memcpy(text, whole, sizeof whole);
        text[at] = others[at % sizeof others];
        fixture->error.message[0] = '\0';
        enum status status = read_text(fixture, text, strlen(whole), &manifest);
        manifest_free(&manifest);
        assert_true(status == STATUS_OK || (status == STATUS_BAD_INPUT && fixture->error.message[0]));
    }
}

/* ---- recipes ---- */

static enum wanted_format wanted(const struct wanted_recipe *recipe, const char *name) {
    enum wanted_format format = WANTED_KEEP;
    struct error error;
    assert_ok(wanted_format_of(recipe, name, &format, &error), error);
    return format;
}

static void given_a_recipe_then_the_first_rule_that_matches_counts(void **state) {
    struct fixture *fixture = *state;
    struct wanted_recipe recipe;
    char path[256];
    fixture_file(
        fixture, "r.json",
        "{\"$schema\": \"x\", \"schema\": \"qstream.recipe/1\", \"name\": \"r\", \"description\": \"d\", \"rules\": ["
        "{\"match\": \"re:a\\\\.b$\", \"format\": \"keep\"}, {\"match\": \"a.*\", \"format\": \"mxfp4\"},"
        "{\"match\": \"a.c\", \"format\": \"fp8\"}, {\"match\": \"re:b\", \"format\": \"fp8\"}]}");
    assert_ok(wanted_recipe_read(fixture_path(fixture, "r.json", path), &recipe, &fixture->error), fixture->error);
    assert_string_equal(recipe.name, "r");
    assert_int_equal(wanted(&recipe, "a.b"), WANTED_KEEP);
    assert_int_equal(wanted(&recipe, "a.c"), WANTED_MXFP4);
    assert_int_equal(wanted(&recipe, "bcd"), WANTED_FP8);
    assert_int_equal(wanted(&recipe, "z"), WANTED_KEEP);
    assert_string_equal(wanted_format_name(WANTED_MXFP4), "mxfp4");
    assert_string_equal(wanted_format_name(WANTED_FP8), "fp8");
    assert_string_equal(wanted_format_name(WANTED_KEEP), "keep");
    wanted_recipe_free(&recipe);
}

static void given_the_recipes_that_come_with_qstream_then_the_quantizer_reads_the_same_in_them(void **state) {
    (void)state;
    static const char *const files[] = {"configs/llama-mxfp4.json", "configs/mistral-medium-3.5-mxfp4.json",
                                        "configs/qwen3-moe-mxfp4.json"};
    static const char *const names[] = {"lm_head",
                                        "model.embed_tokens",
                                        "model.layers.3.mlp.up_proj",
                                        "model.layers.13.self_attn.k_proj",
                                        "model.language_model.layers.87.mlp.gate_proj",
                                        "model.language_model.layers.0.self_attn.o_proj",
                                        "model.vision_tower.transformer.layers.0.attention.q_proj",
                                        "model.layers.5.mlp.experts.17.down_proj",
                                        "model.layers.5.mlp.gate",
                                        "model.norm"};
    for (size_t f = 0; f < 3; f++) {
        struct wanted_recipe recipe;
        struct recipe other;
        struct error error;
        assert_ok(wanted_recipe_read(files[f], &recipe, &error), error);
        assert_ok(recipe_read(files[f], &other, &error), error);
        for (size_t n = 0; n < sizeof names / sizeof *names; n++) {
            const struct recipe_rule *rule;
            assert_ok(recipe_rule_for(&other, names[n], &rule, &error), error);
            assert_string_equal(wanted_format_name(wanted(&recipe, names[n])),
                                rule ? recipe_format_name(rule->format) : "keep");
        }
        wanted_recipe_free(&recipe);
        recipe_free(&other);
    }
}

static void given_a_recipe_file_that_is_wrong_then_file_and_rule_are_named(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"[", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"x\"}", "\"rules\""},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"x\", \"rules\": []}", "\"rules\""},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"x\", \"rules\": {}}", "\"rules\""},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"x\", \"rules\": [7]}", "rule 1: it is not an object"},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"x\", \"rules\": [{\"match\": \"a\"}]}", "rule 1: the strings"},
        {"{\"schema\": \"qstream.recipe/1\", \"name\": \"x\", \"rule\": []}", "unknown key 'rule'"},
        {"{\"schema\": \"qstream.thresholds/1\", \"name\": \"x\", \"rules\": [7]}", "\"schema\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct wanted_recipe recipe;
        char path[256];
        fixture_file(fixture, "wrong.json", cases[i].text);
        enum status status = wanted_recipe_read(fixture_path(fixture, "wrong.json", path), &recipe, &fixture->error);
        wanted_recipe_free(&recipe);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, cases[i].says);
        assert_contains(fixture->error.message, "wrong.json");
    }
    struct wanted_recipe recipe;
    assert_refused(wanted_recipe_read("/no/such/file.json", &recipe, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "/no/such/file.json");
    wanted_recipe_free(&recipe);
}

static void given_a_pattern_that_backtracks_without_end_then_that_is_an_error(void **state) {
    struct fixture *fixture = *state;
    struct wanted_recipe recipe;
    char path[256];
    enum wanted_format format;
    fixture_file(fixture, "r.json",
                 "{\"schema\": \"qstream.recipe/1\", \"name\": \"r\", \"rules\": [{\"match\": \"re:(a+)+$\", "
                 "\"format\": \"fp8\"}]}");
    assert_ok(wanted_recipe_read(fixture_path(fixture, "r.json", path), &recipe, &fixture->error), fixture->error);
    enum status status =
        wanted_format_of(&recipe, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", &format, &fixture->error);
    wanted_recipe_free(&recipe);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "re:(a+)+$");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_manifest_then_all_of_it_is_read),
        TEST(given_no_manifest_then_that_is_no_error),
        TEST(given_a_manifest_that_is_a_folder_or_a_link_to_nowhere_then_it_is_refused),
        TEST(given_members_that_are_missing_or_of_another_kind_then_each_is_named),
        TEST(given_texts_that_are_no_manifest_then_they_are_refused),
        TEST(given_names_that_lead_out_of_the_folder_or_hold_control_characters_then_they_are_refused),
        TEST(given_unusual_names_inside_the_folder_then_they_are_taken),
        TEST(given_a_name_that_is_listed_twice_then_it_is_refused),
        TEST(given_digests_that_are_none_then_they_are_refused),
        TEST(given_a_manifest_beyond_the_limit_then_it_is_not_read),
        TEST(given_every_cut_and_every_changed_byte_then_reading_ends_and_errors_say_why),
        TEST(given_a_recipe_then_the_first_rule_that_matches_counts),
        TEST(given_the_recipes_that_come_with_qstream_then_the_quantizer_reads_the_same_in_them),
        TEST(given_a_recipe_file_that_is_wrong_then_file_and_rule_are_named),
        TEST(given_a_pattern_that_backtracks_without_end_then_that_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
