#include "verify/expert_slice.h"

#include <stdlib.h>
#include <string.h>

#include "common/json_text.h"
#include "common/text.h"

/* How a projection is called alone and stacked. */
static const struct {
    const char *projection, *stacked;
    unsigned part, parts; /* of the stacked tensor's rows */
} kinds[] = {
    {"gate_proj", "gate_up_proj", 0, 2}, {"up_proj", "gate_up_proj", 1, 2}, {"gate_proj", "gate_proj", 0, 1},
    {"up_proj", "up_proj", 0, 1},        {"down_proj", "down_proj", 0, 1},
};

/* Whether a component of the name ends at its end. */
static bool name_ends(const char *name, size_t length, const char *ending) {
    size_t size = strlen(ending);
    return length > size && name[length - size - 1] == '.' && memcmp(name + length - size, ending, size) == 0;
}

uint64_t expert_slice_count(const struct module *module) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (name_ends(module->name, module->name_length, kinds[i].stacked))
            return module->experts * kinds[i].parts;
    return 0;
}

/* Architectures whose code keeps experts as [experts, in, out]; asked where the shape does not tell. */
static bool keeps_transposed(const struct checkpoint *source) {
    static const char *const types[] = {"\"llama4", "\"qwen3_vl_moe"};
    struct json_span top = json_text_object(source->config, source->config_length);
    struct json_member text, type;
    bool found = json_text_member(source->config, top, "text_config", &text) &&
                 source->config[text.value.begin] == '{' &&
                 json_text_member(source->config, text.value, "model_type", &type);
    if (!found && !json_text_member(source->config, top, "model_type", &type))
        return false;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strncmp(source->config + type.value.begin, types[i], strlen(types[i])) == 0)
            return true;
    return false;
}

static bool slice_fit(const struct checkpoint *source, const struct module *stacked, const struct module *output,
                      uint64_t expert, unsigned part, unsigned parts, struct expert_slice *slice) {
    const struct tensor *weight = module_weight(source, stacked);
    if (!weight || weight->info.rank != 3 || expert >= weight->info.shape[0] || output->experts != 1)
        return false;
    uint64_t a = weight->info.shape[1], b = weight->info.shape[2];
    bool straight = a % parts == 0 && a / parts == output->rows && b == output->columns;
    bool transposed = b % parts == 0 && b / parts == output->rows && a == output->columns;
    if (!straight && !transposed)
        return false;
    if (straight && transposed)
        transposed = keeps_transposed(source);
    else
        transposed = !straight;
    *slice = (struct expert_slice){.expert = expert,
                                   .first_row = transposed ? part * output->rows : expert * a + part * output->rows,
                                   .transposed = transposed,
                                   .stored_columns = b};
    return true;
}

enum status expert_slice_find(const struct checkpoint *source, const struct modules *modules,
                              const struct name_table *names, const struct module *output, struct expert_slice *slice,
                              const struct module **stacked, bool *found, struct error *error) {
    *found = false;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !*found; i++) {
        if (!name_ends(output->name, output->name_length, kinds[i].projection))
            continue;
        size_t end = output->name_length - strlen(kinds[i].projection) - 1, begin = end; /* of the expert's number */
        while (begin > 0 && output->name[begin - 1] >= '0' && output->name[begin - 1] <= '9')
            begin--;
        if (begin == end || end - begin > 7 || begin < 2 || output->name[begin - 1] != '.')
            continue;
        uint64_t expert = strtoull(output->name + begin, NULL, 10);
        if (end - begin > 1 && output->name[begin] == '0')
            continue;
        size_t parent = begin - 1; /* without the dot */
        static const char container[] = "experts";
        const size_t parents[] = {parent,
                                  name_ends(output->name, parent, container) ? parent - strlen(container) - 1 : 0};
        for (size_t p = 0; p < 2 && !*found; p++) {
            if (parents[p] == 0)
                continue;
            char *name = text_format("%.*s.%s", (int)parents[p], output->name, kinds[i].stacked);
            if (!name)
                return error_set_memory(error);
            uint32_t number = name_table_find(names, name, strlen(name));
            free(name);
            if (number == NAME_UNKNOWN)
                continue;
            *stacked = &modules->items[number];
            *found = slice_fit(source, *stacked, output, expert, kinds[i].part, kinds[i].parts, slice);
        }
    }
    return STATUS_OK;
}
