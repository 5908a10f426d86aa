#include "common/quant_args.h"

#include <ctype.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_strict.h"
#include "common/text.h"

static const char *const strategy_names[STRATEGIES] = {
    [STRATEGY_TENSOR] = "tensor",       [STRATEGY_CHANNEL] = "channel", [STRATEGY_GROUP] = "group",
    [STRATEGY_BLOCK] = "block",         [STRATEGY_TOKEN] = "token",     [STRATEGY_TENSOR_GROUP] = "tensor_group",
    [STRATEGY_ATTN_HEAD] = "attn_head",
};
const char *strategy_name(enum strategy strategy) { return strategy_names[strategy]; }

const char *quant_value_text(const json_t *value, char out[QUANT_VALUE_MAX]) {
    static const char *const types[] = {"an object", "a list", "a string", "a number",
                                        "a number",  "true",   "false",    "null"};
    if (json_is_string(value))
        snprintf(out, QUANT_VALUE_MAX, "\"%.40s\"", json_string_value(value));
    else if (json_is_integer(value))
        snprintf(out, QUANT_VALUE_MAX, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    else if (json_is_real(value))
        snprintf(out, QUANT_VALUE_MAX, "%g", json_real_value(value));
    else
        snprintf(out, QUANT_VALUE_MAX, "%s", types[json_typeof(value)]);
    return out;
}

/* ---- coercions of pydantic's lax mode ---- */

static bool coerce_int(const json_t *value, bool strings, int64_t *out) {
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return true;
    }
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    double real = json_number_value(value);
    if (json_is_string(value)) {
        const char *text = json_string_value(value);
        char *end;
        while (isspace((unsigned char)*text))
            text++;
        if (!strings || !*text || strpbrk(text, "xXnNpP"))
            return false;
        real = strtod(text, &end);
        while (isspace((unsigned char)*end))
            end++;
        const char *point = strchr(text, '.');
        if (*end || strpbrk(text, "eE") || (point && strspn(point + 1, "0 ") != strlen(point + 1)))
            return false;
    } else if (!json_is_real(value)) {
        return false;
    }
    if (!(fabs(real) < 9e15) || real != floor(real))
        return false;
    *out = (int64_t)real;
    return true;
}

static bool coerce_bool(const json_t *value, bool *out) {
    static const char *const words[2][6] = {{"false", "no", "off", "f", "n", "0"},
                                            {"true", "yes", "on", "t", "y", "1"}};
    if (json_is_boolean(value)) {
        *out = json_is_true(value);
        return true;
    }
    if (json_is_number(value)) {
        *out = json_number_value(value) == 1.0;
        return *out || json_number_value(value) == 0.0;
    }
    for (int truth = 0; truth < 2 && json_is_string(value); truth++)
        for (int i = 0; i < 6; i++)
            if (strcasecmp(json_string_value(value), words[truth][i]) == 0) {
                *out = truth;
                return true;
            }
    return false;
}

/* ---- QuantizationArgs ---- */

static bool is_torch_dtype(const char *name) {
    static const char *const names[] = {"uint8",
                                        "int8",
                                        "int16",
                                        "int32",
                                        "int64",
                                        "uint16",
                                        "uint32",
                                        "uint64",
                                        "bool",
                                        "float16",
                                        "half",
                                        "bfloat16",
                                        "float32",
                                        "float",
                                        "float64",
                                        "double",
                                        "float8_e4m3fn",
                                        "float8_e5m2",
                                        "float8_e8m0fnu",
                                        "float8_e4m3fnuz",
                                        "float8_e5m2fnuz",
                                        "float4_e2m1fn_x2",
                                        "short",
                                        "int",
                                        "long",
                                        "complex64",
                                        "complex128"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void strategy_read(const json_t *value, struct quant_args *args, bool *given) {
    char text[QUANT_VALUE_MAX];
    if (!value || json_is_null(value))
        return;
    for (int i = 0; i < STRATEGIES && json_is_string(value); i++)
        if (strcasecmp(json_string_value(value), strategy_names[i]) == 0) {
            args->strategy = (enum strategy)i;
            *given = true;
            return;
        }
    QUANT_REFUSE(args, "strategy %s is none of compressed-tensors'", quant_value_text(value, text));
}

static bool is_python_int(const json_t *value) { return json_is_integer(value) || json_is_boolean(value); }

/* What 0.17 takes for block_structure: two integers of any size, or integers with an x between them. */
static bool is_lenient_block(const json_t *value, bool *pair) {
    const char *text = json_string_value(value);
    *pair = true;
    if (!text)
        return json_array_size(value) == 2 && is_python_int(json_array_get(value, 0)) &&
               is_python_int(json_array_get(value, 1));
    for (int count = 1;; count++) {
        char *end;
        strtol(text, &end, 10);
        if (end == text)
            return false;
        text = end + strspn(end, " \t\r\n");
        *pair = count == 2;
        if (!*text)
            return true;
        if (*text++ != 'x')
            return false;
    }
}

static void block_structure_read(const json_t *value, struct quant_args *args) {
    char text[QUANT_VALUE_MAX];
    if (!value || json_is_null(value))
        return;
    if (json_is_string(value)) {
        char *end;
        args->block_rows = strtol(json_string_value(value), &end, 10);
        if (*end == 'x')
            args->block_columns = strtol(end + 1, &end, 10);
        if (*end)
            args->block_columns = 0;
    } else if (json_array_size(value) == 2 && json_is_integer(json_array_get(value, 0)) &&
               json_is_integer(json_array_get(value, 1))) {
        args->block_rows = json_integer_value(json_array_get(value, 0));
        args->block_columns = json_integer_value(json_array_get(value, 1));
    }
    if (args->block_rows <= 0 || args->block_columns <= 0) {
        args->lenient = !args->refusal && is_lenient_block(value, &args->block_pair);
        QUANT_REFUSE(args, "block_structure %s is not [rows, columns]", quant_value_text(value, text));
    }
}

static void dynamic_read(const json_t *value, struct quant_args *args) {
    char text[QUANT_VALUE_MAX];
    if (!value)
        return;
    if (json_is_string(value)) {
        args->local = args->dynamic = strcasecmp(json_string_value(value), "local") == 0;
        if (!args->local)
            QUANT_REFUSE(args, "dynamic %s is not true, false or \"local\"", quant_value_text(value, text));
    } else if (!coerce_bool(value, &args->dynamic)) {
        QUANT_REFUSE(args, "dynamic %s is not true, false or \"local\"", quant_value_text(value, text));
    }
}

static void dtype_read(const char *key, const json_t *value, struct quant_args *args, char *out, size_t size) {
    char text[QUANT_VALUE_MAX];
    if (!value || json_is_null(value))
        return;
    const char *name = json_is_string(value) ? json_string_value(value) : "";
    if (strncmp(name, "torch.", 6) == 0)
        name += 6;
    if (!is_torch_dtype(name))
        QUANT_REFUSE(args, "%s %s is not the name of a torch dtype", key, quant_value_text(value, text));
    else if (out)
        snprintf(out, size, "%s", name);
}

static void actorder_read(const json_t *value, struct quant_args *args) {
    char text[QUANT_VALUE_MAX];
    if (!value || json_is_null(value) || json_is_false(value))
        return;
    const char *word = json_is_string(value) ? json_string_value(value) : "";
    if (strcmp(word, "weight") != 0 && strcmp(word, "static") != 0) {
        bool first = !args->refusal;
        args->lenient = first && (strcasecmp(word, "weight") == 0 || strcasecmp(word, "static") == 0);
        args->ordered =
            first && (strcasecmp(word, "group") == 0 || strcasecmp(word, "dynamic") == 0 || json_is_true(value));
        QUANT_REFUSE(args, "actorder %s is not supported any more", quant_value_text(value, text));
    }
}

/* The rules between the members (validate_model_after). */
static void args_relations(struct quant_args *args, bool strategy_given, bool group_size_given, bool block_given,
                           bool zero_point_given) {
    if (!strategy_given) {
        args->strategy = !group_size_given ? STRATEGY_TENSOR : args->group_size > 0 ? STRATEGY_GROUP : STRATEGY_CHANNEL;
        if (group_size_given && args->group_size == 0)
            QUANT_REFUSE(args, "group_size 0 is not a size");
    }
    char *first = args->refusal; /* what follows ends leniency, too */
    args->refusal = NULL;
    bool grouped = args->strategy == STRATEGY_GROUP || args->strategy == STRATEGY_TENSOR_GROUP;
    if (args->strategy == STRATEGY_TOKEN && !args->dynamic)
        QUANT_REFUSE(args, "strategy token needs dynamic true");
    if (grouped && args->group_size <= 0)
        QUANT_REFUSE(args, "strategy %s needs a positive group_size", strategy_names[args->strategy]);
    if (args->group_size > 0 && !grouped)
        QUANT_REFUSE(args, "group_size goes with strategy group, not %s", strategy_names[args->strategy]);
    if ((args->strategy == STRATEGY_BLOCK) != block_given)
        QUANT_REFUSE(args,
                     block_given ? "block_structure goes with strategy block" : "strategy block needs block_structure");
    if (args->dynamic && (args->strategy == STRATEGY_CHANNEL || args->strategy == STRATEGY_BLOCK ||
                          args->strategy == STRATEGY_ATTN_HEAD))
        QUANT_REFUSE(args, "strategy %s cannot be dynamic", strategy_names[args->strategy]);
    if (args->local && args->strategy != STRATEGY_TENSOR_GROUP)
        QUANT_REFUSE(args, "dynamic local goes with strategy tensor_group");
    bool known_float = args->num_bits == 4 || args->num_bits == 6 || args->num_bits == 8;
    if (args->type == NUMBER_FLOAT && !known_float && !zero_point_given)
        QUANT_REFUSE(args, "there is no float of %lld bits", (long long)args->num_bits);
    args->lenient = args->lenient && !args->refusal;
    args->ordered = args->ordered && grouped && !args->refusal;
    if (first) {
        free(args->refusal);
        args->refusal = first;
    }
    args->strict = args->type == NUMBER_FLOAT && args->num_bits == 6 && !zero_point_given;
    if (args->group_size < 0)
        args->group_size = 0;
}

void quant_args_read(const json_t *json, struct quant_args *args) {
    static const char *const keys[] = {
        "num_bits",    "type",     "symmetric", "group_size",      "strategy", "block_structure", "dynamic", "actorder",
        "scale_dtype", "zp_dtype", "observer",  "observer_kwargs", NULL};
    char text[QUANT_VALUE_MAX];
    *args = (struct quant_args){.num_bits = 8, .type = NUMBER_INT, .symmetric = true, .block_pair = true};
    if (!json || json_is_null(json))
        return;
    args->present = true;
    args->empty = json_is_object(json) && json_object_size(json) == 0;
    if (!json_is_object(json)) {
        QUANT_REFUSE(args, "it is %s, not an object", quant_value_text(json, text));
        return;
    }
    const char *key = json_unknown_key(json, keys);
    json_t *value;
    if (key)
        QUANT_REFUSE(args, "it has the unknown key '%.64s'", key);
    bool strategy_given = false;
    if ((value = json_object_get(json, "num_bits")) && !coerce_int(value, true, &args->num_bits))
        QUANT_REFUSE(args, "num_bits %s is not a number of bits", quant_value_text(value, text));
    if ((value = json_object_get(json, "type"))) {
        const char *word = json_is_string(value) ? json_string_value(value) : "";
        args->type = strcasecmp(word, "float") == 0 ? NUMBER_FLOAT : NUMBER_INT;
        if (args->type == NUMBER_INT && strcasecmp(word, "int") != 0)
            QUANT_REFUSE(args, "type %s is neither int nor float", quant_value_text(value, text));
    }
    if ((value = json_object_get(json, "symmetric")) && !coerce_bool(value, &args->symmetric))
        QUANT_REFUSE(args, "symmetric %s is not true or false", quant_value_text(value, text));
    value = json_object_get(json, "group_size");
    bool group_size_given = value && !json_is_null(value);
    if (group_size_given && (!coerce_int(value, false, &args->group_size) || args->group_size < -1)) {
        QUANT_REFUSE(args, "group_size %s is not a size", quant_value_text(value, text));
        args->group_size = 0;
    }
    strategy_read(json_object_get(json, "strategy"), args, &strategy_given);
    value = json_object_get(json, "block_structure");
    block_structure_read(value, args);
    dynamic_read(json_object_get(json, "dynamic"), args);
    actorder_read(json_object_get(json, "actorder"), args);
    dtype_read("scale_dtype", json_object_get(json, "scale_dtype"), args, args->scale_dtype, sizeof args->scale_dtype);
    dtype_read("zp_dtype", json_object_get(json, "zp_dtype"), args, NULL, 0);
    const json_t *zero_point = json_object_get(json, "zp_dtype");
    if ((value = json_object_get(json, "observer")) && !json_is_null(value) && !json_is_string(value))
        QUANT_REFUSE(args, "observer %s is not a name", quant_value_text(value, text));
    if ((value = json_object_get(json, "observer_kwargs")) && !json_is_object(value))
        QUANT_REFUSE(args, "observer_kwargs is %s, not an object", quant_value_text(value, text));
    value = json_object_get(json, "block_structure");
    args_relations(args, strategy_given, group_size_given, value && !json_is_null(value),
                   zero_point && !json_is_null(zero_point));
}

bool quant_args_equal(const struct quant_args *a, const struct quant_args *b) {
    if (!a->present || !b->present)
        return a->present == b->present;
    return a->num_bits == b->num_bits && a->type == b->type && a->strategy == b->strategy &&
           a->symmetric == b->symmetric && a->dynamic == b->dynamic && a->local == b->local &&
           a->group_size == b->group_size && a->block_rows == b->block_rows && a->block_columns == b->block_columns &&
           strcmp(a->scale_dtype, b->scale_dtype) == 0;
}

void quant_args_free(struct quant_args *args) { free(args->refusal); }
