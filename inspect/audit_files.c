#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "inspect/audit.h"

static const struct {
    enum finding_id id;
    enum severity severity;
    const char *fix;
} problem_kinds[CHECKPOINT_PROBLEMS] = {
    [PROBLEM_INDEX_INVALID] = {INDEX_INVALID, SEVERITY_ERROR,
                               "write it again (audit --fix does), or download it again"},
    [PROBLEM_SHARD_MISSING] = {SHARD_MISSING, SEVERITY_ERROR, "download or copy the shard"},
    [PROBLEM_SHARD_UNREADABLE] = {SHARD_UNREADABLE, SEVERITY_ERROR, "download or copy the shard again"},
    [PROBLEM_INDEX_WRONG_SHARD] = {INDEX_WRONG_SHARD, SEVERITY_ERROR, "write the index again (audit --fix does)"},
    [PROBLEM_INDEX_DANGLING] = {INDEX_DANGLING, SEVERITY_ERROR,
                                "write the index again (audit --fix does); if the tensor should exist, make it again"},
    [PROBLEM_TENSOR_UNINDEXED] = {TENSOR_UNINDEXED, SEVERITY_ERROR, "write the index again (audit --fix does)"},
    [PROBLEM_TENSOR_DUPLICATE] = {TENSOR_DUPLICATE, SEVERITY_ERROR,
                                  "remove one of the two: which one a loader takes depends on the order of the files"},
};

static void problems_find(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    struct name_table twice = {0}; /* one of two copies is in the wrong shard, of course */
    for (size_t i = 0; i < inspection->problem_count; i++) {
        const struct file_problem *problem = &inspection->problems[i];
        if (problem->kind == PROBLEM_TENSOR_DUPLICATE &&
            !name_table_add(&twice, problem->subject, strlen(problem->subject), 0, NULL))
            audit->findings.failed = true;
    }
    for (size_t i = 0; i < inspection->problem_count; i++) {
        const struct file_problem *problem = &inspection->problems[i];
        if (problem->kind == PROBLEM_INDEX_WRONG_SHARD &&
            name_table_find(&twice, problem->subject, strlen(problem->subject)) != NAME_UNKNOWN)
            continue;
        audit_find(audit, problem_kinds[problem->kind].id, problem_kinds[problem->kind].severity, FOR_ALL, "files",
                   problem->subject, problem_kinds[problem->kind].fix, "%s", problem->message);
    }
    name_table_free(&twice);
}

static bool is_consolidated(const char *name) {
    return strncmp(name, "consolidated", strlen("consolidated")) == 0 && text_ends_with(name, ".safetensors");
}

/* Files of the folder itself that loaders see. */
static void folder_find(struct audit *audit) {
    const struct inspection *inspection = audit->inspection;
    bool has_index = inspection->checkpoint.has_index;
    for (size_t i = 0; i < inspection->file_count; i++) {
        const struct folder_file *file = &inspection->files[i];
        if (strchr(file->name, '/') || file->kind != FILE_UNINDEXED)
            continue;
        if (is_consolidated(file->name))
            audit_find(
                audit, CONSOLIDATED_PRESENT, SEVERITY_WARNING, FOR_VLLM, "files", file->name,
                "remove it, or serve with --load-format safetensors --config-format hf --tokenizer-mode hf",
                "vLLM finds consolidated*.safetensors and loads those, in Mistral's naming, instead of the shards");
        else if (has_index && strcmp(file->name, "model.safetensors") == 0)
            audit_find(audit, INDEX_SHADOWED, SEVERITY_ERROR, FOR_TRANSFORMERS, "files", file->name,
                       "remove model.safetensors, or the index",
                       "transformers loads model.safetensors and does not look at the index beside it");
        else if (has_index)
            audit_find(audit, SHARD_UNINDEXED, SEVERITY_WARNING, FOR_ALL, "files", file->name,
                       "remove it if it is a leftover, or write the index again",
                       "the index does not name this file: loaders skip it, uploads and disks do not");
        else if (strcmp(file->name, "model.safetensors") != 0)
            audit_find(audit, SHARD_UNINDEXED, SEVERITY_WARNING, FOR_ALL, "files", file->name,
                       "remove it if it is a leftover, or write an index (audit --fix does)",
                       "model.safetensors is the checkpoint; vLLM reads this file too, others do not");
    }
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    bool single = checkpoint->shard_count == 1 && strcmp(checkpoint->shards[0].file, "model.safetensors") == 0;
    if (!has_index && !single)
        audit_find(audit, INDEX_MISSING, SEVERITY_ERROR, FOR_TRANSFORMERS, "files", "model.safetensors.index.json",
                   "let audit --fix write the index",
                   "there is no index for %zu shard%s: transformers finds no weights", checkpoint->shard_count,
                   text_plural(checkpoint->shard_count));
}

static void total_size_find(struct audit *audit) {
    const struct checkpoint *checkpoint = &audit->inspection->checkpoint;
    static const char fix[] = "write the index again (audit --fix does)";
    if (!checkpoint->has_index)
        return;
    for (size_t i = 0; i < audit->inspection->problem_count; i++)
        if (audit->inspection->problems[i].kind != PROBLEM_INDEX_WRONG_SHARD)
            return; /* the sum is not known, or wrong for that reason */
    uint64_t sum = 0;
    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        sum += checkpoint->tensors[i].info.size;
    json_t *metadata = checkpoint->index_metadata
                           ? json_loads(checkpoint->index_metadata, JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL)
                           : NULL;
    const json_t *total = json_object_get(metadata, "total_size");
    if (!json_is_object(metadata))
        audit_find(audit, INDEX_INVALID, SEVERITY_ERROR, FOR_TRANSFORMERS, "metadata", "model.safetensors.index.json",
                   fix, "the index has no metadata object: transformers refuses it");
    else if (total && (!json_is_number(total) || json_number_value(total) != (double)sum))
        audit_find(audit, TOTAL_SIZE, SEVERITY_WARNING, FOR_ALL, "total", "model.safetensors.index.json", fix,
                   "metadata.total_size is %.0f, the tensors have %" PRIu64
                   " bytes: tools that plan memory or disk by it are misled",
                   json_number_value(total), sum);
    json_decref(metadata);
}

void audit_files(struct audit *audit) {
    problems_find(audit);
    folder_find(audit);
    total_size_find(audit);
}
