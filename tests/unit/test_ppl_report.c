/*
 * ppl: the table, the JSON, the page, JUnit XML and the list of tokens, of made-up measurements.
 */
#include <math.h>

#include "infer/report/ppl_curves.h"
#include "infer/report/ppl_report.h"
#include "tests/unit/fixtures.h"

enum { WINDOWS = 3, WINDOW = 8, STRIDE = 4, TOKENS = 15, LAYERS = 3 };
#define HASH "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HOSTILE "a<b>&\"\x1b[31m\n\xff\xe2\x80\xae</script>"

static struct ppl_settings settings = {.protocol = {WINDOW, STRIDE, 0}};

/* Token i has nll 1 + i / 8, baseline 1, kl i / 100. */
static void result_make(struct ppl_result *result, bool baseline) {
    struct error error;
    *result = (struct ppl_result){.has_baseline = baseline,
                                  .seconds = 2,
                                  .tokens_per_second = 12,
                                  .tokens_run = 24,
                                  .compute = COMPUTE_F32,
                                  .budget = {.tokens = 24,
                                             .hidden = 3000,
                                             .hidden_memory = 1000,
                                             .weights = 4000,
                                             .work = 500,
                                             .total = 5500,
                                             .read = 70000,
                                             .group = 2,
                                             .groups = 2}};
    assert_ok(ppl_windows(&settings.protocol, 16, &result->windows, &result->window_count, &error), error);
    assert_int_equal(result->window_count, WINDOWS);
    result->tokens = calloc(TOKENS, sizeof *result->tokens);
    result->layers = calloc(LAYERS, sizeof *result->layers);
    assert_true(result->tokens && result->layers);
    for (uint32_t i = 0; i < TOKENS; i++)
        result->tokens[i] = (struct ppl_token){.position = i + 1,
                                               .id = (int32_t)(i * 3),
                                               .nll = 1 + (float)i / 8,
                                               .baseline_nll = 1,
                                               .kl = (float)i / 100,
                                               .agrees = i % 3 != 0};
    assert_ok(ppl_summarize(result, &error), error);
    result->layer_count = baseline ? LAYERS : 0;
    for (int i = 0; i < LAYERS; i++)
        result->layers[i] = (struct ppl_layer){0.01 * i * i, 1 - 0.001 * i};
}

static struct ppl_report report_of(const struct ppl_result *result) {
    return (struct ppl_report){.model = "models/one",
                               .baseline = result->has_baseline ? "models/two" : NULL,
                               .text = "wiki.txt",
                               .token_count = 16,
                               .tokens_hash = HASH,
                               .settings = &settings,
                               .memory = 8000,
                               .result = result};
}

static json_t *json_of(struct fixture *fixture, const struct ppl_report *report) {
    text_free(&fixture->text);
    assert_ok(ppl_report_json(report, &fixture->text, &fixture->error), fixture->error);
    for (size_t i = 0; i < fixture->text.length; i++)
        if (fixture->text.bytes[i] < ' ' || fixture->text.bytes[i] > '~')
            fail_msg("byte %d in the JSON", fixture->text.bytes[i]);
    json_error_t at;
    json_t *root = json_loadb(fixture->text.bytes, fixture->text.length, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        fail_msg("%s: %s", at.text, fixture->text.bytes);
    return root;
}

/* The value at a path such as "windows/0/nll". */
static const json_t *at(const json_t *json, const char *path) {
    char copy[128], *rest = copy;
    snprintf(copy, sizeof copy, "%s", path);
    for (const char *part; json && (part = strsep(&rest, "/"));)
        json =
            *part >= '0' && *part <= '9' ? json_array_get(json, strtoul(part, NULL, 10)) : json_object_get(json, part);
    if (!json)
        fail_msg("there is no %s", path);
    return json;
}

static void assert_number(const json_t *root, const char *path, double wanted) {
    const json_t *value = at(root, path);
    if (!json_is_number(value) || !(fabs(json_number_value(value) - wanted) <= 1e-6 * (1 + fabs(wanted))))
        fail_msg("%s is %g instead of %g", path, json_number_value(value), wanted);
}

static void assert_word(const json_t *root, const char *path, const char *wanted) {
    const char *word = json_string_value(at(root, path));
    if (!word || strcmp(word, wanted) != 0)
        fail_msg("%s is '%s' instead of '%s'", path, word ? word : "no string", wanted);
}

static void assert_absent(const json_t *root, const char *path) {
    if (!json_is_null(at(root, path)))
        fail_msg("%s is not null", path);
}

/* ---- JSON ---- */

static void given_a_measurement_then_the_json_has_its_figures(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, false);
    struct ppl_report report = report_of(&result);
    json_t *root = json_of(fixture, &report);
    assert_word(root, "schema", "qstream.ppl/1");
    assert_word(root, "state", "measured");
    assert_word(root, "model", "models/one");
    assert_number(root, "nll", 1 + 7.0 / 8);
    assert_number(root, "ppl", exp(1 + 7.0 / 8));
    assert_number(root, "tokens_scored", TOKENS);
    assert_number(root, "tokens_run", 24);
    assert_number(root, "tokens_per_second", 12);
    assert_number(root, "standard_error", result.standard_error);
    assert_int_equal(json_array_size(at(root, "windows")), WINDOWS);
    assert_number(root, "windows/0/nll", 1 + 3.0 / 8);
    assert_number(root, "windows/1/first", STRIDE);
    assert_number(root, "windows/1/tokens", WINDOW);
    assert_number(root, "windows/1/scored", STRIDE);
    assert_absent(root, "windows/0/kl");
    assert_absent(root, "baseline");
    assert_absent(root, "kl");
    assert_absent(root, "top1_agreement");
    assert_absent(root, "protocol/windows");
    assert_word(root, "compute", "f32");
    assert_word(root, "variants/activations", "as-served");
    assert_word(root, "variants/kv_cache", "auto");
    assert_word(root, "text/sha256", HASH);
    assert_number(root, "budget/total", 5500);
    assert_number(root, "budget/memory", 8000);
    assert_absent(root, "expectation");
    assert_int_equal(json_array_size(at(root, "layers")), 0);
    json_decref(root);
    ppl_result_free(&result);
}

static void given_a_baseline_then_the_json_compares_the_two(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, true);
    struct ppl_report report = report_of(&result);
    json_t *root = json_of(fixture, &report);
    assert_word(root, "baseline/model", "models/two");
    assert_number(root, "baseline/nll", 1);
    assert_number(root, "baseline/ppl", exp(1));
    assert_number(root, "kl/mean", 0.07);
    assert_number(root, "kl/median", 0.07);
    assert_number(root, "kl/max", 0.14);
    assert_number(root, "top1_agreement", 10.0 / 15);
    assert_number(root, "windows/0/baseline_nll", 1);
    assert_number(root, "windows/0/kl", 0.03);
    assert_int_equal(json_array_size(at(root, "layers")), LAYERS);
    assert_absent(root, "layers/0/layer");
    assert_number(root, "layers/2/layer", 1);
    assert_number(root, "layers/2/rel_error", 0.04);
    assert_number(root, "layers/2/cosine", 0.998);
    double sum = 0;
    for (size_t i = 0; i < KL_BINS; i++)
        sum += json_number_value(json_array_get(at(root, "kl_histogram/counts"), i));
    assert_true(sum == TOKENS);
    json_decref(root);
    ppl_result_free(&result);
}

static void given_a_plan_then_figures_are_null_and_the_budget_is_there(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    struct expectation expectation;
    result_make(&result, true);
    assert_ok(expectation_of(10, (struct tolerance){0.01, true}, &expectation, &fixture->error), fixture->error);
    free(result.tokens);
    result.tokens = NULL;
    result.nll = result.ppl = 0;
    result.layer_count = 0;
    struct ppl_report report = report_of(&result);
    report.planned = true;
    report.expectation = &expectation;
    json_t *root = json_of(fixture, &report);
    assert_word(root, "state", "planned");
    assert_absent(root, "nll");
    assert_absent(root, "ppl");
    assert_absent(root, "windows/0/nll");
    assert_absent(root, "baseline/nll");
    assert_absent(root, "kl/mean");
    assert_absent(root, "kl_histogram");
    assert_absent(root, "expectation/verdict");
    assert_word(root, "expectation/checks/0/verdict", "not-measured");
    assert_number(root, "tokens_scored", TOKENS);
    assert_number(root, "budget/read", 70000);
    json_decref(root);
    text_free(&fixture->text);
    assert_ok(ppl_report_table(&report, &fixture->text, &fixture->error), fixture->error);
    assert_contains(fixture->text.bytes, "15 tokens scored, 24 run");
    assert_contains(fixture->text.bytes, "5.50 kB");
    assert_contains(fixture->text.bytes, "2.00 kB of hidden states in a file");
    if (strstr(fixture->text.bytes, "NLL") || strstr(fixture->text.bytes, "PASS"))
        fail_msg("a plan with figures: %s", fixture->text.bytes);
    expectation_free(&expectation);
    ppl_result_free(&result);
}

static void given_figures_that_are_not_finite_then_the_json_has_null_and_the_verdict_is_fail(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    struct expectation expectation;
    result_make(&result, true);
    result.tokens[3].nll = NAN;
    result.tokens[4].kl = INFINITY;
    result.layers[1].cosine = NAN;
    assert_ok(ppl_summarize(&result, &fixture->error), fixture->error);
    assert_ok(expectation_of(10, (struct tolerance){1000, true}, &expectation, &fixture->error), fixture->error);
    expectation_judge(&expectation, &result);
    struct ppl_report report = report_of(&result);
    report.expectation = &expectation;
    json_t *root = json_of(fixture, &report);
    assert_absent(root, "nll");
    assert_absent(root, "ppl");
    assert_absent(root, "windows/0/nll");
    assert_absent(root, "kl/mean");
    assert_absent(root, "layers/1/cosine");
    assert_word(root, "expectation/verdict", "fail");
    assert_absent(root, "expectation/checks/0/measured");
    json_decref(root);
    text_free(&fixture->text);
    assert_ok(ppl_report_table(&report, &fixture->text, &fixture->error), fixture->error);
    assert_contains(fixture->text.bytes, "FAIL: ");
    expectation_free(&expectation);
    ppl_result_free(&result);
}

/* ---- hostile names ---- */

static void given_hostile_names_then_no_output_is_changed_by_them(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    struct expectation expectation;
    char path[256];
    result_make(&result, true);
    assert_ok(expectation_of(10, (struct tolerance){0.01, true}, &expectation, &fixture->error), fixture->error);
    expectation.file = strdup(HOSTILE);
    expectation.name = strdup(HOSTILE "\xef\xbf\xbf");
    expectation.test = strdup(HOSTILE);
    expectation_judge(&expectation, &result);
    struct ppl_report report = report_of(&result);
    report.model = report.baseline = report.text = HOSTILE;
    report.expectation = &expectation;
    json_decref(json_of(fixture, &report));
    assert_ok(ppl_report_page(fixture_path(fixture, "page.html", path), &fixture->text, &fixture->error),
              fixture->error);
    char *page;
    size_t length, scripts = 0;
    assert_ok(file_read(path, 1 << 20, &page, &length, &fixture->error), fixture->error);
    for (const char *found = page; (found = strstr(found, "</script>")); found++)
        scripts++;
    assert_int_equal(scripts, 2); /* the data and the program: none of a name */
    free(page);

    text_free(&fixture->text);
    assert_ok(ppl_report_table(&report, &fixture->text, &fixture->error), fixture->error);
    for (size_t i = 0; i < fixture->text.length; i++)
        if (((unsigned char)fixture->text.bytes[i] < ' ' && fixture->text.bytes[i] != '\n') ||
            fixture->text.bytes[i] == '\x7f')
            fail_msg("byte %d in the table", fixture->text.bytes[i]);
    if (strstr(fixture->text.bytes, "\xe2\x80\xae"))
        fail_msg("the direction of writing is changed");

    assert_ok(ppl_report_junit(fixture_path(fixture, "junit.xml", path), &report, &fixture->error), fixture->error);
    char *xml;
    assert_ok(file_read(path, 1 << 20, &xml, &length, &fixture->error), fixture->error);
    assert_contains(xml, "a&lt;b&gt;&amp;&quot;\\x1b[31m");
    if (strstr(xml, "\xef\xbf\xbf") || strstr(xml, "</script>"))
        fail_msg("no XML: %s", xml);
    free(xml);
    expectation_free(&expectation);
    ppl_result_free(&result);
}

/* ---- table ---- */

static void given_a_measurement_then_the_table_says_what_was_measured_and_how(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, true);
    struct ppl_report report = report_of(&result);
    assert_ok(ppl_report_table(&report, &fixture->text, &fixture->error), fixture->error);
    const char *const parts[] = {
        "text            wiki.txt, 16 tokens, SHA-256 0123456789ab...",
        "window 8, stride 4, 3 windows; 15 tokens scored, 24 run",
        "compute         f32, activations as served",
        "12 tokens/s",
        "model           NLL 1.87500, PPL 6.5208 (+139.89 %); standard error of the NLL ",
        "baseline        NLL 1.00000, PPL 2.7183",
        "KL divergence   mean 0.07000, median 0.07000",
        "same top token  66.67 %",
        "embedding",
        "rises most in layer 1, by 0.03000",
        "\n0                  0        8        7    1.37500      3.955    1.00000   +0.37500    0.03000\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_contains(fixture->text.bytes, parts[i]);
    ppl_result_free(&result);
}

static void given_hundreds_of_windows_then_the_table_shows_the_first_and_the_last(void **state) {
    struct fixture *fixture = *state;
    struct ppl_window *windows = calloc(500, sizeof *windows);
    assert_non_null(windows);
    struct ppl_result result = {.windows = windows, .window_count = 500};
    struct ppl_report report = report_of(&result);
    assert_ok(ppl_report_table(&report, &fixture->text, &fixture->error), fixture->error);
    assert_contains(fixture->text.bytes, "\n9   ");
    assert_contains(fixture->text.bytes, "...\n490 ");
    assert_contains(fixture->text.bytes, "\n499 ");
    if (strstr(fixture->text.bytes, "\n10 "))
        fail_msg("all of them are shown");
    free(windows);
}

static void given_expected_figures_then_the_last_line_is_the_verdict(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, false);
    struct ppl_report report = report_of(&result);
    for (int passes = 0; passes < 2; passes++) {
        struct expectation expectation;
        assert_ok(expectation_of(passes ? 6.52 : 6, (struct tolerance){0.005, true}, &expectation, &fixture->error),
                  fixture->error);
        expectation_judge(&expectation, &result);
        report.expectation = &expectation;
        text_free(&fixture->text);
        assert_ok(ppl_report_table(&report, &fixture->text, &fixture->error), fixture->error);
        assert_contains(fixture->text.bytes,
                        passes
                            ? "\npass: ppl 6.520819 is 0.000819 (0.0126 %) above the expected 6.52; 0.5 % is allowed\n"
                              "PASS: 0 of 1 figure moved further than allowed\n"
                            : "\nFAIL: ppl 6.520819 is 0.521 (8.68 %) above the expected 6; 0.5 % is allowed\n"
                              "FAIL: 1 of 1 figure moved further than allowed\n");
        expectation_free(&expectation);
    }
    ppl_result_free(&result);
}

/* ---- curves ---- */

static void given_tokens_then_places_are_counted_from_their_window(void **state) {
    (void)state;
    struct ppl_result result;
    struct position_bin bins[POSITION_BINS];
    result_make(&result, true);
    assert_int_equal(ppl_positions(&result, bins), WINDOW);
    assert_int_equal(bins[0].tokens, 0); /* nothing is before the first */
    for (size_t i = 1; i < 4; i++)
        assert_int_equal(bins[i].tokens, 1);
    for (size_t i = 4; i < WINDOW; i++)
        assert_int_equal(bins[i].tokens, WINDOWS);
    assert_true(bins[1].nll == 1 && bins[1].first == 1 && bins[1].end == 2);
    assert_true(fabs(bins[4].nll - (1 + (3 + 7 + 11) / 24.0)) < 1e-9); /* tokens 3, 7 and 11 */
    assert_true(fabs(bins[4].kl - 0.07) < 1e-6);
    ppl_result_free(&result);
}

static void given_a_long_window_then_places_share_bins(void **state) {
    (void)state;
    struct position_bin bins[POSITION_BINS];
    struct ppl_window window = {.tokens = 100, .scored = 99};
    struct ppl_token tokens[99] = {0};
    const struct ppl_result result = {.windows = &window, .window_count = 1, .tokens = tokens, .tokens_scored = 99};
    const size_t count = ppl_positions(&result, bins);
    size_t sum = 0;
    assert_true(count <= POSITION_BINS);
    for (size_t i = 0; i < count; i++)
        sum += bins[i].tokens;
    assert_int_equal(sum, 99);
    assert_int_equal(bins[count - 1].end, 100);
    const struct ppl_result none = {0};
    assert_int_equal(ppl_positions(&none, bins), 0);
}

static void given_divergences_then_the_ends_of_the_histogram_are_open(void **state) {
    (void)state;
    struct ppl_token tokens[] = {{.kl = 0},     {.kl = -1e-9f}, {.kl = 9e-6f},    {.kl = 1.01e-5f}, {.kl = 0.99f},
                                 {.kl = 1.01f}, {.kl = 50},     {.kl = INFINITY}, {.kl = NAN}};
    const struct ppl_result result = {.tokens = tokens, .tokens_scored = 9};
    size_t counts[KL_BINS];
    ppl_kl_histogram(&result, counts);
    assert_int_equal(counts[0], 3);
    assert_int_equal(counts[1], 1);
    assert_int_equal(counts[20], 1); /* ends at 10^0 */
    assert_int_equal(counts[21], 1);
    assert_int_equal(counts[KL_BINS - 1], 2);
}

/* ---- files ---- */

static void given_tokens_then_each_has_a_line(void **state) {
    struct fixture *fixture = *state;
    char path[256], *bytes;
    size_t length;
    for (int baseline = 0; baseline < 2; baseline++) {
        struct ppl_result result;
        result_make(&result, baseline);
        struct ppl_report report = report_of(&result);
        fixture_path(fixture, "tokens.tsv", path);
        assert_ok(ppl_report_tokens(path, &report, &fixture->error), fixture->error);
        assert_ok(file_read(path, 1 << 16, &bytes, &length, &fixture->error), fixture->error);
        const char *wanted = baseline ? "position\tid\tnll\tbaseline_nll\tkl\tagrees\n1\t0\t1\t1\t0\t0\n"
                                        "2\t3\t1.125\t1\t0.00999999978\t1\n"
                                      : "position\tid\tnll\n1\t0\t1\n2\t3\t1.125\n";
        assert_memory_equal(bytes, wanted, strlen(wanted));
        size_t lines = 0;
        for (size_t i = 0; i < length; i++)
            lines += bytes[i] == '\n';
        assert_int_equal(lines, TOKENS + 1);
        free(bytes);
        ppl_result_free(&result);
    }
    struct ppl_result result;
    result_make(&result, false);
    struct ppl_report report = report_of(&result);
    assert_refused(ppl_report_tokens("/nowhere/tokens.tsv", &report, &fixture->error), STATUS_IO, fixture->error,
                   "/nowhere/tokens.tsv");
    ppl_result_free(&result);
}

static void given_expected_figures_then_junit_has_a_case_for_each(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    struct expectation expectation;
    char path[256], *xml;
    size_t length;
    fixture_file(
        fixture, "e.ppl.json",
        "{\"schema\": \"qstream.ppl-expectation/1\", \"name\": \"test\", \"model\": {\"name\": \"m\"}, \"cases\":"
        "[{\"name\": \"one\", \"expected\": {"
        "\"ppl\": {\"value\": 6.5, \"tolerance\": \"1%\", \"status\": \"reproduced\"},"
        "\"nll\": {\"value\": 1.8, \"tolerance\": 0.01, \"status\": \"published-only\"},"
        "\"kl_mean\": {\"value\": 0.1, \"tolerance\": 0.01, \"status\": \"reproduced\"}}}]}");
    result_make(&result, false);
    assert_ok(expectation_read(fixture_path(fixture, "e.ppl.json", path), NULL, false, &expectation, &fixture->error),
              fixture->error);
    expectation_judge(&expectation, &result);
    struct ppl_report report = report_of(&result);
    report.expectation = &expectation;
    assert_ok(ppl_report_junit(fixture_path(fixture, "junit.xml", path), &report, &fixture->error), fixture->error);
    assert_ok(file_read(path, 1 << 16, &xml, &length, &fixture->error), fixture->error);
    const char *const parts[] = {
        "tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\"",
        "<testcase classname=\"ppl.test.one\" name=\"ppl\">\n<system-out>ppl 6.520819 is ",
        ("<testcase classname=\"ppl.test.one\" name=\"nll\">\n<failure message=\"nll 1.875 is 0.075 (4.17 %) above the "
         "expected 1.8; 0.01 is allowed (published-only)\"/>"),
        "name=\"kl_mean\">\n<skipped message=\"kl_mean was not measured: it needs --baseline; expected is 0.1",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        assert_contains(xml, parts[i]);
    free(xml);
    expectation_free(&expectation);
    ppl_result_free(&result);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_measurement_then_the_json_has_its_figures),
        TEST(given_a_baseline_then_the_json_compares_the_two),
        TEST(given_a_plan_then_figures_are_null_and_the_budget_is_there),
        TEST(given_figures_that_are_not_finite_then_the_json_has_null_and_the_verdict_is_fail),
        TEST(given_hostile_names_then_no_output_is_changed_by_them),
        TEST(given_a_measurement_then_the_table_says_what_was_measured_and_how),
        TEST(given_hundreds_of_windows_then_the_table_shows_the_first_and_the_last),
        TEST(given_expected_figures_then_the_last_line_is_the_verdict),
        TEST(given_tokens_then_places_are_counted_from_their_window),
        TEST(given_a_long_window_then_places_share_bins),
        TEST(given_divergences_then_the_ends_of_the_histogram_are_open),
        TEST(given_tokens_then_each_has_a_line),
        TEST(given_expected_figures_then_junit_has_a_case_for_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
