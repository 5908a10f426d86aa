#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json_strict.h"
#include "common/source.h"
#include "infer/report/expectation.h"

static const char kind[] = "expectations", schema[] = "qstream.ppl-expectation/1";
enum { FILE_BYTES_MAX = 1 << 20, WINDOWS_MAX = 100000, TOKENS_MAX = 1 << 24 };

void expectation_free(struct expectation *expectation) {
    for (size_t i = 0; i < expectation->count; i++)
        free(expectation->checks[i].name);
    free(expectation->checks);
    free(expectation->file);
    free(expectation->name);
    free(expectation->notes);
    free(expectation->model);
    free(expectation->test);
    free(expectation->test_notes);
    json_decref(expectation->root);
    *expectation = (struct expectation){0};
}

/* ---- pieces of the file ---- */

/* A copy of a string member; *out stays as it is when there is none. */
static enum status string_copy(const struct json_place *place, const json_t *object, const char *key, char **out,
                               struct error *error) {
    const char *string;
    enum status status = json_string_read(place, object, key, &string, error);
    if (status != STATUS_OK || !string)
        return status;
    free(*out);
    *out = strdup(string);
    return *out ? STATUS_OK : error_set_memory(error);
}

static enum status flag_read(const struct json_place *place, const json_t *object, const char *key, bool *flag,
                             bool *has, struct error *error) {
    *has |= json_object_get(object, key) != NULL;
    return json_flag_read(place, object, key, flag, error);
}

static enum status count_read(const struct json_place *place, const json_t *object, const char *key, uint32_t least,
                              uint32_t *count, bool *has, struct error *error) {
    const json_t *value = json_object_get(object, key);
    if (!value)
        return STATUS_OK;
    const json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < (json_int_t)least || number > TOKENS_MAX)
        return JSON_REFUSE(place, error, "\"%s\" is not a number from %u to %d", key, least, TOKENS_MAX);
    *count = (uint32_t)number;
    *has = true;
    return STATUS_OK;
}

/* "windows" may be "all". */
static enum status protocol_read(const struct json_place *place, const json_t *object, struct ppl_settings *settings,
                                 struct error *error) {
    static const char *const keys[] = {"window", "stride", "windows", NULL};
    const json_t *protocol = json_object_get(object, "protocol");
    if (!protocol)
        return STATUS_OK;
    if (!json_is_object(protocol))
        return JSON_REFUSE(place, error, "\"protocol\" is not an object");
    enum status status = json_keys_check(place, protocol, keys, error);
    if (status == STATUS_OK)
        status = count_read(place, protocol, "window", 2, &settings->protocol.window, &settings->has_window, error);
    if (status == STATUS_OK)
        status = count_read(place, protocol, "stride", 1, &settings->protocol.stride, &settings->has_stride, error);
    const char *all = json_string_value(json_object_get(protocol, "windows"));
    if (status != STATUS_OK || !all || strcmp(all, "all") != 0)
        return status != STATUS_OK ? status
                                   : count_read(place, protocol, "windows", 1, &settings->protocol.windows,
                                                &settings->has_windows, error);
    settings->protocol.windows = 0;
    settings->has_windows = true;
    return STATUS_OK;
}

static enum status word_wrong(const struct json_place *place, const char *key, const char *word, struct error *error) {
    return JSON_REFUSE(place, error, "\"%s\" cannot be '%.32s'", key, word);
}

static enum status variants_read(const struct json_place *place, const json_t *object, struct ppl_settings *settings,
                                 struct error *error) {
    static const char *const keys[] = {"bos",          "text_join",        "kv_cache", "activations",
                                       "fused_scales", "rope_frequencies", NULL};
    const json_t *json = json_object_get(object, "variants");
    if (!json)
        return STATUS_OK;
    if (!json_is_object(json))
        return JSON_REFUSE(place, error, "\"variants\" is not an object");
    struct ppl_variants *variants = &settings->variants;
    const char *join = NULL, *cache = NULL, *activations = NULL, *rope = NULL;
    enum status status = json_keys_check(place, json, keys, error);
    if (status == STATUS_OK)
        status = flag_read(place, json, "bos", &variants->bos, &settings->has_bos, error);
    if (status == STATUS_OK)
        status = flag_read(place, json, "fused_scales", &variants->fused_scales, &settings->has_fused_scales, error);
    if (status == STATUS_OK)
        status = json_string_read(place, json, "text_join", &join, error);
    if (status == STATUS_OK)
        status = json_string_read(place, json, "kv_cache", &cache, error);
    if (status == STATUS_OK)
        status = json_string_read(place, json, "activations", &activations, error);
    if (status == STATUS_OK)
        status = json_string_read(place, json, "rope_frequencies", &rope, error);
    if (status != STATUS_OK)
        return status;
    if (join && !text_join_parse(join, &variants->text_join))
        return word_wrong(place, "text_join", join, error);
    if (cache && !kv_cache_parse(cache, &variants->kv_cache))
        return word_wrong(place, "kv_cache", cache, error);
    if (activations && !activations_parse(activations, &variants->activations_float))
        return word_wrong(place, "activations", activations, error);
    if (rope && !rope_frequencies_parse(rope, &variants->rope_bf16))
        return word_wrong(place, "rope_frequencies", rope, error);
    settings->has_text_join |= join != NULL;
    settings->has_kv_cache |= cache != NULL;
    settings->has_activations |= activations != NULL;
    settings->has_rope |= rope != NULL;
    return STATUS_OK;
}

static enum status tokens_read(const struct json_place *place, const json_t *object, char hash[SHA256_HEX],
                               struct error *error) {
    static const char *const keys[] = {"count", "sha256", NULL};
    const json_t *tokens = json_object_get(object, "tokens");
    if (!tokens)
        return STATUS_OK;
    if (!json_is_object(tokens))
        return JSON_REFUSE(place, error, "\"tokens\" is not an object");
    enum status status = json_keys_check(place, tokens, keys, error);
    if (status != STATUS_OK)
        return status;
    const char *hex = json_string_value(json_object_get(tokens, "sha256"));
    if (!hex || strlen(hex) != SHA256_HEX - 1 || hex[strspn(hex, "0123456789abcdef")])
        return JSON_REFUSE(place, error, "\"sha256\" of the tokens is not 64 hexadecimal digits in lower case");
    memcpy(hash, hex, SHA256_HEX);
    return STATUS_OK;
}

/* What the top and a case have in common; the case's comes second and counts. */
static enum status settings_read(const struct json_place *place, const json_t *object, struct expectation *expectation,
                                 struct error *error) {
    struct ppl_settings *settings = &expectation->settings;
    const char *compute = NULL;
    enum status status = tokens_read(place, object, expectation->tokens_hash, error);
    if (status == STATUS_OK)
        status = protocol_read(place, object, settings, error);
    if (status == STATUS_OK)
        status = variants_read(place, object, settings, error);
    if (status == STATUS_OK)
        status = json_string_read(place, object, "compute", &compute, error);
    if (status != STATUS_OK || !compute)
        return status;
    settings->has_compute = true;
    return compute_parse(compute, &settings->compute) ? STATUS_OK : word_wrong(place, "compute", compute, error);
}

/* ---- figures ---- */

static enum status check_add(struct expectation *expectation, const struct ppl_check *check, struct error *error) {
    struct ppl_check *checks = realloc(expectation->checks, (expectation->count + 1) * sizeof *checks);
    if (checks)
        expectation->checks = checks;
    if (!checks || !check->name) {
        free(check->name);
        return error_set_memory(error);
    }
    checks[expectation->count++] = *check;
    return STATUS_OK;
}

enum status expectation_of(double ppl, struct tolerance tolerance, struct expectation *expectation,
                           struct error *error) {
    *expectation = (struct expectation){0};
    const struct ppl_check check = {
        .name = strdup("ppl"), .status = FIGURE_GIVEN, .expected = ppl, .tolerance = tolerance};
    return check_add(expectation, &check, error);
}

/* Values are finite in JSON; a perplexity or a mean of them is not negative. */
static bool value_read(const json_t *json, double *value) {
    *value = json_number_value(json);
    return json_is_number(json) && *value >= 0 && isfinite(*value);
}

/* Tolerance and status of a figure. */
static enum status figure_read(const struct json_place *place, const char *name, const json_t *json,
                               struct ppl_check *check, struct error *error) {
    static const char *const keys[] = {"value", "values", "tolerance", "status", NULL};
    if (!json_is_object(json))
        return JSON_REFUSE(place, error, "\"%s\" is not an object", name);
    enum status status = json_keys_check(place, json, keys, error);
    if (status != STATUS_OK)
        return status;
    const json_t *tolerance = json_object_get(json, "tolerance");
    const char *word = json_string_value(json_object_get(json, "status"));
    check->tolerance = (struct tolerance){0};
    if (json_is_string(tolerance) ? !tolerance_parse(json_string_value(tolerance), &check->tolerance)
                                  : !value_read(tolerance, &check->tolerance.amount))
        return JSON_REFUSE(place, error, "\"%s\" needs a \"tolerance\", a number or a share such as \"0.5%%\"", name);
    check->status = word && strcmp(word, "reproduced") == 0 ? FIGURE_REPRODUCED : FIGURE_PUBLISHED_ONLY;
    if (!word || strcmp(word, figure_status_name(check->status)) != 0)
        return JSON_REFUSE(place, error, "\"%s\" needs a \"status\", reproduced or published-only", name);
    return STATUS_OK;
}

static enum status windows_read(const struct json_place *place, const json_t *json, struct expectation *expectation,
                                struct error *error) {
    struct ppl_check check = {0};
    enum status status = figure_read(place, "window_nll", json, &check, error);
    const json_t *values = json_object_get(json, "values");
    const size_t count = json_array_size(values);
    if (status == STATUS_OK && (count < 1 || count > WINDOWS_MAX))
        return JSON_REFUSE(place, error, "\"window_nll\" needs a list of \"values\"");
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        if (!value_read(json_array_get(values, i), &check.expected))
            return JSON_REFUSE(place, error, "\"window_nll\" has a value that is no number from 0 on");
        check.name = text_format("window_nll[%zu]", i);
        status = check_add(expectation, &check, error);
    }
    return status;
}

static enum status expected_read(const struct json_place *place, const json_t *object, struct expectation *expectation,
                                 struct error *error) {
    static const char *const figures[] = {"ppl", "nll", "tokens_scored", "kl_mean", "top1_agreement", NULL};
    static const char *const keys[] = {"ppl", "nll", "tokens_scored", "window_nll", "kl_mean", "top1_agreement", NULL};
    const json_t *expected = json_object_get(object, "expected");
    if (!json_is_object(expected) || json_object_size(expected) == 0)
        return JSON_REFUSE(place, error, "it has no \"expected\" figures");
    enum status status = json_keys_check(place, expected, keys, error);
    for (size_t i = 0; status == STATUS_OK && figures[i]; i++) {
        const json_t *json = json_object_get(expected, figures[i]);
        struct ppl_check check = {0};
        if (!json)
            continue;
        status = figure_read(place, figures[i], json, &check, error);
        if (status == STATUS_OK && !value_read(json_object_get(json, "value"), &check.expected))
            status = JSON_REFUSE(place, error, "\"%s\" needs a \"value\", a number from 0 on", figures[i]);
        if (status == STATUS_OK) {
            check.name = strdup(figures[i]);
            status = check_add(expectation, &check, error);
        }
    }
    const json_t *windows = json_object_get(expected, "window_nll");
    return status == STATUS_OK && windows ? windows_read(place, windows, expectation, error) : status;
}

/* ---- the file ---- */

static enum status model_read(const struct json_place *place, const json_t *root, struct expectation *expectation,
                              struct error *error) {
    static const char *const keys[] = {"name", "revision", NULL};
    const json_t *model = json_object_get(root, "model");
    const json_t *revision = json_object_get(model, "revision");
    const char *name = json_string_value(json_object_get(model, "name"));
    if (!name || (revision && !json_is_string(revision)))
        return JSON_REFUSE(place, error, "\"model\" needs a \"name\", and may have a \"revision\"");
    enum status status = json_keys_check(place, model, keys, error);
    if (status != STATUS_OK)
        return status;
    expectation->model = revision ? text_format("%s, %s", name, json_string_value(revision)) : text_format("%s", name);
    return expectation->model ? STATUS_OK : error_set_memory(error);
}

static enum status root_read(const struct json_place *place, struct expectation *expectation, struct error *error) {
    static const char *const keys[] = {"$schema", "schema",   "name",    "notes",    "model", "text",
                                       "tokens",  "protocol", "compute", "variants", "cases", NULL};
    const json_t *root = expectation->root;
    const char *text;
    enum status status = json_schema_check(place, root, schema, error);
    if (status == STATUS_OK)
        status = json_keys_check(place, root, keys, error);
    if (status == STATUS_OK && !json_is_string(json_object_get(root, "name")))
        status = JSON_REFUSE(place, error, "it needs a \"name\"");
    if (status == STATUS_OK)
        status = string_copy(place, root, "name", &expectation->name, error);
    if (status == STATUS_OK)
        status = string_copy(place, root, "notes", &expectation->notes, error);
    if (status == STATUS_OK)
        status = json_string_read(place, root, "text", &text, error);
    if (status == STATUS_OK)
        status = model_read(place, root, expectation, error);
    if (status == STATUS_OK)
        status = settings_read(place, root, expectation, error);
    if (status == STATUS_OK && json_array_size(json_object_get(root, "cases")) == 0)
        status = JSON_REFUSE(place, error, "it needs a list of \"cases\"");
    return status;
}

static const char *case_name(const json_t *cases, size_t number) {
    return json_string_value(json_object_get(json_array_get(cases, number), "name"));
}

/* Every case needs a name of its own. */
static enum status cases_check(const struct json_place *place, const json_t *cases, struct error *error) {
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const char *name = case_name(cases, i);
        if (!name || !*name)
            return JSON_REFUSE(place, error, "case %zu has no \"name\"", i + 1);
        for (size_t j = 0; j < i; j++)
            if (strcmp(name, case_name(cases, j)) == 0)
                return JSON_REFUSE(place, error, "two cases have the name '%.64s'", name);
    }
    return STATUS_OK;
}

/* The case of that name, its number; the count of cases when there is none. NULL: the only one. */
static enum status case_choose(const struct json_place *place, const json_t *cases, const char *test, bool update,
                               size_t *number, struct error *error) {
    const size_t count = json_array_size(cases);
    struct text names = {0};
    for (*number = 0; *number < count; ++*number) {
        if (test ? strcmp(test, case_name(cases, *number)) == 0 : count == 1)
            break;
        text_printf(&names, "%s%.64s", *number ? ", " : "", case_name(cases, *number));
    }
    enum status status = STATUS_OK;
    if (*number == count && !(test && update))
        status = error_set(error, STATUS_USAGE, "expectations '%s' %s: choose one with --case: %.600s", place->path,
                           test ? "have no such case" : "have several cases", names.bytes ? names.bytes : "");
    text_free(&names);
    return status;
}

static enum status case_read(const char *path, const json_t *json, struct expectation *expectation,
                             struct error *error) {
    static const char *const keys[] = {"name",    "notes",    "checkpoint", "tokens", "protocol",
                                       "compute", "variants", "expected",   NULL};
    char part[96];
    snprintf(part, sizeof part, "case '%.64s'", json_string_value(json_object_get(json, "name")));
    const struct json_place place = {kind, path, part};
    const char *checkpoint;
    enum status status = json_keys_check(&place, json, keys, error);
    if (status == STATUS_OK)
        status = json_string_read(&place, json, "checkpoint", &checkpoint, error);
    if (status == STATUS_OK)
        status = string_copy(&place, json, "name", &expectation->test, error);
    if (status == STATUS_OK)
        status = string_copy(&place, json, "notes", &expectation->test_notes, error);
    if (status == STATUS_OK)
        status = settings_read(&place, json, expectation, error);
    return status == STATUS_OK ? expected_read(&place, json, expectation, error) : status;
}

static enum status tree_read(const struct json_place *place, json_t **root, struct error *error) {
    char *bytes;
    size_t length;
    enum status status = file_read(place->path, FILE_BYTES_MAX, &bytes, &length, error);
    if (status == STATUS_OK)
        status = json_object_parse(place, bytes, length, root, error);
    free(bytes);
    return status;
}

enum status expectation_read(const char *path, const char *test, bool update, struct expectation *expectation,
                             struct error *error) {
    *expectation = (struct expectation){.file = strdup(path)};
    if (!expectation->file)
        return error_set_memory(error);
    if (update && access(path, F_OK) != 0 && errno == ENOENT) {
        expectation->fresh = true;
        return STATUS_OK;
    }
    const struct json_place place = {kind, path, ""};
    enum status status = tree_read(&place, &expectation->root, error);
    if (status == STATUS_OK)
        status = root_read(&place, expectation, error);
    const json_t *cases = json_object_get(expectation->root, "cases");
    size_t number = 0;
    if (status == STATUS_OK)
        status = cases_check(&place, cases, error);
    if (status == STATUS_OK)
        status = case_choose(&place, cases, test, update, &number, error);
    if (status != STATUS_OK)
        return status;
    expectation->fresh = number == json_array_size(cases);
    return expectation->fresh ? STATUS_OK : case_read(path, json_array_get(cases, number), expectation, error);
}
