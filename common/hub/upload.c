#include "common/hub/upload.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/json_call.h"

enum {
    ASKED_AT_ONCE = 256, /* files of a preupload request */
    SAMPLE_BYTES = 512,  /* of a file, by which the Hub tells text from binary */
};

const char *upload_fate_name(enum upload_fate fate) {
    static const char *const names[UPLOAD_FATES] = {"new", "same", "ignored", "inline", "present", "transfer"};
    return names[fate];
}

void upload_free(struct upload *upload) {
    for (size_t i = 0; i < upload->count; i++) {
        free(upload->files[i].path);
        byte_source_close(upload->files[i].source);
        lfs_order_free(&upload->files[i].order);
    }
    free(upload->files);
    *upload = (struct upload){0};
}

struct upload_sum upload_sum(const struct upload *upload, enum upload_fate fate) {
    struct upload_sum sum = {0};
    for (size_t i = 0; i < upload->count; i++)
        if (upload->files[i].fate == fate) {
            sum.files++;
            sum.bytes += upload->files[i].source->identity.size;
        }
    return sum;
}

static const char *branch_of(const struct upload *upload) {
    return upload->create_pull_request ? NULL : upload->reference->revision;
}

char *upload_url(const struct upload *upload, const char *what) {
    return hub_api_url(upload->hub, upload->reference, what, upload->reference->revision,
                       upload->create_pull_request ? "?create_pr=1" : "");
}

/* ---- what is there ---- */

/* Whether a listing has the file, with its bytes. */
static bool is_there(const struct upload_file *file, const struct hub_listing *listing) {
    const struct hub_file *found = hub_listing_find(listing, file->path);
    if (!found || found->size != file->source->identity.size)
        return false;
    return found->lfs ? memcmp(found->sha256, file->sha256, SHA256_SIZE) == 0 : strcmp(found->oid, file->oid) == 0;
}

void upload_compare(struct upload *upload, const struct hub_listing *listing) {
    for (size_t i = 0; i < upload->count; i++)
        if (is_there(&upload->files[i], listing))
            upload->files[i].fate = UPLOAD_SAME;
}

const struct upload_file *upload_missing(const struct upload *upload, const struct hub_listing *listing) {
    for (size_t i = 0; i < upload->count; i++)
        if (upload->files[i].fate != UPLOAD_IGNORED && !is_there(&upload->files[i], listing))
            return &upload->files[i];
    return NULL;
}

enum status upload_listing(const struct upload *upload, const char *revision, struct hub_listing *listing,
                           struct error *error) {
    char *copy = strdup(revision);
    const struct hub_reference reference = {.repository = upload->reference->repository, .revision = copy};
    *listing = (struct hub_listing){0};
    enum status status = copy ? hub_listing_read(upload->hub, &reference, listing, error) : error_set_memory(error);
    free(copy);
    return status;
}

enum status upload_check(const struct upload *upload, const char *commit, struct error *error) {
    struct hub_listing listing;
    enum status status = upload_listing(upload, commit, &listing, error);
    const struct upload_file *missing = status == STATUS_OK ? upload_missing(upload, &listing) : NULL;
    if (missing)
        status = error_set(error, STATUS_IO, "the commit %s was made, but on the Hub '%s' %s", commit, missing->path,
                           hub_listing_find(&listing, missing->path) ? "has other bytes than here" : "is not there");
    hub_listing_free(&listing);
    return status;
}

/* ---- what becomes of the files ---- */

static enum status file_describe(const struct upload_file *file, struct text *out, struct error *error) {
    uint8_t sample[SAMPLE_BYTES];
    const uint64_t total = file->source->identity.size;
    const size_t size = total < SAMPLE_BYTES ? (size_t)total : SAMPLE_BYTES;
    enum status status = byte_source_read_at(file->source, 0, sample, size, error);
    if (status != STATUS_OK)
        return status;
    text_append_string(out, "{\"path\":");
    text_append_json_string(out, file->path);
    text_append_string(out, ",\"sample\":\"");
    text_append_base64(out, sample, size);
    text_printf(out, "\",\"size\":%" PRIu64 "}", total);
    return STATUS_OK;
}

static enum status fate_read(const json_t *answer, struct upload_file *file, struct error *error) {
    const char *mode = json_string_value(json_object_get(answer, "uploadMode"));
    const uint64_t size = file->source->identity.size;
    if (!mode || (strcmp(mode, "lfs") != 0 && strcmp(mode, "regular") != 0))
        return error_set(error, STATUS_IO, "the Hub does not tell how '%s' is to be sent", file->path);
    const bool ignored = json_is_true(json_object_get(answer, "shouldIgnore"));
    file->fate = ignored                                ? UPLOAD_IGNORED
                 : strcmp(mode, "lfs") == 0 && size > 0 ? UPLOAD_PRESENT /* lfs_batch tells */
                                                        : UPLOAD_INLINE;
    if (ignored && file->needed)
        return error_set(error, STATUS_BAD_INPUT,
                         "the .gitignore of the repository names '%s', which the checkpoint needs: nothing was sent",
                         file->path);
    if (file->fate == UPLOAD_INLINE && size > UPLOAD_INLINE_MOST)
        return error_set(error, STATUS_IO,
                         "the Hub wants '%s' inside of the commit, which %" PRIu64 " bytes are too many for",
                         file->path, size);
    return STATUS_OK;
}

/* Asks about some files. */
static enum status fates_ask(struct upload *upload, const char *url, struct upload_file **files, size_t count,
                             struct error *error) {
    struct text question = {0};
    struct http_reply reply = {0};
    json_t *root = NULL;
    enum status status = STATUS_OK;
    text_append_string(&question, "{\"files\":[");
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        text_append_string(&question, i ? "," : "");
        status = file_describe(files[i], &question, error);
    }
    text_append_string(&question, "]}");
    if (status == STATUS_OK)
        status = json_post(upload->hub, upload->reference, url, &question, &reply, &root, error);
    const json_t *answers = json_object_get(root, "files");
    for (size_t i = 0; i < json_array_size(answers) && status == STATUS_OK; i++) {
        const char *path = json_string_value(json_object_get(json_array_get(answers, i), "path"));
        for (size_t k = 0; path && k < count && status == STATUS_OK; k++)
            if (strcmp(files[k]->path, path) == 0)
                status = fate_read(json_array_get(answers, i), files[k], error);
    }
    for (size_t k = 0; k < count && status == STATUS_OK; k++)
        if (files[k]->fate == UPLOAD_NEW)
            status = error_set(error, STATUS_IO, "the Hub does not tell how '%s' is to be sent", files[k]->path);
    json_decref(root);
    http_reply_free(&reply);
    text_free(&question);
    return status;
}

static struct lfs_object object_of(struct upload_file *file) {
    return (struct lfs_object){file->path, file->source, file->sha256, file->crc32, &file->order};
}

/* Whether a file before this one has the same bytes: they are sent once. */
static bool is_twin(const struct upload *upload, size_t number) {
    for (size_t i = 0; i < number; i++)
        if (upload->files[i].fate == UPLOAD_PRESENT &&
            memcmp(upload->files[i].sha256, upload->files[number].sha256, SHA256_SIZE) == 0)
            return true;
    return false;
}

/* Which of the LFS files the Hub has not. */
static enum status orders_ask(struct upload *upload, struct error *error) {
    struct lfs_object *objects = calloc(upload->count + 1, sizeof *objects);
    size_t count = 0;
    if (!objects)
        return error_set_memory(error);
    for (size_t i = 0; i < upload->count; i++)
        if (upload->files[i].fate == UPLOAD_PRESENT && !is_twin(upload, i))
            objects[count++] = object_of(&upload->files[i]);
    enum status status = lfs_batch(upload->hub, upload->reference, branch_of(upload), objects, count, error);
    for (size_t i = 0; i < upload->count && status == STATUS_OK; i++)
        if (upload->files[i].order.url)
            upload->files[i].fate = UPLOAD_TRANSFER;
    free(objects);
    return status;
}

enum status upload_ask(struct upload *upload, struct error *error) {
    struct upload_file *asked[ASKED_AT_ONCE];
    char *url = upload_url(upload, "preupload");
    enum status status = url ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0, count = 0; i < upload->count && status == STATUS_OK; i++) {
        if (upload->files[i].fate == UPLOAD_NEW)
            asked[count++] = &upload->files[i];
        if (count > 0 && (count == ASKED_AT_ONCE || i + 1 == upload->count)) {
            status = fates_ask(upload, url, asked, count, error);
            count = 0;
        }
    }
    free(url);
    return status == STATUS_OK ? orders_ask(upload, error) : status;
}

enum status upload_send(struct upload *upload, unsigned connections, bool quiet, struct error *error) {
    struct lfs_object *objects = calloc(upload->count + 1, sizeof *objects);
    size_t count = 0;
    if (!objects)
        return error_set_memory(error);
    for (size_t i = 0; i < upload->count; i++)
        if (upload->files[i].fate == UPLOAD_TRANSFER)
            objects[count++] = object_of(&upload->files[i]);
    enum status status =
        lfs_send(upload->hub, upload->reference, branch_of(upload), objects, count, connections, quiet, error);
    free(objects);
    return status;
}
