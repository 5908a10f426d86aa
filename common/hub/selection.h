/*
 * Which files of a repository are fetched.
 *
 * Of a model, the checkpoint's own files unless patterns or `all` say otherwise: the shards that model.safetensors.index.json
 * names, else model.safetensors, else all *.safetensors of the root but consolidated*, as checkpoint.h finds them; other
 * files that hold weights (weight_files.h) and whatever else has more than SELECTION_SMALL bytes are left out. A repository
 * without such shards, and a dataset, is taken whole.
 */
#ifndef QSTREAM_COMMON_HUB_SELECTION_H
#define QSTREAM_COMMON_HUB_SELECTION_H

#include "common/hub/listing.h"

enum { SELECTION_SMALL = 512 << 20 };

struct selection_rules {
    bool all;                   /* everything that is not excluded */
    const char *const *include; /* patterns (wildcard.h); any at all: only what matches one of them */
    size_t include_count;
    const char *const *exclude;
    size_t exclude_count;
};

enum selection_reason {
    SELECTION_TAKEN,
    SELECTION_OTHER_FORM, /* weights beside the checkpoint's */
    SELECTION_LARGE,
    SELECTION_NOT_INCLUDED,
    SELECTION_EXCLUDED,
    SELECTION_REASONS
};

/* Why a file is left out, for people and as a word for programs; "" of those that are taken. */
const char *selection_reason_text(enum selection_reason reason);
const char *selection_reason_name(enum selection_reason reason);

/* The file that decides, and which the caller reads for selection_make; NULL when none is needed. */
const struct hub_file *selection_index(const struct hub_listing *listing, const struct selection_rules *rules);

/*
 * Fills reasons, one for each file of the listing. `index` has the bytes of selection_index's file, NULL when that is NULL.
 * STATUS_BAD_INPUT when they are no index, or name a file that the repository does not have.
 */
enum status selection_make(const struct hub_listing *listing, const struct selection_rules *rules, const char *index,
                           size_t index_length, enum selection_reason *reasons, struct error *error);

#endif
