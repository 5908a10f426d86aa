/*
 * Which tensor of the output stands for which of the source: every source tensor is accounted for exactly once, and
 * nothing is left over. What cannot be decided from headers becomes a comparison, to be carried out by compare.h.
 */
#ifndef QSTREAM_VERIFY_PAIRING_H
#define QSTREAM_VERIFY_PAIRING_H

#include "common/modules.h"
#include "verify/figures.h"
#include "verify/manifest.h"
#include "verify/matrix.h"
#include "verify/verify_finding.h"

enum comparison_kind {
    COMPARE_BYTES,  /* a run of bytes of both sides */
    COMPARE_NUMBER, /* scales: as many numbers on both sides, the dtypes may differ */
    COMPARE_VALUES  /* a weight and its quantized image */
};

struct sums;

/* One comparison; its results. */
struct comparison {
    enum comparison_kind kind;
    const char *finding;          /* COMPARE_BYTES, COMPARE_NUMBER: the id of the finding when they differ */
    uint32_t source, output;      /* tensors; of COMPARE_VALUES the weights */
    uint64_t source_offset, size; /* COMPARE_BYTES: the run in the source; all of the output */
    struct matrix from, to;       /* COMPARE_VALUES */
    char *module;                 /* COMPARE_VALUES: the output's module, owned */
    enum role role;               /* of the output's name */
    int layer;
    uint32_t group; /* COMPARE_VALUES: of role and format, pairing.groups */
    uint32_t gamma; /* norm of the source that weighs the qstream rule's errors, MODULE_NO_TENSOR */
    uint64_t rows_per_tile, columns_per_tile; /* bytes are one row */
    uint32_t first_tile, tile_count;

    struct figures *figures; /* COMPARE_VALUES */
    struct sums *tile_sums;  /* while its tiles are worked on */
    struct sums sums;        /* of all tiles that were read, in their order */
    uint32_t tiles_left, tiles_read;
    uint64_t different;       /* others: elements that differ */
    uint64_t first_different; /* index of the first, UINT64_MAX */
};

/* A kind of quantized weights. */
struct pairing_group {
    enum role role;
    enum stored_format format;
};

struct accounting {
    uint64_t source_tensors, quantized, kept, consumed, missing, not_yet;
    uint64_t output_tensors, extra;
};

struct pairing {
    struct comparison *comparisons; /* in the order of the output's data */
    size_t count, capacity;
    struct pairing_group *groups;
    size_t group_count;
    struct accounting accounting;
};

struct pairing_input {
    const struct checkpoint *source, *output;
    const struct modules *source_modules, *output_modules;
    const struct wanted_recipe *recipe; /* NULL: any format will do */
    const char *gamma;                  /* "none", "layernorm", "original" */
    bool unfinished;                    /* what is missing is not there yet */
};

/* Free with pairing_free, also after an error. */
enum status pairing_make(const struct pairing_input *input, struct pairing *pairing, struct verify_findings *findings,
                         struct error *error);
void pairing_free(struct pairing *pairing);

/* The largest tile of a weight, in elements, and of bytes. */
enum { TILE_ELEMENTS = 1 << 19, TILE_BYTES = 1 << 20 };

#endif
