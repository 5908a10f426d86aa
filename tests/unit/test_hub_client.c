/*
 * Talking to a Hub: where the token goes, redirects, what is tried again, and errors in words. Two servers: the Hub, and one
 * that stands for what it redirects to.
 */
#include "tests/unit/hub_server.h"

#include <time.h>

#include "common/hub/hub.h"
#include "common/hub/listing.h"
#include "common/hub/retry.h"
#include "common/libcurl.h"

#define COMMIT "00112233445566778899aabbccddeeff00112233"
#define OID "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"

struct world {
    struct hub_server server, away;
    struct hub hub;
    struct hub_reference reference;
    struct http_reply reply;
    struct hub_route route;
    struct error error;
};

static void world_start(struct world *world, hub_handler *handler, const char *token) {
    *world = (struct world){0};
    hub_server_start(&world->server, handler, world);
    hub_server_start(&world->away, handler, world);
    hub_environment_clear();
    setenv("HF_ENDPOINT", world->server.url, 1);
    setenv("HF_HUB_DOWNLOAD_TIMEOUT", "600", 1);
    if (token)
        setenv("HF_TOKEN", token, 1);
    assert_ok(hub_open(&world->hub, &world->error), world->error);
    world->hub.retry_seconds = 0;
    assert_ok(hub_reference_parse("org/name@v1", &world->reference, &world->error), world->error);
}

static void world_stop(struct world *world) {
    http_reply_free(&world->reply);
    hub_route_free(&world->route);
    hub_reference_free(&world->reference);
    hub_close(&world->hub);
    hub_server_stop(&world->server);
    hub_server_stop(&world->away);
}

/* Asks the Hub for a target; the request may be prepared but for its URL. */
static enum status ask(struct world *world, const char *target, struct hub_request request) {
    char *url = text_format("%s%s", world->server.url, target);
    request.url = url;
    request.subject.reference = &world->reference;
    request.route = &world->route;
    if (!request.method)
        request.method = "GET";
    http_reply_free(&world->reply);
    enum status status = hub_perform(&world->hub, &request, &world->reply, &world->error);
    free(url);
    return status;
}

#define GET ((struct hub_request){0})

static bool is_away(const struct hub_asked *asked) {
    return asked->server == &((struct world *)asked->server->context)->away;
}

/* ---- redirects ---- */

/* /to/CODE/N leads on to /to/CODE/N-1; at 0 there is an answer. /away/CODE leads to the other server. */
static void leads(const struct hub_asked *asked, struct hub_answer *answer) {
    const struct world *world = asked->server->context;
    char fields[512];
    int code, left;
    if (sscanf(asked->target, "/to/%d/%d", &code, &left) == 2 && left > 0) {
        snprintf(fields, sizeof fields, "Location: /to/%d/%d\r\nX-Hop: %d\r\n", code, left - 1, left);
        hub_answer_text(answer, code, fields, "not this");
    } else if (sscanf(asked->target, "/away/%d", &code) == 1) {
        snprintf(fields, sizeof fields, "Location: %s/there?signature=s\r\nX-Linked-Size: 5\r\n", world->away.url);
        hub_answer_text(answer, code, fields, "not this");
    } else if (strcmp(asked->target, "/bounce") == 0 && !is_away(asked)) {
        snprintf(fields, sizeof fields, "Location: %s/bounce\r\n", world->away.url);
        hub_answer_text(answer, 302, fields, "");
    } else if (strcmp(asked->target, "/bounce") == 0) {
        snprintf(fields, sizeof fields, "Location: %s/back\r\n", world->server.url);
        hub_answer_text(answer, 302, fields, "");
    } else if (strncmp(asked->target, "/bad/", 5) == 0) {
        static const char *const places[] = {"file:///etc/passwd", "ftp://h/x", "http://user:p@h/x", "http://"};
        snprintf(fields, sizeof fields, "Location: %s\r\n", places[atoi(asked->target + 5)]);
        hub_answer_text(answer, 302, fields, "");
    } else {
        char body[64];
        snprintf(body, sizeof body, "%s %.*s", asked->method, (int)asked->body_length, asked->body);
        hub_answer_text(answer, 200, "X-Error-Code: none\r\nX-Last: 1\r\n", body);
    }
}

static void given_redirects_then_they_are_followed_by_the_rules(void **state) {
    (void)state;
    struct world world;
    world_start(&world, leads, NULL);
    static const struct {
        int code;
        const char *method, *answer;
    } cases[] = {
        {301, "GET", "GET "},    {302, "GET", "GET "},    {303, "GET", "GET "},  {307, "GET", "GET "},
        {308, "GET", "GET "},    {301, "POST", "GET "},   {302, "POST", "GET "}, {303, "POST", "GET "},
        {307, "POST", "POST b"}, {308, "POST", "POST b"}, {307, "PUT", "PUT b"}, {302, "PUT", "PUT b"},
        {303, "PUT", "GET "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char target[32], log[64];
        snprintf(target, sizeof target, "/to/%d/1", cases[i].code);
        const bool sends = strcmp(cases[i].method, "GET") != 0;
        assert_ok(ask(&world, target,
                      (struct hub_request){.method = cases[i].method, .body = sends ? "b" : NULL, .body_size = sends}),
                  world.error);
        assert_string_equal(world.reply.body.bytes, cases[i].answer);
        snprintf(log, sizeof log, "%s /to/%d/1\n%.*s /to/%d/0\n", cases[i].method, cases[i].code,
                 (int)strcspn(cases[i].answer, " "), cases[i].answer, cases[i].code);
        assert_asked(&world.server, log);
    }
    assert_ok(ask(&world, "/to/302/1", (struct hub_request){.method = "HEAD"}), world.error);
    assert_asked(&world.server, "HEAD /to/302/1\nHEAD /to/302/0\n");
    assert_int_equal(world.reply.body.length, 0);

    assert_ok(ask(&world, "/to/302/10", GET), world.error);
    char *hop = http_field_find(&world.route.fields, "X-Hop"), *end = text_format("%s/to/302/0", world.server.url);
    assert_string_equal(hop, "1"); /* the fields of all of them, in order */
    assert_string_equal(world.route.url, end);
    assert_false(world.route.away);
    free(hop);
    free(end);
    assert_refused(ask(&world, "/to/302/11", GET), STATUS_IO, world.error, "circles");
    for (int i = 0; i < 4; i++) {
        char target[32];
        snprintf(target, sizeof target, "/bad/%d", i);
        assert_refused(ask(&world, target, GET), STATUS_IO, world.error, "no address of http");
    }
    world_stop(&world);
}

static void given_a_token_then_only_the_hub_gets_it(void **state) {
    (void)state;
    struct world world;
    world_start(&world, leads, "hf_secret");
    assert_ok(ask(&world, "/to/307/1", GET), world.error);
    assert_asked(&world.server, "GET /to/307/1 token\nGET /to/307/0 token\n");
    assert_ok(ask(&world, "/away/302", GET), world.error);
    assert_asked(&world.server, "GET /away/302 token\n");
    assert_asked(&world.away, "GET /there?signature=s\n");
    assert_true(world.route.away);
    assert_true(text_ends_with(world.route.url, "/there?signature=s"));
    char *size = http_field_find(&world.route.fields, "X-Linked-Size");
    assert_string_equal(size, "5");                              /* the Hub's word ... */
    assert_null(http_field_find(&world.route.fields, "X-Last")); /* ... not the other's */
    free(size);
    assert_ok(ask(&world, "/bounce", GET), world.error); /* a stranger cannot make us use it */
    assert_asked(&world.server, "GET /bounce token\nGET /back\n");
    assert_asked(&world.away, "GET /bounce\n");
    assert_true(world.route.away);

    /* A request that begins elsewhere. */
    char *url = text_format("%s/put", world.away.url);
    const struct hub_request request = {
        .method = "PUT", .url = url, .body = "x", .body_size = 1, .subject = {.reference = &world.reference}};
    http_reply_free(&world.reply);
    assert_ok(hub_perform(&world.hub, &request, &world.reply, &world.error), world.error);
    assert_asked(&world.away, "PUT /put\n");
    free(url);
    world_stop(&world);
}

static void given_an_endpoint_with_tls_then_nothing_goes_without(void **state) {
    (void)state;
    struct world world;
    world_start(&world, leads, "hf_secret");
    free(world.hub.environment.endpoint);
    world.hub.environment.endpoint = strdup("https://huggingface.co");
    assert_refused(ask(&world, "/x", GET), STATUS_IO, world.error, "from https to http");
    assert_asked(&world.server, "");
    world_stop(&world);
}

static void given_offline_then_nothing_is_asked(void **state) {
    (void)state;
    struct world world;
    world_start(&world, leads, NULL);
    struct hub hub;
    setenv("HF_HUB_OFFLINE", "1", 1);
    assert_ok(hub_open(&hub, &world.error), world.error);
    assert_null(hub.http);
    const struct hub_request request = {
        .method = "GET", .url = world.server.url, .subject = {.reference = &world.reference}};
    assert_refused(hub_perform(&hub, &request, &world.reply, &world.error), STATUS_IO, world.error, "HF_HUB_OFFLINE");
    assert_asked(&world.server, "");
    hub_close(&hub);
    unsetenv("HF_HUB_OFFLINE");
    world_stop(&world);
}

/* ---- attempts ---- */

/* /CODE/N answers CODE for N requests, then 200; code 0 closes the connection. /moved/CODE/N does so on the other server. */
static void flaky(const struct hub_asked *asked, struct hub_answer *answer) {
    const struct world *world = asked->server->context;
    int code = 0, bad = 0;
    if (strncmp(asked->target, "/moved", 6) == 0 && !is_away(asked)) {
        char fields[256];
        snprintf(fields, sizeof fields, "Location: %s%s\r\n", world->away.url, asked->target + 6);
        hub_answer_text(answer, 302, fields, "");
        return;
    }
    if (strcmp(asked->target, "/half") == 0) {
        text_append_string(&answer->bytes, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        answer->close = true;
        return;
    }
    sscanf(asked->target, "/%d/%d", &code, &bad);
    if (asked->number >= (size_t)bad)
        hub_answer_text(answer, 200, "", "good");
    else if (code == 0)
        answer->close = true;
    else
        hub_answer_text(answer, code, code == 503 ? "Retry-After: 0\r\n" : "", "{\"error\": \"try \\u0041gain\"}");
}

static size_t lines(struct hub_server *server) {
    char *log = hub_server_log(server);
    size_t count = 0;
    for (const char *c = log; *c; c++)
        count += *c == '\n';
    free(log);
    return count;
}

static void given_failures_that_pass_then_it_is_tried_again(void **state) {
    (void)state;
    static const int codes[] = {0, 408, 500, 502, 503, 504};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        struct world world;
        char target[32];
        world_start(&world, flaky, NULL);
        snprintf(target, sizeof target, "/%d/%d", codes[i], codes[i] ? 1 : HUB_ATTEMPTS - 1);
        assert_ok(ask(&world, target, GET), world.error);
        assert_string_equal(world.reply.body.bytes, "good");
        assert_int_equal(lines(&world.server), codes[i] ? 2 : HUB_ATTEMPTS);
        world_stop(&world);
    }
}

static void given_failures_that_stay_then_the_error_says_so(void **state) {
    (void)state;
    struct world world;
    world_start(&world, flaky, NULL);
    assert_refused(ask(&world, "/0/1000", GET), STATUS_IO, world.error, "/0/1000");
    assert_true(world.reply.transient);
    assert_int_equal(lines(&world.server), HUB_ATTEMPTS);
    assert_refused(ask(&world, "/0/1000", (struct hub_request){.once = true}), STATUS_IO, world.error, "/0/1000");
    assert_int_equal(lines(&world.server), 1);
    assert_refused(ask(&world, "/503/1000", (struct hub_request){.once = true}), STATUS_IO, world.error,
                   "answers 503: try Again");
    assert_int_equal(lines(&world.server), 1);
    static const int codes[] = {400, 404, 412, 501};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        char target[32];
        snprintf(target, sizeof target, "/%d/1000", codes[i]);
        assert_refused(ask(&world, target, GET), STATUS_BAD_INPUT, world.error, "try Again");
        assert_int_equal(lines(&world.server), 1);
    }
    world_stop(&world);
}

static enum status text_data(void *context, const void *bytes, size_t size, struct error *error) {
    (void)error;
    text_append(context, bytes, size);
    return STATUS_OK;
}

static void given_bytes_that_came_then_nothing_is_tried_again(void **state) {
    (void)state;
    struct world world;
    struct text text = {0};
    world_start(&world, flaky, NULL);
    assert_refused(ask(&world, "/half", (struct hub_request){.data = text_data, .context = &text}), STATUS_IO,
                   world.error, "/half");
    assert_true(world.reply.transient);
    assert_string_equal(text.bytes, "half");
    assert_int_equal(lines(&world.server), 1);
    text_free(&text);
    /* An error's body is none of the data. */
    assert_refused(ask(&world, "/404/1000", (struct hub_request){.data = text_data, .context = &text}),
                   STATUS_BAD_INPUT, world.error, "404");
    assert_null(text.bytes);
    world_stop(&world);
}

static void given_another_host_that_refuses_then_the_hub_is_asked_anew(void **state) {
    (void)state;
    struct world world;
    world_start(&world, flaky, NULL);
    assert_ok(ask(&world, "/moved/403/1", (struct hub_request){0}), world.error);
    assert_int_equal(lines(&world.server), 2);
    assert_int_equal(lines(&world.away), 2);
    assert_refused(ask(&world, "/moved/403/1000", GET), STATUS_IO, world.error, "answers 403");
    assert_int_equal(world.reply.code, 403);
    assert_int_equal(lines(&world.server), 3);
    world_stop(&world);
}

static void given_what_a_server_asks_for_then_it_is_waited_for(void **state) {
    (void)state;
    struct error error;
    assert_ok(libcurl_load(&error), error);
    static const struct {
        long code;
        const char *fields;
        double seconds; /* without the one that is added; negative: not said */
    } cases[] = {
        {503, "", -1},
        {503, "Retry-After: 7\n", 7},
        {429, "retry-after:  120  \n", 120},
        {429, "Retry-After: 0\n", 0},
        {429, "Retry-After: -5\n", -1},
        {429, "Retry-After: 5s\n", -1},
        {429, "Retry-After: \n", -1},
        {429, "Retry-After: 99999999999999999999999999\n", 1e9},
        {503, "Retry-After: Fri, 13 Feb 2009 23:32:30 GMT\n", 60},
        {503, "Retry-After: Fri, 13 Feb 2009 23:31:29 GMT\n", 0},
        {503, "Retry-After: soon\n", -1},
        {429, "RateLimit: \"api\";r=0;t=55\n", 55},
        {429, "ratelimit: \"resolvers\" ; r = 0 ; t = 166\nRetry-After: 3\n", 166},
        {429, "RateLimit: \"a b\";r=0;t=1, \"api\";r=0;t=5\n", 5},
        {429, "RateLimit: \"api\";r=12;t=55\nRetry-After: 3\n", 3},
        {429, "RateLimit: \"api\";r=12;t=55\n", -1},
        {503, "RateLimit: \"api\";r=0;t=55\n", -1},
        {429, "RateLimit: \"api\";r=0\n", -1},
        {429, "RateLimit: \"\n", -1},
        {429, "RateLimit: \"api\n", -1},
        {429, "RateLimit: \"api\";r=;t=3\n", -1},
        {429, "RateLimit: \"api\";r=0;t=99999999999999999999999\n", 1e9},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_reply reply = {.code = cases[i].code};
        text_append_string(&reply.fields, cases[i].fields);
        const double seconds = retry_asked(&reply, 1234567890), wanted = cases[i].seconds;
        if (!(wanted < 0 ? seconds < 0 : seconds == wanted + 1))
            fail_msg("%s: %g instead of %g", cases[i].fields, seconds, wanted);
        http_reply_free(&reply);
    }
    for (unsigned attempt = 2; attempt < 8; attempt++) {
        const double wait = retry_wait(attempt, 1), middle = 1 << (attempt - 2);
        assert_true(wait >= 0.75 * middle && wait <= 1.25 * middle);
    }
}

static void impatient(const struct hub_asked *asked, struct hub_answer *answer) {
    (void)asked;
    hub_answer_text(answer, 429, "RateLimit: \"api\";r=0;t=100000\r\n", "slow down");
}

static void given_a_wait_without_end_then_the_error_says_so(void **state) {
    (void)state;
    struct world world;
    world_start(&world, impatient, NULL);
    assert_refused(ask(&world, "/", GET), STATUS_IO, world.error, "fewer requests");
    assert_contains(world.error.message, "slow down");
    assert_int_equal(lines(&world.server), 1);
    world_stop(&world);
}

/* ---- refusals ---- */

struct refusal {
    int code;
    const char *fields, *body;
    enum status status;
    const char *anonymous, *with_token; /* what the message says */
};

static const struct refusal *refusal; /* what the Hub answers now */

static void refuse(const struct hub_asked *asked, struct hub_answer *answer) {
    (void)asked;
    hub_answer_text(answer, refusal->code, refusal->fields, refusal->body);
}

static void given_a_refusal_then_it_is_told_in_words(void **state) {
    (void)state;
    static const struct refusal refusals[] = {
        {401, "X-Error-Message: Invalid username or password.\r\n", "{\"error\":\"Invalid username or password.\"}",
         STATUS_BAD_INPUT, "or it is private: check the name", "or the token is not valid"},
        {404, "X-Error-Code: RepoNotFound\r\nX-Error-Message: Repository not found\r\n", "", STATUS_BAD_INPUT,
         "has no 'hf://org/name', or it is private", "your token may not read it"},
        {401, "X-Error-Code: GatedRepo\r\nX-Error-Message: Please log in.\r\n", "", STATUS_BAD_INPUT,
         "/org/name, then set HF_TOKEN or run 'hf auth login' (it says: Please log in.)", "may not read it"},
        {403, "x-error-code: GatedRepo\r\n", "", STATUS_BAD_INPUT,
         "is gated: ask for access at http://127.0.0.1:", "an account that has it"},
        {404, "X-Error-Code: RevisionNotFound\r\nX-Error-Message: Invalid rev id: v1\r\n", "", STATUS_BAD_INPUT,
         "'hf://org/name' has no revision 'v1'", "has no revision 'v1'"},
        {404, "X-Error-Code: EntryNotFound\r\nX-Repo-Commit: x\r\n", "Entry not found", STATUS_BAD_INPUT,
         "'hf://org/name@v1' has no file 'a/b.json'", "has no file"},
        {403, "X-Error-Message: Access to this resource is disabled.\r\n", "", STATUS_BAD_INPUT, "disabled access",
         "disabled access"},
        {401, "X-Error-Message: Invalid credentials in Authorization header\r\n", "", STATUS_BAD_INPUT,
         "does not take your token", "HF_HUB_DISABLE_IMPLICIT_TOKEN=1"},
        {403, "X-Error-Message: You need a token with write access\r\n", "", STATUS_BAD_INPUT, "a token (HF_TOKEN",
         "forbidden to your token (it says: You need a token with write access)"},
        {451, "", "not here", STATUS_BAD_INPUT, "legal reasons (it says: not here)", "legal reasons"},
        {404, "", "<html>\n<body>no</body>", STATUS_BAD_INPUT, "answers 404", "answers 404"},
        {400, "", "{\"error\":\"Bad\\nthing\"}", STATUS_BAD_INPUT, "answers 400: Bad", "answers 400: Bad"},
        {302, "", "", STATUS_BAD_INPUT, "answers 302", "answers 302"},
        {507, "", "\x1b[31mred\x1b[0m\n", STATUS_BAD_INPUT, "\\x1b[31mred\\x1b[0m", "\\x1b[31mred"},
        {400, "", "{\"error\": {\"not\": \"text\"}}", STATUS_BAD_INPUT, "answers 400", "answers 400"},
        {400, "", "the token was hf_secret", STATUS_BAD_INPUT, "answers 400", "answers 400"},
    };
    for (int token = 0; token < 2; token++)
        for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
            struct world world;
            refusal = &refusals[i];
            world_start(&world, refuse, token ? "hf_secret" : NULL);
            assert_refused(ask(&world, "/x", (struct hub_request){.subject = {.file = "a/b.json"}}), refusal->status,
                           world.error, token ? refusal->with_token : refusal->anonymous);
            if (token)
                assert_null(strstr(world.error.message, "hf_secret"));
            assert_int_equal(world.reply.code, refusal->code);
            assert_int_equal(lines(&world.server), 1);
            world_stop(&world);
        }
}

/* ---- the listing ---- */

/* A repository of three files, two entries a page; what goes wrong is in the revision. */
static void repository(const struct hub_asked *asked, struct hub_answer *answer) {
    const struct world *world = asked->server->context;
    static const char start[] = "/api/models/org/name/tree/" COMMIT "?recursive=true&expand=false";
    const char *kind = world->reference.revision;
    char fields[1024] = "";
    if (strncmp(asked->target, "/api/models/org/name/revision/", 30) == 0) {
        hub_answer_text(answer, 200, "", "{\"sha\":\"" COMMIT "\", \"id\": \"org/name\"}");
    } else if (strcmp(asked->target, start) == 0) {
        const char *next = strcmp(kind, "elsewhere") == 0 ? world->away.url
                           : strcmp(kind, "circle") == 0  ? start
                                                          : "/api/next?page=2";
        snprintf(fields, sizeof fields, "Link: <%s>; rel=\"next\"\r\n", next);
        hub_answer_text(answer, 200, fields,
                        strcmp(kind, "circle") == 0
                            ? "[]"
                            : "[{\"type\":\"directory\",\"path\":\"b\",\"oid\":\"" OID "\",\"size\":0},"
                              "{\"type\":\"file\",\"path\":\"b/c\",\"oid\":\"" OID "\",\"size\":3}]");
    } else if (strcmp(asked->target, "/api/next?page=2") == 0) {
        hub_answer_text(answer, 200, "",
                        strcmp(kind, "truncated") == 0 ? "[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" OID "\""
                                                       : "[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" OID
                                                         "\",\"size\":1}]");
    } else {
        hub_answer_text(answer, 404, "X-Error-Code: RevisionNotFound\r\n", "");
    }
}

static enum status listing_of(struct world *world, const char *revision, struct hub_listing *listing) {
    char *name = text_format("org/name@%s", revision);
    hub_reference_free(&world->reference);
    assert_ok(hub_reference_parse(name, &world->reference, &world->error), world->error);
    free(name);
    return hub_listing_read(&world->hub, &world->reference, listing, &world->error);
}

static void given_a_repository_then_its_files_are_listed(void **state) {
    (void)state;
    struct world world;
    struct hub_listing listing;
    world_start(&world, repository, NULL);
    assert_ok(listing_of(&world, "refs/pr/1", &listing), world.error);
    assert_string_equal(listing.commit, COMMIT);
    assert_int_equal(listing.count, 2);
    assert_string_equal(listing.files[0].path, "a");
    assert_string_equal(listing.files[1].path, "b/c");
    assert_asked(&world.server, "GET /api/models/org/name/revision/refs%2Fpr%2F1\n"
                                "GET /api/models/org/name/tree/" COMMIT "?recursive=true&expand=false\n"
                                "GET /api/next?page=2\n");
    hub_listing_free(&listing);
    assert_ok(listing_of(&world, COMMIT, &listing), world.error); /* nothing to resolve */
    assert_asked(&world.server, "GET /api/models/org/name/tree/" COMMIT "?recursive=true&expand=false\n"
                                "GET /api/next?page=2\n");
    hub_listing_free(&listing);

    static const char *const bad[][2] = {
        {"elsewhere", "elsewhere than on the Hub"}, {"circle", "around in circles"}, {"truncated", "something else"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_refused(listing_of(&world, bad[i][0], &listing), STATUS_BAD_INPUT, world.error, bad[i][1]);
        hub_listing_free(&listing);
    }
    assert_refused(listing_of(&world, "ffffffffffffffffffffffffffffffffffffffff", &listing), STATUS_BAD_INPUT,
                   world.error, "no revision");
    hub_listing_free(&listing);
    assert_asked(&world.away, "");
    world_stop(&world);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_redirects_then_they_are_followed_by_the_rules),
        TEST(given_a_token_then_only_the_hub_gets_it),
        TEST(given_an_endpoint_with_tls_then_nothing_goes_without),
        TEST(given_offline_then_nothing_is_asked),
        TEST(given_failures_that_pass_then_it_is_tried_again),
        TEST(given_failures_that_stay_then_the_error_says_so),
        TEST(given_bytes_that_came_then_nothing_is_tried_again),
        TEST(given_another_host_that_refuses_then_the_hub_is_asked_anew),
        TEST(given_what_a_server_asks_for_then_it_is_waited_for),
        TEST(given_a_wait_without_end_then_the_error_says_so),
        TEST(given_a_refusal_then_it_is_told_in_words),
        TEST(given_a_repository_then_its_files_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
