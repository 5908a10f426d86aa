#include "qstream/planned_output.h"

#include <stdlib.h>
#include <string.h>

static bool config_copy(const struct publication *publication, struct checkpoint *checkpoint) {
    const struct publish_file *file = publication->files; /* it has one */
    while (strcmp(file->name, "config.json") != 0)
        file++;
    checkpoint->config = strndup(file->bytes.bytes, file->bytes.length);
    checkpoint->config_length = file->bytes.length;
    return checkpoint->config != NULL;
}

static bool shards_copy(const struct plan *plan, struct checkpoint *checkpoint) {
    checkpoint->shards = calloc(plan->shard_count, sizeof *checkpoint->shards);
    for (size_t s = 0; s < plan->shard_count && checkpoint->shards; s++) {
        checkpoint->shards[s] = (struct shard){
            .file = strdup(plan->shards[s].file), .data_offset = plan->shards[s].header_size, .readable = true};
        checkpoint->shard_count++;
        if (!checkpoint->shards[s].file)
            return false;
    }
    return checkpoint->shards != NULL;
}

static bool tensors_copy(const struct plan *plan, struct checkpoint *checkpoint) {
    checkpoint->tensors = calloc(plan->output_count, sizeof *checkpoint->tensors);
    for (size_t i = 0; i < plan->output_count && checkpoint->tensors; i++) {
        struct tensor *tensor = &checkpoint->tensors[i];
        *tensor = (struct tensor){plan->outputs[i].info, plan->outputs[i].shard};
        tensor->info.name = strdup(plan->outputs[i].info.name);
        checkpoint->tensor_count++;
        if (!tensor->info.name)
            return false;
    }
    return checkpoint->tensors != NULL;
}

enum status planned_output_open(const struct plan *plan, const struct publication *publication, const char *folder,
                                struct checkpoint *checkpoint, struct error *error) {
    *checkpoint = (struct checkpoint){.path = strdup(folder)};
    if (!checkpoint->path || !config_copy(publication, checkpoint) || !shards_copy(plan, checkpoint) ||
        !tensors_copy(plan, checkpoint))
        return error_set_memory(error);
    return checkpoint_names_sort(checkpoint, error);
}
