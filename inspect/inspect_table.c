#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "inspect/inspect_report.h"
#include "inspect/statistics_report.h"

/* ---- the tensors ---- */

enum column { NAME, DTYPE, SHAPE, BYTES, ROLE, FORMAT, COMPANIONS, SHARD, OFFSET, STATISTICS, COLUMNS };
static const char *const titles[COLUMNS] = {"name",   "dtype",      "shape", "bytes",  "role",
                                            "format", "companions", "shard", "offset", "statistics"};
/* A cell that is wider moves the rest of its row: a single endless name must not make every row as long. */
enum { WIDTH_MAX = 100 };

struct table {
    const struct report_view *view;
    struct text cells[COLUMNS];
    size_t widths[COLUMNS];
    enum column last; /* columns behind it are not shown */
};

/* Characters, each taken as one column wide. */
static size_t width_of(const struct text *cell) {
    size_t width = 0;
    for (size_t i = 0; i < cell->length; i++)
        width += !utf8_continues(cell->bytes[i]);
    return width;
}

static void append_shape(struct text *out, const struct tensor_info *info) {
    text_append_string(out, "[");
    for (unsigned i = 0; i < info->rank; i++) {
        text_append_string(out, i ? ", " : "");
        text_append_number(out, info->shape[i]);
    }
    text_append_string(out, "]");
}

/* "weight_scale input_scale": the companions' names without what they share with the module. */
static void append_companions(const struct report_view *view, uint32_t tensor, struct text *out) {
    const struct inspection *inspection = view->inspection;
    uint32_t number = inspection->modules.of_tensor[tensor];
    const struct module *module = &inspection->modules.items[number];
    bool weight = module_weight(&inspection->checkpoint, module) == &inspection->checkpoint.tensors[tensor];
    uint32_t begin = view->companions_begin[number], end = view->companions_begin[number + 1];
    for (uint32_t i = begin; weight && i < end; i++) {
        const char *rest = inspection->checkpoint.tensors[view->companions[i]].info.name + module->name_length;
        text_append_string(out, i > begin ? " " : "");
        text_append_escaped(out, rest + (*rest == '.' || *rest == '_'));
    }
    if (!weight || begin == end)
        text_append_string(out, "-");
}

static void row_fill(struct table *table, uint32_t number) {
    const struct inspection *inspection = table->view->inspection;
    const struct tensor *tensor = &inspection->checkpoint.tensors[number];
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[number]];
    struct text *cells = table->cells;
    for (int i = 0; i < COLUMNS; i++)
        cells[i].length = 0;
    text_append_escaped(&cells[NAME], tensor->info.name);
    text_append_string(&cells[DTYPE], dtype_name(tensor->info.dtype));
    append_shape(&cells[SHAPE], &tensor->info);
    text_append_number(&cells[BYTES], tensor->info.size);
    text_append_string(&cells[ROLE], role_name(module->role));
    text_append_string(&cells[FORMAT], tensor_format_name(inspection, number));
    append_companions(table->view, number, &cells[COMPANIONS]);
    text_append_escaped(&cells[SHARD], inspection->checkpoint.shards[tensor->shard].file);
    text_append_number(&cells[OFFSET], tensor->info.offset);
    if (table->last == STATISTICS)
        statistics_append_line(inspection, number, &cells[STATISTICS]);
}

static void append_spaces(struct text *out, size_t count) {
    static const char spaces[WIDTH_MAX + 1] =
        "                                                                                                    ";
    text_append(out, spaces, count < WIDTH_MAX ? count : WIDTH_MAX);
}

static void row_append(const struct table *table, struct text *out) {
    for (enum column i = 0; i <= table->last; i++) {
        const struct text *cell = &table->cells[i];
        size_t width = width_of(cell), rest = table->widths[i] > width ? table->widths[i] - width : 0;
        bool number = i == BYTES || i == OFFSET;
        text_append_string(out, i ? "  " : "");
        if (number)
            append_spaces(out, rest);
        if (cell->length > 0)
            text_append(out, cell->bytes, cell->length);
        if (!number && i < table->last)
            append_spaces(out, rest);
    }
    text_append_string(out, "\n");
}

static enum status tensors_append(const struct report_view *view, struct text *out, struct error *error) {
    struct table table = {.view = view, .last = view->stats ? STATISTICS : OFFSET};
    bool failed = false;
    for (int i = 0; i < COLUMNS; i++) {
        text_append_string(&table.cells[i], titles[i]);
        table.widths[i] = strlen(titles[i]);
    }
    struct table heads = table;
    uint32_t count = (uint32_t)view->inspection->checkpoint.tensor_count;
    table.last = OFFSET; /* statistics come last and need no width */
    memset(table.cells, 0, sizeof table.cells);
    for (uint32_t i = 0; i < count; i++) {
        if (view->chosen && !view->chosen[i])
            continue;
        row_fill(&table, i);
        for (int c = 0; c < COLUMNS; c++) {
            size_t width = width_of(&table.cells[c]);
            if (width > table.widths[c])
                table.widths[c] = width < WIDTH_MAX ? width : WIDTH_MAX;
        }
    }
    table.last = heads.last;
    memcpy(heads.widths, table.widths, sizeof heads.widths);
    row_append(&heads, out);
    for (uint32_t i = 0; i < count; i++) {
        if (view->chosen && !view->chosen[i])
            continue;
        row_fill(&table, i);
        row_append(&table, out);
    }
    for (int i = 0; i < COLUMNS; i++) {
        failed = failed || heads.cells[i].failed || table.cells[i].failed;
        text_free(&heads.cells[i]);
        text_free(&table.cells[i]);
    }
    return failed || out->failed ? error_set_memory(error) : STATUS_OK;
}

/* ---- sums ---- */

static void append_amounts(struct text *out, const struct tensor_group *group, uint64_t whole) {
    char size[TEXT_SIZE_MAX], bits[16] = "-", share[16] = "-";
    if (group->parameters > 0)
        snprintf(bits, sizeof bits, "%.3f", 8.0 * (double)group->bytes / (double)group->parameters);
    if (whole > 0)
        snprintf(share, sizeof share, "%.1f %%", 100.0 * (double)group->bytes / (double)whole);
    text_printf(out, " %9" PRIu64 " %15" PRIu64 " %15" PRIu64 " %10s %8s %8s\n", group->tensors, group->parameters,
                group->bytes, text_size(group->bytes, size), share, bits);
}

static const char amount_titles[] =
    "   tensors      parameters           bytes                  share  bits per weight\n";

static void group_add(struct tensor_group *group, const struct tensor_group *more) {
    group->tensors += more->tensors;
    group->bytes += more->bytes;
    group->parameters += more->parameters;
}

static void roles_append(const struct report_view *view, struct text *out) {
    const struct inspection *inspection = view->inspection;
    struct tensor_group sums[ROLES][STORED_FORMATS] = {0}, total = {0};
    for (uint32_t i = 0; i < inspection->checkpoint.tensor_count; i++) {
        const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[i]];
        struct tensor_group one = {.tensors = 1,
                                   .bytes = inspection->checkpoint.tensors[i].info.size,
                                   .parameters = tensor_parameters(inspection, i)};
        if (view->chosen && !view->chosen[i])
            continue;
        group_add(&sums[module->role][module->format], &one);
        group_add(&total, &one);
    }
    text_printf(out, "%-10s %-14s%s", "role", "format", amount_titles);
    for (enum role role = 0; role < ROLES; role++)
        for (enum stored_format format = 0; format < STORED_FORMATS; format++)
            if (sums[role][format].tensors > 0) {
                text_printf(out, "%-10s %-14s", role_name(role), stored_format_name(format));
                append_amounts(out, &sums[role][format], total.bytes);
            }
    text_printf(out, "%-10s %-14s", "total", "");
    append_amounts(out, &total, total.bytes);
}

static void files_append(const struct report_view *view, struct text *out) {
    const struct inspection *inspection = view->inspection;
    text_append_string(out, "           bytes     header    tensors  kind       file\n");
    for (size_t i = 0; i < inspection->file_count; i++) {
        const struct folder_file *file = &inspection->files[i];
        bool shard = file->shard != UINT32_MAX;
        text_printf(out, "%16" PRIu64 " %10" PRIu64 " %10" PRIu64 "  %-9s  ", file->bytes,
                    shard ? shard_header_bytes(inspection, file->shard) : 0,
                    shard ? view->shard_tensors[file->shard] : 0, file_kind_name(file->kind));
        text_append_escaped(out, file->name);
        text_append_string(out, "\n");
    }
}

static void folder_append(const struct report_view *view, struct text *out) {
    const struct inspection *inspection = view->inspection;
    uint64_t headers = 0;
    char size[TEXT_SIZE_MAX];
    for (uint32_t i = 0; i < inspection->checkpoint.shard_count; i++)
        headers += shard_header_bytes(inspection, i);
    text_printf(
        out, "folder: %" PRIu64 " bytes (%s) = tensors %" PRIu64 " + headers %" PRIu64 " + other files %" PRIu64 "\n",
        inspection->folder_bytes, text_size(inspection->folder_bytes, size), view->tensor_bytes, headers,
        inspection->folder_bytes - view->tensor_bytes - headers);
}

static void model_append(const struct inspection *inspection, struct text *out) {
    text_append_escaped(out, inspection->architecture ? inspection->architecture : "no architecture in config.json");
    text_append_string(out, ", ");
    if (!inspection->quantization) {
        text_append_string(out, "no quantization_config");
    } else {
        text_append_string(out, "quantized by ");
        text_append_escaped(out, inspection->quant.method ? inspection->quant.method : "an unnamed method");
        if (inspection->quant.format) {
            text_append_string(out, " (");
            text_append_escaped(out, inspection->quant.format);
            text_append_string(out, ")");
        }
    }
    size_t shards = inspection->checkpoint.shard_count;
    text_printf(out, ", %zu shard%s\n", shards, text_plural(shards));
}

enum status inspect_table(const struct report_view *view, struct text *out, struct error *error) {
    enum status status = tensors_append(view, out, error);
    if (status != STATUS_OK)
        return status;
    text_append_string(out, "\n");
    roles_append(view, out);
    text_append_string(out, "\n");
    files_append(view, out);
    text_append_string(out, "\n");
    model_append(view->inspection, out);
    folder_append(view, out);
    return out->failed ? error_set_memory(error) : STATUS_OK;
}

enum status inspect_groups_table(const struct report_view *view, enum grouping grouping, struct text *out,
                                 struct error *error) {
    struct tensor_groups groups;
    struct tensor_group total = {0};
    struct text name = {0};
    size_t width = strlen("total");
    enum status status = tensor_groups_make(view->inspection, grouping, view->chosen, &groups, error);
    for (size_t i = 0; i < groups.count && status == STATUS_OK; i++) {
        name.length = 0;
        text_append_escaped(&name, groups.items[i].name);
        size_t wide = width_of(&name);
        width = wide > width && wide <= WIDTH_MAX ? wide : width;
        group_add(&total, &groups.items[i]);
    }
    if (status == STATUS_OK) {
        text_append_string(out, grouping_name(grouping));
        append_spaces(out, width - strlen(grouping_name(grouping)));
        text_append_string(out, amount_titles);
    }
    for (size_t i = 0; i <= groups.count && status == STATUS_OK; i++) {
        name.length = 0;
        text_append_escaped(&name, i < groups.count ? groups.items[i].name : "total");
        size_t wide = width_of(&name);
        if (name.length > 0)
            text_append(out, name.bytes, name.length);
        append_spaces(out, wide < width ? width - wide : 0);
        append_amounts(out, i < groups.count ? &groups.items[i] : &total, total.bytes);
    }
    if (status == STATUS_OK && (out->failed || name.failed))
        status = error_set_memory(error);
    text_free(&name);
    tensor_groups_free(&groups);
    return status;
}
