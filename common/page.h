/*
 * A report as one HTML page that needs no network: a page that the Makefile built in, with JSON in the place of @DATA@.
 */
#ifndef QSTREAM_COMMON_PAGE_H
#define QSTREAM_COMMON_PAGE_H

#include <stddef.h>

#include "common/status.h"
#include "common/text.h"

/* One member of the object that the page's script reads. */
struct page_member {
    const char *name;        /* a plain word */
    const struct text *json; /* NULL or empty: null */
    /* Instead of it: appends the JSON to a text that is written on the way, so that there is never all of it in memory. */
    enum status (*render)(const void *context, struct text *out, struct error *error);
    const void *context;
};

/*
 * Writes `page`, `size` bytes, to `file`, whole or not at all: what was there stays until the new one is complete. "-" is
 * standard output. Fails when one of the texts has failed, or with what `render` gives.
 */
enum status page_embed(const char *file, const unsigned char *page, size_t size, const struct page_member *members,
                       size_t count, struct error *error);

#endif
