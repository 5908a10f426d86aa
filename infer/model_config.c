#include "infer/model_config.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"

/* Larger sizes than any model has; products of two fit 64 bits. */
static const double size_max = 1 << 24;

enum { HEADS_SHARED_MAX = 256, HEAD_DIM_MAX = 1024 };

struct text_model;

/* The object a member is looked for in, and the file's name for messages. */
struct config {
    const struct checkpoint *checkpoint;
    struct json_span top, text; /* text_config, or the whole */
    const struct text_model *model;
};

static enum status refuse(const struct config *config, struct error *error, const char *key, const char *wanted) {
    return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': %s is not %s", config->checkpoint->path, key, wanted);
}

/*
 * The value of a member as a jansson tree, NULL when it is missing or null. Member by member, since other parts of
 * the file may hold what jansson does not take (NaN, integers beyond 64 bits).
 */
static enum status config_value(const struct config *config, struct json_span object, const char *key, json_t **value,
                                struct error *error) {
    struct json_member member;
    const char *json = config->checkpoint->config;
    *value = NULL;
    if (!json_text_member(json, object, key, &member))
        return STATUS_OK;
    *value = json_loadb(json + member.value.begin, member.value.end - member.value.begin,
                        JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
    if (!*value)
        return refuse(config, error, key, "usable: NaN, Infinity and numbers out of range cannot be read");
    if (json_is_null(*value))
        *value = NULL; /* a constant: nothing to release */
    return STATUS_OK;
}

/* A number, NAN when it is missing or null. */
static enum status optional_number_read(const struct config *config, const char *key, double *number,
                                        struct error *error) {
    json_t *value;
    enum status status = config_value(config, config->text, key, &value, error);
    *number = value ? json_number_value(value) : (double)NAN;
    if (value && !json_is_number(value))
        status = refuse(config, error, key, "a number");
    json_decref(value);
    return status;
}

/* A positive whole number. `fallback` 0: it has to be there. */
static enum status size_read(const struct config *config, const char *key, uint32_t fallback, uint32_t *size,
                             struct error *error) {
    json_t *value;
    enum status status = config_value(config, config->text, key, &value, error);
    if (status != STATUS_OK)
        return status;
    const double number = value ? json_number_value(value) : fallback;
    const bool given = value != NULL;
    const bool fine = (!given || json_is_number(value)) && number >= 1 && number <= size_max && floor(number) == number;
    json_decref(value);
    if (!fine)
        return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': %s is %s", config->checkpoint->path, key,
                         given ? "not a size: a whole number from 1 to 16777216" : "missing");
    *size = (uint32_t)number;
    return STATUS_OK;
}

static enum status flag_read(const struct config *config, struct json_span object, const char *key, bool fallback,
                             bool *flag, struct error *error) {
    json_t *value;
    enum status status = config_value(config, object, key, &value, error);
    *flag = value ? json_is_true(value) : fallback;
    if (value && !json_is_boolean(value))
        status = refuse(config, error, key, "true or false");
    json_decref(value);
    return status;
}

/* ---- text models ---- */

/* The text models that can be run, with transformers' defaults of what their configs may leave out. */
struct text_model {
    const char *type;
    uint32_t kv_heads;       /* 0: as many as there are heads */
    uint32_t head_dim;       /* 0: hidden_size / num_attention_heads */
    uint32_t sliding_window; /* 0: none */
    float norm_epsilon;
    bool slides; /* looks at sliding_window at all */
    bool biases; /* may have biases: attention_bias, mlp_bias */
};
static const struct text_model text_models[] = {
    {"llama", 0, 0, 0, 1e-6f, false, true},
    {"mistral", 8, 0, 4096, 1e-6f, true, false},
    {"ministral3", 8, 128, 0, 1e-5f, true, false},
};
enum { TEXT_MODELS = sizeof text_models / sizeof *text_models };

static bool is_ministral3(const struct config *config) { return strcmp(config->model->type, "ministral3") == 0; }

static bool is_left_out(const struct config *config, const char *key) {
    struct json_member member;
    return !json_text_member(config->checkpoint->config, config->text, key, &member);
}

/* A size that may be left out, then it is `left_out`, or null, then it is `null`. */
static enum status optional_size_read(const struct config *config, const char *key, uint32_t left_out, uint32_t null,
                                      uint32_t *size, struct error *error) {
    return size_read(config, key, is_left_out(config, key) ? left_out : null, size, error);
}

/* ---- rope ---- */

static enum status number_read(const struct config *config, const json_t *rope, const char *key, double fallback,
                               double *number, struct error *error) {
    const json_t *value = json_object_get(rope, key);
    if (!value || json_is_null(value)) {
        *number = fallback;
        if (isnan(fallback))
            return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': the rope parameters have no %s",
                             config->checkpoint->path, key);
        return STATUS_OK;
    }
    *number = json_number_value(value);
    if (!json_is_number(value) || !isfinite(*number))
        return refuse(config, error, key, "a number");
    return STATUS_OK;
}

static enum status positive(const struct config *config, double number, const char *key, struct error *error) {
    return number > 0 ? STATUS_OK : refuse(config, error, key, "positive");
}

/* What the rope parameters may leave to the config around them; NAN: not there either. */
struct rope_around {
    double theta, partial, original_positions;
};

static enum status rope_type_read(const struct config *config, const json_t *values, enum rope_type *type,
                                  struct error *error) {
    const json_t *name = json_object_get(values, "rope_type");
    name = name ? name : json_object_get(values, "type");
    *type = ROPE_DEFAULT;
    if (!name)
        return STATUS_OK;
    if (!json_is_string(name))
        return refuse(config, error, "rope_type", "a string");
    *type = rope_type_parse(json_string_value(name));
    if (*type == ROPE_TYPES)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s/config.json': the rope type '%s' is not supported; default, linear, llama3 and yarn are",
                         config->checkpoint->path, json_string_value(name));
    return STATUS_OK;
}

/* As Python takes a value for true or false. */
static bool is_truthy(const json_t *value) {
    if (json_is_number(value))
        return json_number_value(value) != 0;
    if (json_is_string(value))
        return json_string_length(value) > 0;
    if (json_is_array(value) || json_is_object(value))
        return json_array_size(value) + json_object_size(value) > 0;
    return json_is_true(value);
}

/* `around` is what stands around the parameters, and comes before their own; NAN: nothing. */
static enum status original_positions_read(const struct config *config, const json_t *values, double around,
                                           double fallback, struct rope *rope, struct error *error) {
    static const char key[] = "original_max_position_embeddings";
    rope->original_positions = around;
    enum status status =
        isnan(around) ? number_read(config, values, key, fallback, &rope->original_positions, error) : STATUS_OK;
    return status == STATUS_OK ? positive(config, rope->original_positions, key, error) : status;
}

/* The parameters of a rope type, from `values` (rope_parameters of transformers 5, rope_scaling before). */
static enum status rope_read_values(const struct config *config, const json_t *values, const struct model *model,
                                    const struct rope_around *around, struct rope *rope, struct error *error) {
    enum status status = rope_type_read(config, values, &rope->type, error);
    if (status != STATUS_OK)
        return status;
    static const double default_theta = 10000, default_fast = 32, default_slow = 1; /* of transformers */
    const double context = model->context ? (double)model->context : (double)NAN;
    const bool scaled = rope->type != ROPE_DEFAULT, llama3 = rope->type == ROPE_LLAMA3, yarn = rope->type == ROPE_YARN;
    double partial;
    status = original_positions_read(config, values, llama3 || yarn ? around->original_positions : (double)NAN,
                                     llama3 || yarn || context > 0 ? context : 1, rope, error);
    if (status != STATUS_OK)
        return status;
    /* transformers takes a factor that is null, but none that is missing */
    const bool of_context = yarn && json_is_null(json_object_get(values, "factor"));
    struct {
        const char *key;
        double fallback;
        double *number;
        bool positive;
        bool zero_is_none; /* 0 means the fallback */
    } const wanted[] = {
        {"rope_theta", isnan(around->theta) ? default_theta : around->theta, &rope->theta, true, false},
        {"partial_rotary_factor", scaled && !isnan(around->partial) ? around->partial : 1, &partial, true, false},
        {"factor",
         !scaled      ? 1
         : of_context ? context / rope->original_positions
                      : NAN,
         &rope->factor, true, false},
        {"low_freq_factor", llama3 ? NAN : 1, &rope->low_frequency, true, false},
        {"high_freq_factor", llama3 ? NAN : 4, &rope->high_frequency, true, false},
        {"beta_fast", default_fast, &rope->beta_fast, true, true},
        {"beta_slow", default_slow, &rope->beta_slow, true, true},
        {"mscale", 0, &rope->mscale, false, false},
        {"mscale_all_dim", 0, &rope->mscale_all, false, false},
        {"attention_factor", 0, &rope->attention_factor, false, false},
        {"llama_4_scaling_beta", 0, &rope->query_beta, false, false},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const double fallback = wanted[i].fallback;
        status = number_read(config, values, wanted[i].key, fallback, wanted[i].number, error);
        if (status == STATUS_OK && wanted[i].zero_is_none && *wanted[i].number == 0)
            *wanted[i].number = fallback;
        if (status == STATUS_OK && wanted[i].positive)
            status = positive(config, *wanted[i].number, wanted[i].key, error);
        if (status != STATUS_OK)
            return status;
    }
    const json_t *attention_factor = json_object_get(values, "attention_factor"),
                 *truncate = json_object_get(values, "truncate");
    rope->attention_given = attention_factor && !json_is_null(attention_factor);
    rope->truncate = !truncate || is_truthy(truncate);
    if (partial != 1)
        return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': partial_rotary_factor %g is not supported",
                         config->checkpoint->path, partial);
    if (yarn && rope->theta == 1)
        return refuse(config, error, "rope_theta", "above 1");
    if (llama3 && rope->low_frequency == rope->high_frequency)
        return refuse(config, error, "high_freq_factor", "different from low_freq_factor");
    return STATUS_OK;
}

/* Ministral3Config's rope_parameters where a config has none. */
static json_t *ministral3_rope(void) {
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "rope_type", "yarn", "rope_theta", 1e6, "factor",
                     16.0, "original_max_position_embeddings", 16384.0, "beta_fast", 32.0, "beta_slow", 1.0, "mscale",
                     1.0, "mscale_all_dim", 1.0, "llama_4_scaling_beta", 0.1);
}

/* rope_scaling where there is one, as in transformers: it comes before rope_parameters. */
static enum status rope_values_find(const struct config *config, json_t **values, struct error *error) {
    static const char *const keys[] = {"rope_scaling", "rope_parameters"};
    enum status status = STATUS_OK;
    *values = NULL;
    for (size_t i = 0; i < 2 && status == STATUS_OK && json_object_size(*values) == 0; i++) {
        json_decref(*values);
        status = config_value(config, config->text, keys[i], values, error);
        if (status == STATUS_OK && *values && !json_is_object(*values))
            status = refuse(config, error, keys[i], "an object");
    }
    if (status == STATUS_OK && !*values && is_ministral3(config) && !(*values = ministral3_rope()))
        status = error_set_memory(error);
    return status;
}

static enum status rope_read(const struct config *config, struct model *model, struct error *error) {
    struct rope_around around;
    json_t *values = NULL;
    enum status status = optional_number_read(config, "rope_theta", &around.theta, error);
    if (status == STATUS_OK)
        status = optional_number_read(config, "partial_rotary_factor", &around.partial, error);
    if (status == STATUS_OK)
        status = optional_number_read(config, "original_max_position_embeddings", &around.original_positions, error);
    if (status == STATUS_OK && around.original_positions <= 0)
        status = refuse(config, error, "original_max_position_embeddings", "positive");
    if (status == STATUS_OK)
        status = rope_values_find(config, &values, error);
    if (status == STATUS_OK)
        status = rope_read_values(config, values, model, &around, &model->rope, error);
    if (!is_ministral3(config))
        model->rope.query_beta = 0; /* only ministral3's attention looks at it */
    json_decref(values);
    return status;
}

/* ---- sizes ---- */

/* A string, empty when it is missing or null. */
static enum status text_value(const struct config *config, struct json_span object, const char *key, char *out,
                              size_t size, struct error *error) {
    json_t *value;
    enum status status = config_value(config, object, key, &value, error);
    if (value && !json_is_string(value))
        status = refuse(config, error, key, "a string");
    snprintf(out, size, "%s", json_is_string(value) ? json_string_value(value) : "");
    json_decref(value);
    return status;
}

/* A text model inside a larger one, as in mistral3. */
static bool is_inside(const struct config *config) { return config->text.begin != config->top.begin; }

static enum status architecture_check(struct config *config, struct error *error) {
    char outer[64], type[64], activation[64];
    enum status status = text_value(config, config->top, "model_type", outer, sizeof outer, error);
    if (status == STATUS_OK)
        status = text_value(config, config->text, "model_type", type, sizeof type, error);
    if (status == STATUS_OK)
        status = text_value(config, config->text, "hidden_act", activation, sizeof activation, error);
    if (status != STATUS_OK)
        return status;
    for (size_t i = 0; i < TEXT_MODELS && (!is_inside(config) || strcmp(outer, "mistral3") == 0); i++)
        if (strcmp(type, text_models[i].type) == 0)
            config->model = &text_models[i];
    if (!config->model)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s/config.json': model_type '%s' (of the text model: '%s') cannot be run; llama, mistral, "
                         "ministral3, and mistral3 with one of these can",
                         config->checkpoint->path, outer, type);
    if (*activation && strcmp(activation, "silu") != 0 && strcmp(activation, "swish") != 0)
        return error_set(error, STATUS_BAD_INPUT, "'%s/config.json': hidden_act '%s' is not supported; silu is",
                         config->checkpoint->path, activation);
    return STATUS_OK;
}

static enum status sizes_read(const struct config *config, struct model *model, struct error *error) {
    enum status status = size_read(config, "vocab_size", 0, &model->vocabulary, error);
    if (status == STATUS_OK)
        status = size_read(config, "hidden_size", 0, &model->hidden, error);
    if (status == STATUS_OK)
        status = size_read(config, "intermediate_size", 0, &model->intermediate, error);
    if (status == STATUS_OK)
        status = size_read(config, "num_hidden_layers", 0, &model->layer_count, error);
    if (status == STATUS_OK)
        status = size_read(config, "num_attention_heads", 0, &model->heads, error);
    if (status == STATUS_OK)
        status = optional_size_read(config, "num_key_value_heads",
                                    config->model->kv_heads ? config->model->kv_heads : model->heads, model->heads,
                                    &model->kv_heads, error);
    if (status == STATUS_OK && model->heads / model->kv_heads > HEADS_SHARED_MAX)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s/config.json': more than %d heads to a key-value head (%u to %u) are not supported",
                           config->checkpoint->path, HEADS_SHARED_MAX, model->heads, model->kv_heads);
    if (status == STATUS_OK && model->heads % model->kv_heads != 0)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s/config.json': num_attention_heads %u is not a multiple of num_key_value_heads %u",
                           config->checkpoint->path, model->heads, model->kv_heads);
    if (status == STATUS_OK)
        status = optional_size_read(config, "head_dim",
                                    config->model->head_dim ? config->model->head_dim : model->hidden / model->heads,
                                    model->hidden / model->heads, &model->head_dim, error);
    if (status == STATUS_OK && (model->head_dim % 2 != 0 || model->head_dim > HEAD_DIM_MAX))
        status = error_set(error, STATUS_BAD_INPUT, "'%s/config.json': head_dim %u is not an even number up to 1024",
                           config->checkpoint->path, model->head_dim);
    const uint32_t none = (uint32_t)size_max, window = config->model->sliding_window;
    model->sliding_window = none;
    if (status == STATUS_OK)
        status = size_read(config, "max_position_embeddings", none, &model->context, error);
    if (status == STATUS_OK && config->model->slides)
        status =
            optional_size_read(config, "sliding_window", window ? window : none, none, &model->sliding_window, error);
    model->context = model->context == none ? 0 : model->context;
    model->sliding_window = model->sliding_window == none ? 0 : model->sliding_window;
    return status;
}

enum status model_config_read(struct model *model, bool *tied, struct error *error) {
    struct config config = {.checkpoint = &model->checkpoint};
    config.top = json_text_object(model->checkpoint.config, model->checkpoint.config_length);
    config.text = config.top;
    struct json_member member;
    if (json_text_member(model->checkpoint.config, config.top, "text_config", &member) &&
        model->checkpoint.config[member.value.begin] == '{')
        config.text = member.value;
    enum status status = architecture_check(&config, error);
    if (status == STATUS_OK)
        status = sizes_read(&config, model, error);
    if (status == STATUS_OK)
        status = rope_read(&config, model, error);
    double epsilon = NAN;
    if (status == STATUS_OK)
        status = optional_number_read(&config, "rms_norm_eps", &epsilon, error);
    if (status == STATUS_OK && (epsilon < 0 || epsilon >= 1))
        status = refuse(&config, error, "rms_norm_eps", "a number from 0 to 1");
    if (status == STATUS_OK)
        model->norm_epsilon = isnan(epsilon) ? config.model->norm_epsilon : (float)epsilon;
    /* the whole model's config decides; mistral3's default differs from that of its text models */
    if (status == STATUS_OK)
        status = flag_read(&config, config.top, "tie_word_embeddings", is_inside(&config), tied, error);
    if (status == STATUS_OK && config.model->biases)
        status = flag_read(&config, config.text, "attention_bias", false, &model->attention_bias, error);
    if (status == STATUS_OK && config.model->biases)
        status = flag_read(&config, config.text, "mlp_bias", false, &model->mlp_bias, error);
    return status;
}
