#include "verify/pairing.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/json_text.h"
#include "common/name_table.h"
#include "verify/expert_slice.h"

enum { BYTES_PER_TILE = 1 << 20, NUMBERS_PER_TILE = 1 << 16 };
enum { EXPERTS_MAX = 65536 }; /* a hundred times what exists */

/* What became of a tensor. */
enum fate { FATE_NONE, FATE_KEPT, FATE_QUANTIZED, FATE_CONSUMED, FATE_KNOWN };

struct pairer {
    const struct pairing_input *input;
    struct pairing *pairing;
    struct verify_findings *findings;
    struct name_table source_names; /* module name -> module */
    uint8_t *source_fate, *output_fate;
    uint32_t *slices; /* per source module: matrices of it that the output has */
    bool compressed;  /* the output's config says quant_method compressed-tensors */
    bool kv_cache;    /* and that the cache is quantized */
};

static const struct tensor_info *source_info(const struct pairer *pairer, uint32_t tensor) {
    return &pairer->input->source->tensors[tensor].info;
}

static const struct tensor_info *output_info(const struct pairer *pairer, uint32_t tensor) {
    return &pairer->input->output->tensors[tensor].info;
}

static uint32_t source_number(const struct pairer *pairer, const struct tensor *tensor) {
    return tensor ? (uint32_t)(tensor - pairer->input->source->tensors) : MODULE_NO_TENSOR;
}

static uint32_t output_number(const struct pairer *pairer, const struct tensor *tensor) {
    return tensor ? (uint32_t)(tensor - pairer->input->output->tensors) : MODULE_NO_TENSOR;
}

static uint64_t element_count(const struct tensor_info *info) {
    uint64_t elements = 0;
    shape_elements(info->shape, info->rank, &elements);
    return elements;
}

static uint64_t ceil_div(uint64_t a, uint64_t b) { return b ? a / b + (a % b != 0) : 0; }

/* ---- comparisons ---- */

static enum status comparison_add(struct pairer *pairer, const struct comparison *comparison, struct error *error) {
    struct pairing *pairing = pairer->pairing;
    if (!array_reserve(pairing->comparisons, pairing->count + 1, &pairing->capacity))
        return error_set_memory(error);
    struct comparison *added = &pairing->comparisons[pairing->count++];
    *added = *comparison;
    const char *name = output_info(pairer, added->output)->name;
    added->role = role_of(name);
    added->layer = pairer->input->output_modules->items[pairer->input->output_modules->of_tensor[added->output]].layer;
    added->first_different = UINT64_MAX;
    return STATUS_OK;
}

static bool is_exponent(enum dtype dtype) { return dtype == DTYPE_U8 || dtype == DTYPE_F8_E8M0; }

static bool is_number(enum dtype dtype) { return dtype == DTYPE_F32 || dtype == DTYPE_BF16 || dtype == DTYPE_F16; }

/*
 * The output tensor must hold what the source has from element `first` on: the same bytes, or, where dtypes may differ,
 * the same numbers.
 */
static enum status same_add(struct pairer *pairer, uint32_t source, uint64_t first, uint32_t output,
                            const char *finding, struct error *error) {
    const struct tensor_info *from = source_info(pairer, source), *to = output_info(pairer, output);
    bool bytes = from->dtype == to->dtype || (is_exponent(from->dtype) && is_exponent(to->dtype));
    struct comparison comparison = {.kind = bytes ? COMPARE_BYTES : COMPARE_NUMBER,
                                    .finding = finding,
                                    .source = source,
                                    .output = output,
                                    .size = to->size};
    comparison.source_offset = first * dtype_bits(from->dtype) / 8;
    uint64_t needed = bytes ? to->size : element_count(to) * (dtype_bits(from->dtype) / 8);
    if (comparison.source_offset > from->size || needed > from->size - comparison.source_offset ||
        (!bytes && (!is_number(from->dtype) || !is_number(to->dtype)))) {
        char shape[SHAPE_TEXT_MAX], source_shape[SHAPE_TEXT_MAX];
        return verify_find(pairer->findings, VERIFY_ERROR, "shape-mismatch", to->name, error,
                           "is %s %s, which cannot be the image of '%s', %s %s", dtype_name(to->dtype),
                           shape_text(to->shape, to->rank, shape), from->name, dtype_name(from->dtype),
                           shape_text(from->shape, from->rank, source_shape));
    }
    comparison.tile_count =
        (uint32_t)ceil_div(bytes ? to->size : element_count(to), bytes ? BYTES_PER_TILE : NUMBERS_PER_TILE);
    comparison.rows_per_tile = 1;
    comparison.columns_per_tile = bytes ? BYTES_PER_TILE : NUMBERS_PER_TILE;
    return comparison_add(pairer, &comparison, error);
}

/* Whether a scale has the weight's leading dimensions and then [rows, columns]; a matrix's channels also [rows]. */
static bool scale_is(const struct tensor_info *scale, const struct tensor_info *weight, uint64_t rows,
                     uint64_t columns) {
    if (scale->rank == 1 && weight->rank == 2 && columns == 1)
        return scale->shape[0] == rows;
    return weight->rank >= 2 && scale->rank == weight->rank && scale->shape[scale->rank - 2] == rows &&
           scale->shape[scale->rank - 1] == columns &&
           memcmp(scale->shape, weight->shape, (weight->rank - 2) * sizeof *scale->shape) == 0;
}

/* Whether a module's scale has the shape and a dtype that its format wants. */
static bool scale_fits(const struct checkpoint *checkpoint, const struct module *module) {
    const struct tensor *scale = module_scale(checkpoint, module), *weight = module_weight(checkpoint, module);
    uint64_t rows = module->rows, columns = module->columns;
    bool exponents = module->format == STORED_MXFP4 || module->format == STORED_MXFP8;
    if (module->format == STORED_PLAIN || module->format == STORED_FP8_UNSCALED)
        return true;
    if (!scale || rows == 0 || columns == 0)
        return false;
    /* loaders that expect U8 convert F8_E8M0 by value: all zeros */
    if (module->format == STORED_MXFP4 && scale->info.dtype != DTYPE_U8)
        return false;
    if (!(exponents ? is_exponent(scale->info.dtype) : is_number(scale->info.dtype) || is_exponent(scale->info.dtype)))
        return false;
    switch (module->format) {
    case STORED_FP8_TENSOR:
        return element_count(&scale->info) == 1 || element_count(&scale->info) == module->experts;
    case STORED_FP8_CHANNEL:
        return scale_is(&scale->info, &weight->info, rows, 1);
    case STORED_FP8_BLOCK:
        return scale_is(&scale->info, &weight->info, ceil_div(rows, module->block_rows),
                        ceil_div(columns, module->block_columns));
    default:
        return columns % MATRIX_BLOCK == 0 && scale_is(&scale->info, &weight->info, rows, columns / MATRIX_BLOCK);
    }
}

static bool is_readable(enum stored_format format) {
    return format == STORED_PLAIN || format == STORED_FP8_TENSOR || format == STORED_FP8_CHANNEL ||
           format == STORED_FP8_BLOCK || format == STORED_FP8_UNSCALED || format == STORED_MXFP8 ||
           format == STORED_MXFP4;
}

static struct matrix matrix_of(const struct checkpoint *checkpoint, const struct module *module) {
    const struct tensor *scale = module_scale(checkpoint, module);
    return (struct matrix){.checkpoint = checkpoint,
                           .format = module->format,
                           .weight = (uint32_t)(module_weight(checkpoint, module) - checkpoint->tensors),
                           .scale = scale && module->format != STORED_PLAIN ? (uint32_t)(scale - checkpoint->tensors)
                                                                            : MODULE_NO_TENSOR,
                           .rows = module->rows,
                           .columns = module->columns,
                           .rows_of_expert = module->rows,
                           .block_rows = module->block_rows,
                           .block_columns = module->block_columns};
}

static enum status group_of(struct pairing *pairing, enum role role, enum stored_format format, uint32_t *group,
                            struct error *error) {
    for (*group = 0; *group < pairing->group_count; (*group)++)
        if (pairing->groups[*group].role == role && pairing->groups[*group].format == format)
            return STATUS_OK;
    struct pairing_group *grown = realloc(pairing->groups, (pairing->group_count + 1) * sizeof *grown);
    if (!grown)
        return error_set_memory(error);
    pairing->groups = grown;
    pairing->groups[pairing->group_count++] = (struct pairing_group){role, format};
    return STATUS_OK;
}

/* The norm whose weights multiply the input channels of a projection, by the rules of --gamma. */
static uint32_t gamma_of(const struct pairer *pairer, const char *module, uint64_t columns) {
    const char *mode = pairer->input->gamma, *layers = strstr(module, "layers."), *leaf = strrchr(module, '.');
    if (!mode || strcmp(mode, "none") == 0 || !layers || !leaf)
        return MODULE_NO_TENSOR;
    const char *end = layers + strlen("layers.");
    end += strspn(end, "0123456789");
    size_t length = (size_t)(end - module);
    bool original = strcmp(mode, "original") == 0;
    bool attention = strcmp(leaf, ".q_proj") == 0 || strcmp(leaf, ".k_proj") == 0 || strcmp(leaf, ".v_proj") == 0;
    bool mlp = strcmp(leaf, ".gate_proj") == 0 || strcmp(leaf, ".up_proj") == 0;
    const char *const norms[] = {original || attention ? ".input_layernorm.weight"
                                                       : ".pre_feedforward_layernorm.weight",
                                 ".post_attention_layernorm.weight"};
    for (size_t i = 0; i < 2 && (original || attention || mlp); i++) {
        const struct tensor *norm = checkpoint_find_joined(pairer->input->source, module, length, norms[i]);
        if (norm && norm->info.rank == 1 && norm->info.shape[0] == columns && is_number(norm->info.dtype))
            return source_number(pairer, norm);
        if (original || attention)
            break;
    }
    return MODULE_NO_TENSOR;
}

static enum status values_add(struct pairer *pairer, const struct matrix *from, const struct matrix *to, char *module,
                              struct error *error) {
    struct comparison comparison = {.kind = COMPARE_VALUES,
                                    .source = from->weight,
                                    .output = to->weight,
                                    .from = *from,
                                    .to = *to,
                                    .module = module,
                                    .gamma = module ? gamma_of(pairer, module, to->columns) : MODULE_NO_TENSOR};
    uint64_t columns = to->columns < TILE_ELEMENTS ? to->columns : TILE_ELEMENTS;
    uint64_t rows = columns ? TILE_ELEMENTS / columns : 1;
    uint64_t tiles = columns ? ceil_div(to->columns, columns) * ceil_div(to->rows, rows) : 0;
    comparison.columns_per_tile = columns;
    comparison.rows_per_tile = rows < to->rows ? rows : to->rows;
    comparison.figures = malloc(sizeof *comparison.figures);
    enum status status = !module || !comparison.figures ? error_set_memory(error)
                         : tiles > UINT32_MAX / 2
                             ? error_set(error, STATUS_BAD_INPUT, "'%s' has too many rows to be true", module)
                             : group_of(pairer->pairing, role_of(output_info(pairer, to->weight)->name), to->format,
                                        &comparison.group, error);
    if (status == STATUS_OK) {
        figures_clear(comparison.figures);
        comparison.tile_count = (uint32_t)tiles;
        status = comparison_add(pairer, &comparison, error);
    }
    if (status != STATUS_OK) {
        free(comparison.figures);
        free(module);
    }
    return status;
}

/* ---- modules ---- */

static enum status shapes_differ(struct pairer *pairer, const char *name, const struct module *source,
                                 const struct module *output, struct error *error) {
    return verify_find(pairer->findings, VERIFY_ERROR, "shape-mismatch", name, error,
                       "is a weight of %" PRIu64 " x %" PRIu64 " x %" PRIu64
                       " (experts, rows, columns), the source's of %" PRIu64 " x %" PRIu64 " x %" PRIu64,
                       output->experts, output->rows, output->columns, source->experts, source->rows, source->columns);
}

/* The scale of an output module: under the name that its config's method asks for. */
static const struct tensor *output_scale(const struct pairer *pairer, const struct module *output) {
    const struct checkpoint *checkpoint = pairer->input->output;
    return pairer->compressed ? module_part(checkpoint, output, PART_SCALE) : module_scale(checkpoint, output);
}

static const struct tensor *output_input_scale(const struct pairer *pairer, const struct module *output) {
    const struct tensor *scale = module_part(pairer->input->output, output, PART_INPUT_SCALE);
    return scale && pairer->compressed && !text_ends_with(scale->info.name, "input_scale") ? NULL : scale;
}

static void fate_set(uint8_t *fates, uint32_t tensor, enum fate fate) {
    if (tensor != MODULE_NO_TENSOR)
        fates[tensor] = (uint8_t)fate;
}

/* All companions of a source weight that its image has no use for. */
static void companions_consume(struct pairer *pairer, const struct module *source) {
    static const enum part parts[] = {PART_SCALE, PART_SCALE_INV, PART_INPUT_SCALE};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (source->parts[parts[i]] != MODULE_NO_TENSOR && pairer->source_fate[source->parts[parts[i]]] == FATE_NONE)
            fate_set(pairer->source_fate, source->parts[parts[i]], FATE_CONSUMED);
}

static enum status scale_missing(struct pairer *pairer, const struct module *output, struct error *error) {
    const struct tensor *weight = module_weight(pairer->input->output, output);
    char *name = text_format("%.*s.%s", (int)output->name_length, output->name,
                             pairer->compressed ? "weight_scale" : "weight_scale_inv");
    enum status status = !name
                             ? error_set_memory(error)
                             : verify_find(pairer->findings, VERIFY_ERROR, "scale-missing", name, error,
                                           "is not there: nothing says what the codes of '%s' mean", weight->info.name);
    free(name);
    return status;
}

static enum status shape_wrong(struct pairer *pairer, const struct tensor_info *scale, const struct module *output,
                               struct error *error) {
    char shape[SHAPE_TEXT_MAX];
    return verify_find(pairer->findings, VERIFY_ERROR, "shape-mismatch", scale->name, error,
                       "is %s %s: not what the %" PRIu64 " x %" PRIu64 " weight of its module needs as %s",
                       dtype_name(scale->dtype), shape_text(scale->shape, scale->rank, shape), output->rows,
                       output->columns, stored_format_name(output->format));
}

/* The matrices that an output module and its source have in common. */
struct match {
    const struct module *source, *output;
    bool sliced; /* the output is one projection of one expert of a stacked source */
    struct expert_slice slice;
};

/* An FP8 weight that stays as it is: bytes, scales and activation scale. */
static enum status fp8_keep(struct pairer *pairer, const struct match *match, struct error *error) {
    const struct module *source = match->source, *output = match->output;
    const struct checkpoint *from = pairer->input->source, *to = pairer->input->output;
    const struct tensor *source_weight = module_weight(from, source), *scale = module_scale(from, source);
    const struct tensor *image = output_scale(pairer, output);
    uint64_t row = match->sliced ? match->slice.first_row : 0, first_scale = 0;
    if (match->sliced) {
        uint64_t expert = match->slice.expert, inside = row - expert * source->rows;
        switch (source->format) {
        case STORED_FP8_TENSOR:
            first_scale = element_count(&scale->info) > 1 ? expert : 0;
            break;
        case STORED_FP8_BLOCK:
            if (inside % source->block_rows != 0)
                return verify_find(pairer->findings, VERIFY_ERROR, "format-unknown",
                                   module_weight(to, output)->info.name, error,
                                   "begins inside a block of scales of '%s': no FP8 image of it can be the same",
                                   source_weight->info.name);
            first_scale = (expert * ceil_div(source->rows, source->block_rows) + inside / source->block_rows) *
                          ceil_div(source->columns, source->block_columns);
            break;
        default:
            first_scale = row * (source->format == STORED_MXFP8 ? source->columns / MATRIX_BLOCK : 1);
        }
    }
    enum status status = same_add(pairer, source_number(pairer, source_weight), row * source->columns,
                                  output_number(pairer, module_weight(to, output)), "bits-changed", error);
    if (status == STATUS_OK && scale && image) {
        fate_set(pairer->output_fate, output_number(pairer, image), FATE_KEPT);
        if (!scale_fits(to, output))
            return shape_wrong(pairer, &image->info, output, error);
        status = same_add(pairer, source_number(pairer, scale), first_scale, output_number(pairer, image),
                          "scale-changed", error);
    } else if (status == STATUS_OK && scale) {
        status = scale_missing(pairer, output, error);
    }
    const struct tensor *input = module_part(from, source, PART_INPUT_SCALE);
    const struct tensor *input_image = output_input_scale(pairer, output);
    if (status == STATUS_OK && input && input_image) {
        fate_set(pairer->output_fate, output_number(pairer, input_image), FATE_KEPT);
        status = same_add(pairer, source_number(pairer, input),
                          match->sliced && element_count(&input->info) > 1 ? match->slice.expert : 0,
                          output_number(pairer, input_image), "input-scale-changed", error);
    } else if (status == STATUS_OK && input) {
        char *name = text_format("%.*s.input_scale", (int)output->name_length, output->name);
        status = !name ? error_set_memory(error)
                       : verify_find(pairer->findings, VERIFY_ERROR, "input-scale-missing", name, error,
                                     "is not there: the source's '%s' was dropped, so activations would be scaled "
                                     "otherwise or not at all",
                                     input->info.name);
        free(name);
    }
    fate_set(pairer->source_fate, source_number(pairer, source_weight), FATE_KEPT);
    fate_set(pairer->source_fate, source_number(pairer, scale), FATE_KEPT);
    fate_set(pairer->source_fate, source_number(pairer, input), FATE_KEPT);
    return status;
}

/* A weight in another form than in the source: its values are compared, matrix by matrix. */
static enum status weight_convert(struct pairer *pairer, const struct match *match, struct error *error) {
    const struct module *source = match->source, *output = match->output;
    const struct checkpoint *from = pairer->input->source, *to = pairer->input->output;
    const char *name = module_weight(to, output)->info.name;
    fate_set(pairer->source_fate, source_number(pairer, module_weight(from, source)), FATE_QUANTIZED);
    companions_consume(pairer, source);
    const struct tensor *scale = output_scale(pairer, output), *input = output_input_scale(pairer, output);
    fate_set(pairer->output_fate, output_number(pairer, scale), FATE_KNOWN);
    bool fp8 = output->format != STORED_PLAIN && output->format != STORED_MXFP4;
    if (fp8 && input) /* a calibrated one, for a weight that had none: config.json says whether it belongs there */
        fate_set(pairer->output_fate, output_number(pairer, input), FATE_KNOWN);
    if (output->format != STORED_PLAIN && !scale)
        return scale_missing(pairer, output, error);
    if (!is_readable(output->format) || output->format == STORED_FP8_UNSCALED)
        return verify_find(pairer->findings, VERIFY_ERROR, "format-unknown", name, error,
                           "is stored as %s, which cannot be compared with a source",
                           stored_format_name(output->format));
    if (!is_readable(source->format) || source->format == STORED_MXFP4)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' of the source is stored as %s: start from the checkpoint that it was made from",
                         module_weight(from, source)->info.name, stored_format_name(source->format));
    if (!scale_fits(from, source))
        return error_set(error, STATUS_BAD_INPUT,
                         "the scale of '%s' in the source has another shape than its weight needs",
                         module_weight(from, source)->info.name);
    struct matrix a = matrix_of(from, source), b = matrix_of(to, output);
    uint64_t experts = output->experts;
    if (match->sliced) {
        a.rows = output->rows;
        a.columns = output->columns;
        a.expert = match->slice.expert;
        a.first_row = match->slice.first_row;
        a.transposed = match->slice.transposed;
        a.stored_columns = match->slice.stored_columns;
    } else if (source->experts != experts || source->rows != output->rows || source->columns != output->columns) {
        return shapes_differ(pairer, name, source, output, error);
    }
    if (!scale_fits(to, output) ||
        (output->format == STORED_MXFP4 && module_weight(to, output)->info.dtype != DTYPE_U8))
        return shape_wrong(pairer, scale ? &scale->info : &module_weight(to, output)->info, output, error);
    if (experts > EXPERTS_MAX)
        return shapes_differ(pairer, name, source, output, error);
    enum status status = STATUS_OK;
    for (uint64_t e = 0; e < experts && status == STATUS_OK; e++) {
        if (experts > 1) {
            a.expert = b.expert = e;
            a.first_row = b.first_row = e * output->rows;
        }
        char *module = experts > 1 ? text_format("%.*s[%" PRIu64 "]", (int)output->name_length, output->name, e)
                                   : strndup(output->name, output->name_length);
        status = values_add(pairer, &a, &b, module, error);
    }
    return status;
}

/* The source of an output module: of its name, or a stacked tensor that holds it. */
static enum status match_find(const struct pairer *pairer, const struct module *output, struct match *match,
                              bool *found, struct error *error) {
    const struct modules *sources = pairer->input->source_modules;
    uint32_t number = name_table_find(&pairer->source_names, output->name, output->name_length);
    *match = (struct match){.output = output};
    if (number != NAME_UNKNOWN && module_weight(pairer->input->source, &sources->items[number])) {
        match->source = &sources->items[number];
        *found = true;
        return STATUS_OK;
    }
    match->sliced = true;
    return expert_slice_find(pairer->input->source, sources, &pairer->source_names, output, &match->slice,
                             &match->source, found, error);
}

static enum status wanted_check(struct pairer *pairer, const struct match *match, bool same, struct error *error) {
    const struct wanted_recipe *recipe = pairer->input->recipe;
    const struct module *source = match->source, *output = match->output;
    const struct tensor *weight = module_weight(pairer->input->source, source);
    bool is_weight = text_ends_with(weight->info.name, ".weight") || match->sliced;
    if (!recipe || !is_weight || weight->info.rank < 2)
        return STATUS_OK;
    enum wanted_format wanted;
    char *name = strndup(source->name, source->name_length);
    enum status status = name ? wanted_format_of(recipe, name, &wanted, error) : error_set_memory(error);
    free(name);
    if (status != STATUS_OK)
        return status;
    enum wanted_format is = output->format == STORED_MXFP4   ? WANTED_MXFP4
                            : output->format == STORED_PLAIN ? WANTED_KEEP
                                                             : WANTED_FP8;
    if (is == wanted || (same && wanted == WANTED_KEEP))
        return STATUS_OK;
    return verify_find(pairer->findings, VERIFY_ERROR, "not-of-recipe",
                       module_weight(pairer->input->output, output)->info.name, error,
                       "is stored as %s, but the recipe%s%s wants %s", stored_format_name(output->format),
                       recipe->name ? " " : "", recipe->name ? recipe->name : "", wanted_format_name(wanted));
}

static enum status module_match(struct pairer *pairer, const struct module *output, struct error *error) {
    const struct checkpoint *from = pairer->input->source, *to = pairer->input->output;
    const struct tensor *image = module_weight(to, output);
    struct match match;
    bool found = false;
    if (!image)
        return STATUS_OK;
    enum status status = match_find(pairer, output, &match, &found, error);
    if (status != STATUS_OK || !found)
        return status;
    const struct module *source = match.source;
    const struct tensor *weight = module_weight(from, source), *scale = module_scale(from, source);
    const struct tensor *image_scale = output_scale(pairer, output);
    bool same_dtype = weight->info.dtype == image->info.dtype && source->columns == output->columns &&
                      (match.sliced || (source->rows == output->rows && source->experts == output->experts));
    uint64_t scales = scale ? element_count(&scale->info) : 0,
             images = image_scale ? element_count(&image_scale->info) : 0;
    bool fp8 = source->format != STORED_PLAIN && same_dtype;
    bool same = same_dtype && (source->format == STORED_PLAIN || scales == images || match.sliced || !image_scale);
    status = wanted_check(pairer, &match, same, error);
    if (status != STATUS_OK || (source->format == STORED_PLAIN && output->format == STORED_PLAIN && !match.sliced))
        return status; /* plain tensors are compared by name */
    fate_set(pairer->output_fate, output_number(pairer, image), FATE_KNOWN);
    pairer->slices[source - pairer->input->source_modules->items] += 1;
    if (fp8 && same && !(match.sliced && match.slice.transposed)) {
        fate_set(pairer->output_fate, output_number(pairer, image), FATE_KEPT);
        return fp8_keep(pairer, &match, error);
    }
    return weight_convert(pairer, &match, error);
}

/* ---- tensors ---- */

static enum status plain_match(struct pairer *pairer, uint32_t source, struct error *error) {
    const struct tensor_info *from = source_info(pairer, source);
    const struct tensor *found = checkpoint_find(pairer->input->output, from->name);
    uint32_t output = output_number(pairer, found);
    if (!found || pairer->output_fate[output] != FATE_NONE) {
        if (pairer->input->unfinished) {
            pairer->pairing->accounting.not_yet++;
            return STATUS_OK;
        }
        char shape[SHAPE_TEXT_MAX];
        pairer->pairing->accounting.missing++;
        return verify_find(pairer->findings, VERIFY_ERROR, "tensor-missing", from->name, error,
                           "the source's %s %s has no image in the output", dtype_name(from->dtype),
                           shape_text(from->shape, from->rank, shape));
    }
    const struct tensor_info *to = &found->info;
    char shape[SHAPE_TEXT_MAX], source_shape[SHAPE_TEXT_MAX];
    pairer->source_fate[source] = pairer->output_fate[output] = FATE_KEPT;
    if (from->dtype != to->dtype)
        return verify_find(pairer->findings, VERIFY_ERROR, "dtype-changed", to->name, error,
                           "is %s, the source's is %s", dtype_name(to->dtype), dtype_name(from->dtype));
    if (from->rank != to->rank || memcmp(from->shape, to->shape, from->rank * sizeof *from->shape) != 0)
        return verify_find(pairer->findings, VERIFY_ERROR, "shape-mismatch", to->name, error,
                           "has the shape %s, the source's has %s", shape_text(to->shape, to->rank, shape),
                           shape_text(from->shape, from->rank, source_shape));
    return same_add(pairer, source, 0, output, "bits-changed", error);
}

/* A stacked weight of which the output has some matrices must have them all. */
static enum status slices_check(struct pairer *pairer, struct error *error) {
    const struct modules *modules = pairer->input->source_modules;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < modules->count && status == STATUS_OK; i++) {
        const struct module *source = &modules->items[i];
        uint32_t weight = source_number(pairer, module_weight(pairer->input->source, source));
        if (pairer->slices[i] == 0 || weight == MODULE_NO_TENSOR || source_info(pairer, weight)->rank != 3)
            continue;
        uint64_t wanted = expert_slice_count(source);
        bool whole = checkpoint_find(pairer->input->output, source_info(pairer, weight)->name) != NULL;
        if (whole || pairer->slices[i] >= wanted || wanted == 0)
            continue;
        companions_consume(pairer, source);
        if (pairer->input->unfinished)
            continue;
        status =
            verify_find(pairer->findings, VERIFY_ERROR, "tensor-missing", source_info(pairer, weight)->name, error,
                        "holds %" PRIu64 " matrices of experts, of which the output has %u", wanted, pairer->slices[i]);
    }
    return status;
}

static bool is_cache_scale(const char *name) {
    return text_ends_with(name, ".k_scale") || text_ends_with(name, ".v_scale") || text_ends_with(name, ".q_scale");
}

static enum status extra_report(struct pairer *pairer, uint32_t tensor, struct error *error) {
    const struct modules *modules = pairer->input->output_modules;
    const struct module *module = &modules->items[modules->of_tensor[tensor]];
    const struct tensor *weight = module_weight(pairer->input->output, module);
    enum part part = (enum part)modules->part_of[tensor];
    const char *name = output_info(pairer, tensor)->name;
    if (pairer->kv_cache && is_cache_scale(name))
        return STATUS_OK;
    pairer->pairing->accounting.extra++;
    bool companion = part == PART_SCALE || part == PART_SCALE_INV || part == PART_INPUT_SCALE;
    if (companion && weight && pairer->output_fate[output_number(pairer, weight)] != FATE_NONE)
        return verify_find(
            pairer->findings, VERIFY_ERROR, "companion-left", name, error,
            "does not belong there: '%s' is stored as %s, and loaders refuse what they have no place for",
            weight->info.name, stored_format_name(module->format));
    return verify_find(pairer->findings, VERIFY_ERROR, "tensor-extra", name, error,
                       "the source has nothing that this could be the image of");
}

static enum status tensors_match(struct pairer *pairer, struct error *error) {
    const struct checkpoint *source = pairer->input->source, *output = pairer->input->output;
    struct accounting *accounting = &pairer->pairing->accounting;
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < source->tensor_count && status == STATUS_OK; i++)
        if (pairer->source_fate[i] == FATE_NONE)
            status = plain_match(pairer, i, error);
    for (uint32_t i = 0; i < output->tensor_count && status == STATUS_OK; i++)
        if (pairer->output_fate[i] == FATE_NONE)
            status = extra_report(pairer, i, error);
    accounting->source_tensors = source->tensor_count;
    accounting->output_tensors = output->tensor_count;
    for (uint32_t i = 0; i < source->tensor_count; i++) {
        accounting->quantized += pairer->source_fate[i] == FATE_QUANTIZED;
        accounting->kept += pairer->source_fate[i] == FATE_KEPT;
        accounting->consumed += pairer->source_fate[i] == FATE_CONSUMED;
    }
    return status;
}

/* ---- all ---- */

/* What the output's config says that decides about names. */
static void config_look(struct pairer *pairer) {
    const struct checkpoint *output = pairer->input->output;
    pairer->compressed = true; /* an unfinished folder has none, and will be */
    if (!output->config)
        return;
    struct json_span top = json_text_object(output->config, output->config_length);
    struct json_member config, text, member;
    bool found = json_text_member(output->config, top, "quantization_config", &config);
    if (!found && json_text_member(output->config, top, "text_config", &text) &&
        output->config[text.value.begin] == '{')
        found = json_text_member(output->config, text.value, "quantization_config", &config);
    if (!found || output->config[config.value.begin] != '{') {
        pairer->compressed = false;
        return;
    }
    static const char method[] = "\"compressed-tensors\"";
    pairer->compressed = json_text_member(output->config, config.value, "quant_method", &member) &&
                         member.value.end - member.value.begin == strlen(method) &&
                         strncmp(output->config + member.value.begin, method, strlen(method)) == 0;
    pairer->kv_cache = json_text_member(output->config, config.value, "kv_cache_scheme", &member) &&
                       output->config[member.value.begin] == '{';
}

static int by_output(const void *a, const void *b, void *context) {
    const struct comparison *x = a, *y = b;
    const struct tensor *tensors = context;
    const struct tensor *p = &tensors[x->output], *q = &tensors[y->output];
    if (p->shard != q->shard)
        return p->shard < q->shard ? -1 : 1;
    if (p->info.offset != q->info.offset)
        return p->info.offset < q->info.offset ? -1 : 1;
    return x->to.first_row < y->to.first_row ? -1 : x->to.first_row > y->to.first_row;
}

static enum status tiles_number(struct pairing *pairing, const struct checkpoint *output, struct error *error) {
    uint64_t next = 0;
    if (pairing->count > 0)
        qsort_r(pairing->comparisons, pairing->count, sizeof *pairing->comparisons, by_output, output->tensors);
    for (size_t i = 0; i < pairing->count; i++) {
        pairing->comparisons[i].first_tile = (uint32_t)next;
        next += pairing->comparisons[i].tile_count;
        if (next >= UINT32_MAX)
            return error_set(error, STATUS_BAD_INPUT, "the checkpoint is too large: more than 4 billion tiles");
    }
    return STATUS_OK;
}

enum status pairing_make(const struct pairing_input *input, struct pairing *pairing, struct verify_findings *findings,
                         struct error *error) {
    *pairing = (struct pairing){0};
    const struct modules *sources = input->source_modules;
    struct pairer pairer = {.input = input,
                            .pairing = pairing,
                            .findings = findings,
                            .source_fate = calloc(input->source->tensor_count + 1, 1),
                            .output_fate = calloc(input->output->tensor_count + 1, 1),
                            .slices = calloc(sources->count + 1, sizeof(uint32_t))};
    enum status status =
        pairer.source_fate && pairer.output_fate && pairer.slices ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0; i < sources->count && status == STATUS_OK; i++)
        if (!name_table_add(&pairer.source_names, sources->items[i].name, sources->items[i].name_length, (uint32_t)i,
                            NULL))
            status = error_set_memory(error);
    config_look(&pairer);
    for (size_t i = 0; i < input->output_modules->count && status == STATUS_OK; i++)
        status = module_match(&pairer, &input->output_modules->items[i], error);
    if (status == STATUS_OK)
        status = slices_check(&pairer, error);
    if (status == STATUS_OK)
        status = tensors_match(&pairer, error);
    if (status == STATUS_OK)
        status = tiles_number(pairing, input->output, error);
    name_table_free(&pairer.source_names);
    free(pairer.source_fate);
    free(pairer.output_fate);
    free(pairer.slices);
    return status;
}

void pairing_free(struct pairing *pairing) {
    for (size_t i = 0; i < pairing->count; i++) {
        free(pairing->comparisons[i].module);
        free(pairing->comparisons[i].figures);
        free(pairing->comparisons[i].tile_sums);
    }
    free(pairing->comparisons);
    free(pairing->groups);
    *pairing = (struct pairing){0};
}
