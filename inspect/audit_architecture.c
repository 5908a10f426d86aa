#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "inspect/audit.h"

static const char fix_config[] = "take config.json from the source model";

/* A figure of the language model: in text_config, or at the top. -1: not there. */
static int64_t figure(const struct inspection *inspection, const char *key) {
    const json_t *text = json_object_get(inspection->config, "text_config");
    const json_t *value = json_object_get(text, key);
    if (!json_is_integer(value))
        value = json_object_get(inspection->config, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static int64_t first_figure(const struct inspection *inspection, const char *const *keys, const char **used) {
    for (; *keys; keys++) {
        *used = *keys;
        int64_t value = figure(inspection, *keys);
        if (value > 0)
            return value;
    }
    return -1;
}

static bool name_ends(const struct module *module, const char *ending) {
    size_t length = strlen(ending);
    return module->name_length >= length && memcmp(module->name + module->name_length - length, ending, length) == 0;
}

static bool is_text(const struct module *module) {
    return module->role != ROLE_VISION && !memmem(module->name, module->name_length, "mtp", 3);
}

static void mismatch(struct audit *audit, enum finding_id id, const struct module *module, const char *key,
                     int64_t said, const char *what, uint64_t found) {
    char name[MODULE_NAME_MAX];
    audit_find(audit, id, SEVERITY_ERROR, FOR_ALL, key, module_name_text(module, name), fix_config,
               "config.json's %s is %" PRId64 ", %s is %" PRIu64 ": loaders build other shapes than the tensors have",
               key, said, what, found);
}

/* ---- layers ---- */

static void layers_check(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    int64_t said = figure(inspection, "num_hidden_layers"), extra = figure(inspection, "num_nextn_predict_layers");
    int64_t highest = -1;
    const struct module *last = NULL;
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        bool layered = (module->role == ROLE_ATTENTION || module->role == ROLE_MLP || module->role == ROLE_EXPERT) &&
                       is_text(module) && memmem(module->name, module->name_length, "layers.", 7);
        if (layered && module->layer > highest) {
            highest = module->layer;
            last = module;
        }
    }
    if (said < 0 || !last || highest + 1 == said || (extra > 0 && highest + 1 <= said + extra && highest + 1 > said))
        return;
    mismatch(audit, ARCHITECTURE_LAYERS, last, "num_hidden_layers", said, "the number of layers in the tensors",
             (uint64_t)highest + 1);
}

/* ---- widths ---- */

struct figures {
    int64_t hidden, heads, kv_heads, head_dim, mlp, moe_mlp, vocabulary;
    const char *moe_key;
};

static void attention_check(struct audit *audit, const struct figures *f, const struct module *module) {
    bool q = name_ends(module, ".q_proj"), k = name_ends(module, ".k_proj"), v = name_ends(module, ".v_proj");
    if (f->hidden <= 0 || f->heads <= 0 || f->head_dim <= 0 || (!q && !k && !v))
        return;
    int64_t heads = q ? f->heads : f->kv_heads > 0 ? f->kv_heads : f->heads;
    uint64_t width = (uint64_t)(heads * f->head_dim);
    bool gated = q && module->rows == 2 * width; /* a gate beside every query */
    if (module->rows != width && !gated)
        mismatch(audit, ARCHITECTURE_HEADS, module, q ? "num_attention_heads" : "num_key_value_heads", heads,
                 "with head_dim the projection has other rows; the tensor's number of rows", module->rows);
    else if (module->columns != (uint64_t)f->hidden)
        mismatch(audit, ARCHITECTURE_HIDDEN, module, "hidden_size", f->hidden, "the input width of this projection",
                 module->columns);
}

static void mlp_check(struct audit *audit, const struct figures *f, const struct module *module) {
    bool expert = module->role == ROLE_EXPERT;
    bool shared = memmem(module->name, module->name_length, "shared_expert", 13);
    bool up = name_ends(module, ".up_proj") || name_ends(module, ".gate_proj"), down = name_ends(module, ".down_proj");
    int64_t width = expert ? f->moe_mlp : f->mlp;
    if ((!up && !down) || shared || module->experts != 1)
        return;
    uint64_t inner = up ? module->rows : module->columns;
    if (width > 0 && inner != (uint64_t)width)
        mismatch(audit, ARCHITECTURE_MLP, module, expert ? f->moe_key : "intermediate_size", width,
                 "the width of this projection", inner);
}

static void widths_check(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    static const char *const moe_keys[] = {"moe_intermediate_size", "intermediate_size", NULL};
    struct figures f = {.hidden = figure(inspection, "hidden_size"),
                        .heads = figure(inspection, "num_attention_heads"),
                        .kv_heads = figure(inspection, "num_key_value_heads"),
                        .head_dim = figure(inspection, "head_dim"),
                        .mlp = figure(inspection, "intermediate_size"),
                        .vocabulary = figure(inspection, "vocab_size")};
    f.moe_mlp = first_figure(inspection, moe_keys, &f.moe_key);
    if (f.head_dim <= 0 && f.heads > 0 && f.hidden > 0 && f.hidden % f.heads == 0)
        f.head_dim = f.hidden / f.heads;
    if (f.heads > 1 << 20 || f.head_dim > 1 << 20)
        return; /* no figures that a product could be made of */
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        const struct tensor *weight = module_weight(&inspection->checkpoint, module);
        if (!weight || !is_text(module) || module->rows == 0 || module->columns == 0 || audit_module_faulty(audit, i))
            continue;
        if (module->role == ROLE_ATTENTION) {
            attention_check(audit, &f, module);
        } else if (module->role == ROLE_MLP || module->role == ROLE_EXPERT) {
            mlp_check(audit, &f, module);
        } else if (module->role == ROLE_EMBEDDING && name_ends(module, "embed_tokens") && weight->info.rank == 2) {
            if (f.vocabulary > 0 && module->rows != (uint64_t)f.vocabulary)
                mismatch(audit, ARCHITECTURE_VOCABULARY, module, "vocab_size", f.vocabulary,
                         "the embedding's number of rows", module->rows);
            if (f.hidden > 0 && module->columns != (uint64_t)f.hidden)
                mismatch(audit, ARCHITECTURE_HIDDEN, module, "hidden_size", f.hidden, "the embedding's width",
                         module->columns);
        }
    }
}

/* ---- experts ---- */

static void experts_check(struct audit *audit) {
    static const char *const keys[] = {"num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", NULL};
    const char *key = NULL;
    int64_t said = first_figure(audit->inspection, keys, &key);
    const struct modules *modules = &audit->inspection->modules;
    struct name_table layers = {0}, experts = {0};
    for (size_t i = 0; i < modules->count && said > 0; i++) {
        const struct module *module = &modules->items[i];
        const char *place = module->role == ROLE_EXPERT && is_text(module) ? strstr(module->name, ".experts.") : NULL;
        size_t digits = place ? strspn(place + 9, "0123456789") : 0;
        bool fresh = false;
        if (digits == 0)
            continue;
        size_t layer = (size_t)(place - module->name), expert = layer + 9 + digits;
        uint32_t *count = name_table_add(&layers, module->name, layer, 0, NULL);
        if (!count || !name_table_add(&experts, module->name, expert, 0, &fresh)) {
            audit->findings.failed = true;
            break;
        }
        *count += fresh;
    }
    for (size_t i = 0; i < modules->count; i++) {
        const struct module *module = &modules->items[i];
        const char *place = layers.count && module->role == ROLE_EXPERT ? strstr(module->name, ".experts.") : NULL;
        uint32_t count = place ? name_table_find(&layers, module->name, (size_t)(place - module->name)) : NAME_UNKNOWN;
        if (count == NAME_UNKNOWN || count == (uint32_t)said)
            continue;
        mismatch(audit, ARCHITECTURE_EXPERTS, module, key, said, "the number of experts in this layer", count);
        break;
    }
    name_table_free(&layers);
    name_table_free(&experts);
}

/* ---- tied embeddings ---- */

static const struct tensor *find_weight(const struct inspection *inspection, enum role role, const char *ending) {
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        if (module->role == role && name_ends(module, ending) && module->format == STORED_PLAIN)
            return module_weight(&inspection->checkpoint, module);
    }
    return NULL;
}

/* Compares until a difference is seen. */
static enum status tensors_equal(const struct inspection *inspection, const struct tensor *a, const struct tensor *b,
                                 bool *equal, struct error *error) {
    enum { CHUNK = 1 << 20 };
    *equal = a->info.size == b->info.size && a->info.dtype == b->info.dtype;
    char *buffers = malloc((size_t)2 * CHUNK);
    if (!buffers)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    for (uint64_t at = 0; *equal && at < a->info.size && status == STATUS_OK; at += CHUNK) {
        size_t size = a->info.size - at < CHUNK ? (size_t)(a->info.size - at) : CHUNK;
        status = checkpoint_read(&inspection->checkpoint, a, at, buffers, size, error);
        if (status == STATUS_OK)
            status = checkpoint_read(&inspection->checkpoint, b, at, buffers + CHUNK, size, error);
        *equal = *equal && memcmp(buffers, buffers + CHUNK, size) == 0;
    }
    free(buffers);
    return status;
}

/* Which loaders take the embeddings for tied: transformers goes by the top level, vLLM by the text model's config. */
static void tied_flags(const struct inspection *inspection, unsigned *tied, unsigned *untied) {
    static const char key[] = "tie_word_embeddings";
    const json_t *top = json_object_get(inspection->config, key);
    const json_t *text = json_object_get(json_object_get(inspection->config, "text_config"), key);
    const json_t *by_transformers = json_is_boolean(top) ? top : text, *by_vllm = json_is_boolean(text) ? text : top;
    *tied = (json_is_true(by_transformers) ? FOR_TRANSFORMERS : 0u) | (json_is_true(by_vllm) ? FOR_VLLM : 0u);
    *untied = (json_is_false(by_transformers) ? FOR_TRANSFORMERS : 0u) | (json_is_false(by_vllm) ? FOR_VLLM : 0u);
}

static enum status tied_check(struct audit *audit, struct error *error) {
    const struct inspection *inspection = audit->inspection;
    const struct tensor *embedding = find_weight(inspection, ROLE_EMBEDDING, "embed_tokens");
    const struct tensor *head = find_weight(inspection, ROLE_HEAD, "lm_head");
    bool quantized_head = false;
    unsigned tied, untied;
    tied_flags(inspection, &tied, &untied);
    if (!embedding || !inspection_is_whole(inspection))
        return STATUS_OK;
    for (size_t i = 0; i < inspection->modules.count; i++)
        quantized_head = quantized_head || (inspection->modules.items[i].role == ROLE_HEAD &&
                                            module_is_quantized(&inspection->modules.items[i]));
    if (untied && !head && !quantized_head)
        audit_find(audit, TIED_EMBEDDINGS, SEVERITY_ERROR, untied, "tied", "lm_head.weight",
                   "set tie_word_embeddings to true if the model is tied, or take lm_head.weight from the source",
                   "tie_word_embeddings is false, but there is no lm_head.weight: loaders make the output layer up");
    if (!(tied & FOR_VLLM) || !head || audit->options.headers_only)
        return STATUS_OK;
    bool equal = true;
    enum status status = tensors_equal(inspection, embedding, head, &equal, error);
    if (status == STATUS_OK && !equal)
        audit_find(audit, TIED_EMBEDDINGS, SEVERITY_ERROR, FOR_VLLM, "tied", head->info.name,
                   "set tie_word_embeddings to false, or remove lm_head.weight",
                   "tie_word_embeddings is true, but lm_head.weight differs from the embedding: vLLM skips it, "
                   "transformers uses it");
    return status;
}

/* ---- layers against each other ---- */

static bool experts_differ(const struct audit *audit) {
    for (size_t i = 0; i < audit->findings.count; i++)
        if (audit->findings.items[i].id == ARCHITECTURE_EXPERTS)
            return true;
    return false;
}

enum { MISSING_MAX = 3 }; /* more than these make another kind of layer */

/* The modules of one layer that have weights, in the order of their names. */
struct layer_run {
    const struct module **modules;
    size_t count, prefix; /* prefix: the length of "model.layers.3" */
};

/* Compares two modules' names behind their layers' prefixes. */
static int suffix_compare(const struct module *x, size_t prefix_x, const struct module *y, size_t prefix_y) {
    size_t length_x = x->name_length - prefix_x, length_y = y->name_length - prefix_y;
    size_t shorter = length_x < length_y ? length_x : length_y;
    int order = memcmp(x->name + prefix_x, y->name + prefix_y, shorter);
    return order ? order : (length_x > length_y) - (length_x < length_y);
}

/* Notes what `layer` lacks of `whole`, if it lacks but a few modules and has no others. */
static void layer_compare(struct audit *audit, const struct layer_run *whole, const struct layer_run *layer) {
    size_t missing[MISSING_MAX], count = 0, i = 0, j = 0;
    while (i < whole->count) {
        int order =
            j < layer->count ? suffix_compare(whole->modules[i], whole->prefix, layer->modules[j], layer->prefix) : -1;
        if (order > 0 || (order < 0 && count == MISSING_MAX))
            return;
        if (order < 0)
            missing[count++] = i;
        else
            j++;
        i++;
    }
    for (size_t m = 0; m < count && j == layer->count; m++) {
        const struct module *peer = whole->modules[missing[m]], *own = layer->modules[0];
        if (peer->role == ROLE_EXPERT && experts_differ(audit))
            continue; /* a whole expert is gone, which has been told */
        char name[MODULE_NAME_MAX];
        snprintf(name, sizeof name, "%.*s%.*s", (int)layer->prefix, own->name, (int)(peer->name_length - whole->prefix),
                 peer->name + whole->prefix);
        if (checkpoint_find_joined(&audit->inspection->checkpoint, name, strlen(name), ".weight_scale"))
            continue; /* only its weight is gone, which has been told */
        audit_find(audit, TENSOR_MISSING, SEVERITY_ERROR, FOR_ALL, "layers", name,
                   "make the checkpoint again from its source: the tensor was dropped",
                   "this layer has no such module, its peers do ('%.*s'): loaders make its tensors up without an error",
                   (int)peer->name_length, peer->name);
    }
}

/* The length of "model.layers.3" in the name of a module with weights; 0 for others. */
static size_t layer_prefix_length(const struct inspection *inspection, const struct module *module) {
    const char *layers = memmem(module->name, module->name_length, "layers.", 7);
    const struct tensor *weight = module_weight(&inspection->checkpoint, module);
    uint64_t elements = 0;
    if (!layers || !is_text(module) || !weight || !shape_elements(weight->info.shape, weight->info.rank, &elements) ||
        elements <= 1 || memmem(module->name, module->name_length, "rotary", 6))
        return 0;
    size_t at = (size_t)(layers - module->name) + 7;
    size_t digits = strspn(module->name + at, "0123456789");
    return digits > 0 && at + digits < module->name_length ? at + digits : 0;
}

static size_t runs_collect(const struct inspection *inspection, const struct module **kept, struct layer_run *runs) {
    size_t count = 0;
    for (size_t i = 0; i < inspection->modules.count; i++) {
        const struct module *module = &inspection->modules.items[i];
        size_t prefix = layer_prefix_length(inspection, module);
        struct layer_run *last = count ? &runs[count - 1] : NULL;
        if (prefix == 0)
            continue;
        if (!last || last->prefix != prefix || memcmp(last->modules[0]->name, module->name, prefix + 1) != 0)
            runs[count++] = (struct layer_run){kept, 0, prefix};
        runs[count - 1].count++;
        *kept++ = module;
    }
    return count;
}

static enum status peers_check(struct audit *audit, struct error *error) {
    const struct inspection *inspection = audit->inspection;
    struct layer_run *runs = malloc((inspection->modules.count + 1) * sizeof *runs);
    const struct module **kept = calloc(inspection->modules.count + 1, sizeof(const struct module *));
    enum status status = runs && kept ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && inspection_is_whole(inspection)) {
        size_t count = runs_collect(inspection, kept, runs), largest = 0;
        for (size_t i = 1; i < count; i++)
            largest = runs[i].count > runs[largest].count ? i : largest;
        for (size_t i = 0; i < count; i++)
            if (runs[i].count < runs[largest].count)
                layer_compare(audit, &runs[largest], &runs[i]);
    }
    free(runs);
    free(kept);
    return status;
}

/* ---- shapes that kernels take ---- */

enum { TENSOR_PARALLEL_SIZES = 4 };
static const uint64_t tensor_parallel[TENSOR_PARALLEL_SIZES] = {1, 2, 4, 8};

/* The MXFP4 kernels' tiles: out and in of one rank. */
static bool kernel_takes(uint64_t rows, uint64_t columns) {
    return (rows % 64 == 0 && columns % 128 == 0) || (rows % 128 == 0 && columns % 64 == 0);
}

static void kernel_check(struct audit *audit, const struct layer *layer) {
    const struct inspection *inspection = audit->inspection;
    const struct module *module = &inspection->modules.items[layer->modules[0] == NO_ENTRY ? 0 : layer->modules[0]];
    if (layer->modules[0] == NO_ENTRY || module->format != STORED_MXFP4)
        return;
    uint64_t rows = 0;
    for (size_t part = 0; part < LAYER_PARTS; part++) {
        if (layer->modules[part] == NO_ENTRY)
            continue;
        rows += inspection->modules.items[layer->modules[part]].rows;
        if (audit_module_faulty(audit, layer->modules[part]))
            return;
    }
    bool by_rows = strcmp(layer->class_name, "RowParallelLinear") != 0; /* whose outputs are split, not its inputs */
    if (layer->kind == LAYER_EXPERTS || rows == 0 || module->columns == 0)
        return;
    char works[64] = "";
    size_t good = 0;
    for (size_t i = 0; i < TENSOR_PARALLEL_SIZES; i++) {
        uint64_t ranks = tensor_parallel[i];
        bool whole = (by_rows ? rows : module->columns) % ranks == 0;
        if (!whole || !kernel_takes(by_rows ? rows / ranks : rows, by_rows ? module->columns : module->columns / ranks))
            continue;
        snprintf(works + strlen(works), sizeof works - strlen(works), "%s%" PRIu64, good ? ", " : "", ranks);
        good++;
    }
    if (good == TENSOR_PARALLEL_SIZES)
        return;
    char cause[96];
    snprintf(cause, sizeof cause, "%" PRIu64 " %" PRIu64, rows, module->columns);
    audit_find(
        audit, KERNEL_SHAPE, SEVERITY_NOTE, FOR_VLLM, cause, layer->name,
        "nothing where vLLM pads (0.33 does), else serve with one of the sizes that work",
        "vLLM's layer of shape [%" PRIu64 ", %" PRIu64
        "] is no whole number of MXFP4 kernel tiles ([64, 128] or [128, 64]) per rank: of tensor-parallel sizes 1, "
        "2, 4 and 8, %s%s",
        rows, module->columns, good ? "these work without padding: " : "none works without padding", works);
}

enum status audit_architecture(struct audit *audit, struct error *error) {
    layers_check(audit);
    widths_check(audit);
    experts_check(audit);
    for (size_t i = 0; i < audit->resolutions.layer_count; i++)
        kernel_check(audit, &audit->resolutions.layers[i]);
    enum status status = peers_check(audit, error);
    return status == STATUS_OK ? tied_check(audit, error) : status;
}
