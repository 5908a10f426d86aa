#include "qstream/recipe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/source.h"

static const char schema[] = "qstream.recipe/1";
enum { RECIPE_BYTES_MAX = 1 << 20 };

static const char *const format_names[] = {[FORMAT_KEEP] = "keep", [FORMAT_MXFP4] = "mxfp4", [FORMAT_FP8] = "fp8"};

const char *recipe_format_name(enum recipe_format format) { return format_names[format]; }

static enum status keys_check(const char *path, const char *what, const json_t *object, const char *const *known,
                              struct error *error) {
    for (void *at = json_object_iter((json_t *)object); at; at = json_object_iter_next((json_t *)object, at)) {
        const char *key = json_object_iter_key(at);
        const char *const *name = known;
        while (*name && strcmp(*name, key) != 0)
            name++;
        if (!*name)
            return error_set(error, STATUS_BAD_INPUT, "recipe '%s': %s has the unknown key '%s'", path, what, key);
    }
    return STATUS_OK;
}

static enum status rule_parse(const char *path, size_t number, const json_t *entry, struct recipe_rule *rule,
                              struct error *error) {
    static const char *const known[] = {"match", "format", "optional", "strategy", "comment", NULL};
    char what[32];
    snprintf(what, sizeof what, "rule %zu", number);
    enum status status = keys_check(path, what, entry, known, error);
    if (status != STATUS_OK)
        return status;
    const char *match = json_string_value(json_object_get(entry, "match"));
    const char *format = json_string_value(json_object_get(entry, "format"));
    const json_t *optional = json_object_get(entry, "optional"), *strategy = json_object_get(entry, "strategy");
    if (!match || !format)
        return error_set(error, STATUS_BAD_INPUT, "recipe '%s': rule %zu needs the strings \"match\" and \"format\"",
                         path, number);
    if (optional && !json_is_boolean(optional))
        return error_set(error, STATUS_BAD_INPUT, "recipe '%s': rule %zu: \"optional\" is true or false", path, number);
    rule->optional = json_is_true(optional);
    size_t index = 0;
    while (index < sizeof format_names / sizeof *format_names && strcmp(format, format_names[index]) != 0)
        index++;
    if (index == sizeof format_names / sizeof *format_names)
        return error_set(error, STATUS_BAD_INPUT,
                         "recipe '%s': rule %zu: the format '%s' is none of mxfp4, fp8 and keep", path, number, format);
    rule->format = (enum recipe_format)index;
    if (strategy) {
        const char *word = json_string_value(strategy);
        rule->per_tensor = word && strcmp(word, "tensor") == 0;
        if (rule->format != FORMAT_FP8 || !word || (!rule->per_tensor && strcmp(word, "channel") != 0))
            return error_set(error, STATUS_BAD_INPUT,
                             "recipe '%s': rule %zu: \"strategy\" is \"channel\" or \"tensor\" and goes with fp8", path,
                             number);
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
    json_error_t at;
    json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return error_set(error, STATUS_BAD_INPUT, "recipe '%s' is not valid JSON: %s (line %d)", path, at.text,
                         at.line);
    const char *version = json_string_value(json_object_get(root, "schema"));
    const char *name = json_string_value(json_object_get(root, "name"));
    const json_t *rules = json_object_get(root, "rules");
    enum status status = keys_check(path, "it", root, known, error);
    if (status == STATUS_OK && (!version || strcmp(version, schema) != 0))
        status = error_set(error, STATUS_BAD_INPUT, "recipe '%s': \"schema\" is not \"%s\"", path, schema);
    if (status == STATUS_OK && (!name || json_array_size(rules) == 0))
        status = error_set(error, STATUS_BAD_INPUT, "recipe '%s' needs a \"name\" and a list of \"rules\"", path);
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
