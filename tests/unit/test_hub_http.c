/*
 * The HTTP client: what is sent, what comes back, and what comes of connections that break, stall or say too much.
 */
#include "tests/unit/hub_server.h"

#include <fcntl.h>
#include <signal.h>

#include "common/hub/http.h"
#include "common/interrupt.h"

struct client {
    struct hub_server server;
    struct http *http;
    struct http_reply reply;
    struct error error;
};

/* Patient: what is slow on a machine that has much to do does not fail. */
static void client_start(struct client *client, hub_handler *handler) {
    const struct http_options options = {.connect_seconds = 60, .stall_seconds = 600, .connections_most = 8};
    *client = (struct client){0};
    hub_server_start(&client->server, handler, client);
    assert_ok(http_open(&options, &client->http, &client->error), client->error);
}

static void client_stop(struct client *client) {
    http_reply_free(&client->reply);
    http_close(client->http);
    hub_server_stop(&client->server);
}

/* Asks for a target of the server's; the request may be prepared but for its URL. */
static enum status ask(struct client *client, const char *target, struct http_request request) {
    char *url = text_format("%s%s", client->server.url, target);
    request.url = url;
    if (!request.method)
        request.method = "GET";
    http_reply_free(&client->reply);
    enum status status = http_perform(client->http, &request, &client->reply, &client->error);
    free(url);
    return status;
}

#define GET ((struct http_request){0})

/* ---- replies ---- */

static void plain(const struct hub_asked *asked, struct hub_answer *answer) {
    char value[256];
    if (strcmp(asked->target, "/early") == 0)
        text_append_string(&answer->bytes, "HTTP/1.1 103 Early Hints\r\nX-One: early\r\n\r\n");
    if (strcmp(asked->target, "/trailer") == 0) {
        text_append_string(&answer->bytes, "HTTP/1.1 200 OK\r\nX-One: 1\r\nTransfer-Encoding: chunked\r\nTrailer: X-Two"
                                           "\r\n\r\n3\r\nabc\r\n0\r\nX-Two: 2\r\nX-One: 3\r\n\r\n");
        return;
    }
    if (strcmp(asked->method, "HEAD") == 0) {
        text_append_string(&answer->bytes,
                           "HTTP/1.1 404 No\r\nContent-Length: 1000\r\nX-Error-Code: RepoNotFound\r\n\r\n");
        return;
    }
    assert_true(hub_asked_field(asked, "Accept-Encoding", value) && strcmp(value, "identity") == 0);
    hub_answer_text(answer, 200, "x-one: a \r\nX-ONE:\t b\tc \r\nX-Folded: x\r\n  y\r\nX-Empty:\r\n", "hello");
}

#define assert_field(reply, name, wanted)                                                                              \
    do {                                                                                                               \
        char *field_ = http_reply_field(reply, name);                                                                  \
        assert_non_null(field_);                                                                                       \
        assert_string_equal(field_, wanted);                                                                           \
        free(field_);                                                                                                  \
    } while (0)

static void given_a_reply_then_its_code_fields_and_body_are_there(void **state) {
    (void)state;
    struct client client;
    client_start(&client, plain);
    assert_ok(ask(&client, "/x", GET), client.error);
    assert_int_equal(client.reply.code, 200);
    assert_string_equal(client.reply.body.bytes, "hello");
    assert_field(&client.reply, "X-One", "b\tc");
    assert_field(&client.reply, "X-Folded", "x  y");
    assert_field(&client.reply, "X-Empty", "");
    assert_null(http_reply_field(&client.reply, "X"));
    assert_null(http_reply_field(&client.reply, "hello"));

    assert_ok(ask(&client, "/early", GET), client.error); /* what came before the reply itself is not its own */
    assert_int_equal(client.reply.code, 200);
    assert_field(&client.reply, "X-One", "b\tc");
    assert_ok(ask(&client, "/trailer", GET), client.error);
    assert_string_equal(client.reply.body.bytes, "abc");
    assert_field(&client.reply, "X-One", "1");
    assert_null(http_reply_field(&client.reply, "X-Two"));

    assert_ok(ask(&client, "/x", (struct http_request){.method = "HEAD"}), client.error);
    assert_int_equal(client.reply.code, 404);
    assert_int_equal(client.reply.body.length, 0);
    assert_field(&client.reply, "x-error-code", "RepoNotFound");
    assert_int_equal(client.server.connections, 1); /* for all of them */
    client_stop(&client);
}

/* ---- bodies piece by piece ---- */

struct taken {
    struct text bytes;
    bool keep;         /* what begin says */
    enum status begin; /* and gives as a status */
    size_t most;       /* bytes after which data ends the transfer; 0: never */
    long code;         /* that begin saw */
    unsigned begins;
};

static bool taken_begin(void *context, const struct http_reply *reply, enum status *status, struct error *error) {
    struct taken *taken = context;
    taken->begins++;
    taken->code = reply->code;
    if (taken->begin != STATUS_OK)
        *status = error_set(error, taken->begin, "not this one");
    return !taken->keep;
}

static enum status taken_data(void *context, const void *bytes, size_t size, struct error *error) {
    struct taken *taken = context;
    text_append(&taken->bytes, bytes, size);
    return taken->most && taken->bytes.length >= taken->most ? error_set(error, STATUS_CHECK_FAILED, "enough")
                                                             : STATUS_OK;
}

static struct http_request pieces(struct taken *taken) {
    return (struct http_request){.begin = taken_begin, .data = taken_data, .context = taken};
}

enum { LARGE = 3 << 20 };

static void large(const struct hub_asked *asked, struct hub_answer *answer) {
    char *bytes = malloc(LARGE);
    memset(bytes, 'x', LARGE);
    hub_answer_bytes(answer, strcmp(asked->target, "/error") == 0 ? 500 : 200, "", bytes, LARGE);
    free(bytes);
}

static void given_a_place_for_the_body_then_it_goes_there(void **state) {
    (void)state;
    struct client client;
    struct taken taken = {0};
    client_start(&client, large);
    assert_ok(ask(&client, "/", pieces(&taken)), client.error);
    assert_int_equal(taken.bytes.length, LARGE);
    assert_int_equal(client.reply.body.length, 0);
    assert_int_equal(taken.code, 200);
    assert_int_equal(taken.begins, 1);
    text_free(&taken.bytes);

    taken = (struct taken){.keep = true}; /* an error's text, not all of it */
    assert_ok(ask(&client, "/error", pieces(&taken)), client.error);
    assert_int_equal(client.reply.code, 500);
    assert_int_equal(taken.bytes.length, 0);
    assert_int_equal(client.reply.body.length, 64 << 10);

    taken = (struct taken){.begin = STATUS_BAD_INPUT};
    assert_refused(ask(&client, "/", pieces(&taken)), STATUS_BAD_INPUT, client.error, "not this one");
    assert_int_equal(taken.bytes.length, 0);
    assert_false(client.reply.transient);

    taken = (struct taken){.most = 1};
    assert_refused(ask(&client, "/", pieces(&taken)), STATUS_CHECK_FAILED, client.error, "enough");
    assert_in_range(taken.bytes.length, 1, LARGE - 1);
    text_free(&taken.bytes);

    assert_refused(ask(&client, "/?secret", GET), STATUS_IO, client.error, "more than the 1048576 bytes");
    assert_null(strstr(client.error.message, "secret"));
    assert_false(client.reply.transient);
    assert_ok(ask(&client, "/", (struct http_request){.body_limit = LARGE}), client.error);
    assert_int_equal(client.reply.body.length, LARGE);
    assert_refused(ask(&client, "/", (struct http_request){.body_limit = LARGE - 1}), STATUS_IO, client.error,
                   "3145727 bytes");
    client_stop(&client);
}

/* ---- what is sent ---- */

static void echo(const struct hub_asked *asked, struct hub_answer *answer) {
    char type[256] = "", length[256] = "none", expect[256];
    struct text body = {0};
    hub_asked_field(asked, "Content-Type", type);
    hub_asked_field(asked, "Content-Length", length);
    text_printf(&body, "%s expect=%d type=%s length=%s body=", asked->method, hub_asked_field(asked, "Expect", expect),
                type, length);
    text_append(&body, asked->body, asked->body_length);
    hub_answer_bytes(answer, 200, "", body.bytes, body.length);
    text_free(&body);
}

static void given_a_body_then_it_is_sent_whole(void **state) {
    struct fixture *fixture = *state;
    struct client client;
    char path[256];
    static const char *const json[] = {"Content-Type: application/json"};
    client_start(&client, echo);
    assert_ok(
        ask(&client, "/",
            (struct http_request){.method = "POST", .body = "{}", .body_size = 2, .fields = json, .field_count = 1}),
        client.error);
    assert_string_equal(client.reply.body.bytes, "POST expect=0 type=application/json length=2 body={}");
    assert_ok(ask(&client, "/", (struct http_request){.method = "PUT", .body = "abc", .body_size = 3}), client.error);
    assert_string_equal(client.reply.body.bytes, "PUT expect=0 type= length=3 body=abc");
    assert_ok(ask(&client, "/", (struct http_request){.method = "PUT"}), client.error);
    assert_string_equal(client.reply.body.bytes, "PUT expect=0 type= length=0 body=");
    assert_ok(ask(&client, "/", (struct http_request){.method = "POST", .fields = json, .field_count = 1}),
              client.error);
    assert_string_equal(client.reply.body.bytes, "POST expect=0 type=application/json length=0 body=");

    char *bytes = malloc(LARGE);
    uint64_t seed = 1;
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = (char)('a' + fixture_random(&seed) % 26);
    fixture_bytes(fixture, "file", bytes, LARGE);
    int fd = open(fixture_path(fixture, "file", path), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    struct http_request put = {
        .method = "PUT", .body_file = fd, .body_offset = 1000, .body_size = LARGE - 2000, .body_limit = 2 * LARGE};
    assert_ok(ask(&client, "/", put), client.error);
    const char *sent = strstr(client.reply.body.bytes, "body=");
    assert_non_null(sent);
    assert_int_equal(client.reply.body.length - (size_t)(sent + 5 - client.reply.body.bytes), LARGE - 2000);
    assert_memory_equal(sent + 5, bytes + 1000, LARGE - 2000);

    put.body_size = LARGE; /* more than there is */
    assert_refused(ask(&client, "/", put), STATUS_IO, client.error, "shorter");
    assert_false(client.reply.transient);
    close(fd);
    free(bytes);
    client_stop(&client);
}

static void given_a_line_break_in_a_field_then_nothing_is_sent(void **state) {
    (void)state;
    struct client client;
    static const char *const fields[] = {"X: 1\r\nY: 2"};
    client_start(&client, plain);
    assert_refused(ask(&client, "/", (struct http_request){.fields = fields, .field_count = 1}), STATUS_BAD_INPUT,
                   client.error, "line break");
    assert_asked(&client.server, "");
    client_stop(&client);
}

/* ---- what goes wrong ---- */

static void broken(const struct hub_asked *asked, struct hub_answer *answer) {
    const char *kind = asked->target;
    if (strcmp(kind, "/close") == 0) {
        answer->close = true;
    } else if (strcmp(kind, "/cut") == 0) {
        text_append_string(&answer->bytes, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        answer->close = true;
    } else if (strcmp(kind, "/fields") == 0) {
        text_append_string(&answer->bytes, "HTTP/1.1 200 OK\r\nX-Half: ");
        answer->close = true;
    } else if (strcmp(kind, "/stall") == 0) {
        text_append_string(&answer->bytes, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        answer->hold = true;
    } else if (strcmp(kind, "/silent") == 0) {
        answer->hold = true;
    } else if (strcmp(kind, "/garbage") == 0) {
        text_append_string(&answer->bytes, "this is not HTTP\r\n\r\n");
        answer->close = true;
    } else if (strcmp(kind, "/many") == 0) {
        text_append_string(&answer->bytes, "HTTP/1.1 200 OK\r\n");
        for (int i = 0; i < 10000; i++)
            text_printf(&answer->bytes, "X-%d: some value\r\n", i);
        text_append_string(&answer->bytes, "Content-Length: 0\r\n\r\n");
    } else {
        hub_answer_text(answer, 200, "", "good");
    }
}

static void given_a_connection_that_breaks_then_it_may_pass(void **state) {
    (void)state;
    struct client client;
    client_start(&client, broken);
    static const char *const kinds[] = {"/close", "/cut", "/fields"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        assert_refused(ask(&client, kinds[i], GET), STATUS_IO, client.error, kinds[i]);
        if (!client.reply.transient)
            fail_msg("%s: %s", kinds[i], client.error.message);
        assert_ok(ask(&client, "/good", GET), client.error); /* the client goes on */
    }
    assert_refused(ask(&client, "/garbage", GET), STATUS_IO, client.error, "/garbage");
    assert_refused(ask(&client, "/many", GET), STATUS_IO, client.error, "larger than 64 KiB");
    assert_false(client.reply.transient);

    struct taken taken = {0};
    assert_refused(ask(&client, "/cut", pieces(&taken)), STATUS_IO, client.error, "/cut");
    assert_string_equal(taken.bytes.bytes, "half");
    text_free(&taken.bytes);
    client_stop(&client);
}

static void given_a_server_that_stalls_then_it_may_pass(void **state) {
    (void)state;
    struct client client;
    const struct http_options options = {.connect_seconds = 60, .stall_seconds = 1};
    struct http *patient;
    client_start(&client, broken);
    patient = client.http;
    assert_ok(http_open(&options, &client.http, &client.error), client.error);
    static const char *const kinds[] = {"/stall", "/silent"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        assert_refused(ask(&client, kinds[i], GET), STATUS_IO, client.error, kinds[i]);
        assert_true(client.reply.transient);
    }
    http_close(client.http);
    client.http = patient;
    client_stop(&client);
}

static void given_nobody_there_then_it_may_pass(void **state) {
    (void)state;
    struct client client;
    client_start(&client, plain);
    hub_server_stop(&client.server);
    assert_refused(ask(&client, "/", GET), STATUS_IO, client.error, "127.0.0.1");
    assert_true(client.reply.transient);
    assert_int_equal(client.reply.code, 0);
    http_reply_free(&client.reply);
    http_close(client.http);
}

static void given_what_is_no_http_then_it_is_refused(void **state) {
    (void)state;
    struct client client;
    client_start(&client, plain);
    static const char *const urls[] = {"file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "", "http://"};
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        struct http_request request = {.method = "GET", .url = urls[i]};
        assert_int_equal(http_perform(client.http, &request, &client.reply, &client.error), STATUS_IO);
        assert_false(client.reply.transient);
        assert_int_equal(client.reply.body.length, 0);
    }
    client_stop(&client);
}

/* ---- many at a time ---- */

enum { THREADS = 16, EACH = 20 };

static void numbered(const struct hub_asked *asked, struct hub_answer *answer) {
    hub_answer_text(answer, 200, "", asked->target);
}

static void *ask_many(void *context) {
    struct client *client = context;
    uintptr_t wrong = 0;
    for (int i = 0; i < EACH; i++) {
        struct http_reply reply;
        struct error error;
        char target[32];
        snprintf(target, sizeof target, "/%p/%d", (void *)&reply, i);
        char *url = text_format("%s%s", client->server.url, target);
        const struct http_request request = {.method = "GET", .url = url};
        wrong += http_perform(client->http, &request, &reply, &error) != STATUS_OK || !reply.body.bytes ||
                 strcmp(reply.body.bytes, target) != 0;
        http_reply_free(&reply);
        free(url);
    }
    return (void *)wrong;
}

static void given_many_threads_then_each_gets_its_own_reply(void **state) {
    (void)state;
    struct client client;
    pthread_t threads[THREADS];
    client_start(&client, numbered);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ask_many, &client), 0);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    assert_int_equal(client.server.requests, THREADS * EACH);
    assert_in_range(client.server.connections, 1, 8); /* connections_most */
    client_stop(&client);
}

struct closing {
    struct http *http;
    pthread_t thread;
};

static void *close_it(void *context) {
    http_close(context);
    return NULL;
}

/* Now the transfer is under way. */
static bool closing_begin(void *context, const struct http_reply *reply, enum status *status, struct error *error) {
    struct closing *closing = context;
    (void)reply;
    if (pthread_create(&closing->thread, NULL, close_it, closing->http) != 0)
        *status = error_set_memory(error);
    return false;
}

static void given_a_client_that_is_closed_then_who_waits_is_told(void **state) {
    (void)state;
    struct client client;
    client_start(&client, broken);
    struct closing closing = {.http = client.http};
    assert_refused(ask(&client, "/stall", (struct http_request){.begin = closing_begin, .context = &closing}),
                   STATUS_IO, client.error, "closed");
    pthread_join(closing.thread, NULL);
    http_reply_free(&client.reply);
    hub_server_stop(&client.server);
}

/* ---- the last test: a signal stays pending ---- */

static bool raise_begin(void *context, const struct http_reply *reply, enum status *status, struct error *error) {
    (void)reply;
    (void)status;
    (void)error;
    pthread_kill(*(pthread_t *)context, SIGINT);
    return false;
}

static void given_an_interrupt_then_a_transfer_ends(void **state) {
    (void)state;
    struct client client;
    pthread_t self = pthread_self();
    client_start(&client, broken);
    interrupt_install();
    assert_refused(ask(&client, "/stall", (struct http_request){.begin = raise_begin, .context = &self}),
                   STATUS_INTERRUPTED, client.error, "interrupted");
    assert_refused(ask(&client, "/good", GET), STATUS_INTERRUPTED, client.error, "interrupted");
    client_stop(&client);
}

int main(void) {
    hub_environment_clear();
    const struct CMUnitTest tests[] = {
        TEST(given_a_reply_then_its_code_fields_and_body_are_there),
        TEST(given_a_place_for_the_body_then_it_goes_there),
        TEST(given_a_body_then_it_is_sent_whole),
        TEST(given_a_line_break_in_a_field_then_nothing_is_sent),
        TEST(given_a_connection_that_breaks_then_it_may_pass),
        TEST(given_a_server_that_stalls_then_it_may_pass),
        TEST(given_nobody_there_then_it_may_pass),
        TEST(given_what_is_no_http_then_it_is_refused),
        TEST(given_many_threads_then_each_gets_its_own_reply),
        TEST(given_a_client_that_is_closed_then_who_waits_is_told),
        TEST(given_an_interrupt_then_a_transfer_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
