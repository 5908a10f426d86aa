#include "common/hub/upload_target.h"

#include <stdlib.h>
#include <string.h>

#include "common/hub/json_call.h"

enum { UNAUTHORIZED = 401, FORBIDDEN = 403, NOT_FOUND = 404, CONFLICT = 409, INFO_BYTES_MOST = 64 << 20 };

/* "ENDPOINT/api/models/REPOSITORY/WHAT"; NULL without memory. */
static char *target_url(const struct hub *hub, const struct hub_reference *reference, const char *what) {
    return text_format("%s/api/models/%s%s", hub->environment.endpoint, reference->repository, what);
}

/* GET of a URL, which is taken over; NULL is no memory. `root` as in json_call.h. */
static enum status get(struct hub *hub, const struct hub_reference *reference, char *url, struct http_reply *reply,
                       json_t **root, struct error *error) {
    const struct hub_request request = {
        .subject = {.reference = reference}, .method = "GET", .url = url, .body_limit = INFO_BYTES_MOST};
    enum status status = url ? json_call(hub, &request, reply, root, error) : error_set_memory(error);
    free(url);
    return status;
}

static bool is_missing(const struct http_reply *reply, const char *code) {
    char *field = http_reply_field(reply, "X-Error-Code");
    const bool missing = reply->code == NOT_FOUND && field && strcmp(field, code) == 0;
    free(field);
    return missing;
}

/* ---- looking ---- */

static enum status info_read(const json_t *root, const struct hub_reference *reference, struct hub_target *repository,
                             struct error *error) {
    const char *id = json_string_value(json_object_get(root, "id"));
    if (id && strcmp(id, reference->repository) != 0)
        return error_set(error, STATUS_BAD_INPUT, "'%s' is called '%.200s' now: use that name", reference->repository,
                         id);
    repository->found = true;
    repository->private = json_is_true(json_object_get(root, "private"));
    return STATUS_OK;
}

static enum status branch_find(struct hub *hub, const struct hub_reference *reference, struct hub_target *repository,
                               struct error *error) {
    struct http_reply reply = {0};
    json_t *root = NULL;
    enum status status =
        get(hub, reference, hub_api_url(hub, reference, "revision", reference->revision, ""), &reply, &root, error);
    const char *commit = json_string_value(json_object_get(root, "sha"));
    if (status != STATUS_OK && is_missing(&reply, "RevisionNotFound")) {
        status = STATUS_OK;
    } else if (status == STATUS_OK && (!commit || !hub_is_commit(commit))) {
        status = error_set(error, STATUS_IO, "the Hub does not tell the commit of '%s@%s'", reference->repository,
                           reference->revision);
    } else if (status == STATUS_OK) {
        repository->branch = true;
        memcpy(repository->commit, commit, HUB_OID_HEX);
    }
    json_decref(root);
    http_reply_free(&reply);
    return status;
}

enum status hub_target_find(struct hub *hub, const struct hub_reference *reference, struct hub_target *repository,
                            struct error *error) {
    struct http_reply reply = {0};
    json_t *root = NULL;
    *repository = (struct hub_target){0};
    enum status status = get(hub, reference, target_url(hub, reference, ""), &reply, &root, error);
    /* to a stranger, who has no token, the Hub does not tell missing ones from private ones */
    const bool missing = is_missing(&reply, "RepoNotFound") || (reply.code == UNAUTHORIZED && !hub->environment.token);
    if (status == STATUS_OK)
        status = info_read(root, reference, repository, error);
    else if (missing)
        status = STATUS_OK;
    json_decref(root);
    http_reply_free(&reply);
    return status == STATUS_OK && repository->found ? branch_find(hub, reference, repository, error) : status;
}

/* ---- rights ---- */

static enum status token_check(struct hub *hub, const struct hub_reference *reference, struct error *error) {
    struct http_reply reply = {0};
    json_t *root = NULL;
    char *url = text_format("%s/api/whoami-v2", hub->environment.endpoint);
    enum status status = get(hub, reference, url, &reply, &root, error);
    const json_t *token = json_object_get(json_object_get(root, "auth"), "accessToken");
    const char *role = json_string_value(json_object_get(token, "role"));
    if (status != STATUS_OK && reply.code == NOT_FOUND) /* no Hub that tells */
        status = STATUS_OK;
    else if (role && strcmp(role, "read") == 0)
        status = error_set(error, STATUS_BAD_INPUT,
                           "your token may only read: make one that may write at %s/settings/tokens",
                           hub->environment.endpoint);
    json_decref(root);
    http_reply_free(&reply);
    return status;
}

enum status hub_target_check(struct hub *hub, const struct hub_reference *reference, bool into, struct error *error) {
    enum status status = token_check(hub, reference, error);
    if (status != STATUS_OK || !into)
        return status;
    struct http_reply reply = {0};
    status = get(hub, reference, target_url(hub, reference, "/auth-check/write"), &reply, NULL, error);
    if (reply.code == UNAUTHORIZED || reply.code == FORBIDDEN)
        status = error_set(error, STATUS_BAD_INPUT,
                           "your token may not write to '%s': use one that may, or propose the files by --create-pr",
                           reference->repository);
    else if (reply.code == NOT_FOUND) /* no Hub that tells */
        status = STATUS_OK;
    http_reply_free(&reply);
    return status;
}

/* ---- making ---- */

/* POST to a URL, which is taken over; NULL is no memory. What is there already is no error. */
static enum status make(struct hub *hub, const struct hub_reference *reference, char *url, const struct text *body,
                        struct error *error) {
    struct http_reply reply = {0};
    enum status status = url ? json_post(hub, reference, url, body, &reply, NULL, error) : error_set_memory(error);
    if (reply.code == CONFLICT)
        status = STATUS_OK;
    http_reply_free(&reply);
    free(url);
    return status;
}

enum status hub_target_create(struct hub *hub, const struct hub_reference *reference, bool private,
                              struct error *error) {
    struct text body = {0};
    const size_t organization = strcspn(reference->repository, "/");
    text_printf(&body, "{\"organization\":\"%.*s\",\"name\":\"%s\",\"type\":\"model\"%s}", (int)organization,
                reference->repository, reference->repository + organization + 1,
                private ? ",\"visibility\":\"private\"" : "");
    enum status status =
        make(hub, reference, text_format("%s/api/repos/create", hub->environment.endpoint), &body, error);
    text_free(&body);
    return status;
}

enum status hub_target_branch(struct hub *hub, const struct hub_reference *reference, struct error *error) {
    struct text body = {0};
    text_append_string(&body, "{}");
    enum status status =
        make(hub, reference, hub_api_url(hub, reference, "branch", reference->revision, ""), &body, error);
    text_free(&body);
    return status;
}
