#include <math.h>

#include "inspect/inspect_report.h"
#include "inspect/statistics_report.h"

static void append_number(struct text *out, const char *key, uint64_t number) {
    text_append_string(out, key);
    text_append_number(out, number);
}

static void append_string(struct text *out, const char *key, const char *value) {
    text_append_string(out, key);
    if (value)
        text_append_json_ascii(out, value);
    else
        text_append_string(out, "null");
}

static void append_bits(struct text *out, uint64_t bytes, uint64_t parameters) {
    text_append_string(out, ",\"bits_per_weight\":");
    text_append_json_real(out, parameters > 0 ? 8.0 * (double)bytes / (double)parameters : NAN);
}

static void totals_append(const struct report_view *view, struct text *out) {
    const struct inspection *inspection = view->inspection;
    uint64_t parameters = 0;
    for (uint32_t i = 0; i < inspection->checkpoint.tensor_count; i++)
        parameters += tensor_parameters(inspection, i);
    append_number(out, ",\n\"totals\":{\"tensors\":", inspection->checkpoint.tensor_count);
    append_number(out, ",\"shards\":", inspection->checkpoint.shard_count);
    append_number(out, ",\"tensor_bytes\":", view->tensor_bytes);
    append_number(out, ",\"folder_bytes\":", inspection->folder_bytes);
    append_number(out, ",\"parameters\":", parameters);
    append_bits(out, view->tensor_bytes, parameters);
    text_append_string(out, "}");
}

static void files_append(const struct report_view *view, struct text *out) {
    const struct inspection *inspection = view->inspection;
    text_append_string(out, ",\n\"files\":[");
    for (size_t i = 0; i < inspection->file_count; i++) {
        const struct folder_file *file = &inspection->files[i];
        bool shard = file->shard != UINT32_MAX;
        append_string(out, i ? ",\n{\"name\":" : "\n{\"name\":", file->name);
        append_string(out, ",\"kind\":", file_kind_name(file->kind));
        append_number(out, ",\"bytes\":", file->bytes);
        append_number(out, ",\"tensors\":", shard ? view->shard_tensors[file->shard] : 0);
        append_number(out, ",\"header_bytes\":", shard ? shard_header_bytes(inspection, file->shard) : 0);
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
}

static enum status groups_append(const struct report_view *view, struct text *out, struct error *error) {
    text_append_string(out, ",\n\"by\":{");
    for (enum grouping grouping = 0; grouping < GROUPINGS; grouping++) {
        struct tensor_groups groups;
        enum status status = tensor_groups_make(view->inspection, grouping, view->chosen, &groups, error);
        append_string(out, grouping ? ",\n" : "", grouping_name(grouping));
        text_append_string(out, ":[");
        for (size_t i = 0; i < groups.count && status == STATUS_OK; i++) {
            const struct tensor_group *group = &groups.items[i];
            append_string(out, i ? ",{\"name\":" : "{\"name\":", group->name);
            append_number(out, ",\"tensors\":", group->tensors);
            append_number(out, ",\"parameters\":", group->parameters);
            append_number(out, ",\"bytes\":", group->bytes);
            append_bits(out, group->bytes, group->parameters);
            text_append_string(out, "}");
        }
        tensor_groups_free(&groups);
        if (status != STATUS_OK)
            return status;
        text_append_string(out, "]");
    }
    text_append_string(out, "}");
    return STATUS_OK;
}

/* Through a struct text of its own, because a module's name does not end where its bytes do. */
static void append_module_name(struct text *out, struct text *scratch, const struct module *module) {
    scratch->length = 0;
    text_append(scratch, module->name, module->name_length);
    append_string(out, ",\"module\":", scratch->failed ? NULL : scratch->bytes);
}

static void companions_append(const struct report_view *view, uint32_t tensor, struct text *out) {
    const struct inspection *inspection = view->inspection;
    const struct tensor *tensors = inspection->checkpoint.tensors;
    uint32_t number = inspection->modules.of_tensor[tensor];
    uint32_t begin = view->companions_begin[number], end = view->companions_begin[number + 1];
    const struct tensor *weight = module_weight(&inspection->checkpoint, &inspection->modules.items[number]);
    bool own = weight == &tensors[tensor];
    if (own)
        text_append_string(out, ",\"companions\":[");
    for (uint32_t i = begin; i < end; i++) {
        if (own)
            append_string(out, i > begin ? "," : "", tensors[view->companions[i]].info.name);
        else if (view->companions[i] == tensor)
            append_string(out, ",\"companion_of\":", weight->info.name);
    }
    if (own)
        text_append_string(out, "]");
}

static void tensor_append(const struct report_view *view, uint32_t number, struct text *scratch, struct text *out) {
    const struct inspection *inspection = view->inspection;
    const struct tensor *tensor = &inspection->checkpoint.tensors[number];
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[number]];
    append_string(out, "{\"name\":", tensor->info.name);
    append_string(out, ",\"dtype\":", dtype_name(tensor->info.dtype));
    text_append_string(out, ",\"shape\":[");
    for (unsigned i = 0; i < tensor->info.rank; i++)
        append_number(out, i ? "," : "", tensor->info.shape[i]);
    append_number(out, "],\"bytes\":", tensor->info.size);
    append_string(out, ",\"role\":", role_name(module->role));
    append_string(out, ",\"format\":", tensor_format_name(inspection, number));
    if (module->layer == MODULE_NO_LAYER)
        text_append_string(out, ",\"layer\":null");
    else
        append_number(out, ",\"layer\":", (uint64_t)module->layer);
    append_string(out, ",\"shard\":", inspection->checkpoint.shards[tensor->shard].file);
    append_number(out, ",\"offset\":", tensor->info.offset);
    append_module_name(out, scratch, module);
    append_string(out, ",\"part\":", part_name((enum part)inspection->modules.part_of[number]));
    companions_append(view, number, out);
    if (view->stats && inspection->statistics && inspection->statistics[number]) {
        text_append_string(out, ",\"stats\":");
        statistics_append_json(inspection, number, out);
    }
    text_append_string(out, "}");
}

enum status inspect_json(const struct report_view *view, struct text *out, struct error *error) {
    const struct inspection *inspection = view->inspection;
    append_string(out, "{\"schema\":", "qstream.inspect/1");
    append_string(out, ",\"model\":", inspection->checkpoint.path);
    append_string(out, ",\"architecture\":", inspection->architecture);
    append_string(out, ",\"model_type\":", inspection->model_type);
    append_string(out, ",\"quant_method\":", inspection->quant.method);
    append_string(out, ",\"quant_format\":", inspection->quant.format);
    text_append_string(out, view->stats ? ",\"stats\":true" : ",\"stats\":false");
    totals_append(view, out);
    files_append(view, out);
    enum status status = groups_append(view, out, error);
    if (status != STATUS_OK)
        return status;
    text_append_string(out, ",\n\"tensors\":[");
    struct text scratch = {0};
    bool started = false;
    for (uint32_t i = 0; i < inspection->checkpoint.tensor_count; i++) {
        if (view->chosen && !view->chosen[i])
            continue;
        text_append_string(out, started ? ",\n" : "\n");
        started = true;
        tensor_append(view, i, &scratch, out);
    }
    text_append_string(out, "]}");
    bool failed = out->failed || scratch.failed;
    text_free(&scratch);
    return failed ? error_set_memory(error) : STATUS_OK;
}
