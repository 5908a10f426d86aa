/*
 * QuantizationArgs read as compressed-tensors 0.20 does: what pydantic coerces, fills in and refuses.
 */
#include "tests/unit/fixtures.h"

#include "common/quant_args.h"

static struct quant_args args_of(const char *text) {
    struct quant_args args;
    json_t *json = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(json);
    quant_args_read(json, &args);
    json_decref(json);
    return args;
}

static void given_what_pydantic_accepts_then_values_are_coerced(void **state) {
    static const struct {
        const char *json;
        int64_t bits, group_size;
        enum strategy strategy;
        bool symmetric, dynamic;
    } examples[] = {
        {"{}", 8, 0, STRATEGY_TENSOR, true, false},
        {"{\"num_bits\": \"4\", \"group_size\": 32}", 4, 32, STRATEGY_GROUP, true, false},
        {"{\"num_bits\": 4.0, \"group_size\": 32.0, \"strategy\": \"GROUP\"}", 4, 32, STRATEGY_GROUP, true, false},
        {"{\"num_bits\": true}", 1, 0, STRATEGY_TENSOR, true, false},
        {"{\"group_size\": -1}", 8, 0, STRATEGY_CHANNEL, true, false},
        {"{\"strategy\": \"channel\", \"group_size\": -1}", 8, 0, STRATEGY_CHANNEL, true, false},
        {"{\"symmetric\": \"off\"}", 8, 0, STRATEGY_TENSOR, false, false},
        {"{\"symmetric\": 0}", 8, 0, STRATEGY_TENSOR, false, false},
        {"{\"strategy\": \"token\", \"dynamic\": 1}", 8, 0, STRATEGY_TOKEN, true, true},
        {"{\"strategy\": \"tensor_group\", \"group_size\": 16, \"dynamic\": \"LOCAL\"}", 8, 16, STRATEGY_TENSOR_GROUP,
         true, true},
        {"{\"strategy\": \"block\", \"block_structure\": \"128x128\"}", 8, 0, STRATEGY_BLOCK, true, false},
        {"{\"actorder\": \"weight\", \"observer\": null, \"observer_kwargs\": {}}", 8, 0, STRATEGY_TENSOR, true, false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct quant_args args = args_of(examples[i].json);
        if (args.refusal)
            fail_msg("%s: refused: %s", examples[i].json, args.refusal);
        bool same = args.present && args.num_bits == examples[i].bits && args.group_size == examples[i].group_size &&
                    args.strategy == examples[i].strategy && args.symmetric == examples[i].symmetric &&
                    args.dynamic == examples[i].dynamic;
        if (!same)
            fail_msg("%s was read otherwise", examples[i].json);
        quant_args_free(&args);
    }
}

static void given_what_pydantic_refuses_then_the_reason_names_it(void **state) {
    static const struct {
        const char *json, *part;
    } examples[] = {
        {"[]", "not an object"},
        {"{\"bits\": 4}", "unknown key 'bits'"},
        {"{\"num_bits\": null}", "num_bits null"},
        {"{\"num_bits\": 4.5}", "num_bits 4.5"},
        {"{\"num_bits\": \"four\"}", "num_bits \"four\""},
        {"{\"type\": \"fp4\"}", "type \"fp4\""},
        {"{\"symmetric\": null}", "symmetric null"},
        {"{\"symmetric\": 2}", "symmetric 2"},
        {"{\"group_size\": \"32\"}", "group_size \"32\""},
        {"{\"group_size\": -2}", "group_size -2"},
        {"{\"group_size\": 0}", "group_size 0"},
        {"{\"strategy\": \"row\"}", "strategy \"row\""},
        {"{\"strategy\": \"group\"}", "needs a positive group_size"},
        {"{\"strategy\": \"tensor\", \"group_size\": 32}", "group_size goes with strategy group"},
        {"{\"strategy\": \"block\"}", "needs block_structure"},
        {"{\"block_structure\": [128, 128]}", "goes with strategy block"},
        {"{\"strategy\": \"block\", \"block_structure\": [0, 128]}", "is not [rows, columns]"},
        {"{\"strategy\": \"token\"}", "needs dynamic"},
        {"{\"dynamic\": \"true\"}", "dynamic \"true\""},
        {"{\"strategy\": \"channel\", \"dynamic\": true}", "cannot be dynamic"},
        {"{\"dynamic\": \"local\"}", "tensor_group"},
        {"{\"actorder\": \"group\"}", "actorder \"group\""},
        {"{\"scale_dtype\": \"torch.u8\"}", "scale_dtype \"torch.u8\""},
        {"{\"type\": \"float\", \"num_bits\": 5}", "no float of 5 bits"},
        {"{\"observer_kwargs\": null}", "observer_kwargs is null"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct quant_args args = args_of(examples[i].json);
        if (!args.refusal)
            fail_msg("%s was accepted", examples[i].json);
        assert_contains(args.refusal, examples[i].part);
        quant_args_free(&args);
    }
}

static void given_null_then_nothing_is_quantized(void **state) {
    (void)state;
    struct quant_args absent, null = args_of("null");
    quant_args_read(NULL, &absent);
    assert_false(absent.present);
    assert_false(null.present);
    assert_true(quant_args_equal(&absent, &null));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_what_pydantic_accepts_then_values_are_coerced),
        cmocka_unit_test(given_what_pydantic_refuses_then_the_reason_names_it),
        cmocka_unit_test(given_null_then_nothing_is_quantized),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
