/*
 * What inspect and audit look at: a checkpoint opened with all its problems, its modules, the files of its folder,
 * and what config.json says of itself.
 */
#ifndef QSTREAM_INSPECT_INSPECTION_H
#define QSTREAM_INSPECT_INSPECTION_H

#include "common/checkpoint.h"
#include "common/modules.h"
#include "common/quant_config.h"

enum file_kind {
    FILE_SHARD,     /* read as one */
    FILE_UNINDEXED, /* *.safetensors, but no shard */
    FILE_INDEX,
    FILE_CONFIG,
    FILE_OTHER,
    FILE_KINDS
};
const char *file_kind_name(enum file_kind kind);

struct folder_file {
    char *name; /* relative to the folder */
    uint64_t bytes;
    enum file_kind kind;
    uint32_t shard; /* index into checkpoint.shards, or UINT32_MAX */
};

struct file_problem {
    enum checkpoint_problem kind;
    char *subject, *message;
};

struct json_t;
struct tensor_statistics;

struct inspection {
    struct checkpoint checkpoint;
    struct modules modules;
    struct folder_file *files; /* by name */
    size_t file_count;
    uint64_t folder_bytes; /* of all files, those in folders inside it too */
    struct file_problem *problems;
    size_t problem_count, problem_capacity;
    bool problems_failed; /* out of memory while they were noted */

    struct json_t *config;                 /* config.json, NULL when jansson cannot read it */
    const char *architecture, *model_type; /* NULL where config.json has none; owned by `config` */
    const struct json_t *quantization;     /* quantization_config, NULL when there is none; owned by `config` */
    struct quant_config quant;             /* what it says in compressed-tensors' form */
    struct tensor_statistics **statistics; /* one for each of checkpoint.tensors, NULL where there is none; or NULL */
};

/*
 * Opens a model, a folder or hf://org/name[@revision]. STATUS_BAD_INPUT only when there is nothing to look at (no folder, no config.json that is
 * JSON, no shard): what is wrong inside is noted. Free with inspection_close, also after an error.
 */
enum status inspection_open(const char *where, struct inspection *inspection, struct error *error);

/* Whether every shard was there and could be read: else what is missing is no wonder. */
bool inspection_is_whole(const struct inspection *inspection);

void inspection_close(struct inspection *inspection);

/* ---- groups, for tables ---- */

enum grouping { GROUP_ROLE, GROUP_LAYER, GROUP_FORMAT, GROUP_SHARD, GROUPINGS };
const char *grouping_name(enum grouping grouping);

struct tensor_group {
    char *name;
    uint64_t tensors, bytes;
    uint64_t parameters; /* elements of weights, unpacked; scales are not counted */
};

struct tensor_groups {
    struct tensor_group *items; /* in the order in which their first tensor comes */
    size_t count;
};

/* Sums up the tensors for which `chosen` (one flag per tensor; NULL: all) is set. Free with tensor_groups_free. */
enum status tensor_groups_make(const struct inspection *inspection, enum grouping grouping, const bool *chosen,
                               struct tensor_groups *groups, struct error *error);
void tensor_groups_free(struct tensor_groups *groups);

/* The elements that a tensor stands for: those of the weight that it carries, or its own; 0 for scales. */
uint64_t tensor_parameters(const struct inspection *inspection, uint32_t tensor);

/* "mxfp4" for every tensor of such a module; "-" for those that belong to no weight. */
const char *tensor_format_name(const struct inspection *inspection, uint32_t tensor);

#endif
