/*
 * A checkpoint: the index, every shard and config.json, seen as one table of tensors.
 *
 * Which files are shards is decided as loaders do: model.safetensors.index.json when it exists (files it does not
 * name are ignored), else model.safetensors, else every *.safetensors file but consolidated*. The index and the
 * shards must agree: every tensor of the index is in the shard it names, every tensor of those shards is in the
 * index, no name exists twice.
 */
#ifndef QSTREAM_COMMON_CHECKPOINT_H
#define QSTREAM_COMMON_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/folder.h"
#include "common/safetensors.h"
#include "common/source.h"
#include "common/status.h"

struct shard {
    char *file;                 /* name inside the folder */
    struct byte_source *source; /* the caller may put another of the same bytes in its place */
    uint64_t data_offset;       /* of the data section */
    bool readable;              /* its header was read */
};

struct tensor {
    struct tensor_info info;
    uint32_t shard; /* index into checkpoint.shards */
};

struct checkpoint {
    char *path;            /* as given, for messages */
    struct folder *folder; /* NULL of one that is only planned */
    char *config;          /* config.json's bytes, NUL-terminated */
    size_t config_length;
    bool has_index;
    char *index_metadata; /* JSON text of the index's "metadata", NULL when there is none */
    struct shard *shards; /* sorted by file name */
    size_t shard_count;
    struct tensor *tensors; /* by shard, inside a shard in the order of the data */
    size_t tensor_count;
    uint32_t *by_name; /* indices into tensors, sorted by name */
};

/*
 * Opens the folder `where`, or hf://org/name[@revision]. Reads headers only. Free with checkpoint_close, also after an
 * error.
 */
enum status checkpoint_open(const char *where, struct checkpoint *checkpoint, struct error *error);

/* What can be wrong with a checkpoint's files; what the report's subject is. */
enum checkpoint_problem {
    PROBLEM_INDEX_INVALID,     /* the index: it is ignored */
    PROBLEM_SHARD_MISSING,     /* a shard's file */
    PROBLEM_SHARD_UNREADABLE,  /* a shard's file: no safetensors file, or not as the format wants it */
    PROBLEM_INDEX_WRONG_SHARD, /* a tensor: the index places it in another shard */
    PROBLEM_INDEX_DANGLING,    /* a name in the index that no shard holds */
    PROBLEM_TENSOR_UNINDEXED,  /* a tensor that the index does not name */
    PROBLEM_TENSOR_DUPLICATE,  /* a tensor that two shards hold; both stay in the table */
    CHECKPOINT_PROBLEMS
};
typedef void checkpoint_problem_function(void *context, enum checkpoint_problem problem, const char *subject,
                                         const char *message);

/*
 * As checkpoint_open, for those who want to know all that is wrong: each problem is reported, and what can be read is
 * read. No folder, no config.json that is a JSON object, or no shard at all is an error all the same. A shard that
 * could not be read has `readable` false.
 */
enum status checkpoint_open_reporting(const char *where, checkpoint_problem_function *report, void *context,
                                      struct checkpoint *checkpoint, struct error *error);

/*
 * As checkpoint_open_reporting, for shards whose names are known, in a folder that has neither config.json nor an index
 * yet: `config` is NULL.
 */
enum status checkpoint_open_files(const char *where, char *const *files, size_t count,
                                  checkpoint_problem_function *report, void *context, struct checkpoint *checkpoint,
                                  struct error *error);

/*
 * Fills by_name of a checkpoint whose tensors were put there by other means than opening it. STATUS_BAD_INPUT: a name exists
 * twice.
 */
enum status checkpoint_names_sort(struct checkpoint *checkpoint, struct error *error);

void checkpoint_close(struct checkpoint *checkpoint);

/* The tensor of that name, NULL when there is none. */
const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name);

/* As checkpoint_find for the name `stem` + `suffix`. */
const struct tensor *checkpoint_find_joined(const struct checkpoint *checkpoint, const char *stem, size_t stem_length,
                                            const char *suffix);

/* Reads `size` bytes of a tensor's data from `offset` on. STATUS_BAD_INPUT when it has fewer: never another's bytes. */
enum status checkpoint_read(const struct checkpoint *checkpoint, const struct tensor *tensor, uint64_t offset,
                            void *buffer, size_t size, struct error *error);

/* What a tensor is for, told by its name. Used to group tables and to find norms; never to decide a layout. */
enum role {
    ROLE_ATTENTION, /* the language model's q, k, v, o projections */
    ROLE_MLP,       /* gate, up, down, dense or shared expert */
    ROLE_EXPERT,    /* a routed expert's projection */
    ROLE_ROUTER,
    ROLE_NORM,
    ROLE_EMBEDDING,
    ROLE_HEAD,
    ROLE_VISION, /* vision tower, audio tower, projector */
    ROLE_OTHER,
    ROLES
};
const char *role_name(enum role role);
enum role role_of(const char *tensor_name);

#endif
