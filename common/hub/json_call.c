#include "common/hub/json_call.h"

enum status json_call(struct hub *hub, const struct hub_request *request, struct http_reply *reply, json_t **root,
                      struct error *error) {
    *root = NULL;
    enum status status = hub_perform(hub, request, reply, error);
    if (status != STATUS_OK)
        return status;
    *root = json_loadb(reply->body.bytes ? reply->body.bytes : "", reply->body.length, 0, NULL);
    if (json_is_object(*root))
        return STATUS_OK;
    json_decref(*root);
    *root = NULL;
    reply->transient = true;
    return error_set(error, STATUS_IO, "'%.200s' answers what is no JSON object", request->url);
}
