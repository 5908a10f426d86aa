#include "inspect/inspection.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/name_table.h"
#include "inspect/statistics.h"

static const char *const file_kind_names[FILE_KINDS] = {"shard", "unindexed", "index", "config", "other"};
const char *file_kind_name(enum file_kind kind) { return file_kind_names[kind]; }

static const char *const grouping_names[GROUPINGS] = {"role", "layer", "format", "shard"};
const char *grouping_name(enum grouping grouping) { return grouping_names[grouping]; }

/* ---- problems ---- */

static void problem_note(void *context, enum checkpoint_problem kind, const char *subject, const char *message) {
    struct inspection *inspection = context;
    if (!array_reserve(inspection->problems, inspection->problem_count + 1, &inspection->problem_capacity)) {
        inspection->problems_failed = true;
        return;
    }
    struct file_problem *problem = &inspection->problems[inspection->problem_count++];
    *problem = (struct file_problem){kind, strdup(subject), strdup(message)};
    inspection->problems_failed = inspection->problems_failed || !problem->subject || !problem->message;
}

/* ---- the folder ---- */

enum { FOLDER_DEPTH_MAX = 16 };

static enum status file_add(struct inspection *inspection, size_t *capacity, const char *name, uint64_t bytes,
                            struct error *error) {
    if (!array_reserve(inspection->files, inspection->file_count + 1, capacity))
        return error_set_memory(error);
    struct folder_file *file = &inspection->files[inspection->file_count];
    *file = (struct folder_file){.name = strdup(name), .bytes = bytes, .kind = FILE_OTHER, .shard = UINT32_MAX};
    if (!file->name)
        return error_set_memory(error);
    inspection->file_count++;
    inspection->folder_bytes += bytes;
    if (strcmp(name, "model.safetensors.index.json") == 0)
        file->kind = FILE_INDEX;
    else if (strcmp(name, "config.json") == 0)
        file->kind = FILE_CONFIG;
    else if (text_ends_with(name, ".safetensors"))
        file->kind = FILE_UNINDEXED;
    for (size_t i = 0; i < inspection->checkpoint.shard_count; i++)
        if (strcmp(inspection->checkpoint.shards[i].file, name) == 0) {
            file->kind = FILE_SHARD;
            file->shard = (uint32_t)i;
        }
    return STATUS_OK;
}

/*
 * Files in the folder `inside` ("", or with a '/' at its end) and those below it; links to files count as their targets,
 * links to folders are not followed.
 */
static enum status files_list(struct inspection *inspection, const char *inside, int depth, size_t *capacity,
                              struct error *error) {
    struct folder_entry *entries;
    size_t count;
    enum status status = folder_list(inspection->checkpoint.folder, inside, &entries, &count, error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const struct folder_entry *entry = &entries[i];
        bool below = entry->kind == FOLDER_FOLDER && !entry->link && depth < FOLDER_DEPTH_MAX;
        char *name = text_format(below ? "%s%s/" : "%s%s", inside, entry->name);
        if (!name)
            status = error_set_memory(error);
        else if (entry->problem == EACCES || entry->problem == EIO) /* as folder_look: of its size nothing is known */
            status = error_set_errno(error, STATUS_IO, entry->problem, "cannot look at '%s/%s'",
                                     inspection->checkpoint.path, name);
        else if (below)
            status = files_list(inspection, name, depth + 1, capacity, error);
        else if (entry->kind == FOLDER_FILE)
            status = file_add(inspection, capacity, name, entry->size, error);
        free(name);
    }
    folder_entries_free(entries, count);
    return status;
}

static int by_file_name(const void *a, const void *b) {
    return strcmp(((const struct folder_file *)a)->name, ((const struct folder_file *)b)->name);
}

/* ---- config.json ---- */

/*
 * Hugging Face's configs hold what jansson does not read: NaN, Infinity and integers beyond 64 bits. None of them is a
 * figure that matters here; they become null.
 */
static enum status config_load(const struct checkpoint *checkpoint, json_t **config, struct error *error) {
    const char *json = checkpoint->config;
    const size_t length = checkpoint->config_length;
    struct text plain = {0};
    bool in_string = false;
    for (size_t at = 0; at < length;) {
        size_t word = strspn(json + at, "+-.0123456789eEINaftiy"), digits = strspn(json + at, "-0123456789");
        bool odd = !in_string && word > 0 && (strcspn(json + at, "IN") < word || (digits == word && digits > 18));
        if (odd) {
            text_append_string(&plain, "null");
            at += word;
            continue;
        }
        size_t step = 1;
        if (in_string)
            step = json[at] == '\\' && at + 1 < length ? 2 : 1;
        else if (word > 1)
            step = word;
        if (json[at] == '"')
            in_string = !in_string;
        text_append(&plain, json + at, step);
        at += step;
    }
    *config = plain.failed ? NULL : json_loadb(plain.bytes, plain.length, 0, NULL);
    enum status status = STATUS_OK;
    if (plain.failed)
        status = error_set_memory(error);
    else if (!*config)
        status = error_set(error, STATUS_BAD_INPUT, "'%s/config.json' is no JSON that can be read", checkpoint->path);
    text_free(&plain);
    return status;
}

static void config_describe(struct inspection *inspection) {
    json_t *config = inspection->config;
    inspection->architecture = json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    inspection->model_type = json_string_value(json_object_get(config, "model_type"));
    const json_t *found = json_object_get(config, "quantization_config");
    if (!json_is_object(found)) {
        const json_t *nested = json_object_get(json_object_get(config, "text_config"), "quantization_config");
        inspection->quant.nested = json_is_object(nested);
        found = inspection->quant.nested ? nested : NULL;
    }
    inspection->quantization = found;
}

enum status inspection_open(const char *where, struct inspection *inspection, struct error *error) {
    *inspection = (struct inspection){0};
    struct checkpoint *checkpoint = &inspection->checkpoint;
    enum status status = checkpoint_open_reporting(where, problem_note, inspection, checkpoint, error);
    if (status == STATUS_OK)
        status = modules_collect(checkpoint, &inspection->modules, error);
    size_t capacity = 0;
    if (status == STATUS_OK)
        status = files_list(inspection, "", 0, &capacity, error);
    if (status == STATUS_OK && inspection->problems_failed)
        status = error_set_memory(error);
    if (status != STATUS_OK)
        return status;
    if (inspection->file_count > 0)
        qsort(inspection->files, inspection->file_count, sizeof *inspection->files, by_file_name);
    status = config_load(checkpoint, &inspection->config, error);
    if (status != STATUS_OK)
        return status;
    config_describe(inspection);
    bool nested = inspection->quant.nested;
    status = quant_config_read(inspection->quantization, &inspection->quant, error);
    inspection->quant.nested = nested;
    return status;
}

bool inspection_is_whole(const struct inspection *inspection) {
    for (size_t i = 0; i < inspection->problem_count; i++)
        if (inspection->problems[i].kind == PROBLEM_SHARD_MISSING ||
            inspection->problems[i].kind == PROBLEM_SHARD_UNREADABLE)
            return false;
    return true;
}

void inspection_close(struct inspection *inspection) {
    for (size_t i = 0; i < inspection->file_count; i++)
        free(inspection->files[i].name);
    for (size_t i = 0; i < inspection->problem_count; i++) {
        free(inspection->problems[i].subject);
        free(inspection->problems[i].message);
    }
    for (size_t i = 0; inspection->statistics && i < inspection->checkpoint.tensor_count; i++)
        tensor_statistics_free(inspection->statistics[i]);
    free(inspection->statistics);
    free(inspection->files);
    free(inspection->problems);
    quant_config_free(&inspection->quant);
    json_decref(inspection->config);
    modules_free(&inspection->modules);
    checkpoint_close(&inspection->checkpoint);
    *inspection = (struct inspection){0};
}

/* ---- groups ---- */

static bool part_is_scale(enum part part) {
    return part != PART_WEIGHT && part != PART_WEIGHT_PACKED && part != PART_QWEIGHT && part != PART_BLOCKS &&
           part != PART_BIAS && part != PART_OTHER;
}

uint64_t tensor_parameters(const struct inspection *inspection, uint32_t tensor) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[tensor]];
    enum part part = (enum part)inspection->modules.part_of[tensor];
    const struct tensor_info *info = &checkpoint->tensors[tensor].info;
    const struct tensor *weight = module_weight(checkpoint, module);
    uint64_t elements = 0;
    if (weight == &checkpoint->tensors[tensor]) {
        struct module without_bias = *module;
        without_bias.parts[PART_BIAS] = MODULE_NO_TENSOR;
        return module_parameters(checkpoint, &without_bias);
    }
    bool counts = !part_is_scale(part) && !(part == PART_OTHER && module->format == STORED_BITSANDBYTES);
    return counts && shape_elements(info->shape, info->rank, &elements) ? elements : 0;
}

const char *tensor_format_name(const struct inspection *inspection, uint32_t tensor) {
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[tensor]];
    return stored_format_name(module->format);
}

/* Up to and with the first number: "model.layers.3". */
static size_t layer_prefix(const char *name) {
    for (size_t at = 0; name[at];) {
        size_t length = strcspn(name + at, "."), digits = strspn(name + at, "0123456789");
        if (digits > 0 && digits == length)
            return at + length;
        at += length + (name[at + length] == '.');
    }
    return 0;
}

static const char *group_key(const struct inspection *inspection, uint32_t tensor, enum grouping grouping,
                             size_t *length) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    const char *name = checkpoint->tensors[tensor].info.name, *key;
    switch (grouping) {
    case GROUP_ROLE:
        key = role_name(inspection->modules.items[inspection->modules.of_tensor[tensor]].role);
        break;
    case GROUP_FORMAT:
        key = tensor_format_name(inspection, tensor);
        break;
    case GROUP_SHARD:
        key = checkpoint->shards[checkpoint->tensors[tensor].shard].file;
        break;
    default:
        *length = layer_prefix(name);
        if (*length > 0)
            return name;
        key = "(no layer)";
    }
    *length = strlen(key);
    return key;
}

enum status tensor_groups_make(const struct inspection *inspection, enum grouping grouping, const bool *chosen,
                               struct tensor_groups *groups, struct error *error) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    struct name_table names = {0};
    size_t capacity = 0;
    enum status status = STATUS_OK;
    *groups = (struct tensor_groups){0};
    for (uint32_t i = 0; i < checkpoint->tensor_count && status == STATUS_OK; i++) {
        if (chosen && !chosen[i])
            continue;
        size_t length;
        const char *key = group_key(inspection, i, grouping, &length);
        uint32_t *number = name_table_add(&names, key, length, (uint32_t)groups->count, NULL);
        if (number && *number == groups->count) {
            if (!array_reserve(groups->items, groups->count + 1, &capacity)) {
                status = error_set_memory(error);
                break;
            }
            groups->items[groups->count++] = (struct tensor_group){.name = strndup(key, length)};
        }
        if (!number || !groups->items[*number].name) {
            status = error_set_memory(error);
            break;
        }
        struct tensor_group *group = &groups->items[*number];
        group->tensors++;
        group->bytes += checkpoint->tensors[i].info.size;
        group->parameters += tensor_parameters(inspection, i);
    }
    name_table_free(&names);
    return status;
}

void tensor_groups_free(struct tensor_groups *groups) {
    for (size_t i = 0; i < groups->count; i++)
        free(groups->items[i].name);
    free(groups->items);
    *groups = (struct tensor_groups){0};
}
