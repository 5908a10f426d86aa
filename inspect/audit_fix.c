#include "inspect/audit_fix.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/new_file.h"
#include "common/scheme_config.h"
#include "inspect/audit.h"

static const char index_name[] = "model.safetensors.index.json";

/* ---- config.json ---- */

static bool scheme_of(const struct module *module, enum scheme *scheme) {
    bool has_input = module->parts[PART_INPUT_SCALE] != MODULE_NO_TENSOR;
    switch (module->format) {
    case STORED_PLAIN:
        *scheme = SCHEME_NONE;
        return true;
    case STORED_MXFP4:
        *scheme = SCHEME_MXFP4;
        return true;
    case STORED_MXFP8:
        *scheme = SCHEME_MXFP8;
        return true;
    case STORED_FP8_TENSOR:
        *scheme = has_input ? SCHEME_FP8_TENSOR_STATIC : SCHEME_FP8_TENSOR_DYNAMIC;
        return true;
    case STORED_FP8_CHANNEL:
        *scheme = has_input ? SCHEME_FP8_CHANNEL_STATIC : SCHEME_FP8_CHANNEL_DYNAMIC;
        return true;
    case STORED_FP8_BLOCK:
        *scheme = SCHEME_FP8_BLOCK;
        return true;
    default:
        return false;
    }
}

/* The modules that have a matrix, with their schemes. */
static enum status schemes_collect(const struct inspection *inspection, struct scheme_module *modules,
                                   struct scheme_set *set, struct error *error) {
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        const struct tensor *weight = module_weight(&inspection->checkpoint, module);
        enum scheme scheme;
        if (!weight || (weight->info.rank < 2 && !module_is_quantized(module)))
            continue;
        if (!scheme_of(module, &scheme))
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s' is stored as %s, for which no config can be written here; only MXFP4, MXFP8 and FP8 "
                             "are described",
                             weight->info.name, stored_format_name(module->format));
        if (scheme == SCHEME_FP8_BLOCK && set->block_rows == 0) {
            set->block_rows = module->block_rows;
            set->block_columns = module->block_columns;
        }
        struct scheme_module *out = &modules[set->count];
        *out = (struct scheme_module){strndup(module->name, module->name_length), scheme};
        if (!out->name)
            return error_set_memory(error);
        set->count++;
    }
    return STATUS_OK;
}

/* The old entries of `ignore` that say something and touch no quantized module. */
static enum status ignore_keep(const struct inspection *inspection, const struct scheme_set *set, json_t *ignore,
                               struct error *error) {
    for (size_t i = 0; i < inspection->quant.ignore_count; i++) {
        const char *entry = inspection->quant.ignore[i];
        bool is_regex = strncmp(entry, "re:", 3) == 0,
             touches = !is_regex && !strchr(entry, '.') && strcmp(entry, "lm_head") != 0;
        struct pattern *pattern = NULL;
        struct error why;
        bool useful = ignore_is_conventional(entry) && (!is_regex || strncmp(entry, "re:.*", 5) == 0);
        if (is_regex && pattern_new(entry, &pattern, &why) != STATUS_OK)
            continue;
        for (size_t m = 0; m < set->count && !touches; m++) {
            bool matches = !is_regex && strcmp(entry, set->modules[m].name) == 0;
            if (is_regex && pattern_match(pattern, set->modules[m].name, &matches, &why) != STATUS_OK)
                matches = true;
            useful = useful || matches;
            touches = matches && set->modules[m].scheme != SCHEME_NONE;
        }
        pattern_free(pattern);
        if (!touches && useful && json_array_append_new(ignore, json_string(entry)) != 0)
            return error_set_memory(error);
    }
    return STATUS_OK;
}

static enum status config_make(const struct inspection *inspection, struct text *out, struct error *error) {
    struct scheme_module *modules = calloc(inspection->modules.count + 1, sizeof *modules);
    struct scheme_set set = {.modules = modules};
    json_t *ignore = json_array(), *config = NULL;
    enum status status =
        modules && ignore ? schemes_collect(inspection, modules, &set, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = ignore_keep(inspection, &set, ignore, error);
    if (status == STATUS_OK)
        status = scheme_config_build(&set, ignore, &config, error);
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    if (status == STATUS_OK && json_is_null(config) && !inspection->quantization)
        text_append(out, checkpoint->config, checkpoint->config_length);
    else if (status == STATUS_OK)
        status = scheme_config_splice(checkpoint->config, checkpoint->config_length, config, out, error);
    for (size_t i = 0; i < set.count; i++)
        free(modules[i].name);
    free(modules);
    json_decref(config);
    json_decref(ignore);
    return status;
}

/* ---- the index ---- */

static enum status index_make(const struct inspection *inspection, struct text *out, struct error *error) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    uint64_t total = 0;
    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        total += checkpoint->tensors[i].info.size;
    text_printf(out, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {", total);
    for (size_t i = 0; i < checkpoint->tensor_count; i++) {
        const struct tensor *tensor = &checkpoint->tensors[checkpoint->by_name[i]];
        if (i > 0 && strcmp(tensor->info.name, checkpoint->tensors[checkpoint->by_name[i - 1]].info.name) == 0)
            continue; /* a duplicate: the audit has told */
        text_append_string(out, i ? ",\n    " : "\n    ");
        text_append_json_string(out, tensor->info.name);
        text_append_string(out, ": ");
        text_append_json_string(out, checkpoint->shards[tensor->shard].file);
    }
    text_append_string(out, "\n  }\n}\n");
    return out->failed ? error_set_memory(error) : STATUS_OK;
}

/* ---- writing ---- */

static enum status file_write(const char *folder, const char *name, const struct text *text, struct error *error) {
    char *path = text_format("%s/%s", folder, name);
    if (!path)
        return error_set_memory(error);
    enum status status = new_file_write(path, text->bytes, text->length, error);
    free(path);
    return status;
}

static enum status absent_check(const char *folder, const char *name, struct error *error) {
    char *path = text_format("%s/%s", folder, name);
    if (!path)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    struct stat present;
    if (lstat(path, &present) == 0)
        status = error_set(error, STATUS_USAGE, "--fix: '%s' exists; name another folder, or say --force", path);
    free(path);
    return status;
}

enum status audit_fix(const struct inspection *inspection, const char *folder, bool force, struct error *error) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    bool single = checkpoint->shard_count == 1 && strcmp(checkpoint->shards[0].file, "model.safetensors") == 0;
    bool wants_index = checkpoint->has_index || !single;
    struct text config = {0}, index = {0};
    enum status status = config_make(inspection, &config, error);
    if (status == STATUS_OK && wants_index)
        status = index_make(inspection, &index, error);
    if (status == STATUS_OK && mkdir(folder, 0777) != 0 && errno != EEXIST)
        status = error_set_errno(error, STATUS_IO, errno, "cannot make '%s'", folder);
    if (status == STATUS_OK && !force)
        status = absent_check(folder, "config.json", error);
    if (status == STATUS_OK && !force && wants_index)
        status = absent_check(folder, index_name, error);
    if (status == STATUS_OK && wants_index)
        status = file_write(folder, index_name, &index, error);
    if (status == STATUS_OK)
        status = file_write(folder, "config.json", &config, error);
    text_free(&config);
    text_free(&index);
    return status;
}
