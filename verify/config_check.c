#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/utf8.h"
#include "verify/folder_check.h"
#include "verify/json_compare.h"

static const char nested_key[] = "text_config";

/* Members that say how a checkpoint is stored, or which program wrote it, not what the model is. */
static bool is_exempt(const char *name) {
    static const char *const names[] = {"quantization_config", "transformers_version", "_name_or_path",
                                        "_from_model_config"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* The member of that name, or of the other name that transformers has for it. */
static const struct json_entry *find(const struct json_entries *entries, const char *name, size_t length) {
    static const char *const pair[] = {"dtype", "torch_dtype"};
    const struct json_entry *entry = json_entries_find(entries, name, length);
    for (int i = 0; i < 2 && !entry; i++)
        if (strcmp(name, pair[i]) == 0)
            entry = json_entries_find(entries, pair[1 - i], strlen(pair[1 - i]));
    return entry;
}

/*
 * transformers 5 writes rope_theta and the members of rope_scaling into one object, rope_parameters. Whether a key that
 * is gone from the output stands there with its value.
 */
static enum status rope_compare(const struct json_entries *source, const struct json_entry *from,
                                const struct json_entries *output, bool *same, struct error *error) {
    static const char rope[] = "rope_parameters", scaling[] = "rope_scaling";
    const char *name = json_entry_name(source, from);
    const struct json_entry *to = json_entries_find(output, rope, strlen(rope));
    struct json_entries inner = {0}, members = {0};
    *same = false;
    if (!to || output->json[to->value.begin] != '{' ||
        (strcmp(name, "rope_theta") != 0 && (strcmp(name, scaling) != 0 || source->json[from->value.begin] != '{')))
        return STATUS_OK;
    enum status status = json_entries_list(output->json, to->value, &inner, error);
    if (status == STATUS_OK && strcmp(name, scaling) == 0)
        status = json_entries_list(source->json, from->value, &members, error);
    const struct json_entries alone = {
        .json = source->json, .names = source->names, .items = (struct json_entry *)from, .count = 1};
    const struct json_entries *wanted = strcmp(name, scaling) == 0 ? &members : &alone;
    *same = true;
    for (size_t i = 0; i < wanted->count && *same && status == STATUS_OK; i++) {
        const char *key = json_entry_name(wanted, &wanted->items[i]);
        key = strcmp(key, "type") == 0 ? "rope_type" : key;
        const struct json_entry *found = json_entries_find(&inner, key, strlen(key));
        *same = found != NULL;
        if (found)
            status = json_compare(wanted->json, wanted->items[i].value, inner.json, found->value, same, error);
    }
    json_entries_free(&inner);
    json_entries_free(&members);
    return status;
}

/* Values that a key may have and mean as much as without it: programs leave such keys out. */
static bool is_default(const char *json, struct json_span value) {
    static const char *const texts[] = {"null", "false", "\"\"", "[]", "{}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (value.end - value.begin == strlen(texts[i]) && strncmp(json + value.begin, texts[i], strlen(texts[i])) == 0)
            return true;
    return false;
}

/* A value for a message: its first characters on one line. */
enum { VALUE_BYTES = 64 };

static const char *value_text(const char *json, struct json_span value, char out[VALUE_BYTES + 4]) {
    size_t used = 0, at = value.begin;
    while (at < value.end) {
        size_t length;
        utf8_decode(json + at, value.end - at, &length, NULL);
        if (used + length > VALUE_BYTES) {
            memcpy(out + used, "...", 3);
            used += 3;
            break;
        }
        bool space = (unsigned char)json[at] <= ' ';
        if (space && used > 0 && out[used - 1] != ' ')
            out[used++] = ' ';
        if (!space) {
            memcpy(out + used, json + at, length);
            used += length;
        }
        at += length;
    }
    out[used] = '\0';
    return out;
}

struct keys_check {
    struct verify_findings *findings;
    struct error *error;
    const char *prefix; /* of subjects: "" or "text_config." */
    struct json_entries source, output;
    size_t added; /* keys that only the output has */
};

/* A stranger's file can have millions of them: the first ones tell enough. */
enum { ADDED_SHOWN = 100 };

static char *subject_of(const struct keys_check *check, const struct json_entries *entries,
                        const struct json_entry *entry) {
    return text_format("%s%s", check->prefix, json_entry_name(entries, entry));
}

static bool is_object(const struct json_entries *entries, const struct json_entry *entry) {
    return entry && entries->json[entry->value.begin] == '{';
}

static enum status value_check(const struct keys_check *check, const struct json_entry *from,
                               const struct json_entry *to, const char *subject) {
    char was[VALUE_BYTES + 4], is[VALUE_BYTES + 4];
    bool same;
    enum status status =
        json_compare(check->source.json, from->value, check->output.json, to->value, &same, check->error);
    if (status == STATUS_OK && !same)
        status =
            verify_find(check->findings, VERIFY_ERROR, "config-key-changed", subject, check->error,
                        "config.json has the value %s, the source's %s", value_text(check->output.json, to->value, is),
                        value_text(check->source.json, from->value, was));
    return status;
}

static enum status objects_check(struct verify_findings *findings, const char *prefix, const char *source,
                                 struct json_span from, const char *output, struct json_span to, struct error *error);

static enum status key_check(const struct keys_check *check, const struct json_entry *from) {
    const char *name = json_entry_name(&check->source, from);
    const struct json_entry *to = find(&check->output, name, from->name_length);
    if (is_exempt(name))
        return STATUS_OK;
    if (!*check->prefix && strcmp(name, nested_key) == 0 && is_object(&check->source, from) &&
        is_object(&check->output, to))
        return objects_check(check->findings, "text_config.", check->source.json, from->value, check->output.json,
                             to->value, check->error);
    char *subject = subject_of(check, &check->source, from);
    char value[VALUE_BYTES + 4];
    bool moved = false;
    enum status status = subject ? STATUS_OK : error_set_memory(check->error);
    if (status == STATUS_OK && !to)
        status = rope_compare(&check->source, from, &check->output, &moved, check->error);
    if (status == STATUS_OK && to)
        status = value_check(check, from, to, subject);
    else if (status == STATUS_OK && !moved)
        status =
            verify_find(check->findings, is_default(check->source.json, from->value) ? VERIFY_WARNING : VERIFY_ERROR,
                        "config-key-missing", subject, check->error,
                        "config.json lacks this key of the source's, whose value there is %s",
                        value_text(check->source.json, from->value, value));
    free(subject);
    return status;
}

static enum status added_check(struct keys_check *check, const struct json_entry *entry) {
    const char *name = json_entry_name(&check->output, entry);
    char value[VALUE_BYTES + 4];
    if (is_exempt(name) || find(&check->source, name, entry->name_length) || check->added++ >= ADDED_SHOWN)
        return STATUS_OK;
    char *subject = subject_of(check, &check->output, entry);
    enum status status = subject ? verify_find(check->findings, VERIFY_WARNING, "config-key-added", subject,
                                               check->error, "config.json has this key, the source's does not: %s",
                                               value_text(check->output.json, entry->value, value))
                                 : error_set_memory(check->error);
    free(subject);
    return status;
}

static enum status objects_check(struct verify_findings *findings, const char *prefix, const char *source,
                                 struct json_span from, const char *output, struct json_span to, struct error *error) {
    struct keys_check check = {.findings = findings, .error = error, .prefix = prefix};
    enum status status = json_entries_list(source, from, &check.source, error);
    if (status == STATUS_OK)
        status = json_entries_list(output, to, &check.output, error);
    if (status == STATUS_BAD_INPUT) { /* both were checked when they were opened: only too large */
        struct error why = *error;
        status = error_set(error, STATUS_BAD_INPUT, "config.json: %s", why.message);
    }
    for (size_t i = 0; i < check.source.count && status == STATUS_OK; i++)
        status = key_check(&check, &check.source.items[i]);
    for (size_t i = 0; i < check.output.count && status == STATUS_OK; i++)
        status = added_check(&check, &check.output.items[i]);
    if (check.added > ADDED_SHOWN && status == STATUS_OK)
        status = verify_find(findings, VERIFY_WARNING, "config-key-added", *prefix ? nested_key : "config.json", error,
                             "%zu more keys that the source's config.json does not have", check.added - ADDED_SHOWN);
    json_entries_free(&check.source);
    json_entries_free(&check.output);
    return status;
}

enum status config_keys_check(const struct folder_check *check, struct verify_findings *findings, struct error *error) {
    const struct checkpoint *source = check->source, *output = check->output;
    if (!source->config || !output->config)
        return STATUS_OK; /* not there yet */
    return objects_check(findings, "", source->config, json_text_object(source->config, source->config_length),
                         output->config, json_text_object(output->config, output->config_length), error);
}

enum status json_members_compare(const char *source, size_t source_length, const char *output, size_t output_length,
                                 enum members *result, struct error *error) {
    struct json_entries from = {0}, to = {0};
    struct error why;
    *result = MEMBERS_CHANGED;
    enum status status = json_entries_list(source, json_text_object(source, source_length), &from, &why);
    if (status == STATUS_OK)
        status = json_entries_list(output, json_text_object(output, output_length), &to, &why);
    bool same = status == STATUS_OK;
    size_t seen = 0, known = 0;
    for (size_t i = 0; i < from.count && same; i++) {
        const char *name = json_entry_name(&from, &from.items[i]);
        const struct json_entry *found = json_entries_find(&to, name, from.items[i].name_length);
        if (is_exempt(name))
            continue;
        known++;
        same = found != NULL;
        if (found)
            status = json_compare(source, from.items[i].value, output, found->value, &same, &why);
        same = same && status == STATUS_OK;
    }
    for (size_t i = 0; i < to.count && same; i++)
        seen += !is_exempt(json_entry_name(&to, &to.items[i]));
    if (same)
        *result = seen > known ? MEMBERS_ADDED : MEMBERS_SAME;
    json_entries_free(&from);
    json_entries_free(&to);
    if (status == STATUS_OK || status == STATUS_BAD_INPUT)
        return STATUS_OK;
    *error = why;
    return status;
}
