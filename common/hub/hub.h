/*
 * Talking to a Hub (huggingface.co, or what HF_ENDPOINT names): requests with the user's token, redirects, retries, and
 * errors in words.
 *
 * The token goes to the Hub's own scheme, host and port only, never along with a redirect to another. A request that could
 * not connect, or was answered with 408, 429, 500, 502, 503 or 504, is tried again, up to HUB_ATTEMPTS times, after 1, 2, 4,
 * ... seconds (with some chance), or as long as Retry-After or the RateLimit field ask for. So is one that the Hub sent to
 * another host which refused it: the address that the Hub gave may have expired.
 */
#ifndef QSTREAM_COMMON_HUB_HUB_H
#define QSTREAM_COMMON_HUB_HUB_H

#include "common/hub/environment.h"
#include "common/hub/http.h"
#include "common/hub/reference.h"

enum { HUB_ATTEMPTS = 6 };

struct hub {
    struct hub_environment environment;
    struct http *http;    /* NULL when offline */
    double retry_seconds; /* before the second attempt: 1; doubled for each one more */
};

/* Reads the environment and starts the client; offline, only the environment. Free with hub_close, also after an error. */
enum status hub_open(struct hub *hub, struct error *error);
void hub_close(struct hub *hub);

/* The process's one, opened when it is asked for first; never closed. For any number of threads. */
enum status hub_shared(struct hub **hub, struct error *error);

/* What a request is about, for messages. */
struct hub_subject {
    const struct hub_reference *reference;
    const char *file; /* NULL: the repository */
};

/* Where a request came to. Zero-initialize it; free with hub_route_free. */
struct hub_route {
    char *url;          /* that gave the last reply: the request's own, or where redirects led */
    bool away;          /* it is on another host than the Hub: what its reply says is not the Hub's word */
    struct text fields; /* header lines of the Hub's own replies, those of redirects too, the last reply's last */
};
void hub_route_free(struct hub_route *route);

struct hub_request {
    struct hub_subject subject;
    const char *method;
    const char *url;
    const char *const *fields; /* beside authorization and user agent */
    size_t field_count;
    const void *body;
    uint64_t body_size;
    enum status (*body_read)(void *context, uint64_t offset, void *bytes, size_t size, struct error *error);
    /* As in http.h. Called for the last reply only: neither for redirects nor for codes from 300 on. Once data has been
     * called nothing is tried again: STATUS_IO with reply->transient, and the caller asks for the rest. */
    bool (*begin)(void *context, const struct http_reply *reply, enum status *status, struct error *error);
    enum status (*data)(void *context, const void *bytes, size_t size, struct error *error);
    void *context;
    size_t body_limit;
    struct hub_route *route; /* filled, also before `begin`; NULL: not asked for */
    bool once;               /* no retries */
    bool anonymous;          /* without the token, whoever is asked: the address is signed */
};

/*
 * STATUS_OK: a reply from 200 to 299. Else an error that tells a missing repository from a gated one (and where to ask for
 * access), a missing revision, a missing file, a wrong token, a rate limit: STATUS_BAD_INPUT for what asking again would
 * not change, STATUS_IO for the rest. Offline: STATUS_IO. Free the reply with http_reply_free in each case.
 */
enum status hub_perform(struct hub *hub, const struct hub_request *request, struct http_reply *reply,
                        struct error *error);

/* `text` with everything but letters, digits, "-_.~" and the characters of `kept` as %XX. The caller frees. */
char *hub_quote(const char *text, const char *kept);

/* ENDPOINT/[datasets/]REPOSITORY/resolve/REVISION/PATH. The caller frees; NULL without memory. */
char *hub_resolve_url(const struct hub *hub, const struct hub_reference *reference, const char *revision,
                      const char *path);

/* ENDPOINT/api/models/REPOSITORY/WHAT/REVISION, or datasets; `query` is "" or begins with '?'. The same. */
char *hub_api_url(const struct hub *hub, const struct hub_reference *reference, const char *what, const char *revision,
                  const char *query);

#endif
