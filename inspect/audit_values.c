#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "inspect/audit.h"
#include "inspect/statistics.h"

static bool is_scale(enum part part) {
    return part == PART_SCALE || part == PART_SCALE_INV || part == PART_SCALE_2 || part == PART_GLOBAL_SCALE ||
           part == PART_INPUT_SCALE || part == PART_INPUT_GLOBAL_SCALE;
}

/* ---- scales one by one ---- */

static void scale_values(struct audit *audit, uint32_t number) {
    const struct inspection *inspection = audit->inspection;
    const struct tensor_info *info = &inspection->checkpoint.tensors[number].info;
    const struct tensor_statistics *found = inspection->statistics[number];
    const char *part = part_name((enum part)inspection->modules.part_of[number]);
    static const char remake[] = "make the checkpoint again from its source, or take the tensor from a good copy";
    const struct {
        uint64_t count;
        enum finding_id id;
        enum severity severity;
        const char *what;
    } kinds[] = {
        {found->nan, SCALE_NAN, SEVERITY_ERROR, "NaN: every product with it is NaN (or, in some kernels, any number)"},
        {found->infinite, SCALE_INFINITE, SEVERITY_ERROR, "infinite: every product with it overflows"},
        {found->kind == STATISTICS_E8M0 ? 0 : found->zero, SCALE_ZERO, SEVERITY_ERROR,
         "zero: the weights below it vanish, and dividing by it gives Inf"},
        {found->negative, SCALE_NEGATIVE, SEVERITY_ERROR,
         "negative: kernels that take scales for magnitudes flip signs or clip to zero"},
        {found->kind == STATISTICS_E8M0 ? 0 : found->subnormal, SCALE_SUBNORMAL, SEVERITY_WARNING,
         "subnormal: GPUs flush it to zero"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].count > 0)
            audit_find(audit, kinds[i].id, kinds[i].severity, FOR_ALL, part, info->name, remake,
                       "%" PRIu64 " of %" PRIu64 " values of this %s %s %s", kinds[i].count, found->elements, part,
                       kinds[i].count == 1 ? "is" : "are", kinds[i].what);
}

/* ---- scales of one fused layer ---- */

/* The value of a scale per tensor; NaN when there is none. */
static double tensor_scale(const struct inspection *inspection, const struct module *module) {
    const struct tensor *scale = module_scale(&inspection->checkpoint, module);
    if (!scale || module->format != STORED_FP8_TENSOR)
        return NAN;
    const struct tensor_statistics *found = inspection->statistics[scale - inspection->checkpoint.tensors];
    return found && found->elements == 1 && found->nan + found->infinite == 0 ? found->max : NAN;
}

static void fused_scales(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    struct {
        const char *name;
        const struct layer *worst;
        double ratio;
        uint64_t count;
    } kinds[8] = {0};
    size_t kind_count = 0;
    for (size_t i = 0; i < audit->resolutions.layer_count; i++) {
        const struct layer *layer = &audit->resolutions.layers[i];
        double low = INFINITY, high = 0;
        for (size_t part = 0; layer->fused && part < LAYER_PARTS; part++) {
            double scale = layer->modules[part] == NO_ENTRY
                               ? NAN
                               : tensor_scale(inspection, &inspection->modules.items[layer->modules[part]]);
            if (scale > 0) {
                low = scale < low ? scale : low;
                high = scale > high ? scale : high;
            }
        }
        if (!(high > low))
            continue;
        size_t k = 0;
        while (k < kind_count && strcmp(kinds[k].name, layer->fused->name) != 0)
            k++;
        if (k == sizeof kinds / sizeof *kinds)
            continue;
        if (k == kind_count)
            kinds[kind_count++].name = layer->fused->name;
        kinds[k].count++;
        if (high / low > kinds[k].ratio) {
            kinds[k].ratio = high / low;
            kinds[k].worst = layer;
        }
    }
    for (size_t k = 0; k < kind_count; k++)
        audit_find(
            audit, FUSED_SCALES_DIFFER, SEVERITY_NOTE, FOR_VLLM, kinds[k].name, kinds[k].worst->name,
            "nothing, or calibrate the parts with a common scale",
            "parts of '%s' have different scales in %" PRIu64
            " layers; vLLM requantizes them to the largest: at most a factor of %.3g here, which costs the part with "
            "the smallest scale up to %.2f bits of its range near zero",
            kinds[k].name, kinds[k].count, kinds[k].ratio, log2(kinds[k].ratio));
}

enum status audit_values(struct audit *audit, struct error *error) {
    struct inspection *inspection = audit->inspection;
    const struct statistics_options options = {
        .jobs = audit->options.jobs, .scales_only = true, .quiet = audit->options.quiet};
    enum status status = inspection->statistics ? STATUS_OK : statistics_gather(inspection, NULL, &options, error);
    if (status != STATUS_OK)
        return status;
    for (uint32_t i = 0; i < inspection->checkpoint.tensor_count; i++)
        if (inspection->statistics[i] && is_scale((enum part)inspection->modules.part_of[i]))
            scale_values(audit, i);
    if (audit->predicted)
        fused_scales(audit);
    return STATUS_OK;
}
