#include "common/hub/http.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "common/hub/url.h"
#include "common/interrupt.h"
#include "common/libcurl.h"

enum {
    FIELDS_MAX = 64 << 10,     /* bytes of all header lines of a reply */
    ERROR_TEXT_MAX = 64 << 10, /* bytes of the body of an error that are read */
    BODY_MAX = 1 << 20,        /* what http_request.body_limit is when it is 0 */
    RECEIVE_BYTES = 256 << 10, /* a buffer that TLS records of a fast line fill */
    SEND_BYTES = 512 << 10,
    GLANCE_MS = 100,          /* between looks at signals */
    IDLE_MS = 1000 * 60 * 60, /* a wake-up ends it */
    STACK_BYTES = 1 << 20,
    CONNECTIONS_KEPT = 32, /* open for the next request */
    STREAMS = 4,           /* of one connection: over a long or lossy line one alone is slow */
    ANSWER_SECONDS = 120,  /* what was sent may take the server long to work through */
};

/* ---- header lines ---- */

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

char *http_field_find(const struct text *fields, const char *name) {
    const size_t name_length = strlen(name);
    const char *value = NULL;
    size_t length = 0;
    for (const char *line = fields->bytes, *end; line && (end = strchr(line, '\n')); line = end + 1) {
        if (strncasecmp(line, name, name_length) != 0 || line[name_length] != ':')
            continue;
        value = line + name_length + 1;
        length = (size_t)(end - value);
    }
    for (; length > 0 && is_blank(*value); length--)
        value++;
    while (length > 0 && is_blank(value[length - 1]))
        length--;
    return value ? strndup(value, length) : NULL;
}

char *http_reply_field(const struct http_reply *reply, const char *name) {
    return http_field_find(&reply->fields, name);
}

void http_reply_free(struct http_reply *reply) {
    text_free(&reply->fields);
    text_free(&reply->body);
    *reply = (struct http_reply){0};
}

/* ---- one request ---- */

struct transfer {
    const struct http_request *request;
    struct http_reply *reply;
    struct error *error;
    CURL *easy;
    struct curl_slist *fields;
    uint64_t sent;
    enum status status; /* why a callback ended it */
    bool fields_whole;  /* all header lines of the last reply came */
    bool kept;          /* the body goes to the reply */
    bool cut;           /* the rest of an error's text is not wanted */
    bool finished;
    char reason[CURL_ERROR_SIZE];
    pthread_cond_t end;
    struct transfer *next;
};

static enum status transfer_fail(struct transfer *transfer, enum status status, const char *what) {
    char *shown = hub_url_shown(transfer->request->url);
    error_write(transfer->error, 0, "'%s': %s", shown ? shown : "", what);
    free(shown);
    return status;
}

static enum status fields_end(struct transfer *transfer) {
    const struct http_request *request = transfer->request;
    struct http_reply *reply = transfer->reply;
    enum status status = STATUS_OK;
    libcurl.easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &reply->code);
    if (reply->code < 200) /* another reply follows */
        return STATUS_OK;
    transfer->fields_whole = true;
    transfer->kept = !request->data;
    if (reply->fields.failed)
        return error_set_memory(transfer->error);
    if (request->begin)
        transfer->kept = !request->begin(request->context, reply, &status, transfer->error) || !request->data;
    return status;
}

static size_t field_take(char *bytes, size_t size, size_t count, void *user) {
    struct transfer *transfer = user;
    struct text *fields = &transfer->reply->fields;
    const size_t taken = size * count;
    size_t length = taken;
    while (length > 0 && (bytes[length - 1] == '\n' || bytes[length - 1] == '\r'))
        length--;
    if (transfer->fields_whole) /* trailers */
        return taken;
    if (length == 0) {
        transfer->status = fields_end(transfer);
        return transfer->status == STATUS_OK ? taken : 0;
    }
    if (length >= 5 && memcmp(bytes, "HTTP/", 5) == 0) {
        fields->length = 0;
        if (fields->bytes)
            fields->bytes[0] = '\0';
        return taken;
    }
    if (length > FIELDS_MAX - fields->length) {
        transfer->status = transfer_fail(transfer, STATUS_IO, "the header of the reply is larger than 64 KiB");
        return 0;
    }
    if (is_blank(*bytes) && fields->length > 0) /* the line before goes on */
        fields->bytes[--fields->length] = '\0';
    text_append(fields, bytes, strnlen(bytes, length));
    text_append(fields, "\n", 1);
    return taken;
}

static size_t body_take(char *bytes, size_t size, size_t count, void *user) {
    struct transfer *transfer = user;
    const struct http_request *request = transfer->request;
    struct text *body = &transfer->reply->body;
    const size_t taken = size * count;
    if (!transfer->kept) {
        transfer->status = request->data(request->context, bytes, taken, transfer->error);
        return transfer->status == STATUS_OK ? taken : CURL_WRITEFUNC_ERROR;
    }
    const bool wrong = transfer->reply->code >= 300;
    const size_t limit = wrong ? ERROR_TEXT_MAX : request->body_limit ? request->body_limit : BODY_MAX;
    const size_t room = limit - body->length;
    text_append(body, bytes, taken < room ? taken : room);
    if (body->failed) {
        transfer->status = error_set_memory(transfer->error);
    } else if (taken > room && wrong) {
        transfer->cut = true;
    } else if (taken > room) {
        char what[80];
        snprintf(what, sizeof what, "the reply has more than the %zu bytes that are wanted", limit);
        transfer->status = transfer_fail(transfer, STATUS_IO, what);
    } else {
        return taken;
    }
    return CURL_WRITEFUNC_ERROR;
}

static size_t body_give(char *buffer, size_t size, size_t count, void *user) {
    struct transfer *transfer = user;
    const struct http_request *request = transfer->request;
    const uint64_t left = request->body_size - transfer->sent;
    size_t given = size * count;
    if (given > left)
        given = (size_t)left;
    if (request->body)
        memcpy(buffer, (const char *)request->body + transfer->sent, given);
    else if (given > 0)
        transfer->status = request->body_read(request->context, transfer->sent, buffer, given, transfer->error);
    if (transfer->status != STATUS_OK)
        return CURL_READFUNC_ABORT;
    transfer->sent += given;
    return given;
}

/* A request that is sent anew, on another connection. */
static int body_rewind(void *user, curl_off_t offset, int origin) {
    struct transfer *transfer = user;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > transfer->request->body_size)
        return CURL_SEEKFUNC_FAIL;
    transfer->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* The kernel ends a line that is dead: else those who ask again would share it. */
static int socket_prepare(void *user, curl_socket_t socket, curlsocktype purpose) {
    const struct http_options *options = user;
    (void)purpose;
    const unsigned milliseconds = (unsigned)options->stall_seconds * 2 * 1000;
    setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &milliseconds, sizeof milliseconds);
    return CURL_SOCKOPT_OK;
}

/* ---- the client ---- */

struct http {
    struct http_options options;
    CURLM *multi;
    CURLSH *share; /* of TLS sessions */
    bool global;   /* libcurl was set up */
    pthread_mutex_t lock;
    pthread_cond_t left; /* the last caller has */
    pthread_t thread;
    bool running, closing;
    size_t callers;
    struct transfer *first, *last; /* asked for, not begun */
    struct transfer *active;       /* of the network thread */
};

static bool method_is(const struct http_request *request, const char *method) {
    return strcmp(request->method, method) == 0;
}

static bool field_add(struct transfer *transfer, const char *line) {
    struct curl_slist *longer = libcurl.slist_append(transfer->fields, line);
    if (longer)
        transfer->fields = longer;
    return longer != NULL;
}

static void method_choose(struct transfer *transfer) {
    const struct http_request *request = transfer->request;
    CURL *easy = transfer->easy;
    if (method_is(request, "HEAD")) {
        libcurl.easy_setopt(easy, CURLOPT_NOBODY, 1L);
    } else if (method_is(request, "POST")) {
        libcurl.easy_setopt(easy, CURLOPT_POST, 1L);
        libcurl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body_size);
    } else if (method_is(request, "PUT")) {
        libcurl.easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        libcurl.easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)request->body_size);
    }
}

static enum status transfer_prepare(struct http *http, struct transfer *transfer) {
    const struct http_request *request = transfer->request;
    const bool sends = method_is(request, "POST") || method_is(request, "PUT");
    CURL *easy = transfer->easy = libcurl.easy_init();
    /* No pause before a body that is always wanted; bytes as they are. */
    bool good = easy && field_add(transfer, "Accept-Encoding: identity") && (!sends || field_add(transfer, "Expect:"));
    for (size_t i = 0; i < request->field_count && good; i++) {
        if (strpbrk(request->fields[i], "\r\n"))
            return transfer_fail(transfer, STATUS_BAD_INPUT, "a line break in a header field");
        good = field_add(transfer, request->fields[i]);
    }
    if (!good)
        return error_set_memory(transfer->error);
    if (libcurl.easy_setopt(easy, CURLOPT_URL, request->url) != CURLE_OK)
        return error_set_memory(transfer->error);
    libcurl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    libcurl.easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L); /* an address is signed as it is */
    libcurl.easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
    libcurl.easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
    libcurl.easy_setopt(easy, CURLOPT_SHARE, http->share);
    libcurl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    libcurl.easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* an interrupt waits for no name server */
    libcurl.easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    libcurl.easy_setopt(easy, CURLOPT_PRIVATE, transfer);
    libcurl.easy_setopt(easy, CURLOPT_ERRORBUFFER, transfer->reason);
    libcurl.easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->fields);
    libcurl.easy_setopt(easy, CURLOPT_HEADERFUNCTION, field_take);
    libcurl.easy_setopt(easy, CURLOPT_HEADERDATA, transfer);
    libcurl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, body_take);
    libcurl.easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
    libcurl.easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BYTES);
    libcurl.easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    libcurl.easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, socket_prepare);
    libcurl.easy_setopt(easy, CURLOPT_SOCKOPTDATA, &http->options);
    libcurl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, http->options.connect_seconds);
    long patience = http->options.stall_seconds;
    if (sends && patience < ANSWER_SECONDS)
        patience = ANSWER_SECONDS;
    libcurl.easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L);
    libcurl.easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, patience);
    if (sends) {
        libcurl.easy_setopt(easy, CURLOPT_READFUNCTION, body_give);
        libcurl.easy_setopt(easy, CURLOPT_READDATA, transfer);
        libcurl.easy_setopt(easy, CURLOPT_SEEKFUNCTION, body_rewind);
        libcurl.easy_setopt(easy, CURLOPT_SEEKDATA, transfer);
        libcurl.easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, (long)SEND_BYTES);
    }
    libcurl_authority_choose(easy);
    method_choose(transfer);
    return STATUS_OK;
}

/* What a user can do about it; "" when that is not known. */
static const char *advice_of(CURLcode result) {
    switch (result) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; SSL_CERT_FILE may name a file with its authority's certificate";
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
        return "; is the network up? Where a proxy is needed, https_proxy names it; HF_HUB_OFFLINE=1 takes what the "
               "cache has";
    default:
        return "";
    }
}

static enum status transfer_outcome(struct transfer *transfer, CURLcode result) {
    struct http_reply *reply = transfer->reply;
    libcurl.easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &reply->code);
    if (transfer->status != STATUS_OK)
        return transfer->status;
    if (transfer->cut || (result == CURLE_OK && transfer->fields_whole))
        return STATUS_OK;
    if (result == CURLE_OK)
        result = CURLE_GOT_NOTHING; /* the connection ended inside the header, which libcurl lets pass */
    const char *reason = *transfer->reason ? transfer->reason : libcurl.easy_strerror(result);
    char what[2 * CURL_ERROR_SIZE];
    snprintf(what, sizeof what, "%s%s", reason, advice_of(result));
    reply->transient = libcurl_is_transient(result);
    return transfer_fail(transfer, STATUS_IO, what);
}

/* Tells the caller, who frees the transfer from then on. */
static void transfer_finish(struct http *http, struct transfer *transfer, enum status status) {
    libcurl.easy_cleanup(transfer->easy);
    libcurl.slist_free_all(transfer->fields);
    pthread_mutex_lock(&http->lock);
    transfer->status = status;
    transfer->finished = true;
    pthread_cond_signal(&transfer->end);
    pthread_mutex_unlock(&http->lock);
}

static void transfer_begin(struct http *http, struct transfer *transfer) {
    enum status status = transfer_prepare(http, transfer);
    if (status == STATUS_OK && libcurl.multi_add_handle(http->multi, transfer->easy) != CURLM_OK)
        status = error_set_memory(transfer->error);
    if (status != STATUS_OK) {
        transfer_finish(http, transfer, status);
        return;
    }
    transfer->next = http->active;
    http->active = transfer;
}

static void active_remove(struct http *http, const struct transfer *transfer) {
    struct transfer **at = &http->active;
    while (*at && *at != transfer)
        at = &(*at)->next;
    if (*at)
        *at = transfer->next;
}

/* Ends all that are under way. */
static void active_end(struct http *http, enum status status, const char *what) {
    struct transfer *transfer;
    while ((transfer = http->active)) {
        http->active = transfer->next;
        libcurl.multi_remove_handle(http->multi, transfer->easy);
        transfer_finish(http, transfer,
                        transfer->status != STATUS_OK ? transfer->status : transfer_fail(transfer, status, what));
    }
}

static void finished_collect(struct http *http) {
    CURLMsg *message;
    int left;
    while ((message = libcurl.multi_info_read(http->multi, &left))) {
        char *private = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        const CURLcode result = message->data.result; /* the message goes with its handle */
        libcurl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        struct transfer *transfer = (struct transfer *)(void *)private;
        libcurl.multi_remove_handle(http->multi, transfer->easy);
        active_remove(http, transfer);
        transfer_finish(http, transfer, transfer_outcome(transfer, result));
    }
}

static void *network_run(void *user) {
    struct http *http = user;
    bool closing = false;
    while (!closing) {
        pthread_mutex_lock(&http->lock);
        struct transfer *asked = http->first;
        http->first = http->last = NULL;
        closing = http->closing;
        pthread_mutex_unlock(&http->lock);
        while (asked) {
            struct transfer *transfer = asked;
            asked = asked->next;
            transfer_begin(http, transfer);
        }
        int running;
        if (closing)
            active_end(http, STATUS_IO, "the client was closed");
        else if (interrupt_pending())
            active_end(http, STATUS_INTERRUPTED, "interrupted");
        else if (libcurl.multi_perform(http->multi, &running) != CURLM_OK)
            active_end(http, STATUS_IO, "libcurl failed");
        finished_collect(http);
        if (!closing)
            libcurl.multi_poll(http->multi, NULL, 0, http->active ? GLANCE_MS : IDLE_MS, NULL);
    }
    return NULL;
}

/* Signals are handled by the threads that were there before: this one takes none. */
static enum status network_start(struct http *http, struct error *error) {
    sigset_t all, before;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int problem = pthread_create(&http->thread, &attributes, network_run, http);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    http->running = problem == 0;
    return problem == 0 ? STATUS_OK : error_set_errno(error, STATUS_IO, problem, "cannot start a thread");
}

enum status http_open(const struct http_options *options, struct http **out, struct error *error) {
    *out = NULL;
    enum status status = libcurl_load(error);
    if (status != STATUS_OK)
        return status;
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return error_set_memory(error);
    http->options = *options;
    pthread_mutex_init(&http->lock, NULL);
    pthread_cond_init(&http->left, NULL);
    http->global = libcurl.global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    http->multi = http->global ? libcurl.multi_init() : NULL;
    http->share = http->global ? libcurl.share_init() : NULL;
    if (!http->multi || !http->share) {
        http_close(http);
        return error_set_memory(error);
    }
    libcurl.share_setopt(http->share, CURLSHOPT_SHARE, (int)CURL_LOCK_DATA_SSL_SESSION);
    libcurl.multi_setopt(http->multi, CURLMOPT_MAX_HOST_CONNECTIONS, (long)options->connections_most);
    libcurl.multi_setopt(http->multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)STREAMS);
    libcurl.multi_setopt(http->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_KEPT);
    *out = http;
    return STATUS_OK;
}

void http_stop(struct http *http) {
    pthread_mutex_lock(&http->lock);
    const bool running = http->running && !http->closing;
    http->closing = true;
    if (running)
        libcurl.multi_wakeup(http->multi);
    pthread_mutex_unlock(&http->lock);
    if (running)
        pthread_join(http->thread, NULL);
}

void http_close(struct http *http) {
    if (!http)
        return;
    http_stop(http);
    pthread_mutex_lock(&http->lock);
    while (http->callers > 0)
        pthread_cond_wait(&http->left, &http->lock);
    pthread_mutex_unlock(&http->lock);
    if (http->multi)
        libcurl.multi_cleanup(http->multi);
    if (http->share)
        libcurl.share_cleanup(http->share);
    if (http->global)
        libcurl.global_cleanup();
    pthread_cond_destroy(&http->left);
    pthread_mutex_destroy(&http->lock);
    free(http);
}

/* Leaves it to the network thread. */
static void transfer_ask(struct http *http, struct transfer *transfer) {
    if (http->last)
        http->last->next = transfer;
    else
        http->first = transfer;
    http->last = transfer;
    libcurl.multi_wakeup(http->multi);
}

enum status http_perform(struct http *http, const struct http_request *request, struct http_reply *reply,
                         struct error *error) {
    *reply = (struct http_reply){0};
    struct transfer transfer = {.request = request, .reply = reply, .error = error};
    if (interrupt_pending())
        return error_set(error, STATUS_INTERRUPTED, "interrupted");
    pthread_cond_init(&transfer.end, NULL);
    pthread_mutex_lock(&http->lock);
    enum status status = http->closing   ? error_set(error, STATUS_IO, "the client was closed")
                         : http->running ? STATUS_OK
                                         : network_start(http, error);
    if (status == STATUS_OK) {
        http->callers++;
        transfer_ask(http, &transfer);
        while (!transfer.finished)
            pthread_cond_wait(&transfer.end, &http->lock);
        status = transfer.status;
        if (--http->callers == 0)
            pthread_cond_signal(&http->left);
    }
    pthread_mutex_unlock(&http->lock);
    pthread_cond_destroy(&transfer.end);
    return status;
}
