/*
 * Requests of the Hub that are answered with a JSON object.
 */
#ifndef QSTREAM_COMMON_HUB_JSON_CALL_H
#define QSTREAM_COMMON_HUB_JSON_CALL_H

#include <jansson.h>

#include "common/hub/hub.h"

/*
 * As hub_perform, and parses the reply: *root is an object, for the caller to free with json_decref. STATUS_IO when the
 * reply is none, which a proxy may have made: reply->transient is set then.
 */
enum status json_call(struct hub *hub, const struct hub_request *request, struct http_reply *reply, json_t **root,
                      struct error *error);

#endif
