#include "common/json_strict.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void json_refuse(const struct json_place *place, struct error *error, const char *format, ...) {
    char problem[ERROR_MESSAGE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    error_write(error, 0, "%s%s'%s': %s%s%s", place->kind, *place->kind ? " " : "", place->path, place->part,
                *place->part ? ": " : "", problem);
}

enum status json_object_parse(const struct json_place *place, const char *bytes, size_t length, json_t **root,
                              struct error *error) {
    json_error_t at;
    *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES, &at);
    if (!*root)
        return JSON_REFUSE(place, error, "it is not valid JSON: %s (line %d)", at.text, at.line);
    if (json_is_object(*root))
        return STATUS_OK;
    json_decref(*root);
    *root = NULL;
    return JSON_REFUSE(place, error, "it is not a JSON object");
}

enum status json_schema_check(const struct json_place *place, const json_t *object, const char *schema,
                              struct error *error) {
    const char *found = json_string_value(json_object_get(object, "schema"));
    return found && strcmp(found, schema) == 0 ? STATUS_OK
                                               : JSON_REFUSE(place, error, "\"schema\" is not \"%s\"", schema);
}

const char *json_unknown_key(const json_t *object, const char *const *known) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value) {
        const char *const *name = known;
        while (*name && strcmp(*name, key) != 0)
            name++;
        if (!*name)
            return key;
    }
    return NULL;
}

enum status json_keys_check(const struct json_place *place, const json_t *object, const char *const *known,
                            struct error *error) {
    const char *key = json_unknown_key(object, known);
    const struct json_place file = {place->kind, place->path, ""};
    return key ? JSON_REFUSE(&file, error, "%s has the unknown key '%.64s'", *place->part ? place->part : "it", key)
               : STATUS_OK;
}

enum status json_string_read(const struct json_place *place, const json_t *object, const char *key, const char **string,
                             struct error *error) {
    const json_t *value = json_object_get(object, key);
    *string = json_string_value(value);
    return value && !*string ? JSON_REFUSE(place, error, "\"%s\" is not a string", key) : STATUS_OK;
}

enum status json_flag_read(const struct json_place *place, const json_t *object, const char *key, bool *flag,
                           struct error *error) {
    const json_t *value = json_object_get(object, key);
    if (value && !json_is_boolean(value))
        return JSON_REFUSE(place, error, "\"%s\" is neither true nor false", key);
    if (value)
        *flag = json_is_true(value);
    return STATUS_OK;
}
