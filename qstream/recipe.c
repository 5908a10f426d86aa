#include "qstream/recipe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_strict.h"
#include "common/source.h"

static const char schema[] = "qstream.recipe/1";
enum { RECIPE_BYTES_MAX = 1 << 20 };

static const char *const format_names[] = {[FORMAT_KEEP] = "keep", [FORMAT_MXFP4] = "mxfp4", [FORMAT_FP8] = "fp8"};

const char *recipe_format_name(enum recipe_format format) { return format_names[format]; }

static enum status rule_parse(const char *path, size_t number, const json_t *entry, struct recipe_rule *rule,
                              struct error *error) {
    static const char *const known[] = {"match", "format", "optional", "strategy", "comment", NULL};
    char what[32];
    snprintf(what, sizeof what, "rule %zu", number);
    const struct json_place place = {"recipe", path, what};
    enum status status = json_keys_check(&place, entry, known, error);
    if (status == STATUS_OK)
        status = json_flag_read(&place, entry, "optional", &rule->optional, error);
    if (status != STATUS_OK)
        return status;
    const char *match = json_string_value(json_object_get(entry, "match"));
    const char *format = json_string_value(json_object_get(entry, "format"));
    const json_t *strategy = json_object_get(entry, "strategy");
    if (!match || !format)
        return error_set(error, STATUS_BAD_INPUT, "recipe '%s': rule %zu needs the strings \"match\" and \"format\"",
                         path, number);
    size_t index = 0;
    while (index < sizeof format_names / sizeof *format_names && strcmp(format, format_names[index]) != 0)
        index++;
    if (index == sizeof format_names / sizeof *format_names)
        return JSON_REFUSE(&place, error, "the format '%s' is none of mxfp4, fp8 and keep", format);
    rule->format = (enum recipe_format)index;
    if (strategy) {
        const char *word = json_string_value(strategy);
        rule->per_tensor = word && strcmp(word, "tensor") == 0;
        if (rule->format != FORMAT_FP8 || !word || (!rule->per_tensor && strcmp(word, "channel") != 0))
            return JSON_REFUSE(&place, error, "\"strategy\" is \"channel\" or \"tensor\" and goes with fp8");
    }
    struct error inner;
    status = pattern_new(match, &rule->pattern, &inner);
    if (status != STATUS_OK)
        return error_set(error, status, "recipe '%s': rule %zu: %s", path, number, inner.message);
    return STATUS_OK;
}

enum status recipe_parse(const char *path, const char *bytes, size_t length, struct recipe *recipe,
                         struct error *error) {
    static const char *const known[] = {"$schema", "schema", "name", "description", "rules", NULL};
    *recipe = (struct recipe){0};
    const struct json_place place = {"recipe", path, ""};
    json_t *root;
    enum status status = json_object_parse(&place, bytes, length, &root, error);
    const char *name = json_string_value(json_object_get(root, "name"));
    const json_t *rules = json_object_get(root, "rules");
    if (status == STATUS_OK)
        status = json_keys_check(&place, root, known, error);
    if (status == STATUS_OK)
        status = json_schema_check(&place, root, schema, error);
    if (status == STATUS_OK && (!name || json_array_size(rules) == 0))
        status = JSON_REFUSE(&place, error, "it needs a \"name\" and a list of \"rules\"");
    if (status == STATUS_OK) {
        recipe->name = strdup(name);
        recipe->bytes = malloc(length + 1);
        recipe->rules = calloc(json_array_size(rules), sizeof *recipe->rules);
        if (!recipe->name || !recipe->bytes || !recipe->rules)
            status = error_set_memory(error);
    }
    if (status == STATUS_OK) {
        memcpy(recipe->bytes, bytes, length);
        recipe->bytes[length] = '\0';
        recipe->length = length;
    }
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(rules); i++) {
        status = rule_parse(path, i + 1, json_array_get(rules, i), &recipe->rules[i], error);
        recipe->count = i + 1;
    }
    json_decref(root);
    return status;
}

enum status recipe_read(const char *path, struct recipe *recipe, struct error *error) {
    *recipe = (struct recipe){0};
    char *bytes;
    size_t length;
    enum status status = file_read(path, RECIPE_BYTES_MAX, &bytes, &length, error);
    if (status == STATUS_OK)
        status = recipe_parse(path, bytes, length, recipe, error);
    free(bytes);
    return status;
}

void recipe_free(struct recipe *recipe) {
    for (size_t i = 0; i < recipe->count; i++)
        pattern_free(recipe->rules[i].pattern);
    free(recipe->rules);
    free(recipe->name);
    free(recipe->bytes);
    *recipe = (struct recipe){0};
}

enum status recipe_rule_for(struct recipe *recipe, const char *module, const struct recipe_rule **rule,
                            struct error *error) {
    *rule = NULL;
    for (size_t i = 0; i < recipe->count; i++) {
        bool matches;
        enum status status = pattern_match(recipe->rules[i].pattern, module, &matches, error);
        if (status != STATUS_OK)
            return status;
        if (matches) {
            recipe->rules[i].matches++;
            *rule = &recipe->rules[i];
            break;
        }
    }
    return STATUS_OK;
}

enum status recipe_check_used(const struct recipe *recipe, struct error *error) {
    for (size_t i = 0; i < recipe->count; i++)
        if (recipe->rules[i].matches == 0 && !recipe->rules[i].optional)
            return error_set(error, STATUS_BAD_INPUT,
                             "recipe '%s': rule %zu, '%s', matches no weight of this checkpoint (is it the right "
                             "recipe? else mark the rule \"optional\")",
                             recipe->name, i + 1, pattern_text(recipe->rules[i].pattern));
    return STATUS_OK;
}
