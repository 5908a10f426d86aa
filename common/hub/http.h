/*
 * HTTP: one thread drives all transfers of a process by libcurl's multi interface, so that they share connections (with
 * HTTP/2 several at a time); any thread may ask for one and waits for it. No redirect is followed, nothing is retried,
 * no reply is taken for an error here: hub.h does that.
 */
#ifndef QSTREAM_COMMON_HUB_HTTP_H
#define QSTREAM_COMMON_HUB_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

struct http; /* a client */

struct http_reply {
    long code;          /* of the reply; 0: there was none */
    struct text fields; /* the reply's header lines, each "Name: value\n" */
    struct text body;   /* unless it went to http_request.data; of a code from 300 on its first 64 KiB */
    bool transient;     /* why there was no (whole) reply may pass: dropped, timed out, refused, no such host */
};

/* The value of a header field, without white space around it, whatever its name's case; the last of several. The caller
 * frees; NULL when there is none (or no memory). */
char *http_reply_field(const struct http_reply *reply, const char *name);
char *http_field_find(const struct text *fields, const char *name); /* the same, of header lines */

void http_reply_free(struct http_reply *reply);

struct http_request {
    const char *method; /* "GET", "HEAD", "POST", "PUT" */
    const char *url;
    const char *const *fields; /* header lines "Name: value" */
    size_t field_count;
    const void *body; /* of POST and PUT; NULL: body_file */
    uint64_t body_size;
    int body_file; /* its bytes from body_offset on; read as they are sent */
    uint64_t body_offset;
    /*
     * Where the body of a reply goes, piece by piece; NULL: into reply->body, of at most body_limit bytes. Called on the
     * client's thread: it must not wait for other transfers. `begin` comes first, once all header fields are in `reply`:
     * false keeps the body for reply->body (an error's text), *status other than STATUS_OK ends the transfer with it.
     */
    bool (*begin)(void *context, const struct http_reply *reply, enum status *status, struct error *error);
    enum status (*data)(void *context, const void *bytes, size_t size, struct error *error);
    void *context;
    size_t body_limit; /* 0: 1 MiB */
};

struct http_options {
    long connect_seconds, stall_seconds;
    unsigned connections_most; /* to one host */
};

/* Loads libcurl. Free with http_close, which ends what is under way. */
enum status http_open(const struct http_options *options, struct http **http, struct error *error);
void http_close(struct http *http); /* NULL is fine */

/* Ends what is under way, and all that is asked later: STATUS_IO. */
void http_stop(struct http *http);

/*
 * Carries out a request. STATUS_OK: a whole reply came, whatever its code. STATUS_IO: none, or not all of it; the message
 * names the URL without its query. STATUS_INTERRUPTED after SIGINT or SIGTERM. Fills *reply in each case; free it with
 * http_reply_free. For any number of threads at once.
 */
enum status http_perform(struct http *http, const struct http_request *request, struct http_reply *reply,
                         struct error *error);

#endif
