/*
 * The plan: from a source and a recipe, every output tensor, its shard and its byte offset, before a weight
 * is read. A job makes the output tensors of one weight (or copies one tensor); a tile is a run of its rows,
 * the unit of work and of the journal. The geometry of tiles depends on the plan alone, never on memory or
 * workers, so that a run can be continued under other limits.
 */
#ifndef QSTREAM_QSTREAM_PLAN_H
#define QSTREAM_QSTREAM_PLAN_H

#include "common/checkpoint.h"
#include "common/layout.h"
#include "common/scheme_config.h"
#include "common/sha256.h"
#include "qstream/mxfp4.h"
#include "qstream/recipe.h"

enum gamma_source {
    GAMMA_NONE,      /* unweighted errors */
    GAMMA_LAYERNORM, /* the norm that feeds the projection; none where no norm does */
    GAMMA_ORIGINAL   /* input_layernorm for every projection it fits, as the original qstream does */
};
const char *gamma_name(enum gamma_source gamma);
enum { GAMMA_SOURCES = 3 };

/* How MXFP4 weights of layers are rounded for the outputs on a text (calibrate/). */
struct plan_calibration {
    uint32_t windows, window; /* tokens of each; windows 0: weights are rounded to nearest */
    uint64_t skip;            /* tokens of the text before the first */
    double correction;        /* share of the way to the source's outputs */
    double damping;
    bool bf16;               /* what is computed in */
    enum cpu_level cpu;      /* the last bits of sums depend on it */
    char text[SHA256_HEX];   /* of the whole text */
    char tokens[SHA256_HEX]; /* of the ids that are used, as little-endian 32-bit integers */
};

struct plan_options {
    enum scale_rule rule;
    enum gamma_source gamma;
    struct plan_calibration calibration;
    uint64_t shard_size; /* largest sum of tensor bytes in a shard; 0: shards as in the source */
    bool hash_source;    /* the manifest also records digests of the source's bytes */
};

enum job_kind {
    JOB_COPY,        /* bytes as they are; rows are bytes */
    JOB_SCALAR_F32,  /* one floating-point number, stored as F32 [1] */
    JOB_MXFP4,       /* outputs: weight_packed, weight_scale */
    JOB_FP8_CHANNEL, /* outputs: weight, weight_scale BF16 [out, 1] */
    JOB_FP8_TENSOR   /* outputs: weight, weight_scale BF16 [1]; needs the weight's amax first */
};

struct plan_job {
    enum job_kind kind;
    uint32_t source;    /* tensor of the checkpoint */
    uint32_t gamma;     /* tensor of the norm, or NO_TENSOR */
    uint64_t rows;      /* of the output; for JOB_COPY its bytes */
    uint64_t columns;   /* of the output's logical [rows, columns] */
    uint64_t first_row; /* of the source, its leading dimensions flattened; for JOB_COPY the first byte */
    bool transposed;    /* the source stores [columns, source_columns]: one column of it is a row of ours */
    uint64_t source_columns;
    uint64_t group;  /* jobs of one group stay in one shard */
    uint32_t expert; /* index into the leading dimension of a fused weight and its scales */
    uint32_t outputs[2];
    uint32_t output_count;
    uint64_t rows_per_tile;
    uint32_t first_tile, tile_count;
};

struct plan_output {
    struct tensor_info info; /* offset counts from the start of the shard's file */
    uint32_t job;
    uint32_t shard;
};

struct plan_shard {
    char *file;
    uint64_t size;        /* of the file */
    uint64_t header_size; /* length field and JSON */
    uint32_t first_output, output_count;
    uint32_t first_job, job_count;
};

/* What happens to the tensors of one role. */
struct plan_share {
    enum role role;
    enum recipe_format format;
    uint64_t tensors, bytes_in, bytes_out;
};

struct plan {
    const struct checkpoint *checkpoint;
    const struct layout *layout;
    struct plan_options options;
    struct plan_job *jobs; /* in the order of their first output's place */
    size_t job_count;
    struct plan_output *outputs; /* by shard, then offset */
    size_t output_count;
    struct plan_shard *shards;
    size_t shard_count;
    struct scheme_module *modules; /* every module with a weight of two or more dimensions, in source order */
    size_t module_count;
    struct plan_share shares[ROLES * 3];
    size_t share_count;
    uint32_t tile_count;
    uint32_t block_rows, block_columns; /* of SCHEME_FP8_BLOCK */
    uint64_t tensor_bytes;              /* of all outputs */
    uint64_t parameters;                /* elements of all weights, scales not counted */
};

/*
 * Makes the plan; counts the recipe's matches. Refuses what cannot be carried out: a rule that matches
 * nothing, a weight whose rows are not whole blocks of 32, one that is no matrix, names that would collide.
 * Free with plan_free, also after an error. `checkpoint` and `layout` must outlive it.
 */
enum status plan_build(const struct checkpoint *checkpoint, const struct layout *layout, struct recipe *recipe,
                       const struct plan_options *options, struct plan *plan, struct error *error);

void plan_free(struct plan *plan);

/* Appends the header of a shard's file. */
enum status plan_shard_header(const struct plan *plan, size_t shard, struct text *out, struct error *error);

/* The job that a tile belongs to. */
const struct plan_job *plan_job_of_tile(const struct plan *plan, uint32_t tile);

/* The rows of a tile: [*first, *first + *count) of its job. */
void plan_tile_rows(const struct plan_job *job, uint32_t tile, uint64_t *first, uint64_t *count);

/* Bytes of an output tensor per row of its job. */
uint64_t plan_output_row_bytes(const struct plan_job *job, const struct plan_output *output);

#endif
