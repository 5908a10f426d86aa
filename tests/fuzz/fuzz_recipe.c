/*
 * The recipe parser and its patterns on any bytes. An accepted recipe is tried on names as they occur in
 * checkpoints; a pattern may fail on them, but not hang.
 */
#include "qstream/recipe.h"
#include "tests/fuzz/fuzz.h"

static const char *const names[] = {
    "model.language_model.layers.0.mlp.gate_proj",
    "model.layers.87.self_attn.q_proj",
    "model.layers.3.mlp.experts.127.down_proj",
    "model.layers.3.mlp.experts.gate_up_proj",
    "model.vision_tower.transformer.layers.0.attention.q_proj",
    "model.embed_tokens",
    "lm_head",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
    "",
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct recipe recipe;
    struct error error;
    enum status status = recipe_parse("fuzz", (const char *)data, size, &recipe, &error);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
    if (status == STATUS_OK) {
        REQUIRE(recipe.count > 0 && recipe.length == size && memcmp(recipe.bytes, data, size) == 0);
        size_t decided = 0, counted = 0;
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
            const struct recipe_rule *rule;
            enum status found = recipe_rule_for(&recipe, names[i], &rule, &error);
            REQUIRE(found == STATUS_OK || (found == STATUS_BAD_INPUT && !rule));
            decided += rule != NULL;
        }
        for (size_t i = 0; i < recipe.count; i++)
            counted += recipe.rules[i].matches;
        REQUIRE(counted == decided);
        recipe_check_used(&recipe, &error);
    }
    recipe_free(&recipe);
    return 0;
}
