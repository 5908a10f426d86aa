#include "verify/manifest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_strict.h"
#include "common/name_table.h"
#include "common/pattern.h"
#include "common/source.h"
#include "common/text.h"

static const char manifest_schema[] = "qstream.manifest/1", recipe_schema[] = "qstream.recipe/1";
enum {
    MANIFEST_BYTES_MAX = 64 << 20, /* some 500,000 files */
    RECIPE_BYTES_MAX = 1 << 20,
    RULES_MAX = 1 << 16, /* each is a compiled pattern */
    NAME_BYTES_MAX = 1024
};

static const char *const format_names[] = {[WANTED_KEEP] = "keep", [WANTED_MXFP4] = "mxfp4", [WANTED_FP8] = "fp8"};

const char *wanted_format_name(enum wanted_format format) { return format_names[format]; }

/* ---- what both kinds of files share ---- */

/* The string member `key`, copied; one of `words` unless that is NULL. */
static enum status string_read(const struct json_place *place, const json_t *object, const char *key,
                               const char *const *words, char **out, struct error *error) {
    const char *value;
    enum status status = json_string_read(place, object, key, &value, error);
    if (status != STATUS_OK)
        return status;
    if (!value)
        return JSON_REFUSE(place, error, "\"%s\" is missing", key);
    for (size_t i = 0; words && strcmp(value, words[i]) != 0;)
        if (!words[++i])
            return JSON_REFUSE(place, error, "\"%s\" is '%.64s', which is none of its words", key, value);
    *out = strdup(value);
    return *out ? STATUS_OK : error_set_memory(error);
}

static enum status count_read(const struct json_place *place, const json_t *object, const char *key, uint64_t *out,
                              struct error *error) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return JSON_REFUSE(place, error, "\"%s\" is %s", key, value ? "not a number of bytes" : "missing");
    *out = (uint64_t)json_integer_value(value);
    return STATUS_OK;
}

/* ---- recipes ---- */

static enum status rule_read(const struct json_place *place, const json_t *json, struct wanted_rule *rule,
                             struct error *error) {
    static const char *const keys[] = {"match", "format", "optional", "strategy", "comment", NULL};
    if (!json_is_object(json))
        return JSON_REFUSE(place, error, "it is not an object");
    bool optional; /* means nothing here */
    enum status status = json_keys_check(place, json, keys, error);
    if (status == STATUS_OK)
        status = json_flag_read(place, json, "optional", &optional, error);
    if (status != STATUS_OK)
        return status;
    const char *match = json_string_value(json_object_get(json, "match"));
    const char *format = json_string_value(json_object_get(json, "format"));
    const char *strategy = json_string_value(json_object_get(json, "strategy"));
    if (!match || !format)
        return JSON_REFUSE(place, error, "the strings \"match\" and \"format\" are needed");
    size_t number = 0;
    while (strcmp(format, format_names[number]) != 0)
        if (++number == sizeof format_names / sizeof *format_names)
            return JSON_REFUSE(place, error, "the format '%.64s' is none of mxfp4, fp8 and keep", format);
    rule->format = (enum wanted_format)number;
    if (json_object_get(json, "strategy") && (rule->format != WANTED_FP8 || !strategy ||
                                              (strcmp(strategy, "channel") != 0 && strcmp(strategy, "tensor") != 0)))
        return JSON_REFUSE(place, error, "\"strategy\" is \"channel\" or \"tensor\" and goes with fp8");
    struct error why;
    status = pattern_new(match, &rule->pattern, &why);
    return status == STATUS_BAD_INPUT ? JSON_REFUSE(place, error, "%s", why.message)
           : status != STATUS_OK      ? error_set(error, status, "%s", why.message)
                                      : STATUS_OK;
}

/* `member` is the recipe's own place in the file: "" or "recipe". */
static enum status recipe_read_json(const char *file, const char *member, const json_t *json,
                                    struct wanted_recipe *recipe, struct error *error) {
    static const char *const keys[] = {"$schema", "schema", "name", "description", "rules", NULL};
    struct json_place place = {"", file, member};
    const json_t *rules = json_object_get(json, "rules");
    if (!json_is_object(json))
        return JSON_REFUSE(&place, error, json ? "it is not an object" : "it is missing");
    enum status status = json_keys_check(&place, json, keys, error);
    if (status == STATUS_OK)
        status = json_schema_check(&place, json, recipe_schema, error);
    if (status == STATUS_OK)
        status = string_read(&place, json, "name", NULL, &recipe->name, error);
    if (status != STATUS_OK)
        return status;
    if (json_array_size(rules) == 0 || json_array_size(rules) > RULES_MAX)
        return JSON_REFUSE(&place, error, "\"rules\" is not a list of 1 to %d rules", RULES_MAX);
    recipe->rules = calloc(json_array_size(rules), sizeof *recipe->rules);
    if (!recipe->rules)
        return error_set_memory(error);
    for (size_t i = 0; i < json_array_size(rules) && status == STATUS_OK; i++) {
        char inside[64];
        snprintf(inside, sizeof inside, "%s%srule %zu", member, *member ? ": " : "", i + 1);
        place.part = inside;
        status = rule_read(&place, json_array_get(rules, i), &recipe->rules[i], error);
        recipe->count = i + 1;
    }
    return status;
}

enum status wanted_recipe_read(const char *path, struct wanted_recipe *recipe, struct error *error) {
    *recipe = (struct wanted_recipe){0};
    const struct json_place place = {"", path, ""};
    json_t *root = NULL;
    char *bytes = NULL;
    size_t length;
    enum status status = file_read(path, RECIPE_BYTES_MAX, &bytes, &length, error);
    if (status == STATUS_OK)
        status = json_object_parse(&place, bytes, length, &root, error);
    free(bytes);
    if (status == STATUS_OK)
        status = recipe_read_json(path, "", root, recipe, error);
    json_decref(root);
    return status;
}

void wanted_recipe_free(struct wanted_recipe *recipe) {
    for (size_t i = 0; i < recipe->count; i++)
        pattern_free(recipe->rules[i].pattern);
    free(recipe->rules);
    free(recipe->name);
    *recipe = (struct wanted_recipe){0};
}

enum status wanted_format_of(const struct wanted_recipe *recipe, const char *name, enum wanted_format *format,
                             struct error *error) {
    *format = WANTED_KEEP;
    for (size_t i = 0; i < recipe->count; i++) {
        bool matches;
        enum status status = pattern_match(recipe->rules[i].pattern, name, &matches, error);
        if (status != STATUS_OK)
            return status;
        if (matches) {
            *format = recipe->rules[i].format;
            break;
        }
    }
    return STATUS_OK;
}

/* ---- the manifest ---- */

/* Whether `name` stays inside the folder, and is what one would print: no control characters, C1 neither. */
static bool name_is_plain(const char *name) {
    if (!*name || *name == '/' || strlen(name) > NAME_BYTES_MAX)
        return false;
    for (const unsigned char *c = (const unsigned char *)name; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f))
            return false;
    for (const char *part = name;; part++) {
        size_t length = strcspn(part, "/");
        if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += length;
        if (!*part)
            return true;
    }
}

static bool digest_read(const json_t *json, uint8_t digest[SHA256_SIZE]) {
    const char *hex = json_string_value(json);
    return hex && sha256_from_hex(hex, digest);
}

/* Name and size of an entry; the name is new to `names`, which keeps no copy of it. */
static enum status entry_read(const struct json_place *place, const json_t *json, struct name_table *names, char **name,
                              uint64_t *size, struct error *error) {
    if (!json_is_object(json))
        return JSON_REFUSE(place, error, "it is not an object");
    enum status status = string_read(place, json, "name", NULL, name, error);
    if (status == STATUS_OK && !name_is_plain(*name))
        status = JSON_REFUSE(place, error, "\"name\" '%.64s' is not the plain name of a file in the folder", *name);
    if (status == STATUS_OK)
        status = count_read(place, json, "size", size, error);
    bool added = false;
    if (status == STATUS_OK && !name_table_add(names, *name, strlen(*name), 0, &added))
        status = error_set_memory(error);
    if (status == STATUS_OK && !added)
        status = JSON_REFUSE(place, error, "'%.200s' is listed twice", *name);
    return status;
}

static enum status files_read(const char *path, const json_t *list, struct manifest *manifest, struct error *error) {
    struct name_table names = {0};
    enum status status = STATUS_OK;
    struct json_place place = {"", path, ""};
    if (json_array_size(list) == 0)
        return JSON_REFUSE(&place, error, "\"files\" is not a list of files");
    manifest->files = calloc(json_array_size(list), sizeof *manifest->files);
    if (!manifest->files)
        return error_set_memory(error);
    for (size_t i = 0; i < json_array_size(list) && status == STATUS_OK; i++) {
        char member[64];
        snprintf(member, sizeof member, "files[%zu]", i);
        place.part = member;
        const json_t *json = json_array_get(list, i);
        struct manifest_file *file = &manifest->files[manifest->file_count++];
        status = entry_read(&place, json, &names, &file->name, &file->size, error);
        if (status == STATUS_OK && !digest_read(json_object_get(json, "sha256"), file->sha256))
            status = JSON_REFUSE(&place, error, "\"sha256\" of '%.200s' is not 64 lower-case hexadecimal digits",
                                 file->name);
    }
    name_table_free(&names);
    return status;
}

static enum status sources_read(const char *path, const json_t *source, struct manifest *manifest,
                                struct error *error) {
    struct name_table names = {0};
    enum status status = STATUS_OK;
    const json_t *list = json_object_get(source, "files");
    struct json_place place = {"", path, "source"};
    if (json_array_size(list) == 0)
        return JSON_REFUSE(&place, error, "\"files\" is not a list of files");
    const char *name = json_string_value(json_object_get(source, "name"));
    if (name && !(manifest->source = strdup(name)))
        return error_set_memory(error);
    manifest->sources = calloc(json_array_size(list), sizeof *manifest->sources);
    if (!manifest->sources)
        return error_set_memory(error);
    for (size_t i = 0; i < json_array_size(list) && status == STATUS_OK; i++) {
        char member[64];
        snprintf(member, sizeof member, "source.files[%zu]", i);
        place.part = member;
        struct manifest_source *file = &manifest->sources[manifest->source_count++];
        const json_t *json = json_array_get(list, i), *hash = json_object_get(json, "sha256");
        status = entry_read(&place, json, &names, &file->name, &file->size, error);
        file->hashed = digest_read(hash, file->sha256);
        if (status == STATUS_OK && hash && !file->hashed)
            status = JSON_REFUSE(&place, error, "\"sha256\" of '%.200s' is not 64 lower-case hexadecimal digits",
                                 file->name);
    }
    name_table_free(&names);
    return status;
}

static enum status manifest_read_json(const struct json_place *place, const json_t *root, struct manifest *manifest,
                                      struct error *error) {
    static const char *const rules[] = {"amax", "qstream", "mse", NULL};
    static const char *const gammas[] = {"none", "layernorm", "original", NULL};
    static const char *const roundings[] = {"nearest", "calibrated", NULL};
    static const char *const ties[] = {"even", "toward zero", NULL};
    enum status status = json_schema_check(place, root, manifest_schema, error);
    if (status == STATUS_OK)
        status = string_read(place, root, "rule", rules, &manifest->rule, error);
    if (status == STATUS_OK)
        status = string_read(place, root, "gamma", gammas, &manifest->gamma, error);
    if (status == STATUS_OK)
        status = string_read(place, root, "rounding", roundings, &manifest->rounding, error);
    if (status == STATUS_OK)
        status = string_read(place, root, "ties", ties, &manifest->ties, error);
    if (status == STATUS_OK)
        status = count_read(place, root, "tensor_bytes", &manifest->tensor_bytes, error);
    if (status == STATUS_OK)
        status = recipe_read_json(place->path, "recipe", json_object_get(root, "recipe"), &manifest->recipe, error);
    if (status == STATUS_OK)
        status = sources_read(place->path, json_object_get(root, "source"), manifest, error);
    if (status == STATUS_OK)
        status = files_read(place->path, json_object_get(root, "files"), manifest, error);
    return status;
}

enum status manifest_read(const struct folder *folder, struct manifest *manifest, bool *found, struct error *error) {
    static const char file[] = "qstream.json";
    *manifest = (struct manifest){0};
    struct folder_entry entry; /* a link that leads nowhere is a manifest that cannot be read, not none */
    enum status status = folder_look(folder, file, &entry, found, error);
    if (status != STATUS_OK || !*found)
        return status;
    char *path = text_format("%s/%s", folder_name(folder), file), *bytes = NULL;
    const struct json_place place = {"", path, ""};
    size_t length;
    json_t *root = NULL;
    status =
        path ? folder_file_read(folder, file, MANIFEST_BYTES_MAX, &bytes, &length, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = sha256_of(bytes, length, manifest->sha256, error);
    if (status == STATUS_OK)
        status = json_object_parse(&place, bytes, length, &root, error);
    if (status == STATUS_OK)
        status = manifest_read_json(&place, root, manifest, error);
    json_decref(root);
    free(bytes);
    free(path);
    return status;
}

void manifest_free(struct manifest *manifest) {
    for (size_t i = 0; i < manifest->file_count; i++)
        free(manifest->files[i].name);
    for (size_t i = 0; i < manifest->source_count; i++)
        free(manifest->sources[i].name);
    wanted_recipe_free(&manifest->recipe);
    free(manifest->files);
    free(manifest->sources);
    free(manifest->source);
    free(manifest->rule);
    free(manifest->gamma);
    free(manifest->rounding);
    free(manifest->ties);
    *manifest = (struct manifest){0};
}
