#include "infer/special_tokens.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"

enum { FILE_MAX = 1 << 28 };

/* The bytes of FOLDER/NAME, a JSON object; *json is NULL where there is none. The caller frees, also after an error. */
static enum status object_read(const struct folder *folder, const char *path, const char *name, char **json,
                               size_t *length, struct error *error) {
    *json = NULL;
    if (!folder_has(folder, name))
        return STATUS_OK;
    enum status status = folder_file_read(folder, name, FILE_MAX, json, length, error);
    return status == STATUS_OK ? json_text_check(path, *json, *length, error) : status;
}

/* Any JSON value; `path` and `key` say where it is. */
static enum status value_parse(const char *path, const char *key, const char *json, size_t length, json_t **value,
                               struct error *error) {
    json_error_t at;
    *value = json_loadb(json, length, JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
    return *value ? STATUS_OK : error_set(error, STATUS_BAD_INPUT, "'%s': %s cannot be read: %s", path, key, at.text);
}

/* Appends a number, or the numbers of a list; false when it is something else. */
static bool ids_append(const json_t *value, struct token_ids *ids, enum status *status, struct error *error) {
    const size_t count = json_is_array(value) ? json_array_size(value) : 1;
    for (size_t i = 0; i < count && *status == STATUS_OK; i++) {
        const json_t *item = json_is_array(value) ? json_array_get(value, i) : value;
        const json_int_t id = json_integer_value(item);
        if (!json_is_integer(item) || id < 0 || id > INT32_MAX)
            return false;
        *status = token_ids_append(ids, (int32_t)id, error);
    }
    return true;
}

/* ---- begin ---- */

/* Special tokens of a template up to its text; false when it is damaged. */
static bool template_begin(const json_t *processor, struct token_ids *ids, enum status *status, struct error *error) {
    const json_t *single = json_object_get(processor, "single"), *tokens = json_object_get(processor, "special_tokens");
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *special = json_object_get(json_array_get(single, i), "SpecialToken");
        if (!special)
            return true;
        const char *name = json_string_value(json_object_get(special, "id"));
        const json_t *numbers = name ? json_object_get(json_object_get(tokens, name), "ids") : NULL;
        if (!json_is_array(numbers) || !ids_append(numbers, ids, status, error))
            return false;
    }
    return json_is_array(single);
}

static bool has_type(const json_t *object, const char *type) {
    const char *word = json_string_value(json_object_get(object, "type"));
    return word && strcmp(word, type) == 0;
}

/* "cls": [token, id] of a BertProcessing or RobertaProcessing; false when it is damaged. */
static bool cls_begin(const json_t *processor, struct token_ids *ids, enum status *status, struct error *error) {
    const json_t *id = json_array_get(json_object_get(processor, "cls"), 1);
    return id && !json_is_array(id) && ids_append(id, ids, status, error);
}

static enum status begin_refuse(json_t *processor, const struct folder *folder, const char *why, struct error *error) {
    json_decref(processor);
    return error_set(error, STATUS_BAD_INPUT, "'%s/tokenizer.json': post_processor %s", folder_name(folder), why);
}

static enum status begin_read(const struct folder *folder, const char *json, struct token_ids *ids,
                              struct error *error) {
    json_t *processor = NULL;
    char *path = text_format("%s/tokenizer.json", folder_name(folder));
    enum status status =
        path ? value_parse(path, "post_processor", json, strlen(json), &processor, error) : error_set_memory(error);
    free(path);
    const json_t *steps = has_type(processor, "Sequence") ? json_object_get(processor, "processors") : NULL;
    const size_t count = steps ? json_array_size(steps) : 1;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const json_t *step = steps ? json_array_get(steps, i) : processor;
        const bool template = has_type(step, "TemplateProcessing"),
                   cls = has_type(step, "BertProcessing") || has_type(step, "RobertaProcessing");
        if (!step || json_is_null(step) || has_type(step, "ByteLevel")) /* adds no token */
            continue;
        if (!template && !cls)
            return begin_refuse(processor, folder, "is of a type that is not supported", error);
        if (!(template ? template_begin : cls_begin)(step, ids, &status, error) && status == STATUS_OK)
            return begin_refuse(processor, folder, "is damaged", error);
        break;
    }
    json_decref(processor);
    return status;
}

/* ---- end ---- */

/* eos_token_id of an object. */
static enum status end_find(const char *path, const char *json, struct json_span object, struct token_ids *ids,
                            struct error *error) {
    static const char key[] = "eos_token_id";
    struct json_member member;
    json_t *value;
    if (!json_text_member(json, object, key, &member))
        return STATUS_OK;
    enum status status =
        value_parse(path, key, json + member.value.begin, member.value.end - member.value.begin, &value, error);
    if (status == STATUS_OK && !json_is_null(value) && !ids_append(value, ids, &status, error))
        status = error_set(error, STATUS_BAD_INPUT, "'%s': %s is no token id", path, key);
    json_decref(value);
    return status;
}

/* Those of the object in FOLDER/FILE, and of the object `nested` in it (NULL: none). */
static enum status end_read(const struct folder *folder, const char *file, const char *nested, struct token_ids *ids,
                            struct error *error) {
    char *path = text_format("%s/%s", folder_name(folder), file), *json = NULL;
    size_t length;
    struct json_member member;
    enum status status = path ? object_read(folder, path, file, &json, &length, error) : error_set_memory(error);
    if (status == STATUS_OK && json) {
        const struct json_span object = json_text_object(json, length);
        status = end_find(path, json, object, ids, error);
        if (status == STATUS_OK && nested && json_text_member(json, object, nested, &member) &&
            json[member.value.begin] == '{')
            status = end_find(path, json, member.value, ids, error);
    }
    free(json);
    free(path);
    return status;
}

enum status special_tokens_read(const struct folder *folder, const struct tokenizer *tokenizer,
                                struct special_tokens *tokens, struct error *error) {
    enum status status = STATUS_OK;
    const char *processor = tokenizer_post_processor(tokenizer);
    const int32_t tekken = folder_has(folder, "tokenizer.json") ? -1 : tokenizer_id(tokenizer, "<s>");
    if (tekken >= 0)
        status = token_ids_append(&tokens->begin, tekken, error);
    else if (processor)
        status = begin_read(folder, processor, &tokens->begin, error);
    if (status == STATUS_OK)
        status = end_read(folder, "generation_config.json", NULL, &tokens->end, error);
    return status == STATUS_OK ? end_read(folder, "config.json", "text_config", &tokens->end, error) : status;
}

void special_tokens_free(struct special_tokens *tokens) {
    token_ids_free(&tokens->begin);
    token_ids_free(&tokens->end);
}
