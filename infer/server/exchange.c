#include "infer/server/exchange.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/libcurl.h"
#include "common/progress.h"
#include "common/version.h"

/* ---- one question under way ---- */

struct slot {
    CURL *easy;
    size_t question;
    char name[48];  /* of the question, for messages */
    unsigned tries; /* that were begun */
    double due;     /* when the next one is, by seconds_now() */
    enum { SLOT_FREE, SLOT_WAITING, SLOT_BUSY } state;
    struct text body, answer;
    size_t answer_max;
    bool too_large;
    char reason[CURL_ERROR_SIZE];
};

struct exchange {
    const struct exchange_options *options;
    const struct exchange_calls *calls;
    void *context;
    CURLM *multi;
    struct curl_slist *headers;
    struct slot *slots;
    size_t slot_count, next;
    struct exchange_state state;
};

static size_t answer_write(char *bytes, size_t size, size_t count, void *user) {
    enum { REFUSAL_MAX = 64 << 10 }; /* bytes of an error that are looked at */
    struct slot *slot = user;
    long code = 0;
    libcurl.easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &code);
    if (code < 200 || code > 299) {
        const size_t left = REFUSAL_MAX - slot->answer.length, bytes_in = size * count;
        text_append(&slot->answer, bytes, bytes_in < left ? bytes_in : left);
        return slot->answer.failed ? 0 : bytes_in;
    }
    if (count > 0 && size > (slot->answer_max - slot->answer.length) / count) {
        slot->too_large = true;
        return 0;
    }
    text_append(&slot->answer, bytes, size * count);
    return slot->answer.failed ? 0 : size * count;
}

/* Rounded up: zero would be no limit for libcurl. */
static long milliseconds(double seconds) {
    static const double most = 1e9; /* 11 days */
    return (long)ceil(fmin(seconds * 1000, most));
}

static enum status slot_open(struct exchange *exchange, struct slot *slot, struct error *error) {
    static const double connect_seconds = 30;
    const struct exchange_options *options = exchange->options;
    CURL *easy = slot->easy = libcurl.easy_init();
    if (!easy || libcurl.easy_setopt(easy, CURLOPT_URL, options->url) != CURLE_OK)
        return error_set_memory(error);
    libcurl_authority_choose(easy);
    libcurl.easy_setopt(easy, CURLOPT_PRIVATE, slot);
    libcurl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, answer_write);
    libcurl.easy_setopt(easy, CURLOPT_WRITEDATA, slot);
    libcurl.easy_setopt(easy, CURLOPT_ERRORBUFFER, slot->reason);
    libcurl.easy_setopt(easy, CURLOPT_USERAGENT, "qstream/" QSTREAM_VERSION);
    libcurl.easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->headers);
    libcurl.easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L); /* a server may compute for minutes without a byte */
    if (options->timeout_seconds > 0) {
        libcurl.easy_setopt(easy, CURLOPT_TIMEOUT_MS, milliseconds(options->timeout_seconds));
        libcurl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                            milliseconds(fmin(options->timeout_seconds, connect_seconds)));
    }
    if (options->post)
        libcurl.easy_setopt(easy, CURLOPT_POST, 1L);
    return STATUS_OK;
}

static enum status slot_start(struct exchange *exchange, struct slot *slot, struct error *error) {
    text_free(&slot->answer);
    slot->too_large = false;
    slot->reason[0] = '\0';
    if (exchange->options->post) {
        libcurl.easy_setopt(slot->easy, CURLOPT_POSTFIELDS, slot->body.bytes);
        libcurl.easy_setopt(slot->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)slot->body.length);
    }
    if (libcurl.multi_add_handle(exchange->multi, slot->easy) != CURLM_OK)
        return error_set_memory(error);
    exchange->state.again += slot->tries > 0;
    slot->tries++;
    slot->state = SLOT_BUSY;
    return STATUS_OK;
}

/* Takes the next question, if there is one. */
static enum status slot_fill(struct exchange *exchange, struct slot *slot, struct error *error) {
    if (exchange->next == exchange->state.total)
        return STATUS_OK;
    slot->question = exchange->next++;
    slot->name[0] = '\0';
    if (exchange->options->subject)
        snprintf(slot->name, sizeof slot->name, "%s %zu: ", exchange->options->subject, slot->question);
    slot->tries = 0;
    slot->due = 0;
    slot->state = SLOT_WAITING;
    slot->answer_max = exchange->calls->answer_max(exchange->context, slot->question);
    text_free(&slot->body);
    if (!exchange->options->post)
        return STATUS_OK;
    enum status status = exchange->calls->ask(exchange->context, slot->question, &slot->body, error);
    return status == STATUS_OK && slot->body.failed ? error_set_memory(error) : status;
}

/* ---- what came of a try ---- */

/* Whether another try is left; then the question waits for it. asked_for: by Retry-After, seconds, 0 for none. */
static bool slot_again(struct exchange *exchange, struct slot *slot, double asked_for) {
    static const double first = 0.25, longest = 30, asked_longest = 300; /* seconds */
    if (slot->tries > exchange->options->retries)
        return false;
    double wait = fmin(ldexp(first, (int)(slot->tries < 20 ? slot->tries - 1 : 19)), longest);
    /* Windows that failed together do not come back together: up to a quarter more, another for each. */
    wait *= 1 + 0.25 * fmod((double)slot->question * 0.618034, 1);
    if (asked_for > 0)
        wait = fmin(asked_for, asked_longest);
    slot->due = seconds_now() + wait;
    slot->state = SLOT_WAITING;
    return true;
}

/* Stars for each place of `bytes` that holds `secret`. */
static void stars_put(char *bytes, size_t length, const char *secret, size_t secret_length) {
    char *end = bytes + length;
    for (char *at = bytes; secret_length > 0 && (at = memmem(at, (size_t)(end - at), secret, secret_length));
         at += secret_length)
        memset(at, '*', secret_length);
}

/* Cuts the API key out of a text that a stranger wrote, as it is and as JSON may write it. */
static void key_hide(const struct exchange *exchange, char *bytes, size_t length) {
    const char *key = exchange->options->api_key;
    if (!key || !*key || length == 0)
        return;
    struct text json = {0}, slashes = {0}; /* another way to write a slash is \/ */
    text_append_json_ascii(&json, key);
    for (size_t i = 0; i < json.length; i++)
        text_append(&slashes, json.bytes[i] == '/' ? "\\/" : json.bytes + i, json.bytes[i] == '/' ? 2 : 1);
    stars_put(bytes, length, key, strlen(key));
    if (!json.failed && !slashes.failed) { /* without their quotes */
        stars_put(bytes, length, json.bytes + 1, json.length - 2);
        stars_put(bytes, length, slashes.bytes + 1, slashes.length - 2);
    }
    text_free(&json);
    text_free(&slashes);
}

static const char *plural(unsigned tries) { return tries == 1 ? "try" : "tries"; }

/* What a user can do about a status; a text of the server speaks for itself. */
static const char *status_advice(long code, const struct text *line) {
    if (code == 401)
        return "; it wants an API key, in QSTREAM_API_KEY";
    if (code == 403)
        return "; it wants another API key, in QSTREAM_API_KEY";
    if (code == 404)
        return "; is the URL right, and --server-model?";
    if (code == 405)
        return "; is the URL right?";
    if (code == 429)
        return "; ask for fewer windows at a time, with --in-flight";
    if (code >= 500)
        return "; its log may say more";
    if (line->length > 0 && strcasestr(line->bytes, "context"))
        return "; its context has to hold a window and one token more";
    return "";
}

/* Where a redirect leads, without user and password, which libcurl takes over from the URL; NULL: it is no redirect. */
static char *location_shown(const struct slot *slot) {
    char *location = NULL, *shown = NULL, *copy = NULL;
    libcurl.easy_getinfo(slot->easy, CURLINFO_REDIRECT_URL, &location);
    CURLU *parts = location ? libcurl.url() : NULL;
    if (parts && libcurl.url_set(parts, CURLUPART_URL, location, CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK) {
        libcurl.url_set(parts, CURLUPART_USER, NULL, 0);
        libcurl.url_set(parts, CURLUPART_PASSWORD, NULL, 0);
        if (libcurl.url_get(parts, CURLUPART_URL, &shown, 0) == CURLUE_OK)
            copy = strdup(shown);
    }
    libcurl.free(shown);
    if (parts)
        libcurl.url_cleanup(parts);
    return copy;
}

static enum status slot_refused(const struct exchange *exchange, struct slot *slot, long code, enum status status,
                                struct error *error) {
    const char *shown = exchange->options->shown;
    char *location = location_shown(slot);
    if (location) {
        key_hide(exchange, location, strlen(location));
        error_write(error, 0, "%s'%s' answers %ld: it wants to be asked at '%s'", slot->name, shown, code, location);
        free(location);
        return status;
    }
    struct text line = {0};
    key_hide(exchange, slot->answer.bytes, slot->answer.length); /* whole: it may be cut in two */
    answer_read_error(slot->answer.bytes, slot->answer.length, &line);
    key_hide(exchange, line.bytes, line.length); /* without its escapes */
    status =
        error_set(error, status, "%s'%s' answers %ld%s%s%s (%u %s)", slot->name, shown, code, line.length ? ": " : "",
                  line.length ? line.bytes : "", status_advice(code, &line), slot->tries, plural(slot->tries));
    text_free(&line);
    return status;
}

static enum status slot_unreached(const struct exchange *exchange, struct slot *slot, CURLcode result,
                                  struct error *error) {
    const char *advice = "";
    if (result == CURLE_COULDNT_CONNECT)
        advice = "; is it running?";
    else if (result == CURLE_OPERATION_TIMEDOUT)
        advice = "; give it longer with --timeout, or fewer windows at a time with --in-flight";
    else if (result == CURLE_PEER_FAILED_VERIFICATION)
        advice = "; SSL_CERT_FILE may name a file with its authority's certificate";
    return error_set(error, STATUS_IO, "%s'%s' cannot be reached: %s%s (%u %s)", slot->name, exchange->options->shown,
                     *slot->reason ? slot->reason : libcurl.easy_strerror(result), advice, slot->tries,
                     plural(slot->tries));
}

/* Takes an answer, or makes its question wait for another try; an error when none is left. */
static enum status slot_finish(struct exchange *exchange, struct slot *slot, CURLcode result, struct error *error) {
    const struct exchange_options *options = exchange->options;
    long code = 0;
    curl_off_t asked_for = 0;
    libcurl.easy_getinfo(slot->easy, CURLINFO_RESPONSE_CODE, &code);
    libcurl.easy_getinfo(slot->easy, CURLINFO_RETRY_AFTER, &asked_for);
    if (slot->answer.failed)
        return error_set_memory(error);
    if (slot->too_large)
        return error_set(error, STATUS_BAD_INPUT,
                         "%s'%s' answers with more than %zu bytes; log probabilities do not need as many", slot->name,
                         options->shown, slot->answer_max);
    if (result != CURLE_OK) {
        if (libcurl_is_transient(result) && slot_again(exchange, slot, 0))
            return STATUS_OK;
        return slot_unreached(exchange, slot, result, error);
    }
    if (code == 408 || code == 429 || code >= 500)
        return slot_again(exchange, slot, (double)asked_for) ? STATUS_OK
                                                             : slot_refused(exchange, slot, code, STATUS_IO, error);
    if (code < 200 || code > 299)
        return slot_refused(exchange, slot, code, STATUS_BAD_INPUT, error);
    struct error why = {0};
    const enum answer_verdict verdict = exchange->calls->take(
        exchange->context, slot->question, slot->answer.length ? slot->answer.bytes : "", slot->answer.length, &why);
    key_hide(exchange, why.message, strlen(why.message));
    switch (verdict) {
    case ANSWER_TAKEN:
        slot->state = SLOT_FREE;
        exchange->state.answered++;
        return STATUS_OK;
    case ANSWER_GARBLED:
        if (slot_again(exchange, slot, 0))
            return STATUS_OK;
        return error_set(error, STATUS_BAD_INPUT, "%s'%s': %s (%u %s)", slot->name, options->shown, why.message,
                         slot->tries, plural(slot->tries));
    default: /* ANSWER_WRONG */
        return error_set(error, STATUS_BAD_INPUT, "%s'%s': %s", slot->name, options->shown, why.message);
    }
}

/* ---- all of them ---- */

static enum status header_add(struct exchange *exchange, const char *header, struct error *error) {
    struct curl_slist *longer = libcurl.slist_append(exchange->headers, header);
    if (!longer)
        return error_set_memory(error);
    exchange->headers = longer;
    return STATUS_OK;
}

static enum status headers_make(struct exchange *exchange, struct error *error) {
    enum status status = header_add(exchange, "Accept: application/json", error);
    if (status == STATUS_OK && exchange->options->post)
        status = header_add(exchange, "Content-Type: application/json", error);
    if (status == STATUS_OK) /* no pause before a body that is always wanted */
        status = header_add(exchange, "Expect:", error);
    const char *key = exchange->options->api_key;
    if (status != STATUS_OK || !key || !*key)
        return status;
    for (const char *at = key; *at; at++)
        if (*at <= ' ' || *at >= 0x7f)
            return error_set(error, STATUS_USAGE, "the API key has a character that no header can hold");
    char *header = text_format("Authorization: Bearer %s", key);
    status = header ? header_add(exchange, header, error) : error_set_memory(error);
    free(header);
    return status;
}

static enum status exchange_open(struct exchange *exchange, struct error *error) {
    const size_t in_flight = exchange->options->in_flight ? exchange->options->in_flight : 1;
    exchange->slot_count = in_flight < exchange->state.total ? in_flight : exchange->state.total;
    exchange->slots = calloc(exchange->slot_count + 1, sizeof *exchange->slots);
    exchange->multi = libcurl.multi_init();
    if (!exchange->slots || !exchange->multi)
        return error_set_memory(error);
    enum status status = headers_make(exchange, error);
    for (size_t i = 0; i < exchange->slot_count && status == STATUS_OK; i++)
        status = slot_open(exchange, &exchange->slots[i], error);
    return status;
}

static void exchange_close(struct exchange *exchange) {
    for (size_t i = 0; exchange->slots && i < exchange->slot_count; i++) {
        struct slot *slot = &exchange->slots[i];
        if (slot->state == SLOT_BUSY)
            libcurl.multi_remove_handle(exchange->multi, slot->easy);
        libcurl.easy_cleanup(slot->easy);
        text_free(&slot->body);
        text_free(&slot->answer);
    }
    free(exchange->slots);
    libcurl.slist_free_all(exchange->headers);
    libcurl.multi_cleanup(exchange->multi);
}

/* Starts what is due; *wait gets the seconds until the next is, at most what it is. */
static enum status slots_start(struct exchange *exchange, double *wait, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < exchange->slot_count && status == STATUS_OK; i++) {
        struct slot *slot = &exchange->slots[i];
        if (slot->state == SLOT_FREE)
            status = slot_fill(exchange, slot, error);
        if (status != STATUS_OK || slot->state != SLOT_WAITING)
            continue;
        const double left = slot->due - seconds_now();
        if (left <= 0)
            status = slot_start(exchange, slot, error);
        else
            *wait = fmin(*wait, left);
    }
    return status;
}

static enum status slots_finish(struct exchange *exchange, struct error *error) {
    enum status status = STATUS_OK;
    CURLMsg *message;
    int left;
    while (status == STATUS_OK && (message = libcurl.multi_info_read(exchange->multi, &left))) {
        char *private = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        const CURLcode result = message->data.result; /* the message goes with its handle */
        libcurl.easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &private);
        struct slot *slot = (struct slot *)(void *)private;
        libcurl.multi_remove_handle(exchange->multi, slot->easy);
        slot->state = SLOT_FREE;
        status = slot_finish(exchange, slot, result, error);
    }
    return status;
}

static enum status exchange_loop(struct exchange *exchange, struct error *error) {
    static const double glance = 0.2; /* seconds between looks at signals */
    while (exchange->state.answered < exchange->state.total) {
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        double wait = glance;
        int running;
        enum status status = slots_start(exchange, &wait, error);
        if (status != STATUS_OK)
            return status;
        if (libcurl.multi_perform(exchange->multi, &running) != CURLM_OK)
            return error_set_memory(error);
        const size_t answered = exchange->state.answered;
        status = slots_finish(exchange, error);
        if (status != STATUS_OK)
            return status;
        if (exchange->calls->tick)
            exchange->calls->tick(exchange->context, &exchange->state);
        if (exchange->state.answered == answered &&
            libcurl.multi_poll(exchange->multi, NULL, 0, (int)milliseconds(wait), NULL) != CURLM_OK)
            return error_set_memory(error);
    }
    return STATUS_OK;
}

enum status exchange_run(const struct exchange_options *options, size_t count, const struct exchange_calls *calls,
                         void *context, struct error *error) {
    struct exchange exchange = {.options = options, .calls = calls, .context = context, .state.total = count};
    enum status status = libcurl_load(error);
    if (status != STATUS_OK)
        return status;
    if (libcurl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return error_set(error, STATUS_IO, "the HTTP library cannot be started");
    status = exchange_open(&exchange, error);
    if (status == STATUS_OK)
        status = exchange_loop(&exchange, error);
    exchange_close(&exchange);
    libcurl.global_cleanup();
    return status;
}
