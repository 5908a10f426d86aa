#include "common/hub/json_call.h"

enum status json_call(struct hub *hub, const struct hub_request *request, struct http_reply *reply, json_t **root,
                      struct error *error) {
    if (root)
        *root = NULL;
    enum status status = hub_perform(hub, request, reply, error);
    if (status != STATUS_OK || !root)
        return status;
    *root = json_loadb(reply->body.bytes ? reply->body.bytes : "", reply->body.length, 0, NULL);
    if (json_is_object(*root))
        return STATUS_OK;
    json_decref(*root);
    *root = NULL;
    reply->transient = true;
    return error_set(error, STATUS_IO, "'%.200s' answers what is no JSON object", request->url);
}

enum status json_post(struct hub *hub, const struct hub_reference *reference, const char *url, const struct text *body,
                      struct http_reply *reply, json_t **root, struct error *error) {
    static const char *const fields[] = {"Content-Type: application/json"};
    const struct hub_request request = {.subject = {.reference = reference},
                                        .method = "POST",
                                        .url = url,
                                        .fields = fields,
                                        .field_count = 1,
                                        .body = body->bytes,
                                        .body_size = body->length};
    return body->failed ? error_set_memory(error) : json_call(hub, &request, reply, root, error);
}
