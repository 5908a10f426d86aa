/*
 * Choosing tokens: what temperature and top-p allow, how often each comes, and that it can be repeated.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "infer/sampler.h"
#include "tests/unit/scale.h"

static struct sampler *sampler_of(double temperature, double top_p, uint64_t seed, uint32_t count) {
    const struct sampler_options options = {.temperature = temperature, .top_p = top_p, .seed = seed};
    struct sampler *sampler;
    struct error error;
    assert_int_equal(sampler_open(&options, count, &sampler, &error), STATUS_OK);
    return sampler;
}

static int32_t choose_once(double temperature, double top_p, const float *logits, uint32_t count) {
    struct sampler *sampler = sampler_of(temperature, top_p, 1, count);
    const int32_t id = sampler_choose(sampler, logits);
    sampler_close(sampler);
    return id;
}

enum { COUNT = 6 };

static int draws(void) { return scaled(100000, 3000); }

static void counts_make(double temperature, double top_p, const float *logits, uint32_t counts[COUNT]) {
    struct sampler *sampler = sampler_of(temperature, top_p, 7, COUNT);
    for (int i = 0; i < COUNT; i++)
        counts[i] = 0;
    for (int i = draws(); i > 0; i--) {
        const int32_t id = sampler_choose(sampler, logits);
        assert_in_range(id, 0, COUNT - 1);
        counts[id]++;
    }
    sampler_close(sampler);
}

/* Within five standard deviations. */
static void share_check(uint32_t count, double expected) {
    const double share = (double)count / draws(), deviation = sqrt(expected * (1 - expected) / draws());
    if (fabs(share - expected) > 5 * deviation + 1e-12)
        fail_msg("a share of %.5f instead of %.5f", share, expected);
}

/* The published sequence for the seed 1234567. */
static void given_a_known_seed_then_random_numbers_are_the_known_ones(void **state) {
    (void)state;
    static const uint64_t known[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                     4593380528125082431u, 16408922859458223821u};
    uint64_t random = 1234567;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_true(random_next(&random) == known[i]);
}

static void given_temperature_zero_then_it_is_the_most_probable_and_of_equals_the_first(void **state) {
    (void)state;
    static const float top_last[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, equals[] = {1, 4, 0, 4, 4}, all[] = {0, 0, 0},
                       low[] = {-INFINITY, -1e30f, -2e30f};
    assert_int_equal(choose_once(0, 1, top_last, 11), 10);
    assert_int_equal(choose_once(0, 1, equals, 5), 1);
    assert_int_equal(choose_once(0, 0.5, all, 3), 0);
    assert_int_equal(choose_once(0, 1, low, 3), 1);
    assert_int_equal(choose_once(0, 1, all, 1), 0);
}

static void given_nan_then_it_is_never_chosen(void **state) {
    (void)state;
    static const float first[] = {NAN, 1, NAN, 2, NAN}, none[] = {NAN, NAN}, low[] = {NAN, -INFINITY};
    for (double temperature = 0; temperature <= 2; temperature++) {
        assert_int_equal(choose_once(temperature, 0.5, first, 5), 3);
        assert_int_equal(choose_once(temperature, 1, none, 2), 0);
        assert_true(choose_once(temperature, 0.5, low, 2) < 2);
    }
    static const float logits[COUNT] = {NAN, 0, -INFINITY, 0, NAN, -INFINITY};
    uint32_t counts[COUNT];
    counts_make(1, 1, logits, counts);
    share_check(counts[1], 0.5);
    assert_int_equal(counts[1] + counts[3], draws());
}

static void given_infinity_then_it_is_chosen(void **state) {
    (void)state;
    static const float logits[] = {1, 2, INFINITY, 3, INFINITY};
    for (double temperature = 0; temperature <= 2; temperature++)
        assert_int_equal(choose_once(temperature, 0.9, logits, 5), 2);
}

static void given_a_temperature_then_shares_are_those_of_the_softmax(void **state) {
    (void)state;
    static const float logits[COUNT] = {0, 1, 2, -1, 0.5f, -30};
    static const double temperatures[] = {0.5, 1, 3};
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
        uint32_t counts[COUNT];
        double total = 0;
        counts_make(temperatures[t], 1, logits, counts);
        for (int i = 0; i < COUNT; i++)
            total += exp((double)logits[i] / temperatures[t]);
        for (int i = 0; i < COUNT; i++)
            share_check(counts[i], exp((double)logits[i] / temperatures[t]) / total);
    }
}

/* Probabilities 0.1, 0.4, 0.1, 0.2, 0.15, 0.05. */
static void given_top_p_then_only_the_smallest_set_that_reaches_it_is_chosen_from(void **state) {
    (void)state;
    static const double probabilities[COUNT] = {0.1, 0.4, 0.1, 0.2, 0.15, 0.05};
    float logits[COUNT];
    for (int i = 0; i < COUNT; i++)
        logits[i] = (float)log(probabilities[i]) + 11;
    static const struct {
        double top_p;
        bool chosen[COUNT];
    } cases[] = {{1e-9, {[1] = true}},
                 {0.39, {[1] = true}},
                 {0.41, {[1] = true, [3] = true}},
                 {0.59, {[1] = true, [3] = true}},
                 {0.7, {[1] = true, [3] = true, [4] = true}},
                 {0.8, {[0] = true, [1] = true, [3] = true, [4] = true}}, /* of equals the lower id */
                 {0.9, {true, true, true, true, true, false}},
                 {0.99, {true, true, true, true, true, true}}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        uint32_t counts[COUNT];
        double total = 0;
        counts_make(1, cases[c].top_p, logits, counts);
        for (int i = 0; i < COUNT; i++)
            total += cases[c].chosen[i] ? probabilities[i] : 0;
        for (int i = 0; i < COUNT; i++)
            share_check(counts[i], cases[c].chosen[i] ? probabilities[i] / total : 0);
    }
}

/* The sums in order of probability, made in the plain way, against the heap. */
static void given_many_tokens_then_top_p_keeps_those_that_sorting_keeps(void **state) {
    (void)state;
    enum { TOKENS = 5000 };
    static float logits[TOKENS];
    static bool kept[TOKENS];
    uint64_t random = 3;
    double total = 0, mass = 0;
    for (int i = 0; i < TOKENS; i++) {
        logits[i] = (float)(random_next(&random) % 1000) / 100;
        total += exp((double)logits[i]);
    }
    while (mass < 0.7 * total) {
        int best = -1;
        for (int i = 0; i < TOKENS; i++)
            if (!kept[i] && (best < 0 || logits[i] > logits[best]))
                best = i;
        kept[best] = true;
        mass += exp((double)logits[best]);
    }
    struct sampler *sampler = sampler_of(1, 0.7, 1, TOKENS);
    for (int i = scaled(20000, 200); i > 0; i--)
        assert_true(kept[sampler_choose(sampler, logits)]);
    sampler_close(sampler);
}

static void given_a_seed_then_choices_repeat_and_another_seed_gives_others(void **state) {
    (void)state;
    static const float logits[COUNT] = {0, 0, 0, 0, 0, 0};
    for (double top_p = 0.9; top_p < 1.05; top_p += 0.1) {
        struct sampler *a = sampler_of(1, top_p, 5, COUNT), *b = sampler_of(1, top_p, 5, COUNT),
                       *c = sampler_of(1, top_p, 6, COUNT);
        int other = 0;
        for (int i = 0; i < 1000; i++) {
            const int32_t id = sampler_choose(a, logits);
            assert_int_equal(sampler_choose(b, logits), id);
            other += sampler_choose(c, logits) != id;
        }
        assert_true(other > 700);
        sampler_close(a);
        sampler_close(b);
        sampler_close(c);
    }
}

static void given_the_coldest_temperature_then_it_is_as_if_it_were_zero(void **state) {
    (void)state;
    static const float logits[] = {-50, 3, 2.9f, 1000, 999};
    assert_int_equal(choose_once(SAMPLER_COLDEST, 1, logits, 5), 3);
    assert_int_equal(choose_once(SAMPLER_COLDEST, 0.9, logits, 5), 3);
    static const float far[] = {-3e38f, 3e38f};
    assert_int_equal(choose_once(SAMPLER_COLDEST, 0.9, far, 2), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_known_seed_then_random_numbers_are_the_known_ones),
        cmocka_unit_test(given_temperature_zero_then_it_is_the_most_probable_and_of_equals_the_first),
        cmocka_unit_test(given_nan_then_it_is_never_chosen),
        cmocka_unit_test(given_infinity_then_it_is_chosen),
        cmocka_unit_test(given_a_temperature_then_shares_are_those_of_the_softmax),
        cmocka_unit_test(given_top_p_then_only_the_smallest_set_that_reaches_it_is_chosen_from),
        cmocka_unit_test(given_many_tokens_then_top_p_keeps_those_that_sorting_keeps),
        cmocka_unit_test(given_a_seed_then_choices_repeat_and_another_seed_gives_others),
        cmocka_unit_test(given_the_coldest_temperature_then_it_is_as_if_it_were_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
