/*
 * Perplexity by a server: where it is asked, what it is asked, and what comes of answers and failures. The server is a
 * thread that answers each request as a script says; tests/server has the faults in full.
 */
#include "tests/unit/fixtures.h"

#include <arpa/inet.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include "common/interrupt.h"
#include "infer/server/address.h"
#include "infer/server/server.h"

/* ---- a server ---- */

/* What is answered: 'g' good, 'e' status 500, 'b' status 400, 'c' the connection closes, 'h' half an answer, 't' text. */
struct server {
    int listening;
    char url[64];
    const char *script; /* of requests in their order; the last letter goes on */
    pthread_t thread;
    size_t requests;
    struct text last; /* the last request */
};

/* Reads a request; its body's place, or NULL when the connection ends before. */
static const char *request_read(int connection, struct text *request) {
    char bytes[4096];
    for (;;) {
        const char *end = request->bytes ? strstr(request->bytes, "\r\n\r\n") : NULL;
        const char *length = end ? strcasestr(request->bytes, "content-length:") : NULL;
        if (end &&
            request->length >= (size_t)(end + 4 - request->bytes) + (length ? strtoul(length + 15, NULL, 10) : 0))
            return end + 4;
        ssize_t got = read(connection, bytes, sizeof bytes);
        if (got <= 0)
            return NULL;
        text_append(request, bytes, (size_t)got);
    }
}

static double nll_of(json_int_t id) { return (double)(id % 97) / 16; }

/* The good answer: the NLL of each token follows from its id. */
static void answer_write(const char *body, struct text *out) {
    json_t *request = json_loads(body, 0, NULL);
    if (!request) {
        text_append_string(out, "{\"data\": [{\"id\": \"only\"}]}");
        return;
    }
    const json_t *prompt = json_object_get(request, "prompt");
    text_append_string(out, "{\"choices\": [{\"logprobs\": {\"token_logprobs\": [null");
    for (size_t i = 1; i < json_array_size(prompt); i++)
        text_printf(out, ", %.17g", -nll_of(json_integer_value(json_array_get(prompt, i))));
    text_printf(out, ", -1]}}], \"usage\": {\"prompt_tokens\": %zu, \"completion_tokens\": 1}}",
                json_array_size(prompt));
    json_decref(request);
}

static void reply_write(int connection, char kind, const char *body) {
    struct text answer = {0}, reply = {0};
    answer_write(body, &answer);
    const char *text = kind == 'b'   ? "{\"error\": {\"message\": \"not\\nlike this\"}}"
                       : kind == 'e' ? "oops"
                       : kind == 't' ? "<html>"
                                     : answer.bytes;
    const char *status = kind == 'b' ? "400 Bad Request" : kind == 'e' ? "500 Internal Server Error" : "200 OK";
    text_printf(&reply, "HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", status, strlen(text));
    text_append(&reply, text, kind == 'h' ? strlen(text) / 2 : strlen(text));
    for (size_t done = 0; done < reply.length;) {
        ssize_t wrote = send(connection, reply.bytes + done, reply.length - done, MSG_NOSIGNAL);
        if (wrote <= 0)
            break;
        done += (size_t)wrote;
    }
    text_free(&answer);
    text_free(&reply);
}

static void *server_run(void *user) {
    struct server *server = user;
    int connection;
    while ((connection = accept(server->listening, NULL, NULL)) >= 0) {
        struct text request = {0};
        const char *body = request_read(connection, &request);
        if (body) {
            const size_t steps = strlen(server->script);
            const char kind = server->script[server->requests < steps ? server->requests : steps - 1];
            server->requests++;
            if (kind != 'c')
                reply_write(connection, kind, body);
            text_free(&server->last);
            server->last = request;
        } else {
            text_free(&request);
        }
        shutdown(connection, SHUT_WR);
        close(connection);
    }
    return NULL;
}

static void server_start(struct server *server, const char *script) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *server = (struct server){.script = script, .listening = socket(AF_INET, SOCK_STREAM, 0)};
    assert_true(server->listening >= 0);
    assert_int_equal(bind(server->listening, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server->listening, 64), 0);
    assert_int_equal(getsockname(server->listening, (struct sockaddr *)&address, &size), 0);
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    assert_int_equal(pthread_create(&server->thread, NULL, server_run, server), 0);
}

static void server_stop(struct server *server) {
    shutdown(server->listening, SHUT_RDWR); /* ends accept */
    pthread_join(server->thread, NULL);
    close(server->listening);
    text_free(&server->last);
}

/* ---- runs ---- */

enum { TOKENS = 40 };

static void ids_fill(int32_t ids[TOKENS]) {
    for (int32_t i = 0; i < TOKENS; i++)
        ids[i] = (i * 7919 + 13) % 49152;
}

static struct ppl_server_options options_of(const struct server *server) {
    return (struct ppl_server_options){.url = server->url,
                                       .model = "m",
                                       .in_flight = 2,
                                       .retries = 1,
                                       .timeout_seconds = 60,
                                       .protocol = {.window = 16, .stride = 8},
                                       .quiet = true};
}

/* The windows 0..15, 8..23, 16..31, 24..39 score all tokens but the first. */
static void figures_check(const struct ppl_result *result, const int32_t ids[TOKENS]) {
    double sum = 0;
    assert_int_equal(result->window_count, 4);
    assert_int_equal(result->tokens_scored, TOKENS - 1);
    assert_int_equal(result->tokens_run, 4 * 16);
    for (int i = 1; i < TOKENS; i++) {
        const struct ppl_token *token = &result->tokens[i - 1];
        assert_int_equal(token->position, i);
        assert_int_equal(token->id, ids[i]);
        if ((double)token->nll != nll_of(ids[i]))
            fail_msg("token %d: %g, not %g", i, (double)token->nll, nll_of(ids[i]));
        sum += nll_of(ids[i]);
    }
    assert_true(fabs(result->nll - sum / (TOKENS - 1)) < 1e-12);
    assert_true(fabs(result->ppl - exp(result->nll)) < 1e-12 * result->ppl);
    assert_true(result->seconds > 0 && result->tokens_per_second > 0);
}

static void given_a_server_then_each_scored_token_gets_its_own_nll(void **state) {
    (void)state;
    int32_t ids[TOKENS];
    ids_fill(ids);
    for (unsigned in_flight = 0; in_flight < 9; in_flight += 4) {
        struct server server;
        struct ppl_result result;
        struct error error;
        server_start(&server, "g");
        struct ppl_server_options options = options_of(&server);
        options.in_flight = in_flight;
        assert_ok(ppl_server_run(&options, ids, TOKENS, &result, &error), error);
        server_stop(&server);
        figures_check(&result, ids);
        assert_int_equal(server.requests, 4);
        ppl_result_free(&result);
    }
}

static void given_no_name_then_the_server_is_asked_for_its_model(void **state) {
    (void)state;
    int32_t ids[TOKENS];
    struct server server;
    struct ppl_result result;
    struct error error;
    ids_fill(ids);
    server_start(&server, "g");
    struct ppl_server_options options = options_of(&server);
    options.model = NULL;
    options.in_flight = 1;
    options.api_key = "s3cret";
    assert_ok(ppl_server_run(&options, ids, TOKENS, &result, &error), error);
    assert_contains(server.last.bytes, "{\"model\": \"only\", \"prompt\": [");
    assert_contains(server.last.bytes, "POST /v1/completions HTTP/1.1");
    assert_contains(server.last.bytes, "Authorization: Bearer s3cret\r\n");
    server_stop(&server);
    assert_int_equal(server.requests, 5);
    figures_check(&result, ids);
    ppl_result_free(&result);
}

static void given_failures_then_a_window_is_asked_again(void **state) {
    (void)state;
    static const char *const scripts[] = {"eg", "cg", "hg", "tg", "ggeg", "ecgg"};
    int32_t ids[TOKENS];
    ids_fill(ids);
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        struct server server;
        struct ppl_result result;
        struct error error;
        server_start(&server, scripts[i]);
        struct ppl_server_options options = options_of(&server);
        options.in_flight = i < 4 ? 1 : 4;
        enum status status = ppl_server_run(&options, ids, TOKENS, &result, &error);
        server_stop(&server);
        if (status != STATUS_OK)
            fail_msg("%s: %s", scripts[i], error.message);
        figures_check(&result, ids);
        assert_int_equal(server.requests, i < 5 ? 5 : 6);
        ppl_result_free(&result);
    }
}

static void given_failures_that_stay_then_the_error_says_what(void **state) {
    (void)state;
    static const struct {
        const char *script;
        enum status status;
        size_t requests;
        const char *part;
    } cases[] = {
        {"e", STATUS_IO, 2, "answers 500: oops; its log may say more (2 tries)"},
        {"ec", STATUS_IO, 2, "cannot be reached"},
        {"h", STATUS_IO, 2, "(2 tries)"},
        {"t", STATUS_BAD_INPUT, 2, "not valid JSON"},
        {"b", STATUS_BAD_INPUT, 1, "answers 400: not like this (1 try)"},
        {"geb", STATUS_BAD_INPUT, 3, "answers 400: not like this (2 tries)"},
    };
    int32_t ids[TOKENS];
    ids_fill(ids);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct server server;
        struct ppl_result result;
        struct error error = {{0}};
        server_start(&server, cases[i].script);
        struct ppl_server_options options = options_of(&server);
        options.in_flight = 1;
        enum status status = ppl_server_run(&options, ids, TOKENS, &result, &error);
        server_stop(&server);
        assert_refused(status, cases[i].status, error, cases[i].part);
        assert_int_equal(server.requests, cases[i].requests);
        ppl_result_free(&result);
    }
}

static void given_what_cannot_be_measured_then_nothing_is_asked(void **state) {
    (void)state;
    int32_t ids[TOKENS];
    struct server server;
    struct ppl_result result;
    struct error error;
    ids_fill(ids);
    server_start(&server, "g");
    struct ppl_server_options options = options_of(&server);
    options.protocol.stride = 17;
    assert_refused(ppl_server_run(&options, ids, TOKENS, &result, &error), STATUS_USAGE, error, "stride");
    ppl_result_free(&result);
    options.protocol.stride = 8;
    assert_refused(ppl_server_run(&options, ids, 1, &result, &error), STATUS_BAD_INPUT, error, "1 token");
    ppl_result_free(&result);
    options.api_key = "a\nb";
    assert_refused(ppl_server_run(&options, ids, TOKENS, &result, &error), STATUS_USAGE, error, "API key");
    ppl_result_free(&result);
    options.api_key = NULL;
    ids[17] = -1;
    assert_refused(ppl_server_run(&options, ids, TOKENS, &result, &error), STATUS_BAD_INPUT, error, "token 17");
    ppl_result_free(&result);
    options.url = "ftp://127.0.0.1";
    assert_refused(ppl_server_run(&options, ids, TOKENS, &result, &error), STATUS_USAGE, error, "URL");
    ppl_result_free(&result);
    server_stop(&server);
    assert_int_equal(server.requests, 0);
}

/* ---- addresses ---- */

static void given_any_form_of_url_then_the_same_is_asked(void **state) {
    (void)state;
    static const struct {
        const char *url, *completions, *models, *shown;
    } cases[] = {
        {"http://h:1", "http://h:1/v1/completions", "http://h:1/v1/models", "http://h:1"},
        {"http://h:1/v1//", "http://h:1/v1/completions", "http://h:1/v1/models", "http://h:1"},
        {"http://h:1/v1/completions", "http://h:1/v1/completions", "http://h:1/v1/models", "http://h:1"},
        {"h:1", "http://h:1/v1/completions", "http://h:1/v1/models", "http://h:1"},
        {"https://h/a%20b/v1", "https://h/a%20b/v1/completions", "https://h/a%20b/v1/models", "https://h/a%20b"},
        {"https://h/av1", "https://h/av1/v1/completions", "https://h/av1/v1/models", "https://h/av1"},
        {"http://[::1]:8/", "http://[::1]:8/v1/completions", "http://[::1]:8/v1/models", "http://[::1]:8"},
        {"http://u:p@h/x/?k=1#f", "http://u:p@h/x/v1/completions?k=1", "http://u:p@h/x/v1/models?k=1", "http://h/x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct address address;
        struct error error;
        assert_ok(address_make(cases[i].url, &address, &error), error);
        assert_string_equal(address.completions, cases[i].completions);
        assert_string_equal(address.models, cases[i].models);
        assert_string_equal(address.shown, cases[i].shown);
        address_free(&address);
    }
    static const char *const bad[] = {"", "http://", "ftp://h", "file:///v1", "http://h:99999999", "http://a b", "h\n"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct address address;
        struct error error;
        if (address_make(bad[i], &address, &error) != STATUS_USAGE)
            fail_msg("taken: '%s'", bad[i]);
        address_free(&address);
    }
}

/* ---- the last test: a signal stays pending ---- */

static void given_an_interrupt_then_the_run_ends(void **state) {
    (void)state;
    int32_t ids[TOKENS];
    struct server server;
    struct ppl_result result;
    struct error error;
    ids_fill(ids);
    server_start(&server, "e");
    struct ppl_server_options options = options_of(&server);
    options.retries = 1000;
    interrupt_install();
    raise(SIGTERM);
    assert_refused(ppl_server_run(&options, ids, TOKENS, &result, &error), STATUS_INTERRUPTED, error, "interrupted");
    ppl_result_free(&result);
    server_stop(&server);
}

int main(void) {
    /* A proxy of this machine knows nothing of the servers here. */
    unsetenv("http_proxy");
    unsetenv("all_proxy");
    unsetenv("ALL_PROXY");
    const struct CMUnitTest tests[] = {
        TEST(given_a_server_then_each_scored_token_gets_its_own_nll),
        TEST(given_no_name_then_the_server_is_asked_for_its_model),
        TEST(given_failures_then_a_window_is_asked_again),
        TEST(given_failures_that_stay_then_the_error_says_what),
        TEST(given_what_cannot_be_measured_then_nothing_is_asked),
        TEST(given_any_form_of_url_then_the_same_is_asked),
        TEST(given_an_interrupt_then_the_run_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
