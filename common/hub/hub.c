#include "common/hub/hub.h"

#include <ctype.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/hub/refusal.h"
#include "common/hub/retry.h"
#include "common/hub/url.h"
#include "common/version.h"

enum {
    REDIRECTS_MOST = 10,
    CONNECTIONS_MOST = 32, /* to one host */
    FIELDS_MOST = 32,
    AWAY_ATTEMPTS = 3, /* where another host refuses what the Hub sent to it */
};

enum status hub_open(struct hub *hub, struct error *error) {
    *hub = (struct hub){.retry_seconds = 1};
    enum status status = hub_environment_read(&hub->environment, error);
    if (status != STATUS_OK || hub->environment.offline)
        return status;
    const struct http_options options = {.connect_seconds = hub->environment.connect_seconds,
                                         .stall_seconds = hub->environment.stall_seconds,
                                         .connections_most = CONNECTIONS_MOST};
    return http_open(&options, &hub->http, error);
}

void hub_close(struct hub *hub) {
    http_close(hub->http);
    hub_environment_free(&hub->environment);
    *hub = (struct hub){0};
}

static struct hub shared;

/* When the process ends, OpenSSL forgets what a thread that receives would still use. */
static void shared_stop(void) {
    if (shared.http)
        http_stop(shared.http);
}

enum status hub_shared(struct hub **out, struct error *error) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static bool open;
    enum status status = STATUS_OK;
    pthread_mutex_lock(&lock);
    if (!open) {
        status = hub_open(&shared, error);
        open = status == STATUS_OK;
        if (open)
            atexit(shared_stop);
        else
            hub_close(&shared);
    }
    pthread_mutex_unlock(&lock);
    *out = status == STATUS_OK ? &shared : NULL;
    return status;
}

void hub_route_free(struct hub_route *route) {
    free(route->url);
    text_free(&route->fields);
    *route = (struct hub_route){0};
}

/* ---- one attempt ---- */

struct attempt {
    struct hub *hub;
    const struct hub_request *request;
    struct http_reply *reply;
    struct hub_route *route;
    char *bearer, *agent;
    bool data_came;
};

/* Notes what the Hub itself said. */
static void route_note(struct attempt *attempt) {
    const struct text *fields = &attempt->reply->fields;
    if (!attempt->route->away && fields->bytes)
        text_append(&attempt->route->fields, fields->bytes, fields->length);
}

static bool attempt_begin(void *context, const struct http_reply *reply, enum status *status, struct error *error) {
    struct attempt *attempt = context;
    const struct hub_request *request = attempt->request;
    route_note(attempt);
    if (reply->code < 200 || reply->code > 299)
        return false;
    if (request->begin)
        return request->begin(request->context, reply, status, error);
    return request->data != NULL;
}

static enum status attempt_data(void *context, const void *bytes, size_t size, struct error *error) {
    struct attempt *attempt = context;
    attempt->data_came = true;
    return attempt->request->data(attempt->request->context, bytes, size, error);
}

static enum status attempt_body(void *context, uint64_t offset, void *bytes, size_t size, struct error *error) {
    const struct hub_request *request = ((struct attempt *)context)->request;
    return request->body_read(request->context, offset, bytes, size, error);
}

static enum status ask(struct attempt *attempt, const char *method, struct error *error) {
    const struct hub_request *request = attempt->request;
    const char *fields[FIELDS_MOST + 2];
    size_t count = 0;
    if (request->field_count > FIELDS_MOST)
        return error_set(error, STATUS_IO, "too many header fields");
    fields[count++] = attempt->agent;
    if (attempt->bearer && !attempt->route->away && !request->anonymous)
        fields[count++] = attempt->bearer;
    for (size_t i = 0; i < request->field_count; i++)
        fields[count++] = request->fields[i];
    const bool body = strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0;
    const struct http_request ask = {.method = method,
                                     .url = attempt->route->url,
                                     .fields = fields,
                                     .field_count = count,
                                     .body = body ? request->body : NULL,
                                     .body_size = body ? request->body_size : 0,
                                     .body_read = body && request->body_read ? attempt_body : NULL,
                                     .begin = attempt_begin,
                                     .data = request->data ? attempt_data : NULL,
                                     .context = attempt,
                                     .body_limit = request->body_limit};
    http_reply_free(attempt->reply);
    return http_perform(attempt->hub->http, &ask, attempt->reply, error);
}

/* Takes the route to a URL, if it may be asked. */
static enum status route_take(struct attempt *attempt, const char *base, const char *location, struct error *error) {
    const char *endpoint = attempt->hub->environment.endpoint;
    char *url = hub_url_join(base, location), *shown = hub_url_shown(base);
    enum status status = STATUS_OK;
    if (!url)
        status = error_set(error, STATUS_IO, "'%s' leads to what is no address of http or https: '%.200s'",
                           shown ? shown : "", location);
    else if (hub_url_is_plain(url) && !hub_url_is_plain(endpoint))
        status = error_set(error, STATUS_IO, "'%s' leads from https to http, where anyone could change what is read",
                           shown ? shown : "");
    free(shown);
    if (status != STATUS_OK) {
        free(url);
        return status;
    }
    attempt->route->away = attempt->route->away || !hub_url_same_origin(url, endpoint);
    free(attempt->route->url);
    attempt->route->url = url;
    return STATUS_OK;
}

static bool is_redirect(long code) { return code == 301 || code == 302 || code == 303 || code == 307 || code == 308; }

/* One attempt, along its redirects. */
static enum status attempt_make(struct attempt *attempt, struct error *error) {
    const char *method = attempt->request->method;
    hub_route_free(attempt->route);
    enum status status = route_take(attempt, attempt->request->url, attempt->request->url, error);
    for (int redirects = 0; status == STATUS_OK; redirects++) {
        status = ask(attempt, method, error);
        const long code = attempt->reply->code;
        char *location = status == STATUS_OK && is_redirect(code) ? http_reply_field(attempt->reply, "Location") : NULL;
        if (!location)
            return status;
        if (strcmp(method, "HEAD") != 0 && (code == 303 || (code < 303 && strcmp(method, "POST") == 0)))
            method = "GET";
        status = redirects < REDIRECTS_MOST
                     ? route_take(attempt, attempt->route->url, location, error)
                     : error_set(error, STATUS_IO, "'%.200s' leads around in circles: more than %d redirects",
                                 attempt->request->url, REDIRECTS_MOST);
        free(location);
    }
    return status;
}

/* ---- attempts ---- */

/* Whether to try again after what came, and after how many seconds. */
static bool again(const struct attempt *attempt, enum status status, unsigned made, double *wait) {
    const struct http_reply *reply = attempt->reply;
    const bool sent_away =
        attempt->route->away && hub_url_same_origin(attempt->request->url, attempt->hub->environment.endpoint);
    if (attempt->request->once || attempt->data_came || made >= HUB_ATTEMPTS)
        return false;
    if (status != STATUS_OK ? !reply->transient
                            : !retry_code(reply->code) && !(sent_away && reply->code >= 400 && made < AWAY_ATTEMPTS))
        return false;
    const double asked = status == STATUS_OK ? retry_asked(reply, time(NULL)) : -1;
    *wait = asked >= 0 ? asked : retry_wait(made + 1, attempt->hub->retry_seconds);
    return *wait <= RETRY_WAIT_MOST;
}

enum status hub_perform(struct hub *hub, const struct hub_request *request, struct http_reply *reply,
                        struct error *error) {
    *reply = (struct http_reply){0};
    if (!hub->http)
        return error_set(error, STATUS_IO,
                         "'%.200s' cannot be asked: HF_HUB_OFFLINE is set, and what is wanted is not in the cache",
                         request->url);
    struct hub_route own = {0};
    struct attempt attempt = {
        .hub = hub, .request = request, .reply = reply, .route = request->route ? request->route : &own};
    attempt.agent = text_format("User-Agent: qstream/" QSTREAM_VERSION);
    attempt.bearer = hub->environment.token ? text_format("Authorization: Bearer %s", hub->environment.token) : NULL;
    enum status status = STATUS_OK;
    if (!attempt.agent || (hub->environment.token && !attempt.bearer))
        status = error_set_memory(error);
    for (unsigned made = 1; status == STATUS_OK; made++) {
        double wait = 0;
        status = attempt_make(&attempt, error);
        if (again(&attempt, status, made, &wait)) {
            status = retry_sleep(wait, error);
            continue;
        }
        if (status == STATUS_OK && (reply->code < 200 || reply->code > 299))
            status = hub_refusal(hub, &request->subject, attempt.route->url, attempt.route->away, reply, error);
        break;
    }
    free(attempt.agent);
    free(attempt.bearer);
    hub_route_free(&own);
    return status;
}

/* ---- URLs ---- */

char *hub_quote(const char *text, const char *kept) {
    struct text out = {0};
    text_append(&out, "", 0);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if ((*c < 0x80 && (isalnum(*c) || strchr("-_.~", *c))) || strchr(kept, *c))
            text_append(&out, c, 1);
        else
            text_printf(&out, "%%%02X", *c);
    }
    if (out.failed)
        text_free(&out);
    return out.bytes;
}

char *hub_resolve_url(const struct hub *hub, const struct hub_reference *reference, const char *revision,
                      const char *path) {
    char *quoted_revision = hub_quote(revision, ""), *quoted_path = hub_quote(path, "/"), *url = NULL;
    if (quoted_revision && quoted_path)
        url = text_format("%s/%s%s/resolve/%s/%s", hub->environment.endpoint, reference->dataset ? "datasets/" : "",
                          reference->repository, quoted_revision, quoted_path);
    free(quoted_revision);
    free(quoted_path);
    return url;
}

char *hub_api_url(const struct hub *hub, const struct hub_reference *reference, const char *what, const char *revision,
                  const char *query) {
    char *quoted = hub_quote(revision, ""), *url = NULL;
    if (quoted)
        url = text_format("%s/api/%s/%s/%s/%s%s", hub->environment.endpoint, reference->dataset ? "datasets" : "models",
                          reference->repository, what, quoted, query);
    free(quoted);
    return url;
}
