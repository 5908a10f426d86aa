#include "common/page.h"

#include <stdio.h>
#include <string.h>

#include "common/new_file.h"

static const char place[] = "@DATA@";

/* In a script element "<" could begin "</script>" or "<!--"; in JSON it occurs in strings only, where it can be \u003c. */
static void json_put(void *to, const char *bytes, size_t length) {
    FILE *out = to;
    const char *end = bytes + length, *found;
    while ((found = memchr(bytes, '<', (size_t)(end - bytes)))) {
        fwrite(bytes, 1, (size_t)(found - bytes), out);
        fputs("\\u003c", out);
        bytes = found + 1;
    }
    fwrite(bytes, 1, (size_t)(end - bytes), out);
}

static enum status member_put(FILE *out, const struct page_member *member, struct error *error) {
    if (member->render) {
        struct text json = {.pass = json_put, .to = out};
        enum status status = member->render(member->context, &json, error);
        if (status == STATUS_OK && json.failed)
            status = error_set_memory(error);
        text_pass_rest(&json);
        text_free(&json);
        return status;
    }
    if (member->json && member->json->length > 0)
        json_put(out, member->json->bytes, member->json->length);
    else
        fputs("null", out);
    return STATUS_OK;
}

static enum status page_put(FILE *out, const unsigned char *page, size_t size, const struct page_member *members,
                            size_t count, struct error *error) {
    const unsigned char *data = memmem(page, size, place, strlen(place));
    size_t before = data ? (size_t)(data - page) : size;
    enum status status = STATUS_OK;
    fwrite(page, 1, before, out);
    if (!data)
        return status;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        fprintf(out, "%c\"%s\":", i ? ',' : '{', members[i].name);
        status = member_put(out, &members[i], error);
    }
    fputs("}", out);
    fwrite(data + strlen(place), 1, size - before - strlen(place), out);
    return status;
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
    status = page_put(out.stream, page, size, members, count, error);
    if (status == STATUS_OK)
        return new_file_finish(&out, error);
    new_file_discard(&out);
    return status;
}
