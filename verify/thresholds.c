#include "verify/thresholds.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_strict.h"
#include "common/pattern.h"
#include "common/source.h"
#include "common/text.h"

static const char kind[] = "thresholds", schema[] = "qstream.thresholds/1";
enum { FILE_BYTES_MAX = 1 << 20 };

static void rule_free(struct threshold_rule *rule) {
    pattern_free(rule->pattern);
    free(rule->text);
}

void thresholds_free(struct thresholds *thresholds) {
    for (size_t i = 0; i < thresholds->count; i++)
        rule_free(&thresholds->rules[i]);
    free(thresholds->rules);
    free(thresholds->name);
    *thresholds = (struct thresholds){0};
}

/* ROLES when the word is none. */
static enum role role_parse(const char *word, size_t length) {
    for (int role = 0; role < ROLES; role++)
        if (strlen(role_name((enum role)role)) == length && memcmp(role_name((enum role)role), word, length) == 0)
            return (enum role)role;
    return ROLES;
}

/* What no weight can miss or meet is a mistake. */
static bool limit_is_valid(enum limit limit, double value) {
    return limit == LIMIT_MAX_REL ? value >= 0 && isfinite(value) : fabs(value) <= 1000;
}

static void limit_set(struct limits *limits, enum limit limit, double value) {
    *(limit == LIMIT_MAX_REL ? &limits->max_rel_error : &limits->min_sqnr_db) = value;
}

/* ---- a file ---- */

static enum status limits_read(const struct json_place *place, const json_t *json, struct limits *limits,
                               struct error *error) {
    static const char *const keys[] = {[LIMIT_MIN_SQNR] = "min_sqnr_db", [LIMIT_MAX_REL] = "max_rel_error"};
    *limits = (struct limits){NAN, NAN};
    for (int i = 0; i < 2; i++) {
        const json_t *value = json_object_get(json, keys[i]);
        if (value && (!json_is_number(value) || !limit_is_valid((enum limit)i, json_number_value(value))))
            return JSON_REFUSE(place, error, "\"%s\" is not %s", keys[i],
                               i == LIMIT_MAX_REL ? "a number from 0 on" : "a number of decibels");
        if (value)
            limit_set(limits, (enum limit)i, json_number_value(value));
    }
    if (isnan(limits->min_sqnr_db) && isnan(limits->max_rel_error))
        return error_set(error, STATUS_BAD_INPUT,
                         "thresholds '%s': %s limits nothing: give \"min_sqnr_db\" or \"max_rel_error\"", place->path,
                         place->part);
    return STATUS_OK;
}

static enum status rule_read(const char *path, size_t number, const json_t *json, struct threshold_rule *rule,
                             struct error *error) {
    static const char *const keys[] = {"role", "match", "min_sqnr_db", "max_rel_error", "optional", "comment", NULL};
    char what[32];
    snprintf(what, sizeof what, "rule %zu", number);
    const struct json_place place = {kind, path, what};
    const char *match = NULL;
    if (!json_is_object(json))
        return error_set(error, STATUS_BAD_INPUT, "thresholds '%s': %s is not an object", path, what);
    enum status status = json_keys_check(&place, json, keys, error);
    if (status == STATUS_OK)
        status = json_string_read(&place, json, "match", &match, error);
    if (status == STATUS_OK)
        status = json_flag_read(&place, json, "optional", &rule->optional, error);
    if (status != STATUS_OK)
        return status;
    const json_t *role = json_object_get(json, "role");
    const char *word = json_string_value(role);
    rule->role = word ? role_parse(word, strlen(word)) : ROLES;
    if (role && rule->role == ROLES)
        return JSON_REFUSE(&place, error,
                           "the role '%.64s' is none of attention, mlp, expert, router, norm, embedding, head, "
                           "vision and other",
                           word ? word : "");
    status = limits_read(&place, json, &rule->limits, error);
    struct error why;
    enum status pattern = status == STATUS_OK && match ? pattern_new(match, &rule->pattern, &why) : STATUS_OK;
    if (pattern != STATUS_OK)
        return error_set(error, pattern, "thresholds '%s': %s: %s", path, what, why.message);
    struct text text = {0};
    text_printf(&text, "%s of '%s'", what, path);
    if (word)
        text_printf(&text, ", role %s", word);
    if (match)
        text_printf(&text, ", match '%s'", match);
    rule->text = text.bytes;
    if (status == STATUS_OK && text.failed)
        status = error_set_memory(error);
    return status;
}

static enum status root_check(const struct json_place *place, const json_t *root, struct error *error) {
    static const char *const keys[] = {"$schema", "schema", "name", "description", "rules", NULL};
    enum status status = json_schema_check(place, root, schema, error);
    if (status != STATUS_OK)
        return status;
    if (!json_is_string(json_object_get(root, "name")) || json_array_size(json_object_get(root, "rules")) == 0)
        return JSON_REFUSE(place, error, "it needs a \"name\" and a list of \"rules\"");
    return json_keys_check(place, root, keys, error);
}

/* Puts the rules before those of `thresholds`, and takes the name over. */
static enum status rules_prepend(struct thresholds *thresholds, struct thresholds *read, struct error *error) {
    struct threshold_rule *rules = realloc(read->rules, (read->count + thresholds->count) * sizeof *rules);
    if (!rules)
        return error_set_memory(error);
    for (size_t i = 0; i < thresholds->count; i++)
        rules[read->count + i] = thresholds->rules[i];
    free(thresholds->rules);
    free(thresholds->name);
    *thresholds = (struct thresholds){read->name, rules, read->count + thresholds->count};
    *read = (struct thresholds){0};
    return STATUS_OK;
}

enum status thresholds_read(struct thresholds *thresholds, const char *path, struct error *error) {
    char *bytes;
    size_t length;
    enum status status = file_read(path, FILE_BYTES_MAX, &bytes, &length, error);
    if (status != STATUS_OK)
        return status;
    const struct json_place place = {kind, path, ""};
    struct thresholds read = {0};
    json_t *root;
    status = json_object_parse(&place, bytes, length, &root, error);
    free(bytes);
    if (status == STATUS_OK)
        status = root_check(&place, root, error);
    const json_t *rules = json_object_get(root, "rules");
    if (status == STATUS_OK) {
        read.name = strdup(json_string_value(json_object_get(root, "name")));
        read.rules = calloc(json_array_size(rules), sizeof *read.rules);
        if (!read.name || !read.rules)
            status = error_set_memory(error);
    }
    for (size_t i = 0; status == STATUS_OK && i < json_array_size(rules); i++)
        status = rule_read(path, i + 1, json_array_get(rules, i), &read.rules[read.count++], error);
    if (status == STATUS_OK)
        status = rules_prepend(thresholds, &read, error);
    thresholds_free(&read);
    json_decref(root);
    return status;
}

/* ---- the command line ---- */

static bool number_parse(const char *text, double *value) {
    char *end;
    if (!*text || text[strspn(text, "0123456789.eE+-")]) /* no spaces, hexadecimal or words */
        return false;
    *value = strtod(text, &end);
    return !*end;
}

enum status thresholds_add(struct thresholds *thresholds, enum limit limit, const char *argument, struct error *error) {
    const char *option = limit == LIMIT_MAX_REL ? "--max-rel" : "--min-sqnr";
    const char *equals = strrchr(argument, '=');
    double value;
    if (!number_parse(equals ? equals + 1 : argument, &value) || !limit_is_valid(limit, value) || equals == argument)
        return error_set(error, STATUS_USAGE,
                         "%s takes [WHAT=]%s, WHAT being a role or a pattern of module names, not '%s'", option,
                         limit == LIMIT_MAX_REL ? "R, R from 0 on" : "DB", argument);
    struct threshold_rule *rules = realloc(thresholds->rules, (thresholds->count + 1) * sizeof *rules);
    if (!rules)
        return error_set_memory(error);
    thresholds->rules = rules;
    struct threshold_rule rule = {.role = ROLES, .limits = {NAN, NAN}};
    limit_set(&rule.limits, limit, value);
    enum status status = STATUS_OK;
    if (equals)
        rule.role = role_parse(argument, (size_t)(equals - argument));
    if (equals && rule.role == ROLES) {
        struct error why;
        char *what = strndup(argument, (size_t)(equals - argument));
        status = what ? pattern_new(what, &rule.pattern, &why) : error_set_memory(&why);
        if (status != STATUS_OK) /* a wrong pattern is wrong usage here */
            status =
                error_set(error, status == STATUS_BAD_INPUT ? STATUS_USAGE : status, "%s: %s", option, why.message);
        free(what);
    }
    if (status == STATUS_OK && !(rule.text = text_format("%s %s", option, argument)))
        status = error_set_memory(error);
    if (status == STATUS_OK)
        thresholds->rules[thresholds->count++] = rule;
    else
        rule_free(&rule);
    return status;
}

/* ---- use ---- */

enum status thresholds_for(struct thresholds *thresholds, const char *module, enum role role, struct limits *limits,
                           struct error *error) {
    *limits = (struct limits){NAN, NAN};
    for (size_t i = 0; i < thresholds->count; i++) {
        struct threshold_rule *rule = &thresholds->rules[i];
        bool matches = rule->role == ROLES || rule->role == role;
        if (matches && rule->pattern) {
            enum status status = pattern_match(rule->pattern, module, &matches, error);
            if (status != STATUS_OK)
                return status;
        }
        if (!matches)
            continue;
        rule->matches++;
        if (!isnan(rule->limits.min_sqnr_db))
            limits->min_sqnr_db = rule->limits.min_sqnr_db;
        if (!isnan(rule->limits.max_rel_error))
            limits->max_rel_error = rule->limits.max_rel_error;
    }
    return STATUS_OK;
}

enum status thresholds_check_used(const struct thresholds *thresholds, struct error *error) {
    for (size_t i = 0; i < thresholds->count; i++)
        if (thresholds->rules[i].matches == 0 && !thresholds->rules[i].optional)
            return error_set(error, STATUS_USAGE,
                             "%s applies to no quantized weight (a misspelt name? rules of a file may be marked "
                             "\"optional\")",
                             thresholds->rules[i].text);
    return STATUS_OK;
}
