/*
 * Questions to a server over HTTP, several at a time, each asked again when the network or the server fails.
 *
 * A question is asked again after a connection that fails or ends too early, a time-out, a status of 408, 429 or 5xx,
 * and an answer that is garbled; after 0.25 s, 0.5 s, 1 s, ... up to 30 s, or as long as the server's Retry-After asks,
 * up to five minutes. Any other failure is final. TLS certificates are checked, against the system's authorities and
 * those in the file that CURL_CA_BUNDLE or SSL_CERT_FILE names. Proxies are those of the environment. Redirects are not
 * followed, so the key goes nowhere else; the error tells where to.
 */
#ifndef QSTREAM_INFER_SERVER_EXCHANGE_H
#define QSTREAM_INFER_SERVER_EXCHANGE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"
#include "common/text.h"
#include "infer/server/answer.h"

struct exchange_options {
    const char *url;
    const char *shown;      /* how messages name it */
    const char *subject;    /* how messages name a question, with its number behind it; NULL: not */
    const char *api_key;    /* sent as a bearer token; NULL: none */
    bool post;              /* with a body of JSON; else GET */
    unsigned in_flight;     /* questions at a time, from 1 */
    unsigned retries;       /* of each question, behind its first try */
    double timeout_seconds; /* of each try, from connecting to the last byte; 0: none */
};

struct exchange_state {
    size_t answered, total;
    size_t again; /* tries behind the first ones */
};

struct exchange_calls {
    /* Appends the body of a question; not called for GET. */
    enum status (*ask)(void *context, size_t question, struct text *body, struct error *error);
    /* The most bytes that an answer may have. */
    size_t (*answer_max)(void *context, size_t question);
    /* A complete answer of status 2xx. */
    enum answer_verdict (*take)(void *context, size_t question, const char *bytes, size_t length, struct error *error);
    /* Called several times a second. NULL: not. */
    void (*tick)(void *context, const struct exchange_state *state);
};

/*
 * Asks `count` questions; answers arrive in any order, all calls come from this thread. STATUS_BAD_INPUT: an answer that
 * is wrong, too large, or an error of the kind that stays (4xx); STATUS_IO: none after all tries; STATUS_INTERRUPTED;
 * STATUS_USAGE: a key that no header can hold.
 */
enum status exchange_run(const struct exchange_options *options, size_t count, const struct exchange_calls *calls,
                         void *context, struct error *error);

#endif
