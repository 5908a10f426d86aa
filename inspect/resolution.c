#include "inspect/resolution.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"

/* transformers: plain texts, then patterns, each by text. Class names are plain texts that are tried last. */
static int by_text(const void *a, const void *b, void *context) {
    const struct config_entry *entries = context;
    const struct config_entry *x = &entries[*(const uint32_t *)a], *y = &entries[*(const uint32_t *)b];
    if (x->is_regex != y->is_regex)
        return x->is_regex ? 1 : -1;
    int order = strcmp(x->text, y->text);
    return order ? order : x->group < y->group ? -1 : x->group > y->group;
}

static enum status lists_make(struct resolutions *r, struct error *error) {
    uint32_t *sorted = malloc((r->target_count + 1) * sizeof *sorted);
    if (!sorted)
        return error_set_memory(error);
    for (uint32_t i = 0; i < r->target_count; i++)
        sorted[i] = i;
    qsort_r(sorted, r->target_count, sizeof *sorted, by_text, r->targets);
    enum status status = entry_list_make(r->targets, r->target_count, true, NULL, &r->vllm_targets, error);
    if (status == STATUS_OK)
        status = entry_list_make(r->targets, r->target_count, false, sorted, &r->transformers_targets, error);
    if (status == STATUS_OK)
        status = entry_list_make(r->ignores, r->ignore_count, true, NULL, &r->vllm_ignores, error);
    if (status == STATUS_OK)
        status = entry_list_make(r->ignores, r->ignore_count, false, NULL, &r->transformers_ignores, error);
    free(sorted);
    return status;
}

static enum status entries_make(const struct inspection *inspection, struct resolutions *r, struct error *error) {
    const struct quant_config *quant = &inspection->quant;
    size_t count = 0;
    for (size_t g = 0; g < quant->group_count; g++)
        count += quant->groups[g].target_count;
    r->targets = calloc(count + 1, sizeof *r->targets);
    r->ignores = calloc(quant->ignore_count + 1, sizeof *r->ignores);
    enum status status = r->targets && r->ignores ? STATUS_OK : error_set_memory(error);
    for (uint32_t g = 0; g < quant->group_count; g++)
        for (size_t i = 0; i < quant->groups[g].target_count && status == STATUS_OK; i++)
            status = entry_make(r->architecture, quant->groups[g].targets[i], g, &r->targets[r->target_count++], error);
    for (size_t i = 0; i < quant->ignore_count && status == STATUS_OK; i++)
        status = entry_make(r->architecture, quant->ignore[i], 0, &r->ignores[r->ignore_count++], error);
    return status == STATUS_OK ? lists_make(r, error) : status;
}

/* ---- modules and layers ---- */

void module_runtime_name(const struct resolutions *r, const struct module *module, struct text *out) {
    architecture_map_module(r->architecture, module->name, module->name_length, out);
}

void module_transformers_name(const struct inspection *inspection, const struct module *module, struct text *out) {
    static const struct {
        const char *stored, *loaded;
    } renames[] = {
        {"language_model.model.", "model.language_model."},
        {"language_model.lm_head", "lm_head"},
        {"vision_tower.", "model.vision_tower."},
        {"multi_modal_projector.", "model.multi_modal_projector."},
    };
    bool multimodal = json_is_object(json_object_get(inspection->config, "text_config"));
    for (size_t i = 0; multimodal && i < sizeof renames / sizeof *renames; i++) {
        size_t length = strlen(renames[i].stored);
        if (module->name_length >= length && memcmp(module->name, renames[i].stored, length) == 0) {
            text_append_string(out, renames[i].loaded);
            text_append(out, module->name + length, module->name_length - length);
            return;
        }
    }
    text_append(out, module->name, module->name_length);
}

static const char *leaf_of(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static bool leaf_is_one_of(const char *leaf, const char *const *names) {
    for (; *names; names++)
        if (strcmp(leaf, *names) == 0)
            return true;
    return false;
}

/* Whether the weight is a matrix that loaders hold in a layer they may quantize. */
static bool is_candidate(const struct inspection *inspection, const struct module *module) {
    const struct tensor *weight = module_weight(&inspection->checkpoint, module);
    if (!weight || module->parts[PART_BLOCKS] != MODULE_NO_TENSOR)
        return false;
    if (module_is_quantized(module))
        return true;
    return weight->info.rank == 2 && module->role != ROLE_NORM && text_ends_with(weight->info.name, ".weight");
}

static const char *class_of(const struct module *module, const char *leaf, const struct fused_layer *fused) {
    static const char *const row[] = {"o_proj", "down_proj", "out_proj", "linear_2", "fc2", "wo", "w2", "dense", NULL};
    if (fused)
        return strcmp(fused->name, "qkv_proj") == 0 ? "QKVParallelLinear" : "MergedColumnParallelLinear";
    if (module->role == ROLE_HEAD)
        return "ParallelLMHead";
    if (module->role == ROLE_EMBEDDING)
        return "VocabParallelEmbedding";
    if (module->role == ROLE_ROUTER)
        return "GateLinear";
    return leaf_is_one_of(leaf, row) ? "RowParallelLinear" : "ColumnParallelLinear";
}

/* "model.layers.0.mlp.experts" of "model.layers.0.mlp.experts.7.up_proj"; 0 when it is no routed expert's name. */
static size_t experts_prefix(const char *name) {
    const char *experts = strstr(name, ".experts.");
    if (!experts)
        return 0;
    const char *number = experts + strlen(".experts.");
    size_t digits = strspn(number, "0123456789");
    return digits > 0 && number[digits] == '.' ? (size_t)(number - 1 - name) : 0;
}

/* Most models build their embedding without a quantization config. */
static bool asks_embedding(const char *architecture) {
    return architecture &&
           (strcmp(architecture, "Qwen2MoeForCausalLM") == 0 || strcmp(architecture, "Qwen3MoeForCausalLM") == 0);
}

/* The layer that a module is loaded into; `runtime` is its own run-time name and is changed to the layer's. */
static enum status layer_of(const struct inspection *inspection, struct resolutions *r, uint32_t number,
                            struct text *runtime, struct error *error) {
    const struct module *module = &inspection->modules.items[number];
    const char *leaf = leaf_of(runtime->bytes);
    const struct fused_layer *fused = NULL;
    enum layer_kind kind = module->role == ROLE_HEAD ? LAYER_HEAD : LAYER_LINEAR;
    size_t part = 0, experts = experts_prefix(runtime->bytes);
    bool embedding = module->role == ROLE_EMBEDDING;
    if ((embedding && !asks_embedding(inspection->architecture)) || strstr(runtime->bytes, "patch_merger"))
        return STATUS_OK; /* not asked about */
    if (embedding)
        kind = LAYER_EMBEDDING;
    if (experts > 0) {
        kind = LAYER_EXPERTS;
        runtime->length = experts;
        runtime->bytes[experts] = '\0';
    } else if ((fused = architecture_fused_of(r->architecture, leaf))) {
        while (part < LAYER_PARTS - 1 && fused->parts[part] && strcmp(fused->parts[part], leaf) != 0)
            part++;
        runtime->length = (size_t)(leaf - runtime->bytes);
        text_append_string(runtime, fused->name);
    }
    if (runtime->failed)
        return error_set_memory(error);
    uint32_t found = name_table_find(&r->layer_names, runtime->bytes, runtime->length);
    if (found == NAME_UNKNOWN) {
        if (!array_reserve(r->layers, r->layer_count + 1, &r->layer_capacity))
            return error_set_memory(error);
        found = (uint32_t)r->layer_count;
        struct layer *layer = &r->layers[found];
        *layer = (struct layer){.name = strdup(runtime->bytes),
                                .class_name = kind == LAYER_EXPERTS ? "RoutedExperts"
                                                                    : class_of(module, leaf_of(runtime->bytes), fused),
                                .kind = kind,
                                .fused = fused,
                                .modules = {NO_ENTRY, NO_ENTRY, NO_ENTRY, NO_ENTRY},
                                .target = NO_ENTRY,
                                .group = NO_ENTRY};
        if (!layer->name)
            return error_set_memory(error);
        r->layer_count++;
        if (!name_table_add(&r->layer_names, layer->name, strlen(layer->name), found, NULL))
            return error_set_memory(error);
    }
    if (r->layers[found].modules[part] == NO_ENTRY)
        r->layers[found].modules[part] = number;
    r->modules[number].layer = found;
    return STATUS_OK;
}

/* ---- vLLM ---- */

/* `name` with every `from` replaced. */
static void replace_all(const char *name, const char *from, const char *to, struct text *out) {
    size_t length = strlen(from);
    out->length = 0;
    text_append(out, "", 0);
    for (const char *next; (next = strstr(name, from)); name = next + length) {
        text_append(out, name, (size_t)(next - name));
        text_append_string(out, to);
    }
    text_append_string(out, name);
}

/* should_ignore_layer for a name that may be fused. */
static bool vllm_ignored(struct resolutions *r, const char *name, bool *partly, struct text *scratch) {
    *partly = false;
    for (size_t i = 0; i < r->vllm_ignores.regex_count; i++) /* all entries are tried */
        if (entry_search_fails(&r->ignores[r->vllm_ignores.order[r->vllm_ignores.regexes[i]]], &r->reached_invalid))
            return false;
    if (entry_list_match(&r->vllm_ignores, r->ignores, name, 0, &r->reached_invalid) != NO_ENTRY)
        return true;
    const char *leaf = leaf_of(name);
    const struct fused_layer *fused;
    for (size_t i = 0; (fused = architecture_fused(r->architecture, i)); i++)
        if (strcmp(fused->name, leaf) == 0)
            break;
    size_t parts = 0, ignored = 0;
    for (; fused && parts < LAYER_PARTS && fused->parts[parts]; parts++) {
        replace_all(name, leaf, fused->parts[parts], scratch);
        ignored += !scratch->failed &&
                   entry_list_match(&r->vllm_ignores, r->ignores, scratch->bytes, 0, &r->reached_invalid) != NO_ENTRY;
    }
    *partly = ignored > 0 && ignored < parts;
    return parts > 0 && ignored == parts;
}

static bool contains_caseless(const char *text, const char *part) { return strcasestr(text, part) != NULL; }

/* find_matched_target: the place in the list. */
static uint32_t vllm_target(struct resolutions *r, const char *name, const char *class_name, bool *by_class,
                            bool *by_parts, struct text *scratch) {
    const struct entry_list *list = &r->vllm_targets;
    uint32_t place = entry_list_match(list, r->targets, name, 0, &r->reached_invalid);
    *by_class = *by_parts = false;
    if (place != NO_ENTRY)
        return place;
    const struct fused_layer *fused;
    for (size_t i = 0; (fused = architecture_fused(r->architecture, i)); i++)
        if (text_ends_with(name, fused->name))
            break;
    uint32_t first = NO_ENTRY;
    for (size_t part = 0; fused && part < LAYER_PARTS && fused->parts[part]; part++) {
        replace_all(name, fused->name, fused->parts[part], scratch);
        uint32_t match = scratch->failed ? (uint32_t)NO_ENTRY
                                         : entry_list_match(list, r->targets, scratch->bytes, 0, &r->reached_invalid);
        if (part == 0)
            first = match;
        if (match == NO_ENTRY) {
            first = NO_ENTRY;
            break;
        }
    }
    *by_parts = first != NO_ENTRY;
    if (first != NO_ENTRY)
        return first;
    for (uint32_t i = 0; i < list->count; i++) {
        struct config_entry *entry = &r->targets[list->order[i]];
        if (entry_search_fails(entry, &r->reached_invalid))
            return NO_ENTRY;
        if (entry->is_regex ? entry_matches(entry, entry->pattern, class_name)
                            : contains_caseless(class_name, entry->mapped)) {
            *by_class = true;
            return i;
        }
    }
    /* get_moe_method adds the target Linear for routed experts, behind all others */
    uint32_t linear = name_table_find(&list->plain, "Linear", strlen("Linear"));
    if (strcmp(class_name, "RoutedExperts") != 0 || linear == NAME_UNKNOWN)
        return NO_ENTRY;
    *by_class = true;
    return linear;
}

static void layer_resolve(struct resolutions *r, struct layer *layer, struct text *scratch) {
    r->reached_invalid = false;
    layer->ignored = vllm_ignored(r, layer->name, &layer->partly_ignored, scratch);
    layer->resolution = layer->partly_ignored || r->reached_invalid ? RESOLVED_RAISES : RESOLVED_PLAIN;
    if (layer->ignored || layer->partly_ignored || r->reached_invalid)
        return;
    uint32_t place = vllm_target(r, layer->name, layer->class_name, &layer->by_class, &layer->by_parts, scratch);
    if (r->reached_invalid) {
        layer->resolution = RESOLVED_RAISES;
        return;
    }
    if (place == NO_ENTRY)
        return;
    layer->resolution = RESOLVED_SCHEME;
    layer->target = r->vllm_targets.order[place];
    layer->group = r->vllm_targets.group[place];
}

/* get_moe_method: gate, up and down of expert 0 must agree. Whether two groups have the same arguments does not say. */
static void experts_resolve(const struct inspection *inspection, struct resolutions *r, struct layer *layer,
                            struct text *scratch) {
    const char *names[3];
    char scratch_names[64];
    architecture_experts(r->architecture, names, scratch_names);
    for (int i = 0; i < 3; i++) {
        struct layer probe = {.class_name = "RoutedExperts", .target = NO_ENTRY, .group = NO_ENTRY};
        probe.name = text_format("%s.0.%s", layer->name, names[i]);
        if (!probe.name) {
            scratch->failed = true;
            return;
        }
        layer_resolve(r, &probe, scratch);
        free(probe.name);
        if (i == 0) {
            layer->resolution = probe.resolution;
            layer->target = probe.target;
            layer->group = probe.group;
            layer->ignored = probe.ignored;
            layer->by_class = probe.by_class;
            continue;
        }
        bool same =
            probe.resolution == layer->resolution &&
            (probe.group == layer->group || (probe.group != NO_ENTRY && layer->group != NO_ENTRY &&
                                             quant_groups_equal(&inspection->quant, probe.group, layer->group)));
        if (!same)
            layer->resolution = RESOLVED_RAISES;
    }
}

/* ---- transformers ---- */

/* The classes of a module that targets and ignore entries can name. */
static bool transformers_class(const struct module *module, const char *text) {
    const char *own = module->role == ROLE_EMBEDDING ? "Embedding" : "Linear";
    return strcmp(text, own) == 0 || strcmp(text, "Module") == 0 || strcmp(text, "object") == 0;
}

static uint32_t transformers_match(const struct entry_list *list, struct config_entry *entries,
                                   const struct module *module, const char *name) {
    static const char *const classes[] = {"Embedding", "Linear", "Module", "object"};
    uint32_t place = entry_list_match(list, entries, name, 0, NULL);
    for (size_t i = 0; i < 4 && place == NO_ENTRY; i++) { /* they come in the order of their text */
        uint32_t named = name_table_find(&list->plain, classes[i], strlen(classes[i]));
        if (named != NAME_UNKNOWN && transformers_class(module, classes[i]))
            place = named;
    }
    return place;
}

static void expert_group_choose(const struct inspection *inspection, struct resolutions *r) {
    const struct quant_config *quant = &inspection->quant;
    r->expert_group = quant->group_count > 0 ? 0 : NO_ENTRY;
    for (int wanted = 0; wanted < 2; wanted++)
        for (uint32_t i = 0; i < r->target_count; i++) {
            const struct config_entry *target = &r->targets[i];
            if (wanted == 0 ? target->is_regex && strstr(target->text, "experts") : !target->is_regex) {
                r->expert_group = target->group;
                return;
            }
        }
}

/* ---- both ---- */

static void plain_count(const struct entry_list *list, struct config_entry *entries, const char *name, bool runtime) {
    uint32_t place = name_table_find(&list->plain, name, strlen(name));
    if (place == NAME_UNKNOWN)
        return;
    struct config_entry *entry = &entries[list->order[place]];
    if (runtime)
        entry->by_runtime_name++;
    else
        entry->by_checkpoint_name++;
}

/* Counts what every entry matches: unused ones, and those that would match inside a name, are findings. */
static void entries_count(const struct entry_list *vllm, const struct entry_list *transformers,
                          struct config_entry *entries, const struct module *module, const char *checkpoint_name,
                          const char *runtime_name, const char *layer_name) {
    static const char *const classes[] = {"Embedding", "Linear", "Module", "object"};
    plain_count(transformers, entries, checkpoint_name, false);
    plain_count(vllm, entries, runtime_name, true);
    if (layer_name && strcmp(layer_name, runtime_name) != 0)
        plain_count(vllm, entries, layer_name, true);
    for (size_t i = 0; i < 4; i++) {
        uint32_t place = name_table_find(&transformers->plain, classes[i], strlen(classes[i]));
        if (place != NAME_UNKNOWN && transformers_class(module, classes[i]))
            entries[transformers->order[place]].by_class++;
    }
    for (size_t i = 0; i < transformers->regex_count; i++) {
        struct config_entry *entry = &entries[transformers->order[transformers->regexes[i]]];
        bool at_checkpoint = entry_matches(entry, entry->pattern, checkpoint_name);
        bool at_runtime = entry_matches(entry, entry->pattern, runtime_name) ||
                          (layer_name && entry_matches(entry, entry->pattern, layer_name));
        entry->by_checkpoint_name += at_checkpoint;
        entry->by_runtime_name += at_runtime;
        entry->inside_names += !entry->by_checkpoint_name && !entry->by_runtime_name &&
                               entry_matches(entry, entry->anywhere, checkpoint_name);
    }
}

static enum status module_resolve(const struct inspection *inspection, struct resolutions *r, uint32_t number,
                                  struct text names[3], struct error *error) {
    const struct module *module = &inspection->modules.items[number];
    struct module_resolution *out = &r->modules[number];
    struct text *runtime = &names[0], *checkpoint = &names[1], *layer = &names[2];
    *out = (struct module_resolution){.layer = NO_LAYER,
                                      .checkpoint_target = NO_ENTRY,
                                      .checkpoint_group = NO_ENTRY,
                                      .checkpoint_ignore = NO_ENTRY,
                                      .runtime_target = NO_ENTRY,
                                      .runtime_group = NO_ENTRY,
                                      .runtime_ignore = NO_ENTRY,
                                      .second_target = NO_ENTRY,
                                      .candidate = is_candidate(inspection, module)};
    for (int i = 0; i < 3; i++)
        names[i].length = 0;
    module_runtime_name(r, module, runtime);
    module_transformers_name(inspection, module, checkpoint);
    text_append(layer, "", 0);
    if (runtime->failed || checkpoint->failed)
        return error_set_memory(error);
    if (out->candidate) {
        text_append_string(layer, runtime->bytes);
        enum status status = layer->failed ? error_set_memory(error) : layer_of(inspection, r, number, layer, error);
        if (status != STATUS_OK)
            return status;
    }
    bool in_layer = out->layer != NO_LAYER;
    entries_count(&r->vllm_ignores, &r->transformers_ignores, r->ignores, module, checkpoint->bytes, runtime->bytes,
                  in_layer ? layer->bytes : NULL);
    if (!out->candidate)
        return STATUS_OK;
    entries_count(&r->vllm_targets, &r->transformers_targets, r->targets, module, checkpoint->bytes, runtime->bytes,
                  in_layer ? layer->bytes : NULL);
    bool expert = in_layer && r->layers[out->layer].kind == LAYER_EXPERTS;
    out->in_transformers = !expert && module->role != ROLE_ROUTER;
    uint32_t place;
    if ((place = transformers_match(&r->transformers_targets, r->targets, module, checkpoint->bytes)) != NO_ENTRY) {
        out->checkpoint_target = r->transformers_targets.order[place];
        out->checkpoint_group = r->transformers_targets.group[place];
    }
    if ((place = transformers_match(&r->transformers_ignores, r->ignores, module, checkpoint->bytes)) != NO_ENTRY)
        out->checkpoint_ignore = r->transformers_ignores.order[place];
    if ((place = entry_list_match(&r->vllm_targets, r->targets, runtime->bytes, 0, NULL)) != NO_ENTRY) {
        out->runtime_target = r->vllm_targets.order[place];
        out->runtime_group = r->vllm_targets.group[place];
        for (uint32_t next = place; out->second_target == NO_ENTRY;) {
            next = entry_list_match(&r->vllm_targets, r->targets, runtime->bytes, next + 1, NULL);
            if (next == NO_ENTRY)
                break;
            if (r->vllm_targets.group[next] != out->runtime_group)
                out->second_target = r->vllm_targets.order[next];
        }
    }
    if ((place = entry_list_match(&r->vllm_ignores, r->ignores, runtime->bytes, 0, NULL)) != NO_ENTRY)
        out->runtime_ignore = r->vllm_ignores.order[place];
    return STATUS_OK;
}

enum status resolutions_make(const struct inspection *inspection, struct resolutions *r, struct error *error) {
    *r = (struct resolutions){.architecture = architecture_find(inspection->architecture), .expert_group = NO_ENTRY};
    enum status status = entries_make(inspection, r, error);
    r->modules = calloc(inspection->modules.count + 1, sizeof *r->modules);
    if (status == STATUS_OK && !r->modules)
        status = error_set_memory(error);
    struct text names[3] = {0};
    for (uint32_t i = 0; i < inspection->modules.count && status == STATUS_OK; i++)
        status = module_resolve(inspection, r, i, names, error);
    for (size_t i = 0; i < r->layer_count && status == STATUS_OK; i++) {
        if (r->layers[i].kind == LAYER_EXPERTS)
            experts_resolve(inspection, r, &r->layers[i], &names[0]);
        else
            layer_resolve(r, &r->layers[i], &names[0]);
    }
    if (status == STATUS_OK && names[0].failed)
        status = error_set_memory(error);
    expert_group_choose(inspection, r);
    for (int i = 0; i < 3; i++)
        text_free(&names[i]);
    return status;
}

void resolutions_free(struct resolutions *r) {
    entries_free(r->targets, r->target_count);
    entries_free(r->ignores, r->ignore_count);
    entry_list_free(&r->vllm_targets);
    entry_list_free(&r->transformers_targets);
    entry_list_free(&r->vllm_ignores);
    entry_list_free(&r->transformers_ignores);
    for (size_t i = 0; i < r->layer_count; i++)
        free(r->layers[i].name);
    free(r->layers);
    free(r->modules);
    name_table_free(&r->layer_names);
    *r = (struct resolutions){0};
}
