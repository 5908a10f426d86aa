#include "qstream/config.h"

#include <jansson.h>

/* The regular expressions of the keep rules that decided something and touch no quantized module. */
static enum status ignore_derive(const struct plan *plan, const struct recipe *recipe, json_t *ignore,
                                 struct error *error) {
    enum status status = STATUS_OK;
    for (size_t r = 0; r < recipe->count && status == STATUS_OK; r++) {
        const struct recipe_rule *rule = &recipe->rules[r];
        if (rule->format != FORMAT_KEEP || rule->matches == 0 || !pattern_is_regex(rule->pattern))
            continue;
        bool touches = false;
        for (size_t m = 0; m < plan->module_count && !touches && status == STATUS_OK; m++)
            if (plan->modules[m].scheme != SCHEME_NONE)
                status = pattern_match(rule->pattern, plan->modules[m].name, &touches, error);
        if (status == STATUS_OK && !touches)
            json_array_append_new(ignore, json_string(pattern_text(rule->pattern)));
    }
    return status;
}

enum status config_build(const struct plan *plan, const struct recipe *recipe, struct text *out, struct error *error) {
    const struct scheme_set set = {plan->modules, plan->module_count, plan->block_rows, plan->block_columns};
    const char *source = plan->checkpoint->config;
    size_t length = plan->checkpoint->config_length;
    json_t *config = NULL, *ignore = json_array();
    enum status status = ignore ? ignore_derive(plan, recipe, ignore, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = scheme_config_build(&set, ignore, &config, error);
    if (status == STATUS_OK && json_is_null(config) && !plan->layout->quantization_config) {
        text_append(out, source, length); /* nothing was quantized, nothing to say */
        status = out->failed ? error_set_memory(error) : STATUS_OK;
    } else if (status == STATUS_OK) {
        status = scheme_config_splice(source, length, config, out, error);
    }
    json_decref(config);
    json_decref(ignore);
    return status;
}
