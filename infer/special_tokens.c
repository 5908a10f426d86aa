#include "infer/special_tokens.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"

enum { FILE_MAX = 1 << 28 };

/* A member of the object in FOLDER/NAME, or of the object `nested` in it; *value is NULL where there is none. */
static enum status member_read(const struct folder *folder, const char *name, const char *nested, const char *key,
                               json_t **value, struct error *error) {
    *value = NULL;
    char *path = text_format("%s/%s", folder_name(folder), name);
    if (!path)
        return error_set_memory(error);
    char *json = NULL;
    size_t length;
    enum status status = STATUS_OK;
    if (folder_has(folder, name)) {
        status = folder_file_read(folder, name, FILE_MAX, &json, &length, error);
        if (status == STATUS_OK)
            status = json_text_check(path, json, length, error);
    }
    if (status == STATUS_OK && json) {
        struct json_span object = json_text_object(json, length);
        struct json_member member;
        bool found = !nested || (json_text_member(json, object, nested, &member) && json[member.value.begin] == '{');
        if (found && nested)
            object = member.value;
        if (found && json_text_member(json, object, key, &member)) {
            json_error_t at;
            *value = json_loadb(json + member.value.begin, member.value.end - member.value.begin,
                                JSON_DECODE_ANY | JSON_ALLOW_NUL, &at);
            if (!*value)
                status = error_set(error, STATUS_BAD_INPUT, "'%s': %s cannot be read: %s", path, key, at.text);
        }
    }
    free(json);
    free(path);
    return status;
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

static enum status begin_read(const struct folder *folder, struct token_ids *ids, struct error *error) {
    json_t *processor;
    enum status status = member_read(folder, "tokenizer.json", NULL, "post_processor", &processor, error);
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

static enum status end_read(const struct folder *folder, const char *file, const char *nested, struct token_ids *ids,
                            struct error *error) {
    json_t *value;
    enum status status = member_read(folder, file, nested, "eos_token_id", &value, error);
    if (status == STATUS_OK && value && !json_is_null(value) && !ids_append(value, ids, &status, error))
        status = error_set(error, STATUS_BAD_INPUT, "'%s/%s': eos_token_id is no token id", folder_name(folder), file);
    json_decref(value);
    return status;
}

enum status special_tokens_read(const struct folder *folder, const struct tokenizer *tokenizer,
                                struct special_tokens *tokens, struct error *error) {
    enum status status = STATUS_OK;
    const int32_t tekken = folder_has(folder, "tokenizer.json") ? -1 : tokenizer_id(tokenizer, "<s>");
    if (tekken >= 0)
        status = token_ids_append(&tokens->begin, tekken, error);
    else
        status = begin_read(folder, &tokens->begin, error);
    if (status == STATUS_OK)
        status = end_read(folder, "generation_config.json", NULL, &tokens->end, error);
    if (status == STATUS_OK)
        status = end_read(folder, "config.json", NULL, &tokens->end, error);
    return status == STATUS_OK ? end_read(folder, "config.json", "text_config", &tokens->end, error) : status;
}

void special_tokens_free(struct special_tokens *tokens) {
    token_ids_free(&tokens->begin);
    token_ids_free(&tokens->end);
}
