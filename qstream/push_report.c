#include "qstream/push_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/version.h"

static bool is_silent(const struct push *push) { return push->options.json || push->options.quiet; }

static void put(const struct text *text) {
    if (!text->failed)
        text_write(text, stdout);
    fflush(stdout);
}

void push_tell_gate(const struct push *push, const struct gate_result *result, enum status status) {
    if (push->options.json)
        return;
    if (status == STATUS_CHECK_FAILED)
        put(&result->table);
    else if (status == STATUS_OK && !push->options.quiet)
        printf("%s\n", result->summary.bytes);
    fflush(stdout);
}

static void sum_put(struct text *out, struct upload_sum sum) {
    char size[TEXT_SIZE_MAX];
    text_printf(out, "%zu file%s, %s", sum.files, text_plural(sum.files), text_size(sum.bytes, size));
}

static struct upload_sum all_files(const struct upload *upload) {
    struct upload_sum sum = {0};
    for (enum upload_fate fate = 0; fate < UPLOAD_FATES; fate++) {
        const struct upload_sum these = upload_sum(upload, fate);
        sum.files += these.files;
        sum.bytes += these.bytes;
    }
    return sum;
}

static bool is_ours(const struct push *push, const char *path) {
    for (size_t i = 0; i < push->upload.count; i++)
        if (strcmp(push->upload.files[i].path, path) == 0)
            return true;
    return false;
}

/* Files of the branch that stay as they are; hidden ones are the Hub's own. */
static void others_put(const struct push *push, struct text *out) {
    enum { SHOWN = 10 };
    size_t others = 0;
    for (size_t i = 0; i < push->listing.count; i++) {
        const char *path = push->listing.files[i].path;
        if (path[0] == '.' || is_ours(push, path))
            continue;
        if (others++ < SHOWN) {
            text_append_string(out, others == 1 ? "it has other files, which stay: " : ", ");
            text_append_escaped(out, path);
        }
    }
    if (others > SHOWN)
        text_printf(out, " and %zu more", others - SHOWN);
    if (others > 0)
        text_append_string(out, "\n");
}

void push_tell_branch(const struct push *push) {
    struct text out = {0};
    const struct upload_sum same = upload_sum(&push->upload, UPLOAD_SAME);
    if (is_silent(push))
        return;
    text_printf(&out, "folder: ");
    sum_put(&out, all_files(&push->upload));
    text_printf(&out, "\nhf://%s@%s: ", push->target.repository, push->target.revision);
    if (!push->repository.found)
        text_printf(&out, "would be made, %s\n", push->options.private ? "private" : "for everybody to see");
    else if (!push->repository.branch)
        text_append_string(&out, "the branch would be made\n");
    else
        text_printf(&out, "has %zu of them, at %s\n", same.files, push->repository.commit);
    others_put(push, &out);
    put(&out);
    text_free(&out);
}

/* Hours, minutes and seconds at a speed that people know. */
static void time_put(struct text *out, uint64_t bytes) {
    static const uint64_t bytes_per_second = 100000000 / 8;
    const uint64_t seconds = bytes / bytes_per_second + 1;
    text_printf(out, " (%" PRIu64 ":%02" PRIu64 ":%02" PRIu64 " at 100 Mbit/s)", seconds / 3600, seconds / 60 % 60,
                seconds % 60);
}

void push_tell_orders(const struct push *push) {
    struct text out = {0};
    struct upload_sum sum = upload_sum(&push->upload, UPLOAD_TRANSFER);
    const struct upload_sum inside = upload_sum(&push->upload, UPLOAD_INLINE);
    const struct upload_sum present = upload_sum(&push->upload, UPLOAD_PRESENT);
    sum.files += inside.files;
    sum.bytes += inside.bytes;
    for (size_t i = 0; i < push->upload.count; i++)
        if (push->upload.files[i].fate == UPLOAD_IGNORED)
            fprintf(stderr, "qstream: '%s' is left out: the repository's .gitignore names it\n",
                    push->upload.files[i].path);
    if (is_silent(push))
        return;
    text_append_string(&out, "to be sent: ");
    sum_put(&out, sum);
    time_put(&out, sum.bytes);
    if (present.files > 0) {
        text_append_string(&out, "; on the Hub already: ");
        sum_put(&out, present);
    }
    text_append_string(&out, "\n");
    put(&out);
    text_free(&out);
}

/* ---- the result ---- */

static void member_string(struct text *out, const char *name, const char *value) {
    text_printf(out, ",\"%s\":", name);
    if (value)
        text_append_json_ascii(out, value);
    else
        text_append_string(out, "null");
}

static void member_object(struct text *out, const char *name, const struct text *object) {
    text_printf(out, ",\"%s\":", name);
    if (object->length > 0)
        text_append(out, object->bytes, object->length);
    else
        text_append_string(out, "null");
}

static void files_put(const struct upload *upload, struct text *out) {
    text_append_string(out, ",\"files\":[");
    for (size_t i = 0; i < upload->count; i++) {
        const struct upload_file *file = &upload->files[i];
        char hex[SHA256_HEX];
        text_append_string(out, i ? ",{\"path\":" : "{\"path\":");
        text_append_json_ascii(out, file->path);
        text_printf(out, ",\"size\":%" PRIu64 ",\"sha256\":\"%s\",\"fate\":\"%s\"}", file->source->identity.size,
                    sha256_hex(file->sha256, hex), upload_fate_name(file->fate));
    }
    text_append_string(out, "]");
}

static void json_put(const struct push *push, const char *refusal, const char *commit, const char *url,
                     struct text *out) {
    text_append_string(out, "{\"schema\":\"qstream.push/1\",\"qstream\":\"" QSTREAM_VERSION "\"");
    member_string(out, "folder", push->options.folder);
    member_string(out, "source", push->source);
    member_string(out, "repository", push->target.repository);
    member_string(out, "revision", push->target.revision);
    text_printf(out, ",\"dry_run\":%s", push->options.dry_run ? "true" : "false");
    member_string(out, "refusal", refusal);
    member_string(out, "commit", commit);
    member_string(out, "url", url);
    member_string(out, "pull_request", push->result.pull_request);
    if (refusal)
        text_append_string(out, ",\"files\":[]"); /* their hashes may not be known */
    else
        files_put(&push->upload, out);
    member_object(out, "audit", &push->audit.json);
    member_object(out, "verify", &push->verify.json);
    text_append_string(out, "}\n");
}

static void lines_put(const struct push *push, const char *url, bool pushed, struct text *out) {
    if (!url)
        return;
    if (!push->options.quiet)
        text_append_string(out, pushed ? "pushed, and the Hub has all files as they are here:\n"
                                       : "nothing to be pushed, the Hub has all files as they are here:\n");
    text_append_escaped(out, url);
    text_append_string(out, "\n");
}

enum status push_tell_result(const struct push *push, enum status status, struct error *error) {
    const bool pushed = *push->result.commit != '\0', refused = status == STATUS_CHECK_FAILED;
    const bool there = !refused && upload_sum(&push->upload, UPLOAD_SAME).files == push->upload.count;
    struct text out = {0};
    char *old = text_format("%s/%s/commit/%s", push->hub ? push->hub->environment.endpoint : "",
                            push->target.repository, push->repository.commit);
    const char *url = pushed ? push->result.url : there ? old : NULL;
    if (!old)
        return error_set_memory(error);
    if (push->options.json)
        json_put(push, refused ? error->message : NULL,
                 pushed  ? push->result.commit
                 : there ? push->repository.commit
                         : NULL,
                 url, &out);
    else
        lines_put(push, push->result.pull_request ? push->result.pull_request : url, pushed, &out);
    put(&out);
    status = out.failed ? error_set_memory(error) : STATUS_OK;
    text_free(&out);
    free(old);
    return status;
}
