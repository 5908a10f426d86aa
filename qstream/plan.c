#include "qstream/plan.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "qstream/experts.h"

/* Source bytes of a tile: small enough for a core's L2 cache, large enough that system calls do not count. */
enum { TILE_BYTES = 1 << 20 };
/* Transposed weights are read in runs of a row; larger tiles make longer runs. */
enum { TRANSPOSED_TILE_BYTES = 4 << 20 };

const char *gamma_name(enum gamma_source gamma) {
    static const char *const names[GAMMA_SOURCES] = {"none", "layernorm", "original"};
    return names[gamma];
}

struct builder {
    struct plan *plan;
    struct recipe *recipe;
    size_t job_capacity, output_capacity, module_capacity;
    uint64_t group; /* of the jobs that are added */
};

static enum status job_add(struct builder *builder, struct plan_job job, struct error *error) {
    struct plan *plan = builder->plan;
    if (!array_reserve(plan->jobs, plan->job_count + 1, &builder->job_capacity))
        return error_set_memory(error);
    job.group = builder->group;
    plan->jobs[plan->job_count++] = job;
    return STATUS_OK;
}

/* Adds an output tensor to the job added last. `stem` is followed by `suffix`. */
static enum status output_add(struct builder *builder, const char *stem, size_t stem_length, const char *suffix,
                              enum dtype dtype, unsigned rank, const uint64_t *shape, struct error *error) {
    struct plan *plan = builder->plan;
    if (!array_reserve(plan->outputs, plan->output_count + 1, &builder->output_capacity))
        return error_set_memory(error);
    struct plan_output output = {.info = {.dtype = dtype, .rank = rank}, .job = (uint32_t)plan->job_count - 1};
    memcpy(output.info.shape, shape, rank * sizeof *shape);
    if (!tensor_bytes(dtype, shape, rank, &output.info.size))
        return error_set(error, STATUS_BAD_INPUT, "'%.*s%s' would be too large", (int)stem_length, stem, suffix);
    output.info.name = text_format("%.*s%s", (int)stem_length, stem, suffix);
    if (!output.info.name)
        return error_set_memory(error);
    struct plan_job *job = &plan->jobs[plan->job_count - 1];
    job->outputs[job->output_count++] = (uint32_t)plan->output_count;
    plan->outputs[plan->output_count++] = output;
    return STATUS_OK;
}

static enum status module_add(struct builder *builder, const char *name, size_t length, enum scheme scheme,
                              struct error *error) {
    struct plan *plan = builder->plan;
    if (!array_reserve(plan->modules, plan->module_count + 1, &builder->module_capacity))
        return error_set_memory(error);
    char *copy = strndup(name, length);
    if (!copy)
        return error_set_memory(error);
    plan->modules[plan->module_count++] = (struct scheme_module){copy, scheme};
    return STATUS_OK;
}

/* Copies `size` bytes from `first` on of a source tensor to a new tensor. */
static enum status copy_add(struct builder *builder, uint32_t source, uint64_t first, const char *stem,
                            size_t stem_length, const char *suffix, enum dtype dtype, unsigned rank,
                            const uint64_t *shape, struct error *error) {
    enum status status = job_add(
        builder, (struct plan_job){.kind = JOB_COPY, .source = source, .gamma = NO_TENSOR, .first_row = first}, error);
    if (status == STATUS_OK)
        status = output_add(builder, stem, stem_length, suffix, dtype, rank, shape, error);
    if (status == STATUS_OK)
        builder->plan->jobs[builder->plan->job_count - 1].rows =
            builder->plan->outputs[builder->plan->output_count - 1].info.size;
    return status;
}

static enum status scalar_add(struct builder *builder, uint32_t source, const char *stem, size_t stem_length,
                              const char *suffix, struct error *error) {
    enum status status = job_add(
        builder,
        (struct plan_job){.kind = JOB_SCALAR_F32, .source = source, .gamma = NO_TENSOR, .rows = 1, .columns = 1},
        error);
    if (status == STATUS_OK)
        status = output_add(builder, stem, stem_length, suffix, DTYPE_F32, 1, (const uint64_t[]){1}, error);
    return status;
}

static enum status copy_whole(struct builder *builder, uint32_t index, struct error *error) {
    const struct tensor_info *info = &builder->plan->checkpoint->tensors[index].info;
    return copy_add(builder, index, 0, info->name, strlen(info->name), "", info->dtype, info->rank, info->shape, error);
}

/* One matrix of a weight: all of it, or one projection of one expert of a fused tensor. */
struct slice {
    uint32_t source;
    char *module; /* of the output, owned */
    uint32_t expert;
    bool fused;
    uint64_t rows, columns;
    uint64_t first_row; /* in the flattened source; when transposed: of the expert's matrix, the first column */
    bool transposed;
    uint64_t source_columns;
};

static enum scheme fp8_scheme(const struct tensor_layout *layout) {
    bool fixed = layout->input_scale != NO_TENSOR;
    switch (layout->scaling) {
    case SCALING_TENSOR:
        return fixed ? SCHEME_FP8_TENSOR_STATIC : SCHEME_FP8_TENSOR_DYNAMIC;
    case SCALING_CHANNEL:
        return fixed ? SCHEME_FP8_CHANNEL_STATIC : SCHEME_FP8_CHANNEL_DYNAMIC;
    case SCALING_BLOCK:
        return SCHEME_FP8_BLOCK;
    default:
        return SCHEME_MXFP8;
    }
}

/* An FP8 weight that stays FP8: the same bytes, the scales under the names that loaders of the output know.
 */
static enum status fp8_keep(struct builder *builder, const struct slice *slice, struct error *error) {
    struct plan *plan = builder->plan;
    const struct tensor_layout *layout = &plan->layout->tensors[slice->source];
    const struct tensor_info *weight = &plan->checkpoint->tensors[slice->source].info;
    const struct tensor_info *scale = &plan->checkpoint->tensors[layout->scale].info;
    const char *module = slice->module;
    size_t length = strlen(module);
    if (slice->transposed)
        return error_set(error, STATUS_BAD_INPUT, "fused FP8 weight '%s' is stored transposed: not supported",
                         weight->name);
    if (layout->scaling == SCALING_BLOCK) {
        if (plan->block_rows &&
            (plan->block_rows != layout->block_rows || plan->block_columns != layout->block_columns))
            return error_set(error, STATUS_BAD_INPUT, "'%s' has another block size than the weights before it",
                             weight->name);
        plan->block_rows = layout->block_rows;
        plan->block_columns = layout->block_columns;
    }

    enum status status = copy_add(builder, slice->source, slice->first_row * slice->columns, module, length, ".weight",
                                  DTYPE_F8_E4M3, 2, (const uint64_t[]){slice->rows, slice->columns}, error);
    if (status != STATUS_OK)
        return status;
    uint64_t rows_per_scale = layout->scaling == SCALING_BLOCK ? layout->block_rows : 1;
    uint64_t scale_columns = scale->shape[scale->rank ? scale->rank - 1 : 0];
    uint64_t bytes = dtype_bits(scale->dtype) / 8;
    if (layout->scaling == SCALING_TENSOR) {
        status = scalar_add(builder, layout->scale, module, length, ".weight_scale", error);
    } else {
        if (layout->scaling == SCALING_CHANNEL)
            scale_columns = 1;
        if (slice->fused && slice->rows % rows_per_scale != 0)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s': the scale blocks of its experts' projections do not end where these do",
                             weight->name);
        /* The first row of scales: whole experts before this one, then the rows inside it. */
        uint64_t rows_of_expert = slice->fused ? weight->shape[1] : 0;
        uint64_t scale_rows_of_expert = slice->fused ? (rows_of_expert + rows_per_scale - 1) / rows_per_scale : 0;
        uint64_t inside = slice->first_row - slice->expert * rows_of_expert;
        uint64_t first = slice->expert * scale_rows_of_expert + inside / rows_per_scale;
        const uint64_t shape[2] = {(slice->rows + rows_per_scale - 1) / rows_per_scale, scale_columns};
        enum dtype dtype = layout->scaling == SCALING_MX ? DTYPE_U8 : scale->dtype;
        status = copy_add(builder, layout->scale, first * scale_columns * bytes, module, length, ".weight_scale", dtype,
                          2, shape, error);
    }
    if (status == STATUS_OK && layout->input_scale != NO_TENSOR)
        status = scalar_add(builder, layout->input_scale, module, length, ".input_scale", error);
    if (status == STATUS_OK)
        status = module_add(builder, module, length, fp8_scheme(layout), error);
    return status;
}

/* The norm whose weight multiplies the input channels of a projection; NO_TENSOR where none does. */
static enum status gamma_find(const struct plan *plan, const struct slice *slice, uint32_t *gamma,
                              struct error *error) {
    *gamma = NO_TENSOR;
    const char *module = slice->module, *layers = strstr(module, "layers.");
    if (plan->options.gamma == GAMMA_NONE || !layers)
        return STATUS_OK;
    const char *behind = layers + strlen("layers.");
    behind += strspn(behind, "0123456789");
    if (*behind != '.')
        return STATUS_OK;
    size_t layer_length = (size_t)(behind - module);
    const char *leaf = strrchr(module, '.') + 1;
    bool attention = strcmp(leaf, "q_proj") == 0 || strcmp(leaf, "k_proj") == 0 || strcmp(leaf, "v_proj") == 0;
    bool mlp = strcmp(leaf, "gate_proj") == 0 || strcmp(leaf, "up_proj") == 0;
    const struct checkpoint *checkpoint = plan->checkpoint;
    const struct tensor *norm = NULL;
    if (plan->options.gamma == GAMMA_ORIGINAL || attention) {
        norm = checkpoint_find_joined(checkpoint, module, layer_length, ".input_layernorm.weight");
    } else if (mlp) {
        norm = checkpoint_find_joined(checkpoint, module, layer_length, ".pre_feedforward_layernorm.weight");
        if (!norm)
            norm = checkpoint_find_joined(checkpoint, module, layer_length, ".post_attention_layernorm.weight");
    }
    bool fits = norm && norm->info.rank == 1 && norm->info.shape[0] == slice->columns;
    if (plan->options.gamma == GAMMA_LAYERNORM && (attention || mlp) && !fits)
        return error_set(error, STATUS_BAD_INPUT,
                         "--gamma layernorm: '%.*s' has no layer norm of %" PRIu64 " channels that feeds '%s'",
                         (int)layer_length, module, slice->columns, module);
    if (!fits)
        return STATUS_OK;
    enum dtype dtype = norm->info.dtype;
    if (dtype != DTYPE_BF16 && dtype != DTYPE_F16 && dtype != DTYPE_F32)
        return error_set(error, STATUS_BAD_INPUT, "layer norm '%s' has the dtype %s", norm->info.name,
                         dtype_name(dtype));
    *gamma = (uint32_t)(norm - checkpoint->tensors);
    return STATUS_OK;
}

static struct plan_job slice_job(const struct slice *slice, enum job_kind kind) {
    return (struct plan_job){.kind = kind,
                             .source = slice->source,
                             .gamma = NO_TENSOR,
                             .rows = slice->rows,
                             .columns = slice->columns,
                             .first_row = slice->first_row,
                             .transposed = slice->transposed,
                             .source_columns = slice->source_columns,
                             .expert = slice->expert};
}

static enum status mxfp4_add(struct builder *builder, const struct slice *slice, struct error *error) {
    if (slice->columns % MXFP4_BLOCK != 0)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' has %" PRIu64 " input channels, not a multiple of the MXFP4 block of 32: keep it, or "
                         "use fp8",
                         slice->module, slice->columns);
    struct plan_job job = slice_job(slice, JOB_MXFP4);
    enum status status = gamma_find(builder->plan, slice, &job.gamma, error);
    size_t length = strlen(slice->module);
    if (status == STATUS_OK)
        status = job_add(builder, job, error);
    if (status == STATUS_OK)
        status = output_add(builder, slice->module, length, ".weight_packed", DTYPE_U8, 2,
                            (const uint64_t[]){slice->rows, slice->columns / 2}, error);
    if (status == STATUS_OK)
        status = output_add(builder, slice->module, length, ".weight_scale", DTYPE_U8, 2,
                            (const uint64_t[]){slice->rows, slice->columns / MXFP4_BLOCK}, error);
    if (status == STATUS_OK)
        status = module_add(builder, slice->module, length, SCHEME_MXFP4, error);
    return status;
}

static enum status fp8_add(struct builder *builder, const struct slice *slice, bool per_tensor, struct error *error) {
    size_t length = strlen(slice->module);
    enum status status = job_add(builder, slice_job(slice, per_tensor ? JOB_FP8_TENSOR : JOB_FP8_CHANNEL), error);
    if (status == STATUS_OK)
        status = output_add(builder, slice->module, length, ".weight", DTYPE_F8_E4M3, 2,
                            (const uint64_t[]){slice->rows, slice->columns}, error);
    if (status == STATUS_OK)
        status = output_add(builder, slice->module, length, ".weight_scale", DTYPE_BF16, per_tensor ? 1 : 2,
                            (const uint64_t[]){per_tensor ? 1 : slice->rows, 1}, error);
    if (status == STATUS_OK)
        status = module_add(builder, slice->module, length,
                            per_tensor ? SCHEME_FP8_TENSOR_DYNAMIC : SCHEME_FP8_CHANNEL_DYNAMIC, error);
    return status;
}

static enum status slice_add(struct builder *builder, const struct slice *slice, const struct recipe_rule *rule,
                             struct error *error) {
    bool scaled = builder->plan->layout->tensors[slice->source].scaling != SCALING_NONE;
    if (rule->format == FORMAT_MXFP4)
        return mxfp4_add(builder, slice, error);
    return scaled ? fp8_keep(builder, slice, error) : fp8_add(builder, slice, rule->per_tensor, error);
}

/* A stacked tensor of experts becomes one module per expert and projection, as vLLM and transformers name
 * them. */
static enum status experts_add(struct builder *builder, uint32_t index, const struct recipe_rule *rule,
                               struct error *error) {
    const struct tensor_info *info = &builder->plan->checkpoint->tensors[index].info;
    struct experts experts;
    enum status status = experts_detect(builder->plan->checkpoint, info, &experts, error);
    if (status == STATUS_OK && experts.transposed && builder->plan->layout->tensors[index].scaling != SCALING_NONE)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s' is a fused FP8 weight stored as [experts, in, out]: not supported", info->name);
    for (uint64_t e = 0; e < experts.count && status == STATUS_OK; e++) {
        builder->group++;
        for (unsigned p = 0; p < experts.projections && status == STATUS_OK; p++) {
            struct slice slice = {.source = index,
                                  .expert = (uint32_t)e,
                                  .fused = true,
                                  .rows = experts.rows,
                                  .columns = experts.columns,
                                  .transposed = experts.transposed,
                                  .source_columns = info->shape[2]};
            slice.first_row = experts.transposed ? p * experts.rows : e * info->shape[1] + p * experts.rows;
            slice.module = text_format("%s.%" PRIu64 ".%s", experts.parent, e, experts.names[p]);
            status = slice.module ? slice_add(builder, &slice, rule, error) : error_set_memory(error);
            free(slice.module);
        }
    }
    free(experts.parent);
    return status;
}

static bool convertible(const struct plan *plan, uint32_t index) {
    enum dtype dtype = plan->checkpoint->tensors[index].info.dtype;
    return dtype == DTYPE_BF16 || dtype == DTYPE_F16 || dtype == DTYPE_F32 ||
           (dtype == DTYPE_F8_E4M3 && plan->layout->tensors[index].scaling != SCALING_NONE);
}

static enum status weight_add(struct builder *builder, uint32_t index, const struct recipe_rule *rule,
                              struct error *error) {
    struct plan *plan = builder->plan;
    const struct tensor_info *info = &plan->checkpoint->tensors[index].info;
    size_t length = module_length(info->name);
    bool scaled = plan->layout->tensors[index].scaling != SCALING_NONE;
    if (!rule || rule->format == FORMAT_KEEP) {
        if (scaled)
            return error_set(error, STATUS_BAD_INPUT,
                             "%s '%s', an FP8 weight with a scale: loaders of the output need a scheme for it; give "
                             "it the format fp8, which leaves its bytes as they are",
                             rule ? "the recipe keeps" : "no rule of the recipe matches", info->name);
        enum status status = copy_whole(builder, index, error);
        if (status == STATUS_OK && info->rank >= 2)
            status = module_add(builder, info->name, length, SCHEME_NONE, error);
        return status;
    }
    char shape[SHAPE_TEXT_MAX];
    if ((info->rank != 2 && info->rank != 3) || !convertible(plan, index))
        return error_set(error, STATUS_BAD_INPUT,
                         "the recipe wants %s for '%s', but its dtype is %s and its shape %s: only BF16, F16, F32 and "
                         "scaled FP8 matrices can be quantized; make the pattern '%s' narrower",
                         recipe_format_name(rule->format), info->name, dtype_name(info->dtype),
                         shape_text(info->shape, info->rank, shape), pattern_text(rule->pattern));
    for (unsigned i = 0; i < info->rank; i++)
        if (info->shape[i] == 0)
            return error_set(error, STATUS_BAD_INPUT, "weight '%s' is empty: shape %s", info->name,
                             shape_text(info->shape, info->rank, shape));
    if (info->rank == 3)
        return experts_add(builder, index, rule, error);
    struct slice slice = {.source = index,
                          .rows = info->shape[0],
                          .columns = info->shape[1],
                          .source_columns = info->shape[1],
                          .module = strndup(info->name, length)};
    enum status status = slice.module ? slice_add(builder, &slice, rule, error) : error_set_memory(error);
    free(slice.module);
    return status;
}

/* A tensor that a rule may decide about: a weight, not a bias, not a companion. */
static bool is_weight(const struct tensor_info *info) {
    return text_ends_with(info->name, ".weight") || experts_name(info->name);
}

static uint64_t source_bytes(const struct plan *plan, uint32_t index) {
    const struct tensor_layout *layout = &plan->layout->tensors[index];
    uint64_t bytes = plan->checkpoint->tensors[index].info.size;
    if (layout->scale != NO_TENSOR)
        bytes += plan->checkpoint->tensors[layout->scale].info.size;
    if (layout->input_scale != NO_TENSOR)
        bytes += plan->checkpoint->tensors[layout->input_scale].info.size;
    return bytes;
}

static void share_count(struct plan *plan, uint32_t index, enum recipe_format format, size_t first_output) {
    enum role role = role_of(plan->checkpoint->tensors[index].info.name);
    size_t i = 0;
    while (i < plan->share_count && (plan->shares[i].role != role || plan->shares[i].format != format))
        i++;
    struct plan_share *share = &plan->shares[i];
    if (i == plan->share_count) {
        *share = (struct plan_share){.role = role, .format = format};
        plan->share_count++;
    }
    share->tensors++;
    share->bytes_in += source_bytes(plan, index);
    for (size_t o = first_output; o < plan->output_count; o++)
        share->bytes_out += plan->outputs[o].info.size;
}

static enum status tensors_plan(struct builder *builder, struct error *error) {
    struct plan *plan = builder->plan;
    const struct checkpoint *checkpoint = plan->checkpoint;
    enum status status = STATUS_OK;
    for (uint32_t i = 0; i < checkpoint->tensor_count && status == STATUS_OK; i++) {
        const struct tensor_info *info = &checkpoint->tensors[i].info;
        if (plan->layout->tensors[i].owner != NO_TENSOR)
            continue;
        builder->group++;
        size_t first_output = plan->output_count;
        const struct recipe_rule *rule = NULL;
        if (is_weight(info)) {
            char *module = strndup(info->name, module_length(info->name));
            status = module ? recipe_rule_for(builder->recipe, module, &rule, error) : error_set_memory(error);
            free(module);
            if (status == STATUS_OK)
                status = weight_add(builder, i, rule, error);
        } else if (plan->layout->tensors[i].scaling != SCALING_NONE) {
            status =
                error_set(error, STATUS_BAD_INPUT,
                          "'%s' is FP8 with a scale, but not named as a weight (X.weight, ...experts.gate_up_proj): "
                          "no rule can say what becomes of it",
                          info->name);
        } else {
            status = copy_whole(builder, i, error);
        }
        uint64_t elements = 0;
        shape_elements(info->shape, info->rank, &elements);
        plan->parameters += elements;
        if (status == STATUS_OK)
            share_count(plan, i, rule ? rule->format : FORMAT_KEEP, first_output);
    }
    if (status == STATUS_OK)
        status = recipe_check_used(builder->recipe, error);
    return status;
}

/* ---- shards ---- */

/* Gives every output a shard: the source's numbering, or cut by size, modules in one piece. Returns the count. */
static uint32_t shards_assign(struct builder *builder) {
    struct plan *plan = builder->plan;
    uint64_t limit = plan->options.shard_size;
    uint32_t shard = 0;
    uint64_t filled = 0;
    size_t begin = 0; /* outputs are in the order of their jobs, jobs of a group adjacent */
    while (begin < plan->output_count) {
        uint64_t group = plan->jobs[plan->outputs[begin].job].group, bytes = 0;
        size_t end = begin;
        while (end < plan->output_count && plan->jobs[plan->outputs[end].job].group == group)
            bytes += plan->outputs[end++].info.size;
        if (limit && filled > 0 && bytes > limit - (filled < limit ? filled : limit)) {
            shard++;
            filled = 0;
        }
        filled += bytes;
        /* A group begins with its weight's job, which names the source. */
        const struct plan_job *first = &plan->jobs[plan->outputs[begin].job];
        for (; begin < end; begin++)
            plan->outputs[begin].shard = limit ? shard : plan->checkpoint->tensors[first->source].shard;
    }
    return limit ? shard + 1 : (uint32_t)plan->checkpoint->shard_count;
}

static int by_place(const void *a, const void *b) {
    const struct plan_output *x = a, *y = b;
    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    /*
     * The reference library's order: wider types first, so that each stays aligned, and FP8 before U8. It also is a
     * fast one: copied FP8 is made faster than it is hashed, MXFP4 slower, so that the hash catches up at the end.
     */
    if (x->info.dtype != y->info.dtype)
        return x->info.dtype > y->info.dtype ? -1 : 1;
    return strcmp(x->info.name, y->info.name);
}

static int by_string(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static enum status names_check(const struct plan *plan, struct error *error) {
    const char **names = malloc((plan->output_count + 1) * sizeof *names);
    if (!names)
        return error_set_memory(error);
    for (size_t i = 0; i < plan->output_count; i++)
        names[i] = plan->outputs[i].info.name;
    enum status status = STATUS_OK;
    qsort(names, plan->output_count, sizeof *names, by_string);
    for (size_t i = 1; i < plan->output_count && status == STATUS_OK; i++)
        if (strcmp(names[i], names[i - 1]) == 0)
            status = error_set(error, STATUS_BAD_INPUT, "two tensors of the output would be named '%s'", names[i]);
    free(names);
    return status;
}

/* Orders outputs and jobs by their place in the shards and drops shards that nothing is left for. */
static enum status shards_lay_out(struct builder *builder, uint32_t wanted, struct error *error) {
    struct plan *plan = builder->plan;
    qsort(plan->outputs, plan->output_count, sizeof *plan->outputs, by_place);
    plan->shards = calloc((size_t)wanted + 1, sizeof *plan->shards);
    struct plan_job *jobs = calloc(plan->job_count + 1, sizeof *jobs);
    uint32_t *moved = malloc((plan->job_count + 1) * sizeof *moved);
    if (!plan->shards || !jobs || !moved) {
        free(jobs);
        free(moved);
        return error_set_memory(error);
    }
    memset(moved, 0xff, (plan->job_count + 1) * sizeof *moved);
    uint32_t job_count = 0;
    for (size_t i = 0; i < plan->output_count;) {
        uint32_t number = plan->outputs[i].shard;
        struct plan_shard *shard = &plan->shards[plan->shard_count];
        *shard = (struct plan_shard){.first_output = (uint32_t)i, .first_job = job_count};
        for (; i < plan->output_count && plan->outputs[i].shard == number; i++, shard->output_count++) {
            struct plan_output *output = &plan->outputs[i];
            if (moved[output->job] == UINT32_MAX) {
                moved[output->job] = job_count;
                jobs[job_count] = plan->jobs[output->job];
                jobs[job_count++].output_count = 0;
            }
            output->job = moved[output->job];
        }
        if (!plan->options.shard_size)
            shard->file = strdup(plan->checkpoint->shards[number].file);
        shard->job_count = job_count - shard->first_job;
        plan->shard_count++;
    }
    free(moved);
    free(plan->jobs);
    plan->jobs = jobs;

    bool renumber = plan->options.shard_size || plan->shard_count != plan->checkpoint->shard_count;
    enum status status = STATUS_OK;
    for (uint32_t s = 0; s < plan->shard_count && status == STATUS_OK; s++) {
        struct plan_shard *shard = &plan->shards[s];
        struct text header = {0};
        for (uint32_t o = 0; o < shard->output_count; o++)
            plan->outputs[shard->first_output + o].shard = s;
        if (renumber) {
            free(shard->file);
            shard->file = plan->shard_count == 1
                              ? strdup("model.safetensors")
                              : text_format("model-%05u-of-%05zu.safetensors", s + 1, plan->shard_count);
        }
        if (!shard->file)
            return error_set_memory(error);
        status = plan_shard_header(plan, s, &header, error);
        shard->header_size = shard->size = header.length;
        text_free(&header);
        for (uint32_t o = 0; o < shard->output_count && status == STATUS_OK; o++) {
            struct plan_output *output = &plan->outputs[shard->first_output + o];
            output->info.offset = shard->size;
            shard->size += output->info.size;
            plan->tensor_bytes += output->info.size;
        }
        for (uint32_t o = 0; o < shard->output_count; o++) {
            struct plan_job *job = &plan->jobs[plan->outputs[shard->first_output + o].job];
            job->outputs[job->output_count++] = shard->first_output + o;
        }
    }
    for (size_t j = 0; j < plan->job_count; j++) { /* a job names its matrix first, wherever its scale lies */
        struct plan_job *job = &plan->jobs[j];
        if (job->output_count == 2 && text_ends_with(plan->outputs[job->outputs[0]].info.name, "_scale")) {
            uint32_t swap = job->outputs[0];
            job->outputs[0] = job->outputs[1];
            job->outputs[1] = swap;
        }
    }
    return status;
}

static enum status tiles_cut(struct plan *plan, struct error *error) {
    uint64_t next = 0;
    for (size_t j = 0; j < plan->job_count; j++) {
        struct plan_job *job = &plan->jobs[j];
        uint64_t row_bytes = 1;
        if (job->kind != JOB_COPY)
            row_bytes = job->columns * (dtype_bits(plan->checkpoint->tensors[job->source].info.dtype) / 8);
        uint64_t wanted = job->transposed ? TRANSPOSED_TILE_BYTES : TILE_BYTES;
        job->rows_per_tile = row_bytes < wanted ? wanted / row_bytes : 1;
        uint64_t tiles = job->rows / job->rows_per_tile + (job->rows % job->rows_per_tile != 0);
        if (tiles == 0)
            tiles = 1; /* an empty tensor still has to be accounted for */
        if (next + tiles >= UINT32_MAX)
            return error_set(error, STATUS_BAD_INPUT, "the checkpoint is too large: more than 4 billion tiles");
        job->first_tile = (uint32_t)next;
        job->tile_count = (uint32_t)tiles;
        next += tiles;
    }
    plan->tile_count = (uint32_t)next;
    return STATUS_OK;
}

enum status plan_build(const struct checkpoint *checkpoint, const struct layout *layout, struct recipe *recipe,
                       const struct plan_options *options, struct plan *plan, struct error *error) {
    *plan = (struct plan){.checkpoint = checkpoint, .layout = layout, .options = *options};
    struct builder builder = {.plan = plan, .recipe = recipe};
    enum status status = tensors_plan(&builder, error);
    if (status == STATUS_OK && plan->output_count == 0)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' holds no tensors", checkpoint->path);
    if (status == STATUS_OK)
        status = names_check(plan, error);
    if (status == STATUS_OK)
        status = shards_lay_out(&builder, shards_assign(&builder), error);
    if (status == STATUS_OK)
        status = tiles_cut(plan, error);
    return status;
}

void plan_free(struct plan *plan) {
    for (size_t i = 0; i < plan->output_count; i++)
        free(plan->outputs[i].info.name);
    for (size_t i = 0; i < plan->shard_count; i++)
        free(plan->shards[i].file);
    for (size_t i = 0; i < plan->module_count; i++)
        free(plan->modules[i].name);
    free(plan->outputs);
    free(plan->shards);
    free(plan->modules);
    free(plan->jobs);
    *plan = (struct plan){0};
}

enum status plan_shard_header(const struct plan *plan, size_t number, struct text *out, struct error *error) {
    const struct plan_shard *shard = &plan->shards[number];
    struct tensor_info *tensors = malloc((shard->output_count + 1) * sizeof *tensors);
    if (!tensors)
        return error_set_memory(error);
    for (uint32_t i = 0; i < shard->output_count; i++)
        tensors[i] = plan->outputs[shard->first_output + i].info;
    safetensors_header_append(out, tensors, shard->output_count);
    free(tensors);
    return out->failed ? error_set_memory(error) : STATUS_OK;
}

const struct plan_job *plan_job_of_tile(const struct plan *plan, uint32_t tile) {
    size_t low = 0, high = plan->job_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (plan->jobs[middle].first_tile <= tile)
            low = middle;
        else
            high = middle;
    }
    return &plan->jobs[low];
}

void plan_tile_rows(const struct plan_job *job, uint32_t tile, uint64_t *first, uint64_t *count) {
    *first = (tile - job->first_tile) * job->rows_per_tile;
    uint64_t left = job->rows - *first;
    *count = left < job->rows_per_tile ? left : job->rows_per_tile;
}

uint64_t plan_output_row_bytes(const struct plan_job *job, const struct plan_output *output) {
    if (job->kind == JOB_FP8_TENSOR && output->info.dtype == DTYPE_BF16)
        return 0; /* one scale for the whole tensor */
    return job->rows ? output->info.size / job->rows : 0;
}
