#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/json_call.h"
#include "common/hub/retry.h"
#include "common/hub/upload.h"

enum { COMMIT_BYTES_MOST = 192 << 20 }; /* of a request; the Hub takes less */

void upload_result_free(struct upload_result *result) {
    free(result->url);
    free(result->pull_request);
    *result = (struct upload_result){0};
}

/* ---- the request's body: a JSON object a line ---- */

static enum status inline_append(const struct upload_file *file, struct text *out, struct error *error) {
    const size_t size = (size_t)file->source->identity.size;
    uint8_t digest[SHA256_SIZE], *bytes = malloc(size + 1);
    enum status status = bytes ? byte_source_read_at(file->source, 0, bytes, size, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = sha256_of(bytes, size, digest, error);
    if (status == STATUS_OK && memcmp(digest, file->sha256, SHA256_SIZE) != 0)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' was changed since it was hashed: nothing was committed",
                           file->source->name);
    if (status == STATUS_OK) {
        text_append_string(out, "{\"key\":\"file\",\"value\":{\"path\":");
        text_append_json_string(out, file->path);
        text_append_string(out, ",\"encoding\":\"base64\",\"content\":\"");
        text_append_base64(out, bytes, size);
        text_append_string(out, "\"}}\n");
        if (out->length > COMMIT_BYTES_MOST)
            status = error_set(error, STATUS_BAD_INPUT,
                               "the files that go into the commit itself are more than %d MiB together",
                               COMMIT_BYTES_MOST >> 20);
    }
    free(bytes);
    return status;
}

static enum status body_write(const struct upload *upload, const char *parent, const char *summary, struct text *out,
                              struct error *error) {
    enum status status = STATUS_OK;
    text_append_string(out, "{\"key\":\"header\",\"value\":{\"summary\":");
    text_append_json_string(out, summary);
    text_printf(out, ",\"description\":\"\",\"parentCommit\":\"%s\"}}\n", parent);
    for (size_t i = 0; i < upload->count && status == STATUS_OK; i++) {
        const struct upload_file *file = &upload->files[i];
        char hex[SHA256_HEX];
        if (file->fate == UPLOAD_INLINE) {
            status = inline_append(file, out, error);
        } else if (file->fate == UPLOAD_PRESENT || file->fate == UPLOAD_TRANSFER) {
            text_append_string(out, "{\"key\":\"lfsFile\",\"value\":{\"path\":");
            text_append_json_string(out, file->path);
            text_printf(out, ",\"algo\":\"sha256\",\"oid\":\"%s\",\"size\":%" PRIu64 "}}\n",
                        sha256_hex(file->sha256, hex), file->source->identity.size);
        }
    }
    return status == STATUS_OK && out->failed ? error_set_memory(error) : status;
}

/* ---- the reply ---- */

static enum status result_read(const json_t *root, struct upload_result *result, struct error *error) {
    const char *commit = json_string_value(json_object_get(root, "commitOid"));
    const char *url = json_string_value(json_object_get(root, "commitUrl"));
    const char *pull_request = json_string_value(json_object_get(root, "pullRequestUrl"));
    if (!commit || !hub_is_commit(commit) || !url)
        return error_set(error, STATUS_IO, "the Hub's reply to the commit does not name it");
    memcpy(result->commit, commit, HUB_OID_HEX);
    result->url = strdup(url);
    result->pull_request = pull_request ? strdup(pull_request) : NULL;
    return result->url && (result->pull_request || !pull_request) ? STATUS_OK : error_set_memory(error);
}

static enum status commit_ask(struct upload *upload, const char *url, const struct text *body, struct http_reply *reply,
                              struct upload_result *result, struct error *error) {
    static const char *const fields[] = {"Content-Type: application/x-ndjson"};
    const struct hub_request request = {.subject = {.reference = upload->reference},
                                        .method = "POST",
                                        .url = url,
                                        .fields = fields,
                                        .field_count = 1,
                                        .body = body->bytes,
                                        .body_size = body->length,
                                        .once = true};
    json_t *root;
    enum status status = json_call(upload->hub, &request, reply, &root, error);
    if (status == STATUS_OK) {
        status = result_read(root, result, error);
        reply->transient = status != STATUS_OK; /* as good as lost */
    }
    json_decref(root);
    return status;
}

/* ---- a reply that got lost ---- */

/*
 * Whether the branch holds all files, in a commit that came after `parent`. *moved: it has such a commit, whatever it holds.
 */
static enum status branch_look(const struct upload *upload, const char *parent, bool *moved, bool *there,
                               struct upload_result *result, struct error *error) {
    struct hub_listing listing;
    enum status status = upload_listing(upload, upload->reference->revision, &listing, error);
    *moved = status == STATUS_OK && strcmp(listing.commit, parent) != 0;
    *there = *moved && !upload_missing(upload, &listing);
    if (*there) {
        memcpy(result->commit, listing.commit, HUB_OID_HEX);
        result->url = text_format("%s/%s/commit/%s", upload->hub->environment.endpoint, upload->reference->repository,
                                  listing.commit);
        if (!result->url)
            status = error_set_memory(error);
    }
    hub_listing_free(&listing);
    return status;
}

/*
 * What to do after an attempt that failed: *again when the commit was not made and may be asked for once more. Otherwise
 * the status is the outcome.
 */
static enum status attempt_judge(struct upload *upload, const char *parent, enum status status,
                                 const struct http_reply *reply, bool *again, struct upload_result *result,
                                 struct error *error) {
    enum { CONFLICT = 409, PRECONDITION_FAILED = 412, TOO_MANY = 429 };
    const bool conflict = reply->code == PRECONDITION_FAILED || reply->code == CONFLICT;
    const bool lost = reply->transient || retry_code(reply->code);
    bool moved = false, there = false;
    *again = false;
    if (status == STATUS_INTERRUPTED || (!conflict && !lost))
        return status;
    if (upload->create_pull_request) {
        *again = reply->code == TOO_MANY;
        return *again || conflict
                   ? status
                   : error_set(error, STATUS_IO,
                               "the reply to the pull request got lost: look whether it is at %s/%s/discussions",
                               upload->hub->environment.endpoint, upload->reference->repository);
    }
    const struct error first = *error;
    const enum status look = branch_look(upload, parent, &moved, &there, result, error);
    if (look != STATUS_OK || there)
        return look;
    if (moved || conflict)
        return error_set(error, STATUS_IO,
                         "'%s' of '%s' has moved while the files were sent: push again, what was sent stays there",
                         upload->reference->revision, upload->reference->repository);
    *error = first;
    *again = true;
    return status;
}

enum status upload_commit(struct upload *upload, const char *parent, const char *summary, struct upload_result *result,
                          struct error *error) {
    struct text body = {0};
    char *url = upload_url(upload, "commit");
    *result = (struct upload_result){0};
    enum status status = url ? body_write(upload, parent, summary, &body, error) : error_set_memory(error);
    for (unsigned made = 1; status == STATUS_OK; made++) {
        struct http_reply reply = {0};
        bool again = false;
        status = commit_ask(upload, url, &body, &reply, result, error);
        if (status == STATUS_OK) {
            http_reply_free(&reply);
            break;
        }
        status = attempt_judge(upload, parent, status, &reply, &again, result, error);
        const double asked = retry_asked(&reply, time(NULL));
        http_reply_free(&reply);
        const double wait = asked >= 0 ? asked : retry_wait(made + 1, upload->hub->retry_seconds);
        if (!again || made == HUB_ATTEMPTS || wait > RETRY_WAIT_MOST)
            break;
        status = retry_sleep(wait, error);
    }
    free(url);
    text_free(&body);
    return status;
}
