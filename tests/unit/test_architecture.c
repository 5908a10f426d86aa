/*
 * vLLM's names: what it makes of a checkpoint's module names, and what it fuses. The expected names were read from
 * models that vLLM 0.33 had built.
 */
#include "tests/unit/fixtures.h"

#include "common/architecture.h"

static void given_a_module_then_its_run_time_name_is_vllms(void **state) {
    static const struct {
        const char *architecture, *stored, *runtime;
    } examples[] = {
        {"Mistral3ForConditionalGeneration", "model.language_model.layers.0.mlp.up_proj",
         "language_model.model.layers.0.mlp.up_proj"},
        {"Mistral3ForConditionalGeneration", "model.vision_tower.transformer.layers.0.attention.q_proj",
         "vision_tower.transformer.layers.0.attention.q_proj"},
        {"Mistral3ForConditionalGeneration", "model.multi_modal_projector.linear_1", "multi_modal_projector.linear_1"},
        {"Mistral3ForConditionalGeneration", "lm_head", "language_model.lm_head"},
        {"LlamaForCausalLM", "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"},
        {"LlamaForCausalLM", "lm_head", "lm_head"},
        {"Qwen3MoeForCausalLM", "model.layers.3.mlp.experts.7.gate_proj", "model.layers.3.mlp.experts.7.gate_proj"},
        {"Qwen2_5_VLForConditionalGeneration", "model.visual.blocks.0.attn.proj", "visual.blocks.0.attn.proj"},
        {"Qwen2_5_VLForConditionalGeneration", "model.language_model.layers.0.self_attn.q_proj",
         "language_model.model.layers.0.self_attn.q_proj"},
        {"Qwen3VLForConditionalGeneration", "model.language_model.layers.0.self_attn.q_proj",
         "language_model.model.layers.0.self_attn.q_proj"},
        {"Qwen3_5ForCausalLM", "model.language_model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"},
        {"Gemma3ForConditionalGeneration", "model.vision_tower.vision_model.encoder.layers.0.mlp.fc1",
         "vision_tower.vision_model.encoder.layers.0.mlp.fc1"},
        {"MiniMaxM2ForCausalLM", "model.layers.0.block_sparse_moe.experts.0.w1", "model.layers.0.mlp.experts.0.w1"},
        {"NoSuchModelForCausalLM", "model.language_model.layers.0.mlp.up_proj",
         "language_model.model.layers.0.mlp.up_proj"},
        {NULL, "model.layers.0.mlp.up_proj", "model.layers.0.mlp.up_proj"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct text name = {0};
        architecture_map_module(architecture_find(examples[i].architecture), examples[i].stored,
                                strlen(examples[i].stored), &name);
        assert_false(name.failed);
        assert_string_equal(name.bytes, examples[i].runtime);
        text_free(&name);
    }
}

static void given_an_entry_then_plain_names_with_a_dot_are_mapped_and_nothing_else(void **state) {
    static const struct {
        const char *entry, *read;
    } examples[] = {
        {"model.language_model.layers.0.mlp.up_proj", "language_model.model.layers.0.mlp.up_proj"},
        {"re:model.language_model.layers.0.mlp.up_proj", "re:model.language_model.layers.0.mlp.up_proj"},
        {"lm_head", "lm_head"}, /* no dot: it stays, and does not match language_model.lm_head */
        {"Linear", "Linear"},
        {"", ""},
    };
    (void)state;
    const struct architecture *mistral = architecture_find("Mistral3ForConditionalGeneration");
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct text read = {0};
        text_append(&read, "", 0);
        architecture_map_entry(mistral, examples[i].entry, &read);
        assert_string_equal(read.bytes, examples[i].read);
        text_free(&read);
    }
}

static void given_a_projection_then_its_fused_layer_is_known(void **state) {
    (void)state;
    const struct architecture *llama = architecture_find("LlamaForCausalLM");
    assert_string_equal(architecture_fused_of(llama, "k_proj")->name, "qkv_proj");
    assert_string_equal(architecture_fused_of(llama, "k_proj")->parts[0], "q_proj");
    assert_string_equal(architecture_fused_of(llama, "up_proj")->name, "gate_up_proj");
    const struct architecture *internlm = architecture_find("InternLM2ForCausalLM");
    assert_string_equal(architecture_fused_of(internlm, "w3")->name, "gate_up_proj");
    assert_null(architecture_fused_of(internlm, "gate_proj"));
    assert_null(architecture_fused_of(llama, "o_proj"));
    assert_null(architecture_fused_of(llama, "proj"));
    assert_null(architecture_fused_of(architecture_find("Phi3ForCausalLM"), "q_proj")); /* stored fused */
    const char *projections[3];
    char scratch[64];
    architecture_experts(architecture_find("MixtralForCausalLM"), projections, scratch);
    assert_string_equal(projections[0], "w1");
    assert_string_equal(projections[1], "w3");
    assert_string_equal(projections[2], "w2");
    architecture_experts(llama, projections, scratch);
    assert_string_equal(projections[2], "down_proj");
}

static void given_a_name_that_is_not_listed_then_it_gets_the_entry_for_most_models(void **state) {
    const struct architecture *most = architecture_find(NULL);
    (void)state;
    assert_ptr_not_equal(architecture_find("LlamaForCausalLM"), most);
    assert_ptr_equal(architecture_find("Llama"), most);
    assert_ptr_equal(architecture_find(""), most);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_module_then_its_run_time_name_is_vllms),
        cmocka_unit_test(given_an_entry_then_plain_names_with_a_dot_are_mapped_and_nothing_else),
        cmocka_unit_test(given_a_projection_then_its_fused_layer_is_known),
        cmocka_unit_test(given_a_name_that_is_not_listed_then_it_gets_the_entry_for_most_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
