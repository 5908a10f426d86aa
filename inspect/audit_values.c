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

/* The largest scale of a fused layer's parts by the smallest; 1 where they agree or have none. */
static double scales_ratio(const struct inspection *inspection, const struct layer *layer) {
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
    return high > low ? high / low : 1;
}

/* Tells of the layers of one fused name, the one with the largest ratio first. */
static void fused_scales_of(struct audit *audit, const char *fused) {
    const struct resolutions *r = &audit->resolutions;
    const struct layer *worst = NULL;
    double most = 1;
    uint64_t count = 0;
    for (int pass = 0; pass < 2 && (pass == 0 || worst); pass++) {
        if (pass == 1)
            audit_find(audit, FUSED_SCALES_DIFFER, SEVERITY_NOTE, FOR_VLLM, fused, worst->name,
                       "nothing, or calibrate the parts with a common scale",
                       "parts of '%s' have different scales in %" PRIu64
                       " layers; vLLM requantizes them to the largest: at most a factor of %.3g here, which costs the "
                       "part with the smallest scale up to %.2f bits of its range near zero",
                       fused, count, most, log2(most));
        for (size_t i = 0; i < r->layer_count; i++) {
            const struct layer *layer = &r->layers[i];
            bool same = layer->fused && strcmp(layer->fused->name, fused) == 0;
            double ratio = same ? scales_ratio(audit->inspection, layer) : 1;
            if (pass == 0) {
                count += ratio > 1;
                worst = ratio > most ? layer : worst;
                most = ratio > most ? ratio : most;
            } else if (ratio > 1 && layer != worst) {
                finding_add(&audit->findings, FUSED_SCALES_DIFFER, SEVERITY_NOTE, FOR_VLLM, fused, layer->name, "", "");
            }
        }
    }
}

static void fused_scales(struct audit *audit) {
    const struct fused_layer *fused;
    for (size_t i = 0; (fused = architecture_fused(audit->resolutions.architecture, i)); i++)
        fused_scales_of(audit, fused->name);
}

/* ---- packed integers: the shape that the data tells ---- */

static enum status packed_shapes(struct audit *audit, struct error *error) {
    const struct inspection *inspection = audit->inspection;
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        const struct tensor *shape = module_part(&inspection->checkpoint, module, PART_SHAPE);
        const struct tensor *packed = module_part(&inspection->checkpoint, module, PART_WEIGHT_PACKED);
        uint32_t group = audit->modules[i].by[LOADER_VLLM].group;
        int64_t extents[2];
        if (module->format != STORED_INT_PACKED || !shape || !packed || group == NO_ENTRY || packed->info.rank != 2 ||
            shape->info.dtype != DTYPE_I64 || shape->info.size != sizeof extents || audit_module_faulty(audit, i))
            continue;
        enum status status = checkpoint_read(&inspection->checkpoint, shape, 0, extents, sizeof extents, error);
        if (status != STATUS_OK)
            return status;
        uint64_t words = packed->info.shape[1], bits = (uint64_t)inspection->quant.groups[group].weights.num_bits;
        uint64_t columns = extents[1] > 0 && extents[1] < 1 << 30 ? (uint64_t)extents[1] : 0;
        if ((columns * bits + 31) / 32 == words && extents[0] == (int64_t)packed->info.shape[0])
            continue;
        bool other_bits = false;
        for (uint64_t other = 2; other <= 8; other++)
            other_bits = other_bits ||
                         (columns > 0 && columns * other == words * 32 && extents[0] == (int64_t)packed->info.shape[0]);
        char name[MODULE_NAME_MAX];
        audit_find(audit, other_bits ? BITS_MISMATCH : PACKED_WIDTH, SEVERITY_ERROR, FOR_ALL,
                   inspection->quant.groups[group].name, module_name_text(module, name),
                   "take config.json, or the tensor, from the source of this checkpoint",
                   "weight_shape says [%" PRId64 ", %" PRId64 "], but weight_packed holds [%" PRIu64 ", %" PRIu64
                   "] at %" PRIu64 " bits: loaders refuse it or unpack something else",
                   extents[0], extents[1], packed->info.shape[0], bits ? words * 32 / bits : 0, bits);
    }
    return STATUS_OK;
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
    if (!audit->predicted)
        return STATUS_OK;
    fused_scales(audit);
    return packed_shapes(audit, error);
}
