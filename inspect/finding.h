/*
 * Findings: what is wrong with a checkpoint, for whom, and what to do.
 */
#ifndef QSTREAM_INSPECT_FINDING_H
#define QSTREAM_INSPECT_FINDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/name_table.h"

enum severity { SEVERITY_NOTE, SEVERITY_WARNING, SEVERITY_ERROR, SEVERITIES };
const char *severity_name(enum severity severity);

/* The programs whose loading is predicted. */
enum loader { LOADER_VLLM, LOADER_TRANSFORMERS, LOADER_SGLANG, LOADER_TENSORRT_LLM, LOADERS };
const char *loader_name(enum loader loader);    /* as on the command line and in JSON */
const char *loader_title(enum loader loader);   /* as people write it */
const char *loader_version(enum loader loader); /* whose source was followed */
enum loader loader_parse(const char *name);     /* LOADERS when there is none of that name */

enum { FOR_VLLM = 1 << LOADER_VLLM, FOR_TRANSFORMERS = 1 << LOADER_TRANSFORMERS, FOR_ALL = (1 << LOADERS) - 1 };

enum finding_id {
    /* the configuration */
    CONFIG_MISSING,
    CONFIG_INVALID,
    QUANTIZATION_STATUS,
    FORMAT_WRONG,
    GROUP_FORMAT_MISSING,
    METHOD_NOT_PREDICTED,
    /* which module gets which scheme */
    MODULE_UNMATCHED,
    CHECKPOINT_NAMES_ONLY,
    RUNTIME_NAMES_ONLY,
    MODULE_IGNORED,
    TARGET_UNUSED,
    IGNORE_UNUSED,
    TWO_GROUPS,
    FUSED_GROUPS_DIFFER,
    FUSED_PARTLY_IGNORED,
    TARGET_CLASS_NAME,
    PATTERN_UNANCHORED,
    PATTERN_INVALID,
    PLAIN_TARGETED,
    VISION_TARGETED,
    /* tensors against their scheme */
    COMPANION_MISSING,
    INPUT_SCALE_MISSING,
    COMPANION_EXTRA,
    SCALE_ORPHAN,
    TENSOR_MISSING,
    TENSOR_DTYPE,
    SCALE_SHAPE,
    STRATEGY_MISMATCH,
    GROUP_SIZE,
    PACKED_WIDTH,
    SCALE_DTYPE,
    BITS_MISMATCH,
    KERNEL_SHAPE,
    SCHEME_UNSUPPORTED,
    /* values */
    SCALE_NAN,
    SCALE_INFINITE,
    SCALE_ZERO,
    SCALE_NEGATIVE,
    SCALE_SUBNORMAL,
    FUSED_SCALES_DIFFER,
    /* files */
    SHARD_MISSING,
    SHARD_UNREADABLE,
    INDEX_INVALID,
    INDEX_WRONG_SHARD,
    INDEX_DANGLING,
    TENSOR_UNINDEXED,
    TENSOR_DUPLICATE,
    SHARD_UNINDEXED,
    INDEX_MISSING,
    INDEX_SHADOWED,
    CONSOLIDATED_PRESENT,
    TOTAL_SIZE,
    /* config.json's figures against the tensors */
    TIED_EMBEDDINGS,
    ARCHITECTURE_LAYERS,
    ARCHITECTURE_HIDDEN,
    ARCHITECTURE_HEADS,
    ARCHITECTURE_VOCABULARY,
    ARCHITECTURE_MLP,
    ARCHITECTURE_EXPERTS,
    FINDING_IDS
};

/* What is known of every finding of an id. */
struct finding_kind {
    const char *name;    /* stable: scripts rely on it */
    const char *summary; /* one sentence, for rule lists */
};
const struct finding_kind *finding_kind(enum finding_id id);

enum { SUBJECTS_MAX = 21 }; /* the first, and up to 20 more */

struct finding {
    enum finding_id id;
    enum severity severity;
    unsigned loaders; /* bits 1 << enum loader: for whom */
    char *cause;      /* the id's number, a blank, the cause: findings of one id and cause are one */
    char *message;    /* what a user will see */
    char *fix;        /* what to do */
    char *subjects[SUBJECTS_MAX];
    size_t subject_count; /* of those kept */
    char *last;           /* the last subject, where it is not kept; NULL */
    uint64_t count;
};

struct findings {
    struct finding *items;
    size_t count, capacity;
    struct name_table by_cause;
    unsigned loaders; /* those that are asked about: findings that concern none of them are dropped */
    bool failed;      /* out of memory */
};

/*
 * Notes a finding; where one of the same id and cause is there, the subject is added to it, and its severity and
 * loaders grow. The same subject as the one before counts once.
 */
void finding_add(struct findings *findings, enum finding_id id, enum severity severity, unsigned loaders,
                 const char *cause, const char *subject, const char *message, const char *fix);

void findings_free(struct findings *findings);

/* Errors first, then in the order of the ids. */
void findings_sort(struct findings *findings);

size_t findings_count(const struct findings *findings, enum severity severity);

#endif
