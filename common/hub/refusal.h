/*
 * Why a Hub refused a request, in words: what is missing, or not allowed, and what a user can do about it.
 */
#ifndef QSTREAM_COMMON_HUB_REFUSAL_H
#define QSTREAM_COMMON_HUB_REFUSAL_H

#include "common/hub/hub.h"

/*
 * The error for a reply from 300 on: STATUS_IO where asking later may help, else STATUS_BAD_INPUT. `url` gave it; `away`: that
 * is another host than the Hub. The Hub's error codes (X-Error-Code) are those of huggingface_hub's utils/_http.py.
 */
enum status hub_refusal(const struct hub *hub, const struct hub_subject *subject, const char *url, bool away,
                        const struct http_reply *reply, struct error *error);

#endif
