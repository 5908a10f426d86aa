#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/new_file.h"
#include "infer/report/expectation.h"

/* Nine digits: more than any tolerance in use asks for, of small figures as well. */
static double rounded(double value) {
    char digits[32];
    snprintf(digits, sizeof digits, "%.9g", value);
    return strtod(digits, NULL);
}

/* json_object_set_new that tells of no memory. */
static bool put(json_t *object, const char *key, json_t *value) { return json_object_set_new(object, key, value) == 0; }

static json_t *tolerance_json(const struct tolerance *tolerance) {
    char text[32];
    if (!tolerance->relative)
        return json_real(tolerance->amount);
    snprintf(text, sizeof text, "%.6g%%", 100 * tolerance->amount);
    return json_string(text);
}

/* The member of that name, an object; made when it is not there. NULL without memory. */
static json_t *member_object(json_t *object, const char *key) {
    json_t *member = json_object_get(object, key);
    if (!json_is_object(member)) {
        if (!put(object, key, json_object()))
            return NULL;
        member = json_object_get(object, key);
    }
    return member;
}

/* ---- figures ---- */

static bool figure_put(json_t *expected, const char *name, const char *key, json_t *value,
                       const struct tolerance *tolerance) {
    json_t *figure = member_object(expected, name);
    if (!figure || !put(figure, key, value))
        return false;
    return (json_object_get(figure, "tolerance") || put(figure, "tolerance", tolerance_json(tolerance))) &&
           put(figure, "status", json_string(figure_status_name(FIGURE_REPRODUCED)));
}

static bool windows_put(json_t *expected, const struct ppl_result *result, const struct tolerance *tolerance) {
    json_t *values = json_array();
    for (size_t i = 0; i < result->window_count; i++)
        if (json_array_append_new(values, json_real(rounded(result->windows[i].nll))) != 0) {
            json_decref(values);
            return false;
        }
    return figure_put(expected, "window_nll", "values", values, tolerance);
}

/* A new case gets the means; figures of windows or of a baseline only where they are asked for already. */
static bool expected_put(json_t *test, const struct ppl_result *result, const struct tolerance *tolerance) {
    const struct tolerance exact = {0};
    json_t *expected = member_object(test, "expected");
    if (!expected || !figure_put(expected, "ppl", "value", json_real(rounded(result->ppl)), tolerance) ||
        !figure_put(expected, "nll", "value", json_real(rounded(result->nll)), tolerance) ||
        !figure_put(expected, "tokens_scored", "value", json_integer((json_int_t)result->tokens_scored), &exact))
        return false;
    if (json_object_get(expected, "window_nll") && !windows_put(expected, result, tolerance))
        return false;
    if (!result->has_baseline)
        return true;
    return figure_put(expected, "kl_mean", "value", json_real(rounded(result->kl_mean)), tolerance) &&
           figure_put(expected, "top1_agreement", "value", json_real(rounded(result->top1_agreement)), tolerance);
}

/* ---- settings ---- */

static bool protocol_put(json_t *object, const struct ppl_protocol *protocol) {
    json_t *json = member_object(object, "protocol");
    return json && put(json, "window", json_integer(protocol->window)) &&
           put(json, "stride", json_integer(protocol->stride)) &&
           put(json, "windows", protocol->windows ? json_integer(protocol->windows) : json_string("all"));
}

static bool variants_put(json_t *object, const struct ppl_variants *variants) {
    json_t *json = member_object(object, "variants");
    return json && put(json, "bos", json_boolean(variants->bos)) &&
           put(json, "text_join", json_string(text_join_name(variants->text_join))) &&
           put(json, "kv_cache", json_string(kv_cache_name(variants->kv_cache))) &&
           put(json, "activations", json_string(activations_name(variants->activations_float))) &&
           put(json, "fused_scales", json_boolean(variants->fused_scales)) &&
           put(json, "rope_frequencies", json_string(rope_frequencies_name(variants->rope_bf16)));
}

static bool tokens_put(json_t *object, const struct ppl_update *update) {
    json_t *json = member_object(object, "tokens");
    return json && put(json, "count", json_integer((json_int_t)update->token_count)) &&
           put(json, "sha256", json_string(update->tokens_hash));
}

/* What a case that is new says of itself. */
static bool settings_put(json_t *test, const struct ppl_update *update, const struct ppl_result *result) {
    return put(test, "compute", json_string(compute_name(result->compute))) &&
           protocol_put(test, &update->settings->protocol) && variants_put(test, &update->settings->variants);
}

/* ---- the file ---- */

/* The name of a file without its folder and ending. */
static json_t *file_name(const char *path) {
    const char *name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t length = strlen(name);
    static const char *const endings[] = {".json", ".ppl"};
    for (size_t i = 0; i < 2; i++)
        if (length > strlen(endings[i]) &&
            memcmp(name + length - strlen(endings[i]), endings[i], strlen(endings[i])) == 0)
            length -= strlen(endings[i]);
    char *copy = strndup(name, length);
    json_t *json = copy ? json_string(copy) : NULL; /* NULL, too, when it is not UTF-8 */
    free(copy);
    return json ? json : json_string("expectations");
}

static bool root_make(struct expectation *expectation, const char *path, const char *model) {
    json_t *root = expectation->root = json_object();
    if (!root || !put(root, "schema", json_string("qstream.ppl-expectation/1")) || !put(root, "name", file_name(path)))
        return false;
    json_t *object = member_object(root, "model");
    json_t *name = json_string(model); /* NULL when it is not UTF-8 */
    return put(object, "name", name ? name : json_string("model")) && put(root, "cases", json_array());
}

/* The case, made when it is not there. */
static json_t *case_of(json_t *root, const char *name) {
    json_t *cases = json_object_get(root, "cases"), *test;
    size_t i;
    json_array_foreach(cases, i, test) {
        if (!name || strcmp(json_string_value(json_object_get(test, "name")), name) == 0)
            return test;
    }
    test = json_object();
    if (!put(test, "name", json_string(name ? name : "default")) || json_array_append_new(cases, test) != 0)
        return NULL;
    return test;
}

static bool tree_update(struct expectation *expectation, const char *path, const char *test,
                        const struct ppl_update *update, const struct ppl_result *result) {
    if (!expectation->root && !root_make(expectation, path, update->model))
        return false;
    json_t *json = case_of(expectation->root, test);
    if (!json || (expectation->fresh && !settings_put(json, update, result)))
        return false;
    if (strcmp(expectation->tokens_hash, update->tokens_hash) != 0 && !tokens_put(json, update))
        return false;
    return expected_put(json, result, &update->tolerance);
}

enum status expectation_update(struct expectation *expectation, const char *path, const char *test,
                               const struct ppl_update *update, const struct ppl_result *result, struct error *error) {
    if (!isfinite(result->nll) || !isfinite(result->ppl))
        return error_set(error, STATUS_CHECK_FAILED, "the perplexity is not finite: '%s' stays as it was", path);
    if (!tree_update(expectation, path, test, update, result))
        return error_set_memory(error);
    char *text = json_dumps(expectation->root, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(10));
    if (!text)
        return error_set_memory(error);
    struct text out = {0};
    text_printf(&out, "%s\n", text);
    free(text);
    enum status status = out.failed ? error_set_memory(error) : new_file_write(path, out.bytes, out.length, error);
    text_free(&out);
    return status;
}
