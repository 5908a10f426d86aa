#include "common/page.h"

#include <stdio.h>
#include <string.h>

#include "common/new_file.h"

static const char place[] = "@DATA@";

/* In a script element "<" could begin "</script>" or "<!--"; in JSON it occurs in strings only, where it can be \u003c. */
static void json_put(FILE *out, const struct text *json) {
    if (!json || json->length == 0) {
        fputs("null", out);
        return;
    }
    const char *from = json->bytes, *end = json->bytes + json->length, *found;
    while ((found = memchr(from, '<', (size_t)(end - from)))) {
        fwrite(from, 1, (size_t)(found - from), out);
        fputs("\\u003c", out);
        from = found + 1;
    }
    fwrite(from, 1, (size_t)(end - from), out);
}

static void page_put(FILE *out, const unsigned char *page, size_t size, const struct page_member *members,
                     size_t count) {
    const unsigned char *data = memmem(page, size, place, strlen(place));
    size_t before = data ? (size_t)(data - page) : size;
    fwrite(page, 1, before, out);
    if (!data)
        return;
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%c\"%s\":", i ? ',' : '{', members[i].name);
        json_put(out, members[i].json);
    }
    fputs("}", out);
    fwrite(data + strlen(place), 1, size - before - strlen(place), out);
}

enum status page_embed(const char *file, const unsigned char *page, size_t size, const struct page_member *members,
                       size_t count, struct error *error) {
    struct new_file out;
    for (size_t i = 0; i < count; i++)
        if (members[i].json && members[i].json->failed)
            return error_set_memory(error);
    enum status status = new_file_begin(file, &out, error);
    if (status != STATUS_OK)
        return status;
    page_put(out.stream, page, size, members, count);
    return new_file_finish(&out, error);
}
