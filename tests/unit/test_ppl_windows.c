/*
 * ppl: which tokens each window covers and scores, and what the tokens' figures sum up to.
 */
#include <math.h>

#include "infer/perplexity.h"
#include "tests/unit/fixtures.h"

static void assert_windows(uint32_t window, uint32_t stride, uint32_t windows, size_t count, const char *wanted) {
    struct ppl_window *list;
    size_t number;
    struct error error;
    struct text text = {0};
    const struct ppl_protocol protocol = {window, stride, windows};
    assert_ok(ppl_windows(&protocol, count, &list, &number, &error), error);
    for (size_t i = 0; i < number; i++)
        text_printf(&text, "%s%zu+%u/%u", i ? " " : "", list[i].first, list[i].tokens, list[i].scored);
    assert_string_equal(text.bytes, wanted);
    text_free(&text);
    free(list);
}

static void given_a_protocol_then_every_token_is_scored_once_by_the_first_window_that_has_one_before_it(void **state) {
    (void)state;
    assert_windows(8, 2, 0, 12, "0+8/7 2+8/2 4+8/2");
    assert_windows(8, 2, 2, 12, "0+8/7 2+8/2");
    assert_windows(8, 8, 0, 24, "0+8/7 8+8/7 16+8/7");
    assert_windows(8, 8, 0, 17, "0+8/7 8+8/7"); /* a token alone is no window */
    assert_windows(8, 8, 0, 18, "0+8/7 8+8/7 16+2/1");
    assert_windows(8, 3, 0, 12, "0+8/7 3+8/3 6+6/1");
    assert_windows(8, 2, 0, 8, "0+8/7");
    assert_windows(8, 2, 0, 9, "0+8/7 2+7/1");
    assert_windows(8, 2, 0, 5, "0+5/4");
    assert_windows(8, 2, 1, 2, "0+2/1");
    assert_windows(2, 1, 0, 4, "0+2/1 1+2/1 2+2/1");
}

static void given_the_published_protocol_then_4095_tokens_are_scored(void **state) {
    (void)state;
    assert_windows(2048, 512, 5, 303415, "0+2048/2047 512+2048/512 1024+2048/512 1536+2048/512 2048+2048/512");
}

static void given_any_protocol_then_all_tokens_are_scored_but_those_with_nothing_before_them(void **state) {
    (void)state;
    for (uint32_t window = 2; window < 12; window++)
        for (uint32_t stride = 1; stride <= window; stride++)
            for (size_t count = 2; count < 40; count++) {
                struct ppl_window *list;
                size_t number, scored = 0, next = 1;
                struct error error;
                const struct ppl_protocol protocol = {window, stride, 0};
                assert_ok(ppl_windows(&protocol, count, &list, &number, &error), error);
                for (size_t i = 0; i < number; i++) {
                    next += next == list[i].first;
                    assert_int_equal(list[i].first + list[i].tokens - list[i].scored, next);
                    assert_true(list[i].scored > 0 && list[i].scored < list[i].tokens && list[i].tokens <= window);
                    next += list[i].scored;
                    scored += list[i].scored;
                }
                assert_int_equal(scored, stride < window ? count - 1 : count - (count + window - 1) / window);
                free(list);
            }
}

static void given_a_protocol_that_is_none_or_a_text_that_is_too_short_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    struct ppl_window *list;
    size_t number;
    const struct {
        struct ppl_protocol protocol;
        size_t count;
        enum status status;
        const char *part;
    } wrong[] = {
        {{1, 1, 0}, 10, STATUS_USAGE, "at least 2 tokens"}, {{8, 0, 0}, 10, STATUS_USAGE, "stride"},
        {{8, 9, 0}, 10, STATUS_USAGE, "stride 9"},          {{8, 2, 0}, 1, STATUS_BAD_INPUT, "1 tokens"},
        {{8, 2, 0}, 0, STATUS_BAD_INPUT, "0 tokens"},       {{8, 2, 4}, 12, STATUS_BAD_INPUT, "enough for 3 windows"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_refused(ppl_windows(&wrong[i].protocol, wrong[i].count, &list, &number, &fixture->error),
                       wrong[i].status, fixture->error, wrong[i].part);
        assert_null(list);
    }
}

/* Two windows of 3 and 2 scored tokens. */
static void result_make(struct ppl_result *result, bool baseline) {
    static const struct ppl_token tokens[] = {{1, 7, 1.0f, 0.5f, 0.25f, true},
                                              {2, 8, 2.0f, 2.5f, 0.5f, false},
                                              {3, 9, 4.0f, 3.0f, 0.0f, true},
                                              {4, 1, 0.5f, 0.5f, 2.0f, true},
                                              {5, 2, 1.5f, 1.0f, 0.125f, false}};
    *result = (struct ppl_result){.window_count = 2, .has_baseline = baseline};
    result->windows = calloc(2, sizeof *result->windows);
    result->tokens = malloc(sizeof tokens);
    assert_true(result->windows && result->tokens);
    result->windows[0] = (struct ppl_window){.first = 0, .tokens = 4, .scored = 3};
    result->windows[1] = (struct ppl_window){.first = 2, .tokens = 4, .scored = 2};
    memcpy(result->tokens, tokens, sizeof tokens);
}

static void assert_near(double value, double wanted) {
    if (!(fabs(value - wanted) <= 1e-12 * (1 + fabs(wanted))))
        fail_msg("%.17g instead of %.17g", value, wanted);
}

static void given_tokens_then_means_of_windows_and_text_are_their_sums_by_their_numbers(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, false);
    assert_ok(ppl_summarize(&result, &fixture->error), fixture->error);
    assert_near(result.windows[0].nll, 7.0 / 3);
    assert_near(result.windows[1].nll, 1.0);
    assert_near(result.nll, 9.0 / 5); /* not the mean of the windows' means */
    assert_near(result.ppl, exp(1.8));
    assert_int_equal(result.tokens_scored, 5);
    /* squares: .64 + .04 + 4.84 + 1.69 + .09 = 7.3 */
    assert_near(result.standard_error, sqrt(7.3 / 4 / 5));
    ppl_result_free(&result);
}

static void given_a_baseline_then_divergence_has_mean_quantiles_and_agreement(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, true);
    assert_ok(ppl_summarize(&result, &fixture->error), fixture->error);
    assert_near(result.baseline_nll, 7.5 / 5);
    assert_near(result.baseline_ppl, exp(1.5));
    assert_near(result.windows[0].baseline_nll, 2.0);
    assert_near(result.windows[1].kl, 2.125 / 2);
    assert_near(result.kl_mean, 2.875 / 5);
    assert_near(result.kl_median, 0.25);               /* of 0 .125 .25 .5 2 */
    assert_near(result.kl_p99, 0.5 + 0.96 * (2 - .5)); /* at 3.96 of 0 to 4 */
    assert_near(result.kl_max, 2.0);
    assert_near(result.top1_agreement, 0.6);
    ppl_result_free(&result);
}

static void given_one_token_then_there_is_no_error_of_the_mean(void **state) {
    struct fixture *fixture = *state;
    struct ppl_result result;
    result_make(&result, true);
    result.window_count = 1;
    result.windows[0].scored = 1;
    assert_ok(ppl_summarize(&result, &fixture->error), fixture->error);
    assert_near(result.nll, 1.0);
    assert_near(result.standard_error, 0);
    assert_near(result.kl_p99, 0.25);
    ppl_result_free(&result);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_protocol_then_every_token_is_scored_once_by_the_first_window_that_has_one_before_it),
        TEST(given_the_published_protocol_then_4095_tokens_are_scored),
        TEST(given_any_protocol_then_all_tokens_are_scored_but_those_with_nothing_before_them),
        TEST(given_a_protocol_that_is_none_or_a_text_that_is_too_short_then_it_is_refused),
        TEST(given_tokens_then_means_of_windows_and_text_are_their_sums_by_their_numbers),
        TEST(given_a_baseline_then_divergence_has_mean_quantiles_and_agreement),
        TEST(given_one_token_then_there_is_no_error_of_the_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
