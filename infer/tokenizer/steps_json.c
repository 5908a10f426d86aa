#include "infer/tokenizer/steps_json.h"

#include <jansson.h>
#include <string.h>

/* As the tokenizers library cuts for GPT-2. */
static const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* Digits goes by Unicode 17: the numbers that patterns (Unicode 16) do not know are named. */
static const char digits_pattern[] = "[\\p{N}\\x{11de0}-\\x{11de9}\\x{16ff4}-\\x{16ff6}]";

enum { PART_MAX = 1 << 20 }; /* bytes of such a part; those in use have less than 3 kB */

static enum status part_load(const char *json, struct json_span span, const char *name, json_t **part,
                             struct error *error) {
    json_error_t problem;
    *part = NULL;
    if (span.end - span.begin > PART_MAX)
        return error_set(error, STATUS_BAD_INPUT, "its %s is too long", name);
    *part = json_loadb(json + span.begin, span.end - span.begin, 0, &problem);
    return *part ? STATUS_OK : error_set(error, STATUS_BAD_INPUT, "its %s cannot be read: %s", name, problem.text);
}

static const char *type_of(const json_t *part) {
    const char *type = json_string_value(json_object_get(part, "type"));
    return type ? type : "without a type";
}

static enum status not_supported(const char *what, const json_t *part, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT, "the %s '%.100s' is not supported", what, type_of(part));
}

/* A boolean member; `missing` where there is none. */
static enum status flag(const json_t *part, const char *name, int missing, bool *value, struct error *error) {
    const json_t *member = json_object_get(part, name);
    if (!member && missing >= 0) {
        *value = missing;
        return STATUS_OK;
    }
    if (!json_is_boolean(member))
        return error_set(error, STATUS_BAD_INPUT, "'%s' of '%.100s' has to be true or false", name, type_of(part));
    *value = json_is_true(member);
    return STATUS_OK;
}

/* ---- the normalizer ---- */

static enum status normalizer_read(const json_t *part, bool *nfc, struct error *error) {
    if (strcmp(type_of(part), "NFC") != 0)
        return not_supported("normalizer", part, error);
    *nfc = true;
    return STATUS_OK;
}

enum status normalizer_json_read(const char *json, struct json_span span, bool *nfc, struct error *error) {
    json_t *part;
    *nfc = false;
    if (span.begin == span.end)
        return STATUS_OK;
    enum status status = part_load(json, span, "normalizer", &part, error);
    if (status != STATUS_OK)
        return status;
    const json_t *list = json_object_get(part, "normalizers"), *item;
    if (strcmp(type_of(part), "Sequence") != 0 || !json_is_array(list)) {
        status = normalizer_read(part, nfc, error);
    } else {
        size_t i;
        json_array_foreach(list, i, item) {
            status = normalizer_read(item, nfc, error);
            if (status != STATUS_OK)
                break;
        }
    }
    json_decref(part);
    return status;
}

/* ---- the pre-tokenizer ---- */

static enum status pattern_add(struct pre_tokenizer *pre, const char *text, enum pattern_kind kind,
                               enum split_behavior behavior, bool invert, struct error *error) {
    struct split_pattern *pattern;
    enum status status = split_pattern_open(text, kind, &pattern, error);
    return status == STATUS_OK ? pre_tokenizer_add(pre, (struct pre_step){pattern, behavior, invert}, error) : status;
}

static enum status split_read(const json_t *part, struct pre_tokenizer *pre, struct error *error) {
    static const char *const behaviors[] = {[SPLIT_REMOVED] = "Removed",
                                            [SPLIT_ISOLATED] = "Isolated",
                                            [SPLIT_MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
                                            [SPLIT_MERGED_WITH_NEXT] = "MergedWithNext",
                                            [SPLIT_CONTIGUOUS] = "Contiguous"};
    enum { BEHAVIORS = sizeof behaviors / sizeof *behaviors };
    const json_t *pattern = json_object_get(part, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    const char *behavior = json_string_value(json_object_get(part, "behavior"));
    if (!regex == !literal || json_object_size(pattern) != 1)
        return error_set(error, STATUS_BAD_INPUT, "the pattern of a Split has to be a Regex or a String");
    size_t kind = 0;
    while (kind < BEHAVIORS && (!behavior || strcmp(behaviors[kind], behavior) != 0))
        kind++;
    if (kind == BEHAVIORS)
        return error_set(error, STATUS_BAD_INPUT, "the behavior '%.100s' of a Split is not supported",
                         behavior ? behavior : "");
    bool invert;
    enum status status = flag(part, "invert", -1, &invert, error);
    return status == STATUS_OK ? pattern_add(pre, regex ? regex : literal, regex ? PATTERN_ONIGURUMA : PATTERN_LITERAL,
                                             (enum split_behavior)kind, invert, error)
                               : status;
}

static enum status digits_read(const json_t *part, struct pre_tokenizer *pre, struct error *error) {
    bool single;
    enum status status = flag(part, "individual_digits", -1, &single, error);
    return status == STATUS_OK ? pattern_add(pre, digits_pattern, PATTERN_ONIGURUMA,
                                             single ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false, error)
                               : status;
}

static enum status byte_level_read(const json_t *part, struct pre_tokenizer *pre, struct error *error) {
    bool prefix = false, use_regex = false;
    enum status status = flag(part, "add_prefix_space", -1, &prefix, error);
    if (status == STATUS_OK)
        status = flag(part, "use_regex", true, &use_regex, error);
    if (status == STATUS_OK && prefix)
        status = pre_tokenizer_add(pre, (struct pre_step){0}, error);
    if (status == STATUS_OK && use_regex)
        status = pattern_add(pre, gpt2_pattern, PATTERN_ONIGURUMA, SPLIT_ISOLATED, false, error);
    return status;
}

/* *last is set at ByteLevel: what comes behind it would see bytes, not characters. */
static enum status pre_step_read(const json_t *part, struct pre_tokenizer *pre, bool *last, struct error *error) {
    const char *type = type_of(part);
    if (*last)
        return error_set(error, STATUS_BAD_INPUT, "the pre-tokenizer '%.100s' behind ByteLevel is not supported", type);
    if (strcmp(type, "Split") == 0)
        return split_read(part, pre, error);
    if (strcmp(type, "Digits") == 0)
        return digits_read(part, pre, error);
    if (strcmp(type, "ByteLevel") != 0)
        return not_supported("pre-tokenizer", part, error);
    *last = true;
    return byte_level_read(part, pre, error);
}

enum status pre_tokenizer_json_read(const char *json, struct json_span span, struct pre_tokenizer *pre,
                                    struct error *error) {
    static const char none[] = "a tokenizer without the pre-tokenizer ByteLevel is not supported";
    if (span.begin == span.end)
        return error_set(error, STATUS_BAD_INPUT, none);
    json_t *part;
    enum status status = part_load(json, span, "pre_tokenizer", &part, error);
    if (status != STATUS_OK)
        return status;
    const json_t *list = json_object_get(part, "pretokenizers"), *item;
    bool last = false;
    if (strcmp(type_of(part), "Sequence") != 0 || !json_is_array(list)) {
        status = pre_step_read(part, pre, &last, error);
    } else {
        size_t i;
        json_array_foreach(list, i, item) {
            status = pre_step_read(item, pre, &last, error);
            if (status != STATUS_OK)
                break;
        }
    }
    if (status == STATUS_OK && !last)
        status = error_set(error, STATUS_BAD_INPUT, none);
    json_decref(part);
    return status;
}

/* ---- the decoder ---- */

enum status decoder_json_check(const char *json, struct json_span span, struct error *error) {
    if (span.begin == span.end)
        return error_set(error, STATUS_BAD_INPUT, "a tokenizer without the decoder ByteLevel is not supported");
    json_t *part;
    enum status status = part_load(json, span, "decoder", &part, error);
    if (status == STATUS_OK && strcmp(type_of(part), "ByteLevel") != 0)
        status = not_supported("decoder", part, error);
    json_decref(part);
    return status;
}
