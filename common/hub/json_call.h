/*
 * Requests of the Hub that are answered with a JSON object.
 */
#ifndef QSTREAM_COMMON_HUB_JSON_CALL_H
#define QSTREAM_COMMON_HUB_JSON_CALL_H

#include <jansson.h>

#include "common/hub/hub.h"

/*
 * As hub_perform, and parses the reply: *root is an object, for the caller to free with json_decref. STATUS_IO when the
 * reply is none, which a proxy may have made: reply->transient is set then. `root` NULL: what the reply says does not
 * matter.
 */
enum status json_call(struct hub *hub, const struct hub_request *request, struct http_reply *reply, json_t **root,
                      struct error *error);

/* The same for a POST of a JSON text; a body that has failed is an error. */
enum status json_post(struct hub *hub, const struct hub_reference *reference, const char *url, const struct text *body,
                      struct http_reply *reply, json_t **root, struct error *error);

#endif
