#include "qstream/experts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"
#include "common/layout.h"

enum { EXPERTS_MAX = 65536 }; /* a hundred times what exists */

static const struct {
    const char *ending;
    const char *names[2];
    bool down;
} kinds[] = {
    {".gate_up_proj", {"gate_proj", "up_proj"}, false},
    {".gate_proj", {"gate_proj", NULL}, false},
    {".up_proj", {"up_proj", NULL}, false},
    {".down_proj", {"down_proj", NULL}, true},
};

/* The kind of projection, and the length of what comes before it; -1 when the name is none of a fused expert.
 */
static int kind_of(const char *name, size_t *parent_length) {
    size_t length = module_length(name);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t ending = strlen(kinds[i].ending);
        if (length < ending || strncmp(name + length - ending, kinds[i].ending, ending) != 0)
            continue;
        *parent_length = length - ending;
        static const char *const containers[] = {".experts", ".moe"};
        for (size_t c = 0; c < sizeof containers / sizeof *containers; c++) {
            size_t tail = strlen(containers[c]);
            if (*parent_length >= tail && strncmp(name + *parent_length - tail, containers[c], tail) == 0)
                return (int)i;
        }
    }
    return -1;
}

bool experts_name(const char *name) {
    size_t parent_length;
    return kind_of(name, &parent_length) >= 0;
}

/* The raw text of a member of config.json, of text_config where it has one. */
static bool config_member(const struct checkpoint *checkpoint, const char *key, struct json_member *member) {
    struct json_span top = json_text_object(checkpoint->config, checkpoint->config_length);
    struct json_member text;
    if (json_text_member(checkpoint->config, top, "text_config", &text) &&
        checkpoint->config[text.value.begin] == '{' && json_text_member(checkpoint->config, text.value, key, member))
        return true;
    return json_text_member(checkpoint->config, top, key, member);
}

/* Whether model_type begins with one of the architectures that store experts as [in, out]. */
static bool known_transposed(const char *model_type, size_t length) {
    static const char *const architectures[] = {"qwen3_vl_moe", "llama4"};
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        if (length >= strlen(architectures[i]) && strncmp(model_type, architectures[i], strlen(architectures[i])) == 0)
            return true;
    return false;
}

enum status experts_detect(const struct checkpoint *checkpoint, const struct tensor_info *tensor,
                           struct experts *experts, struct error *error) {
    *experts = (struct experts){0};
    size_t parent_length;
    int kind = tensor->rank == 3 ? kind_of(tensor->name, &parent_length) : -1;
    char shape[SHAPE_TEXT_MAX];
    if (kind < 0)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' has the shape %s but not the name of a fused expert weight (...experts.gate_up_proj, "
                         "...experts.down_proj): it cannot be split into matrices",
                         tensor->name, shape_text(tensor->shape, tensor->rank, shape));
    struct json_member hidden_member, type_member = {0};
    if (!config_member(checkpoint, "hidden_size", &hidden_member))
        return error_set(error, STATUS_BAD_INPUT, "config.json has no hidden_size, which tells how '%s' is stored",
                         tensor->name);
    uint64_t hidden = strtoull(checkpoint->config + hidden_member.value.begin, NULL, 10);
    const char *type = "";
    size_t type_length = 0;
    if (config_member(checkpoint, "model_type", &type_member) && checkpoint->config[type_member.value.begin] == '"') {
        type = checkpoint->config + type_member.value.begin + 1;
        type_length = type_member.value.end - type_member.value.begin - 2;
    }
    if (type_length >= 7 && strncmp(type, "gpt_oss", 7) == 0)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': gpt-oss interleaves the columns of gate and up; its fused experts are not supported",
                         tensor->name);

    if (tensor->shape[0] > EXPERTS_MAX)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has the shape %s: more than %d experts are not believable",
                         tensor->name, shape_text(tensor->shape, 3, shape), EXPERTS_MAX);

    /* gate and up read the hidden state, down writes it. */
    uint64_t a = tensor->shape[1], b = tensor->shape[2];
    bool straight = (kinds[kind].down ? a : b) == hidden, transposed = (kinds[kind].down ? b : a) == hidden;
    if (!straight && !transposed)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' has the shape %s, but config.json's hidden_size is %" PRIu64
                         ": neither dimension is the hidden one",
                         tensor->name, shape_text(tensor->shape, 3, shape), hidden);
    if (straight && transposed)
        transposed = known_transposed(type, type_length);
    experts->transposed = transposed;
    experts->count = tensor->shape[0];
    experts->rows = transposed ? b : a;
    experts->columns = transposed ? a : b;
    experts->names[0] = kinds[kind].names[0];
    experts->names[1] = kinds[kind].names[1];
    experts->projections = kinds[kind].names[1] ? 2 : 1;
    if (experts->rows % experts->projections != 0)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has the shape %s: gate and up cannot both have half of it",
                         tensor->name, shape_text(tensor->shape, 3, shape));
    experts->rows /= experts->projections;
    bool named = parent_length >= 8 && strncmp(tensor->name + parent_length - 8, ".experts", 8) == 0;
    experts->parent = text_format("%.*s%s", (int)parent_length, tensor->name, named ? "" : ".experts");
    return experts->parent ? STATUS_OK : error_set_memory(error);
}
