/*
 * ppl: files of expected figures: what they settle, what is refused, who passes, and what --update leaves.
 */
#include <math.h>

#include "infer/report/expectation.h"
#include "tests/unit/fixtures.h"

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HEAD                                                                                                           \
    "{\"schema\": \"qstream.ppl-expectation/1\", \"name\": \"test\", \"notes\": \"keep me\","                          \
    "\"model\": {\"name\": \"M\", \"revision\": \"r1\"}, "
#define PPL "\"ppl\": {\"value\": 10, \"tolerance\": \"1%\", \"status\": \"reproduced\"}"
#define CASE(name, more) "{\"name\": \"" name "\", " more "\"expected\": {" PPL "}}"

static enum status read_file(struct fixture *fixture, const char *text, const char *test, bool update,
                             struct expectation *expectation) {
    char path[256];
    fixture_file(fixture, "test.ppl.json", text);
    return expectation_read(fixture_path(fixture, "test.ppl.json", path), test, update, expectation, &fixture->error);
}

/* ---- reading ---- */

static void given_a_file_then_the_case_counts_before_the_top(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    assert_ok(
        read_file(
            fixture,
            HEAD
            "\"tokens\": {\"count\": 5, \"sha256\": \"" HASH_A "\"},"
            "\"protocol\": {\"window\": 64, \"stride\": 16, \"windows\": 5}, \"compute\": \"bf16\","
            "\"variants\": {\"bos\": true, \"activations\": \"float\"}, \"cases\": [" CASE(
                "one", "") ","
                           "{\"name\": \"two\", \"protocol\": {\"windows\": \"all\"}, \"compute\": \"f32\","
                           "\"notes\": \"n\", \"checkpoint\": \"c\", \"tokens\": {\"sha256\": \"" HASH_B "\"},"
                           "\"variants\": {\"activations\": \"as-served\", \"kv_cache\": \"fp8\"}, \"expected\": {"
                           "\"window_nll\": {\"values\": [1, 2.5], \"tolerance\": 0.1, \"status\": \"published-only\"},"
                           "\"nll\": {\"value\": 2, \"tolerance\": 0, \"status\": \"reproduced\"}}}]}",
            "two", false, &expectation),
        fixture->error);
    const struct ppl_settings *settings = &expectation.settings;
    assert_string_equal(expectation.name, "test");
    assert_string_equal(expectation.model, "M, r1");
    assert_string_equal(expectation.test, "two");
    assert_string_equal(expectation.tokens_hash, HASH_B);
    assert_int_equal(settings->protocol.window, 64);
    assert_int_equal(settings->protocol.windows, 0);
    assert_int_equal(settings->compute, COMPUTE_F32);
    assert_true(settings->variants.bos && !settings->variants.activations_float);
    assert_int_equal(settings->variants.kv_cache, KV_CACHE_FP8);
    assert_true(settings->has_windows && settings->has_bos && settings->has_kv_cache && !settings->has_text_join);
    assert_int_equal(expectation.count, 3);
    assert_string_equal(expectation.checks[0].name, "nll");
    assert_string_equal(expectation.checks[2].name, "window_nll[1]");
    assert_true(expectation.checks[2].expected == 2.5 && expectation.checks[2].status == FIGURE_PUBLISHED_ONLY);
    expectation_free(&expectation);
}

static void given_several_cases_and_none_chosen_then_they_are_named(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    const char *file = HEAD "\"cases\": [" CASE("one", "") "," CASE("two", "") "]}";
    assert_refused(read_file(fixture, file, NULL, false, &expectation), STATUS_USAGE, fixture->error,
                   "--case: one, two");
    expectation_free(&expectation);
    assert_refused(read_file(fixture, file, "three", false, &expectation), STATUS_USAGE, fixture->error,
                   "no such case");
    expectation_free(&expectation);
    assert_ok(read_file(fixture, file, "three", true, &expectation), fixture->error);
    assert_true(expectation.fresh);
    expectation_free(&expectation);
    assert_ok(read_file(fixture, HEAD "\"cases\": [" CASE("one", "") "]}", NULL, false, &expectation), fixture->error);
    assert_string_equal(expectation.test, "one");
    expectation_free(&expectation);
}

static void given_a_file_that_is_wrong_then_file_and_place_are_named(void **state) {
    struct fixture *fixture = *state;
#define FIGURES(figures) HEAD "\"cases\": [{\"name\": \"one\", \"expected\": {" figures "}}]}"
    static const struct {
        const char *text, *part;
    } wrong[] = {
        {"", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"{}", "\"schema\""},
        {"{\"schema\": \"qstream.ppl-expectation/2\"}", "\"schema\""},
        {"{\"schema\": \"qstream.ppl-expectation/1\", \"cases\": []}", "\"name\""},
        {"{\"schema\": \"qstream.ppl-expectation/1\", \"name\": 1}", "\"name\""},
        {"{\"schema\": \"qstream.ppl-expectation/1\", \"name\": \"x\"}", "\"model\""},
        {HEAD "\"cases\": []}", "\"cases\""},
        {HEAD "\"cases\": {}}", "\"cases\""},
        {HEAD "\"cases\": [1]}", "case 1 has no \"name\""},
        {HEAD "\"cases\": [" CASE("a", "") "," CASE("a", "") "]}", "two cases"},
        {HEAD "\"extra\": 1, \"cases\": [" CASE("a", "") "]}", "unknown key 'extra'"},
        {HEAD "\"name\": \"twice\", \"cases\": [" CASE("a", "") "]}", "not valid JSON"},
        {HEAD "\"cases\": [" CASE("a", "\"extra\": 1,") "]}", "case 'a' has the unknown key 'extra'"},
        {HEAD "\"cases\": [" CASE("a", "\"compute\": \"f64\",") "]}", "\"compute\" cannot be 'f64'"},
        {HEAD "\"cases\": [" CASE("a", "\"compute\": 1,") "]}", "\"compute\" is not a string"},
        {HEAD "\"cases\": [" CASE("a", "\"notes\": 1,") "]}", "\"notes\" is not a string"},
        {HEAD "\"cases\": [" CASE("a", "\"checkpoint\": 1,") "]}", "\"checkpoint\" is not a string"},
        {HEAD "\"text\": 1, \"cases\": [" CASE("a", "") "]}", "\"text\" is not a string"},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": [],") "]}", "\"protocol\" is not an object"},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": {\"window\": 1},") "]}", "\"window\""},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": {\"stride\": 0},") "]}", "\"stride\""},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": {\"stride\": 1.5},") "]}", "\"stride\""},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": {\"windows\": \"some\"},") "]}", "\"windows\""},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": {\"windows\": 99999999999},") "]}", "\"windows\""},
        {HEAD "\"cases\": [" CASE("a", "\"protocol\": {\"width\": 1},") "]}", "unknown key 'width'"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": 1,") "]}", "\"variants\" is not an object"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": {\"bos\": 1},") "]}", "neither true nor false"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": {\"text_join\": \"x\"},") "]}", "\"text_join\" cannot be 'x'"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": {\"kv_cache\": \"x\"},") "]}", "\"kv_cache\" cannot be 'x'"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": {\"rope_frequencies\": \"f16\"},") "]}",
         "\"rope_frequencies\" cannot be 'f16'"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": {\"activations\": \"x\"},") "]}", "\"activations\" cannot be"},
        {HEAD "\"cases\": [" CASE("a", "\"variants\": {\"mood\": \"x\"},") "]}", "unknown key 'mood'"},
        {HEAD "\"cases\": [" CASE("a", "\"tokens\": 1,") "]}", "\"tokens\" is not an object"},
        {HEAD "\"cases\": [" CASE("a", "\"tokens\": {\"sha256\": \"abc\"},") "]}", "64 hexadecimal digits"},
        {HEAD "\"cases\": [" CASE("a", "\"tokens\": {\"count\": 1},") "]}", "64 hexadecimal digits"},
        {HEAD "\"cases\": [{\"name\": \"one\"}]}", "no \"expected\" figures"},
        {FIGURES(""), "no \"expected\" figures"},
        {FIGURES("\"speed\": {}"), "unknown key 'speed'"},
        {FIGURES("\"ppl\": 3"), "\"ppl\" is not an object"},
        {FIGURES("\"ppl\": {\"value\": 1, \"status\": \"reproduced\"}"), "\"tolerance\""},
        {FIGURES("\"ppl\": {\"value\": 1, \"tolerance\": -1, \"status\": \"reproduced\"}"), "\"tolerance\""},
        {FIGURES("\"ppl\": {\"value\": 1, \"tolerance\": \"1\\u0025\\u0025\", \"status\": \"reproduced\"}"),
         "\"tolerance\""},
        {FIGURES("\"ppl\": {\"value\": 1, \"tolerance\": 1, \"status\": \"guessed\"}"), "\"status\""},
        {FIGURES("\"ppl\": {\"value\": 1, \"tolerance\": 1}"), "\"status\""},
        {FIGURES("\"ppl\": {\"value\": \"1\", \"tolerance\": 1, \"status\": \"reproduced\"}"), "\"value\""},
        {FIGURES("\"ppl\": {\"value\": -1, \"tolerance\": 1, \"status\": \"reproduced\"}"), "\"value\""},
        {FIGURES("\"ppl\": {\"value\": 1, \"tolerance\": 1, \"status\": \"reproduced\", \"x\": 1}"), "unknown key 'x'"},
        {FIGURES("\"window_nll\": {\"values\": [], \"tolerance\": 1, \"status\": \"reproduced\"}"), "\"values\""},
        {FIGURES("\"window_nll\": {\"value\": 1, \"tolerance\": 1, \"status\": \"reproduced\"}"), "\"values\""},
        {FIGURES("\"window_nll\": {\"values\": [1, null], \"tolerance\": 1, \"status\": \"reproduced\"}"), "no number"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct expectation expectation;
        assert_refused(read_file(fixture, wrong[i].text, NULL, false, &expectation), STATUS_BAD_INPUT, fixture->error,
                       wrong[i].part);
        assert_contains(fixture->error.message, "test.ppl.json");
        expectation_free(&expectation);
    }
}

static void given_a_file_cut_anywhere_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    const char *whole = HEAD "\"cases\": [" CASE("one", "") "]}";
    for (size_t length = 0; length < strlen(whole); length++) {
        struct expectation expectation;
        char *cut = strndup(whole, length);
        assert_non_null(cut);
        assert_refused(read_file(fixture, cut, NULL, false, &expectation), STATUS_BAD_INPUT, fixture->error,
                       "not valid JSON");
        expectation_free(&expectation);
        free(cut);
    }
}

/* ---- settling ---- */

static void given_a_contradicting_option_then_it_is_refused_and_what_is_not_said_is_taken_over(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    assert_ok(read_file(fixture,
                        HEAD "\"protocol\": {\"window\": 64, \"stride\": 16, \"windows\": 5}, \"compute\": \"bf16\","
                             "\"variants\": {\"bos\": false, \"text_join\": \"hf\", \"kv_cache\": \"bf16\","
                             "\"activations\": \"float\", \"fused_scales\": false,"
                             "\"rope_frequencies\": \"bf16\"}, \"cases\": [" CASE("a", "") "]}",
                        NULL, false, &expectation),
              fixture->error);
    struct ppl_settings settings = {.protocol = {2048, 512, 0}};
    assert_ok(expectation_settle(&expectation, &settings, &fixture->error), fixture->error);
    assert_int_equal(settings.protocol.window, 64);
    assert_int_equal(settings.protocol.stride, 16);
    assert_int_equal(settings.protocol.windows, 5);
    assert_int_equal(settings.compute, COMPUTE_BF16);
    assert_int_equal(settings.variants.text_join, TEXT_JOIN_HF);
    assert_int_equal(settings.variants.kv_cache, KV_CACHE_BF16);
    assert_true(settings.variants.activations_float && settings.variants.rope_bf16);

    const struct {
        struct ppl_settings said;
        const char *part;
    } wrong[] = {{{.has_window = true, .protocol.window = 65}, "--window 64"},
                 {{.has_stride = true, .protocol.stride = 8}, "--stride 16"},
                 {{.has_windows = true}, "--windows 5"},
                 {{.has_compute = true, .compute = COMPUTE_F32}, "--compute bf16"},
                 {{.has_bos = true, .variants.bos = true}, "without --bos"},
                 {{.has_text_join = true}, "--text-join hf"},
                 {{.has_kv_cache = true, .variants.kv_cache = KV_CACHE_FP8}, "--kv-cache bf16"},
                 {{.has_activations = true}, "--activations float"},
                 {{.has_fused_scales = true, .variants.fused_scales = true}, "without --fused-scales"},
                 {{.has_rope = true}, "--rope-frequencies bf16"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        settings = wrong[i].said;
        assert_refused(expectation_settle(&expectation, &settings, &fixture->error), STATUS_USAGE, fixture->error,
                       wrong[i].part);
    }
    settings =
        (struct ppl_settings){.has_window = true, .protocol.window = 64, .has_windows = true, .protocol.windows = 5};
    assert_ok(expectation_settle(&expectation, &settings, &fixture->error), fixture->error);
    expectation_free(&expectation);
}

static void given_other_tokens_then_they_are_refused_with_both_hashes(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    assert_ok(read_file(fixture, HEAD "\"cases\": [" CASE("a", "\"tokens\": {\"sha256\": \"" HASH_A "\"},") "]}", NULL,
                        false, &expectation),
              fixture->error);
    assert_ok(expectation_check_tokens(&expectation, HASH_A, &fixture->error), fixture->error);
    assert_refused(expectation_check_tokens(&expectation, HASH_B, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   HASH_A);
    assert_contains(fixture->error.message, HASH_B);
    expectation_free(&expectation);
    assert_ok(read_file(fixture, HEAD "\"cases\": [" CASE("a", "") "]}", NULL, false, &expectation), fixture->error);
    assert_ok(expectation_check_tokens(&expectation, HASH_B, &fixture->error), fixture->error); /* not known */
    expectation_free(&expectation);
}

/* ---- judging ---- */

static void given_words_for_a_tolerance_then_shares_and_amounts_are_told_apart(void **state) {
    (void)state;
    struct tolerance tolerance;
    assert_true(tolerance_parse("0.5%", &tolerance) && tolerance.relative && fabs(tolerance.amount - 0.005) < 1e-15);
    assert_true(tolerance_parse("0.01", &tolerance) && !tolerance.relative && tolerance.amount == 0.01);
    assert_true(tolerance_parse("0", &tolerance) && tolerance.amount == 0);
    assert_true(tolerance_parse("1e-3", &tolerance) && tolerance.amount == 1e-3);
    static const char *const wrong[] = {"", "%", "-1", "1%%", "1 %", "0x1", "nan", "inf", "1e999", "1.2.3", "a", "--1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (tolerance_parse(wrong[i], &tolerance))
            fail_msg("'%s' is taken", wrong[i]);
}

static void given_a_figure_then_it_passes_up_to_its_tolerance(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        struct tolerance tolerance;
        double ppl;
        bool passes;
        const char *part;
    } figures[] = {{{0.01, true}, 10.1, true, "ppl 10.1 is 0.1 (1 %) above the expected 10; 1 % is allowed"},
                   {{0.01, true}, 10.1001, false, "above the expected 10; 1 % is allowed"},
                   {{0.01, true}, 9.9, true, "below the expected 10"},
                   {{0.01, true}, 9.8, false, "ppl 9.8 is 0.2 (2 %) below the expected 10"},
                   {{0.25, false}, 10.25, true, "0.25 is allowed"},
                   {{0.25, false}, 10.26, false, "(2.6 %) above"},
                   {{0, false}, 10, true, "is the expected one"},
                   {{0, false}, 10.00001, false, "above"},
                   {{1, true}, NAN, false, "not the expected 10"},
                   {{1, true}, INFINITY, false, "not the expected 10"}};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        struct expectation expectation;
        const struct ppl_result result = {.ppl = figures[i].ppl};
        assert_ok(expectation_of(10, figures[i].tolerance, &expectation, &fixture->error), fixture->error);
        expectation_judge(&expectation, &result);
        struct text text = {0};
        check_describe(&expectation.checks[0], &text);
        assert_contains(text.bytes, figures[i].part);
        if (expectation_passed(&expectation) != figures[i].passes)
            fail_msg("%s", text.bytes);
        text_free(&text);
        expectation_free(&expectation);
    }
}

static const char every_figure[] =
    HEAD "\"cases\": [{\"name\": \"all\", \"notes\": \"stay\", \"expected\": {"
         "\"ppl\": {\"value\": 10, \"tolerance\": \"1%\", \"status\": \"reproduced\"},"
         "\"nll\": {\"value\": 2.3, \"tolerance\": 0.01, \"status\": \"published-only\"},"
         "\"tokens_scored\": {\"value\": 3, \"tolerance\": 0, \"status\": \"reproduced\"},"
         "\"kl_mean\": {\"value\": 0.5, \"tolerance\": \"2%\", \"status\": \"reproduced\"},"
         "\"top1_agreement\": {\"value\": 0.75, \"tolerance\": 0.01, \"status\": \"reproduced\"},"
         "\"window_nll\": {\"values\": [2.2, 2.4], \"tolerance\": 0.01, \"status\": \"reproduced\"}}}]}";

static void given_all_figures_then_each_is_compared_and_those_of_a_baseline_only_with_one(void **state) {
    struct fixture *fixture = *state;
    struct ppl_window windows[2] = {{.nll = 2.2}, {.nll = 2.4}};
    struct ppl_result result = {.ppl = 10,
                                .nll = 2.3,
                                .tokens_scored = 3,
                                .windows = windows,
                                .window_count = 2,
                                .has_baseline = true,
                                .kl_mean = 0.5,
                                .top1_agreement = 0.75};
    struct expectation expectation;
    assert_ok(read_file(fixture, every_figure, NULL, false, &expectation), fixture->error);
    assert_int_equal(expectation.count, 7);
    expectation_judge(&expectation, &result);
    assert_true(expectation_passed(&expectation));

    result.kl_mean = 0.6; /* a published-only figure, and each other, fails the whole */
    expectation_judge(&expectation, &result);
    assert_false(expectation_passed(&expectation));
    result.has_baseline = false;
    expectation_judge(&expectation, &result);
    assert_true(expectation_passed(&expectation));
    result.nll = 2.32;
    expectation_judge(&expectation, &result);
    assert_false(expectation_passed(&expectation));
    result.nll = 2.3;
    windows[1].nll = 2.42;
    expectation_judge(&expectation, &result);
    assert_false(expectation_passed(&expectation));
    windows[1].nll = 2.4;
    result.window_count = 1; /* a window that is expected and not there */
    expectation_judge(&expectation, &result);
    assert_false(expectation_passed(&expectation));
    result.window_count = 2;
    result.tokens_scored = 4;
    expectation_judge(&expectation, &result);
    assert_false(expectation_passed(&expectation));
    expectation_free(&expectation);
}

/* ---- updating ---- */

static json_t *json_at(json_t *json, const char *path) {
    char copy[128], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (const char *part; json && (part = strsep(&rest, "/"));)
        json =
            *part >= '0' && *part <= '9' ? json_array_get(json, strtoul(part, NULL, 10)) : json_object_get(json, part);
    if (!json)
        fail_msg("there is no %s", path);
    return json;
}

static json_t *file_json(struct fixture *fixture, const char *file) {
    char path[256];
    json_t *root = json_load_file(fixture_path(fixture, file, path), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(root);
    return root;
}

static struct ppl_window measured_windows[2] = {{.nll = 2.25}, {.nll = 2.75}};
static const struct ppl_result measured = {.ppl = 12.182494,
                                           .nll = 2.5,
                                           .tokens_scored = 9,
                                           .windows = measured_windows,
                                           .window_count = 2,
                                           .compute = COMPUTE_F32};
static const struct ppl_settings said = {.protocol = {64, 32, 0},
                                         .variants = {.bos = true, .kv_cache = KV_CACHE_FP8, .rope_bf16 = true}};
static const struct ppl_update update = {
    .model = "folder", .settings = &said, .tokens_hash = HASH_B, .token_count = 10, .tolerance = {0.005, true}};

static void given_an_update_then_figures_and_hash_are_new_and_all_else_stays(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    char path[256];
    assert_ok(read_file(fixture, every_figure, NULL, true, &expectation), fixture->error);
    fixture_path(fixture, "test.ppl.json", path);
    assert_ok(expectation_update(&expectation, path, NULL, &update, &measured, &fixture->error), fixture->error);
    expectation_free(&expectation);
    json_t *root = file_json(fixture, "test.ppl.json");
    assert_string_equal(json_string_value(json_at(root, "notes")), "keep me");
    assert_string_equal(json_string_value(json_at(root, "model/revision")), "r1");
    assert_int_equal(json_array_size(json_at(root, "cases")), 1);
    assert_string_equal(json_string_value(json_at(root, "cases/0/notes")), "stay");
    assert_string_equal(json_string_value(json_at(root, "cases/0/tokens/sha256")), HASH_B);
    assert_true(json_real_value(json_at(root, "cases/0/expected/ppl/value")) == 12.182494);
    assert_string_equal(json_string_value(json_at(root, "cases/0/expected/ppl/tolerance")), "1%");
    assert_string_equal(json_string_value(json_at(root, "cases/0/expected/nll/status")), "reproduced");
    assert_int_equal(json_integer_value(json_at(root, "cases/0/expected/tokens_scored/value")), 9);
    assert_true(json_real_value(json_at(root, "cases/0/expected/window_nll/values/1")) == 2.75);
    assert_true(json_real_value(json_at(root, "cases/0/expected/kl_mean/value")) == 0.5); /* not measured: as it was */
    json_decref(root);

    /* and what was written is read, and passes */
    assert_ok(expectation_read(path, "all", false, &expectation, &fixture->error), fixture->error);
    assert_ok(expectation_check_tokens(&expectation, HASH_B, &fixture->error), fixture->error);
    expectation_judge(&expectation, &measured);
    assert_true(expectation_passed(&expectation));
    expectation_free(&expectation);
}

static void given_no_file_or_case_then_an_update_makes_it_with_all_settings(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    char path[256];
    fixture_path(fixture, "new.ppl.json", path);
    assert_ok(expectation_read(path, NULL, true, &expectation, &fixture->error), fixture->error);
    assert_ok(expectation_update(&expectation, path, NULL, &update, &measured, &fixture->error), fixture->error);
    expectation_free(&expectation);
    assert_ok(expectation_read(path, "two", true, &expectation, &fixture->error), fixture->error);
    assert_ok(expectation_update(&expectation, path, "two", &update, &measured, &fixture->error), fixture->error);
    expectation_free(&expectation);
    json_t *root = file_json(fixture, "new.ppl.json");
    assert_string_equal(json_string_value(json_at(root, "name")), "new");
    assert_string_equal(json_string_value(json_at(root, "model/name")), "folder");
    assert_int_equal(json_array_size(json_at(root, "cases")), 2);
    json_decref(root);
    for (int i = 0; i < 2; i++) {
        struct ppl_settings settings = {0};
        assert_ok(expectation_read(path, i ? "two" : "default", false, &expectation, &fixture->error), fixture->error);
        assert_ok(expectation_settle(&expectation, &settings, &fixture->error), fixture->error);
        assert_int_equal(settings.protocol.window, 64);
        assert_int_equal(settings.protocol.windows, 0);
        assert_int_equal(settings.compute, COMPUTE_F32);
        assert_true(settings.variants.bos && settings.variants.kv_cache == KV_CACHE_FP8 && settings.variants.rope_bf16);
        expectation_judge(&expectation, &measured);
        assert_true(expectation_passed(&expectation));
        expectation_free(&expectation);
    }
    assert_refused(
        expectation_read(fixture_path(fixture, "none.json", path), NULL, false, &expectation, &fixture->error),
        STATUS_BAD_INPUT, fixture->error, "none.json");
    expectation_free(&expectation);
}

static void given_a_perplexity_that_is_no_number_then_an_update_leaves_the_file(void **state) {
    struct fixture *fixture = *state;
    struct expectation expectation;
    struct ppl_result broken = measured;
    char path[256];
    broken.nll = broken.ppl = NAN;
    fixture_path(fixture, "new.ppl.json", path);
    assert_ok(expectation_read(path, NULL, true, &expectation, &fixture->error), fixture->error);
    assert_refused(expectation_update(&expectation, path, NULL, &update, &broken, &fixture->error), STATUS_CHECK_FAILED,
                   fixture->error, "not finite");
    expectation_free(&expectation);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void given_the_files_that_come_with_qstream_then_every_case_can_be_read(void **state) {
    struct fixture *fixture = *state;
    static const char *const files[] = {"configs/smollm2.ppl.json", "configs/mistral-medium-3.5.ppl.json"};
    for (size_t i = 0; i < 2; i++) {
        json_t *root = json_load_file(files[i], 0, NULL);
        assert_non_null(root);
        for (size_t number = 0; number < json_array_size(json_object_get(root, "cases")); number++) {
            const json_t *json = json_array_get(json_object_get(root, "cases"), number);
            struct expectation expectation;
            const char *name = json_string_value(json_object_get(json, "name"));
            assert_ok(expectation_read(files[i], name, false, &expectation, &fixture->error), fixture->error);
            const bool quick = strncmp(name, "short", 5) == 0;
            assert_int_equal(expectation.settings.protocol.window, quick ? 256 : 2048);
            assert_int_equal(expectation.settings.protocol.stride, quick ? 128 : 512);
            assert_int_equal(expectation.settings.protocol.windows, quick ? 0 : 5);
            expectation_free(&expectation);
        }
        json_decref(root);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_file_then_the_case_counts_before_the_top),
        TEST(given_several_cases_and_none_chosen_then_they_are_named),
        TEST(given_a_file_that_is_wrong_then_file_and_place_are_named),
        TEST(given_a_file_cut_anywhere_then_it_is_refused),
        TEST(given_a_contradicting_option_then_it_is_refused_and_what_is_not_said_is_taken_over),
        TEST(given_other_tokens_then_they_are_refused_with_both_hashes),
        TEST(given_words_for_a_tolerance_then_shares_and_amounts_are_told_apart),
        TEST(given_a_figure_then_it_passes_up_to_its_tolerance),
        TEST(given_all_figures_then_each_is_compared_and_those_of_a_baseline_only_with_one),
        TEST(given_an_update_then_figures_and_hash_are_new_and_all_else_stays),
        TEST(given_no_file_or_case_then_an_update_makes_it_with_all_settings),
        TEST(given_a_perplexity_that_is_no_number_then_an_update_leaves_the_file),
        TEST(given_the_files_that_come_with_qstream_then_every_case_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
