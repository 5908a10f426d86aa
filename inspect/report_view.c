#include <stdlib.h>

#include "inspect/inspect_report.h"

/* Scales, zero points and the like: not the weight, and not what counts by itself. */
static bool is_companion(const struct inspection *inspection, uint32_t tensor) {
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[tensor]];
    const struct tensor *weight = module_weight(&inspection->checkpoint, module);
    enum part part = (enum part)inspection->modules.part_of[tensor];
    if (!weight || weight == &inspection->checkpoint.tensors[tensor])
        return false;
    switch (part) {
    case PART_WEIGHT:
    case PART_WEIGHT_PACKED:
    case PART_QWEIGHT:
    case PART_BLOCKS:
    case PART_BIAS:
        return false;
    case PART_OTHER:
        return module->format == STORED_BITSANDBYTES;
    default:
        return true;
    }
}

enum status report_view_make(const struct inspection *inspection, const bool *chosen, bool stats,
                             struct report_view *view, struct error *error) {
    const struct modules *modules = &inspection->modules;
    size_t tensors = inspection->checkpoint.tensor_count;
    *view = (struct report_view){
        .inspection = inspection,
        .chosen = chosen,
        .stats = stats,
        .companions_begin = calloc(modules->count + 2, sizeof *view->companions_begin),
        .companions = malloc((tensors + 1) * sizeof *view->companions),
        .shard_tensors = calloc(inspection->checkpoint.shard_count + 1, sizeof *view->shard_tensors),
    };
    if (!view->companions_begin || !view->companions || !view->shard_tensors)
        return error_set_memory(error);
    for (size_t i = 0; i < tensors; i++) {
        view->shard_tensors[inspection->checkpoint.tensors[i].shard]++;
        view->tensor_bytes += inspection->checkpoint.tensors[i].info.size;
    }
    /* A counting sort: sizes, places, tensors by name. [m + 1] is where m's next one goes, and at last its end. */
    uint32_t *begin = view->companions_begin;
    for (uint32_t i = 0; i < tensors; i++)
        if (is_companion(inspection, i))
            begin[modules->of_tensor[i] + 2]++;
    for (size_t m = 2; m <= modules->count + 1; m++)
        begin[m] += begin[m - 1];
    for (size_t i = 0; i < tensors; i++) {
        uint32_t tensor = inspection->checkpoint.by_name[i];
        if (is_companion(inspection, tensor))
            view->companions[begin[modules->of_tensor[tensor] + 1]++] = tensor;
    }
    return STATUS_OK;
}

void report_view_free(struct report_view *view) {
    free(view->companions_begin);
    free(view->companions);
    free(view->shard_tensors);
    *view = (struct report_view){0};
}

uint64_t shard_header_bytes(const struct inspection *inspection, uint32_t shard) {
    const struct shard *read = &inspection->checkpoint.shards[shard];
    return read->readable ? read->data_offset : 0;
}
