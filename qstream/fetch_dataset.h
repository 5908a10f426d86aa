/*
 * Texts for measuring perplexity that are fetched by a short name: a file of a pinned revision of a dataset, turned into
 * text, whose length and hash are known.
 */
#ifndef QSTREAM_QSTREAM_FETCH_DATASET_H
#define QSTREAM_QSTREAM_FETCH_DATASET_H

#include "qstream/fetch.h"

struct named_dataset {
    const char *name;
    const char *reference; /* as hub_reference_parse takes it */
    const char *file;      /* of the repository */
    const char *text;      /* the text's usual file name */
    enum status (*convert)(const char *name, const void *bytes, size_t length, struct text *text, struct error *error);
    enum status (*check)(const char *name, const void *bytes, size_t length, struct error *error);
};

/* NULL when there is none of that name. */
const struct named_dataset *named_dataset_find(const char *name);

/* Where the text goes: `to`, the usual name in it where it is a folder, or here where it is NULL. The caller frees; NULL
 * without memory. */
char *named_dataset_path(const struct named_dataset *dataset, const char *to);

/* Makes the text from what was fetched, and writes it to `path` if it is right: STATUS_BAD_INPUT when it is not. */
enum status named_dataset_write(const struct named_dataset *dataset, const struct fetch *fetch, const char *path,
                                struct error *error);

#endif
