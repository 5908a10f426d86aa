/*
 * Schedules: which shards a run has to have, in which order and for how long; which tensors are fetched apart; and the
 * least disk, which is enough and less is not.
 */
#include "tests/unit/fixtures.h"

#include "qstream/schedule.h"

#define RULE(match, format) "{\"match\": \"" match "\", \"format\": \"" format "\"}"
#define TENSOR "fp8\", \"strategy\": \"tensor"

static const struct plan_options plain = {.rule = SCALE_RULE_AMAX};
static const uint64_t sizes[] = {100, 70, 40, 20, 10, 5, 3, 2};

/* As a test wants it, of the whole plan; the caller frees. */
static struct schedule schedule_of(struct fixture *fixture, const uint64_t *bytes, const struct run_state *state) {
    struct schedule schedule;
    assert_ok(
        schedule_make(&fixture->plan, 0, (uint32_t)fixture->plan.shard_count, bytes, state, &schedule, &fixture->error),
        fixture->error);
    return schedule;
}

/* "1 0: 170" for the order and the least disk. */
static const char *order_text(struct fixture *fixture, const struct schedule *schedule) {
    text_free(&fixture->text);
    for (size_t i = 0; i < schedule->order_count; i++)
        text_printf(&fixture->text, "%s%u", i ? " " : "", schedule->order[i]);
    text_printf(&fixture->text, ": %" PRIu64, schedule->least);
    return fixture->text.bytes;
}

static const char *companions_text(struct fixture *fixture, const struct schedule *schedule) {
    text_free(&fixture->text);
    text_append_string(&fixture->text, "");
    for (size_t i = 0; i < schedule->companion_count; i++)
        text_printf(&fixture->text, "%s%s", i ? " " : "",
                    fixture->checkpoint.tensors[schedule->companions[i]].info.name);
    return fixture->text.bytes;
}

static uint32_t first_tile_of(const struct fixture *fixture, const char *output) {
    return fixture->plan.jobs[fixture_output(fixture, output)->job].first_tile;
}

/* The state of a run that has made these tiles. */
static struct run_state state_with(struct fixture *fixture, uint32_t first, uint32_t end) {
    struct run_state state;
    assert_ok(run_state_init(&fixture->plan, &state, &fixture->error), fixture->error);
    for (uint32_t tile = first; tile < end; tile++)
        state.tiles[tile] = 1;
    return state;
}

static void three_plain_shards(struct fixture *fixture) {
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "a.weight BF16 64x64\nz.bias F32 7\n");
    fixture_shard(fixture, "2.safetensors", "b.weight BF16 64x64\n");
    fixture_shard(fixture, "3.safetensors", "c.weight BF16 64x64\nd.weight BF16 32x64\n");
}

static void given_the_source_s_shards_then_each_is_needed_alone_and_in_turn(void **state) {
    struct fixture *fixture = *state;
    three_plain_shards(fixture);
    fixture_plan(fixture, RULE("*", "mxfp4"), plain);
    struct schedule schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0 1 2: 100");
    assert_int_equal(schedule.companion_count, 0);
    assert_int_equal(schedule.loose_count, 0);
    assert_false(schedule.companions_needed);
    assert_int_equal(schedule.shards[0].tiles, 2);
    assert_int_equal(schedule.shards[1].first, schedule.shards[0].last + 1);
    assert_int_equal(schedule.shards[2].last, fixture->plan.tile_count - 1);
    schedule_free(&schedule);
}

static void given_output_shards_cut_otherwise_then_those_that_one_is_made_of_are_needed_together(void **state) {
    struct fixture *fixture = *state;
    three_plain_shards(fixture);
    /* all in one shard, by type and name: z.bias, a, b, c, d */
    fixture_plan(fixture, RULE("*", "mxfp4"), (struct plan_options){.rule = SCALE_RULE_AMAX, .shard_size = 1 << 20});
    assert_int_equal(fixture->plan.shard_count, 1);
    struct schedule schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0 1 2: 100");
    schedule_free(&schedule);
    /* the bias comes first, its shard's weight last */
    fixture_clear(fixture);
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "y.weight BF16 64x64\nz.bias F32 7\n");
    fixture_shard(fixture, "2.safetensors", "b.weight BF16 64x64\n");
    fixture_shard(fixture, "3.safetensors", "c.weight BF16 64x64\n");
    fixture_plan(fixture, RULE("*", "mxfp4"), (struct plan_options){.rule = SCALE_RULE_AMAX, .shard_size = 1 << 20});
    schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0 1 2: 170");
    assert_int_equal(schedule.shards[0].first, 0);
    assert_int_equal(schedule.shards[0].last, fixture->plan.tile_count - 1);
    schedule_free(&schedule);
}

static void
given_weights_that_need_their_amax_then_their_shards_are_needed_from_the_output_shard_s_start(void **state) {
    struct fixture *fixture = *state;
    three_plain_shards(fixture);
    struct plan_options options = {.rule = SCALE_RULE_AMAX, .shard_size = 1 << 20};
    fixture_plan(fixture, RULE("[bc]", TENSOR) "," RULE("*", "mxfp4"), options);
    struct schedule schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0 1 2: 210");
    assert_int_equal(schedule.shards[1].first, 0);
    assert_int_equal(schedule.shards[2].first, 0);
    schedule_free(&schedule);
    /* once it is known, they are not; in their order, z.bias, b, c, a, d, two at a time */
    struct run_state known = state_with(fixture, 0, 0);
    memset(known.amax_known, 1, fixture->plan.job_count);
    schedule = schedule_of(fixture, sizes, &known);
    assert_string_equal(order_text(fixture, &schedule), "0 1 2: 170");
    assert_int_equal(schedule.shards[2].first, first_tile_of(fixture, "c.weight"));
    schedule_free(&schedule);
    run_state_free(&known);
    /* in shards of their own they are needed in turn */
    fixture_plan(fixture, RULE("*", TENSOR), plain);
    schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0 1 2: 100");
    schedule_free(&schedule);
}

static void given_scales_in_another_shard_then_they_are_companions_and_the_home_is_the_weight_s(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json",
                 "{\"quantization_config\": {\"quant_method\": \"fp8\", \"activation_scheme\": \"static\"}}");
    fixture_shard(fixture, "1.safetensors",
                  "a.weight F8_E4M3 64x64\nb.weight F8_E4M3 64x64\nb.weight_scale_inv BF16 -\n"
                  "c.weight_scale_inv BF16 -\nb.activation_scale BF16 -\na.activation_scale BF16 -\n");
    fixture_shard(fixture, "2.safetensors",
                  "a.weight_scale_inv BF16 -\nc.weight F8_E4M3 64x64\nc.activation_scale BF16 -\n");
    fixture_plan(fixture, RULE("a", "fp8") "," RULE("*", "mxfp4"), plain);
    struct schedule schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0 1: 100");
    assert_string_equal(companions_text(fixture, &schedule), "c.weight_scale_inv a.weight_scale_inv");
    assert_true(schedule.companions_needed);
    assert_int_equal(schedule.homes[fixture_output(fixture, "a.weight_scale")->job], 0);
    assert_int_equal(schedule.loose_count, 0);
    schedule_free(&schedule);
    /* the first part needs only what its own shard needs */
    assert_ok(schedule_make(&fixture->plan, 0, 1, sizes, NULL, &schedule, &fixture->error), fixture->error);
    assert_string_equal(order_text(fixture, &schedule), "0: 100");
    assert_string_equal(companions_text(fixture, &schedule), "a.weight_scale_inv");
    assert_int_equal(schedule.loose_count, 0);
    schedule_free(&schedule);
}

static void given_a_norm_in_another_shard_then_it_is_a_companion_of_those_that_weigh_by_it(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "model.layers.0.input_layernorm.weight BF16 64\n");
    fixture_shard(
        fixture, "2.safetensors",
        "model.layers.0.self_attn.q_proj.weight BF16 64x64\nmodel.layers.0.self_attn.o_proj.weight BF16 64x64\n");
    fixture_plan(fixture, RULE("re:.*_proj$", "mxfp4"),
                 (struct plan_options){.rule = SCALE_RULE_QSTREAM, .gamma = GAMMA_LAYERNORM});
    struct schedule schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(companions_text(fixture, &schedule), "model.layers.0.input_layernorm.weight");
    assert_string_equal(order_text(fixture, &schedule), "0 1: 100"); /* the norm itself is copied from its own shard */
    schedule_free(&schedule);
    /* they are needed until the last of their tiles is made */
    struct run_state done = state_with(fixture, 0, fixture->plan.tile_count);
    done.tiles[first_tile_of(fixture, "model.layers.0.self_attn.q_proj.weight_packed")] = 0;
    schedule = schedule_of(fixture, sizes, &done);
    assert_true(schedule.companions_needed);
    assert_false(schedule.companions_used);
    assert_string_equal(order_text(fixture, &schedule), "1: 70");
    assert_int_equal(schedule.loose_count, 1); /* the norm's own shard will not come again */
    assert_int_equal(schedule.loose[0], 0);
    schedule_free(&schedule);
    memset(done.tiles, 1, fixture->plan.tile_count);
    done.tiles[first_tile_of(fixture, "model.layers.0.self_attn.o_proj.weight_packed")] = 0; /* does not read it */
    schedule = schedule_of(fixture, sizes, &done);
    assert_true(schedule.companions_used);
    assert_true(schedule.companions_needed); /* it has still to be compared */
    assert_string_equal(companions_text(fixture, &schedule), "model.layers.0.input_layernorm.weight");
    schedule_free(&schedule);
    run_state_free(&done);
}

static void given_a_shard_of_scales_only_then_nobody_s_home_is_there_and_it_is_loose(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{\"quantization_config\": {\"quant_method\": \"fp8\"}}");
    fixture_shard(fixture, "1.safetensors", "a.weight F8_E4M3 64x64\nb.weight F8_E4M3 64x64\n");
    fixture_shard(fixture, "2.safetensors", "a.weight_scale_inv BF16 -\nb.weight_scale_inv BF16 -\n");
    fixture_plan(fixture, RULE("*", "mxfp4"), plain);
    struct schedule schedule = schedule_of(fixture, sizes, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0: 100");
    assert_string_equal(companions_text(fixture, &schedule), "a.weight_scale_inv b.weight_scale_inv");
    assert_int_equal(schedule.loose_count, 1);
    assert_int_equal(schedule.loose[0], 1);
    schedule_free(&schedule);
    /* a shard at hand is not provided; the companions are the same */
    const uint64_t at_hand[] = {100, 0};
    schedule = schedule_of(fixture, at_hand, NULL);
    assert_string_equal(order_text(fixture, &schedule), "0: 100");
    assert_int_equal(schedule.companion_count, 2);
    assert_int_equal(schedule.loose_count, 0);
    schedule_free(&schedule);
    const uint64_t weights_at_hand[] = {0, 70};
    schedule = schedule_of(fixture, weights_at_hand, NULL);
    assert_string_equal(order_text(fixture, &schedule), ": 0");
    assert_int_equal(schedule.companion_count, 2);
    assert_int_equal(schedule.loose_count, 1);
    schedule_free(&schedule);
}

static void given_tiles_that_are_made_then_only_what_is_left_is_needed(void **state) {
    struct fixture *fixture = *state;
    three_plain_shards(fixture);
    fixture_plan(fixture, RULE("*", "mxfp4"), plain);
    struct run_state done = state_with(fixture, 0, 2);
    struct schedule schedule = schedule_of(fixture, sizes, &done);
    assert_string_equal(order_text(fixture, &schedule), "1 2: 70");
    schedule_free(&schedule);
    memset(done.tiles, 1, fixture->plan.tile_count);
    schedule = schedule_of(fixture, sizes, &done);
    assert_string_equal(order_text(fixture, &schedule), ": 0");
    schedule_free(&schedule);
    run_state_free(&done);
}

static void given_no_shards_then_nothing_is_needed(void **state) {
    struct fixture *fixture = *state;
    struct schedule schedule;
    three_plain_shards(fixture);
    fixture_plan(fixture, RULE("*", "mxfp4"), plain);
    assert_ok(schedule_make(&fixture->plan, 1, 1, sizes, NULL, &schedule, &fixture->error), fixture->error);
    assert_string_equal(order_text(fixture, &schedule), ": 0");
    schedule_free(&schedule);
}

/* ---- the least disk ---- */

/*
 * A run with one worker and `disk` bytes for shards: provides them in the schedule's order as soon as there is room, drops
 * each when its last tile is made. Whether it comes to its end.
 */
static bool run_comes_to_its_end(const struct schedule *schedule, const struct run_state *state, uint64_t disk) {
    const struct plan *plan = schedule->plan;
    size_t shard_count = plan->checkpoint->shard_count, provided = 0;
    uint32_t *left = calloc(shard_count, sizeof *left);
    bool *there = calloc(shard_count, sizeof *there), good = true;
    uint64_t used = 0;
    assert_non_null(left);
    assert_non_null(there);
    for (size_t s = 0; s < shard_count; s++)
        left[s] = schedule->shards[s].tiles;
    for (size_t p = 0; p < plan->shard_count && good; p++)
        for (int pass = 0; pass < 2; pass++) /* to find the amax, to make the tiles */
            for (uint32_t j = plan->shards[p].first_job; j < plan->shards[p].first_job + plan->shards[p].job_count; j++)
                for (uint32_t i = 0; i < plan->jobs[j].tile_count && good; i++) {
                    uint32_t home = schedule->homes[j];
                    if (state->tiles[plan->jobs[j].first_tile + i] ||
                        (pass == 0 && (plan->jobs[j].kind != JOB_FP8_TENSOR || state->amax_known[j])))
                        continue;
                    while (provided < schedule->order_count &&
                           used + schedule->shards[schedule->order[provided]].bytes <= disk) {
                        there[schedule->order[provided]] = true;
                        used += schedule->shards[schedule->order[provided++]].bytes;
                    }
                    good = there[home] || schedule->shards[home].bytes == 0;
                    if (good && pass == 1 && --left[home] == 0 && there[home])
                        used -= schedule->shards[home].bytes;
                }
    free(left);
    free(there);
    return good;
}

static void given_any_plan_then_the_least_disk_is_enough_and_a_byte_less_is_not(void **state) {
    struct fixture *fixture = *state;
    uint64_t seed = 42;
    unsigned larger = 0;
    for (int round = 0; round < 150; round++) {
        fixture_clear(fixture);
        fixture_file(fixture, "config.json", "{}");
        uint64_t bytes[8];
        unsigned shards = 1 + fixture_random(&seed) % 8;
        for (unsigned s = 0; s < shards; s++) {
            struct text text = {0};
            char file[32];
            for (unsigned i = 0, count = 1 + fixture_random(&seed) % 5; i < count; i++) {
                const char *dtype = fixture_random(&seed) % 3 ? "BF16" : "F32"; /* one draw after the other */
                const char letter = (char)('a' + fixture_random(&seed) % 4);
                text_printf(&text, "%c%u.%u.weight %s 32x32\n", letter, s, i, dtype);
            }
            if (fixture_random(&seed) % 3 == 0)
                text_printf(&text, "n%u.bias F32 3\n", s);
            snprintf(file, sizeof file, "%u.safetensors", s);
            fixture_shard(fixture, file, text.bytes);
            text_free(&text);
            bytes[s] = fixture_random(&seed) % 5 ? 1 + fixture_random(&seed) % 1000 : 0;
        }
        struct plan_options options = {
            .rule = SCALE_RULE_AMAX, .shard_size = fixture_random(&seed) % 3 ? 500 + fixture_random(&seed) % 5000 : 0};
        fixture_plan(fixture,
                     "{\"match\": \"a*\", \"format\": \"" TENSOR "\", \"optional\": true},"
                     "{\"match\": \"b*\", \"format\": \"mxfp4\", \"optional\": true}",
                     options);
        struct run_state done = state_with(fixture, 0, 0);
        for (uint32_t t = 0; t < fixture->plan.tile_count && round % 2; t++)
            done.tiles[t] = fixture_random(&seed) % 4 == 0;
        for (size_t j = 0; j < fixture->plan.job_count && round % 2; j++)
            done.amax_known[j] = fixture_random(&seed) % 2 == 0;
        struct schedule schedule = schedule_of(fixture, bytes, &done);
        assert_true(run_comes_to_its_end(&schedule, &done, schedule.least));
        if (schedule.least > 0)
            assert_false(run_comes_to_its_end(&schedule, &done, schedule.least - 1));
        uint64_t largest = 0;
        for (unsigned s = 0; s < shards; s++)
            largest = schedule.shards[s].tiles && bytes[s] > largest ? bytes[s] : largest;
        assert_true(schedule.least >= largest);
        larger += schedule.least > largest;
        schedule_free(&schedule);
        run_state_free(&done);
    }
    assert_true(larger > 20); /* the rounds were not all trivial */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_the_source_s_shards_then_each_is_needed_alone_and_in_turn),
        TEST(given_output_shards_cut_otherwise_then_those_that_one_is_made_of_are_needed_together),
        TEST(given_weights_that_need_their_amax_then_their_shards_are_needed_from_the_output_shard_s_start),
        TEST(given_scales_in_another_shard_then_they_are_companions_and_the_home_is_the_weight_s),
        TEST(given_a_norm_in_another_shard_then_it_is_a_companion_of_those_that_weigh_by_it),
        TEST(given_a_shard_of_scales_only_then_nobody_s_home_is_there_and_it_is_loose),
        TEST(given_tiles_that_are_made_then_only_what_is_left_is_needed),
        TEST(given_no_shards_then_nothing_is_needed),
        TEST(given_any_plan_then_the_least_disk_is_enough_and_a_byte_less_is_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
