/*
 * WikiText (Merity et al., "Pointer Sentinel Mixture Models", 2016) as text, from the Parquet files of the Hub's dataset
 * Salesforce/wikitext. Its column "text" has a row per line, with the line's end, as the original archive has them; but a
 * line without words, " \n" in the original, became an empty string (datasets/wikitext/wikitext.py of
 * https://github.com/huggingface/datasets), and is put back here.
 */
#ifndef QSTREAM_COMMON_WIKITEXT_H
#define QSTREAM_COMMON_WIKITEXT_H

#include <stddef.h>

#include "common/status.h"
#include "common/text.h"

/* Appends the text of a Parquet file in memory. `name` is for messages. Errors are those of parquet_strings_read. */
enum status wikitext_from_parquet(const char *name, const void *bytes, size_t length, struct text *raw,
                                  struct error *error);

/*
 * Whether `bytes` are the raw test split of WikiText-2, wiki.test.raw, by length and SHA-256: STATUS_BAD_INPUT names
 * `name` and what is other.
 */
enum { WIKITEXT_2_TEST_BYTES = 1290590 };
#define WIKITEXT_2_TEST_SHA256 "173c87a53759e0201f33e0ccf978e510c2042d7f2cb78229d9a50d79b9e7dd08"
enum status wikitext_2_test_check(const char *name, const void *bytes, size_t length, struct error *error);

#endif
