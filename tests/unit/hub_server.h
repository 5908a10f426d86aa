/*
 * A server of HTTP/1.1 in a process of tests: a thread for each connection asks the test's function for a reply, as the
 * bytes that are sent. What was asked is kept as lines "METHOD TARGET", " range=..." and " token" behind it.
 */
#ifndef QSTREAM_TESTS_UNIT_HUB_SERVER_H
#define QSTREAM_TESTS_UNIT_HUB_SERVER_H

#include "tests/unit/fixtures.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <strings.h>
#include <sys/socket.h>

struct hub_server;

struct hub_asked {
    struct hub_server *server;
    size_t number; /* from 0, of all requests of the server */
    char method[16], target[2048];
    const char *fields; /* header lines, each behind a line break */
    const char *body;
    size_t body_length;
};

struct hub_answer {
    struct text bytes;
    bool close; /* the connection, behind them */
    bool hold;  /* say nothing more, until the server stops */
};

typedef void hub_handler(const struct hub_asked *asked, struct hub_answer *answer);

enum { HUB_SERVER_CONNECTIONS = 256 };

struct hub_server {
    int listening;
    char url[64]; /* http://127.0.0.1:PORT */
    hub_handler *handler;
    void *context; /* of the handler */
    pthread_t thread;
    struct hub_server_connection {
        struct hub_server *server;
        pthread_t thread;
        int socket;
        bool used, ended;
    } connection[HUB_SERVER_CONNECTIONS];
    size_t connections, requests; /* so far */
    bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    struct text log;
};

/* ---- replies ---- */

/* A reply with a body of `length` bytes, `fields` ("Name: value\r\n"...) before Content-Length. */
static inline void hub_answer_bytes(struct hub_answer *answer, int code, const char *fields, const void *body,
                                    size_t length) {
    text_printf(&answer->bytes, "HTTP/1.1 %d X\r\n%sContent-Length: %zu\r\n\r\n", code, fields, length);
    text_append(&answer->bytes, body, length);
}

static inline void hub_answer_text(struct hub_answer *answer, int code, const char *fields, const char *body) {
    hub_answer_bytes(answer, code, fields, body, strlen(body));
}

/* Whether the request has the field, and its value, up to 255 bytes. */
static inline bool hub_asked_field(const struct hub_asked *asked, const char *name, char value[256]) {
    for (const char *line = asked->fields; (line = strchr(line, '\n'));) {
        line++;
        const size_t length = strlen(name);
        if (strncasecmp(line, name, length) == 0 && line[length] == ':') {
            snprintf(value, 256, "%.*s", (int)strcspn(line + length + 2, "\r\n"), line + length + 2);
            return true;
        }
    }
    return false;
}

/* A file, or the range of it that was asked for. */
static inline void hub_answer_file(const struct hub_asked *asked, struct hub_answer *answer, const char *fields,
                                   const void *bytes, size_t size) {
    char range[256];
    struct text all = {0};
    unsigned long long first, last;
    if (!hub_asked_field(asked, "Range", range) || sscanf(range, "bytes=%llu-%llu", &first, &last) != 2) {
        hub_answer_bytes(answer, 200, fields, bytes, size);
        return;
    }
    if (last >= size)
        last = size - 1;
    text_printf(&all, "%sContent-Range: bytes %llu-%llu/%zu\r\n", fields, first, last, size);
    hub_answer_bytes(answer, 206, all.bytes, (const char *)bytes + first, last - first + 1);
    text_free(&all);
}

/* ---- the server ---- */

static inline void hub_server_note(struct hub_server *server, struct hub_asked *asked) {
    char value[256];
    pthread_mutex_lock(&server->lock);
    asked->number = server->requests++;
    text_printf(&server->log, "%s %s", asked->method, asked->target);
    if (hub_asked_field(asked, "Range", value))
        text_printf(&server->log, " range=%s", value);
    if (hub_asked_field(asked, "Authorization", value))
        text_append_string(&server->log, " token");
    text_append_string(&server->log, "\n");
    pthread_mutex_unlock(&server->lock);
}

/* Reads a request into `text`; false when the connection ends before. */
static inline bool hub_server_read(int connection, struct text *text, struct hub_asked *asked) {
    char bytes[16384];
    for (;;) {
        char *end = text->bytes ? strstr(text->bytes, "\r\n\r\n") : NULL;
        if (end) {
            char value[256];
            asked->fields = text->bytes;
            asked->body = end + 4;
            *end = '\0';
            asked->body_length = hub_asked_field(asked, "Content-Length", value) ? strtoul(value, NULL, 10) : 0;
            *end = '\r';
            if (text->length >= (size_t)(end + 4 - text->bytes) + asked->body_length) {
                *end = '\0';
                return sscanf(text->bytes, "%15s %2047s", asked->method, asked->target) == 2;
            }
        }
        ssize_t got = read(connection, bytes, sizeof bytes);
        if (got <= 0)
            return false;
        text_append(text, bytes, (size_t)got);
    }
}

static inline bool hub_server_send(int connection, const struct text *bytes) {
    for (size_t done = 0; done < bytes->length;) {
        ssize_t wrote = send(connection, bytes->bytes + done, bytes->length - done, MSG_NOSIGNAL);
        if (wrote <= 0)
            return false;
        done += (size_t)wrote;
    }
    return true;
}

static inline void *hub_server_serve(void *context) {
    struct hub_server_connection *connection = context;
    struct hub_server *server = connection->server;
    bool open = true;
    while (open) {
        struct text text = {0};
        struct hub_asked asked = {.server = server};
        struct hub_answer answer = {0};
        open = hub_server_read(connection->socket, &text, &asked);
        if (open) {
            hub_server_note(server, &asked);
            server->handler(&asked, &answer);
            open = hub_server_send(connection->socket, &answer.bytes) && !answer.close;
        }
        pthread_mutex_lock(&server->lock);
        while (open && answer.hold && !server->stopping)
            pthread_cond_wait(&server->stopped, &server->lock);
        pthread_mutex_unlock(&server->lock);
        text_free(&answer.bytes);
        text_free(&text);
    }
    shutdown(connection->socket, SHUT_RDWR);
    pthread_mutex_lock(&server->lock);
    connection->ended = true; /* its place is free when the next one comes */
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

static inline void hub_server_end(struct hub_server_connection *connection) {
    pthread_join(connection->thread, NULL);
    close(connection->socket);
    *connection = (struct hub_server_connection){0};
}

static inline struct hub_server_connection *hub_server_place(struct hub_server *server) {
    for (size_t i = 0; i < HUB_SERVER_CONNECTIONS; i++) {
        struct hub_server_connection *connection = &server->connection[i];
        pthread_mutex_lock(&server->lock);
        const bool ended = connection->ended;
        pthread_mutex_unlock(&server->lock);
        if (ended)
            hub_server_end(connection);
        if (!connection->used)
            return connection;
    }
    abort();
}

static inline void *hub_server_run(void *context) {
    struct hub_server *server = context;
    int socket;
    while ((socket = accept(server->listening, NULL, NULL)) >= 0) {
        struct hub_server_connection *connection = hub_server_place(server);
        *connection = (struct hub_server_connection){.server = server, .socket = socket, .used = true};
        server->connections++;
        if (pthread_create(&connection->thread, NULL, hub_server_serve, connection) != 0)
            abort();
    }
    return NULL;
}

static inline void hub_server_start(struct hub_server *server, hub_handler *handler, void *context) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    *server = (struct hub_server){.handler = handler, .context = context, .listening = socket(AF_INET, SOCK_STREAM, 0)};
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->stopped, NULL);
    text_append(&server->log, "", 0);
    assert_true(server->listening >= 0);
    assert_int_equal(bind(server->listening, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server->listening, 64), 0);
    assert_int_equal(getsockname(server->listening, (struct sockaddr *)&address, &size), 0);
    snprintf(server->url, sizeof server->url, "http://127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    assert_int_equal(pthread_create(&server->thread, NULL, hub_server_run, server), 0);
}

static inline void hub_server_stop(struct hub_server *server) {
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_cond_broadcast(&server->stopped);
    pthread_mutex_unlock(&server->lock);
    shutdown(server->listening, SHUT_RDWR); /* ends accept */
    pthread_join(server->thread, NULL);
    close(server->listening);
    for (size_t i = 0; i < HUB_SERVER_CONNECTIONS; i++)
        if (server->connection[i].used) {
            shutdown(server->connection[i].socket, SHUT_RDWR);
            hub_server_end(&server->connection[i]);
        }
    text_free(&server->log);
}

/* What was asked so far, and forgets it; the caller frees. */
static inline char *hub_server_log(struct hub_server *server) {
    pthread_mutex_lock(&server->lock);
    char *log = strdup(server->log.bytes);
    text_free(&server->log);
    text_append(&server->log, "", 0);
    pthread_mutex_unlock(&server->lock);
    assert_non_null(log);
    return log;
}

#define assert_asked(server, wanted)                                                                                   \
    do {                                                                                                               \
        char *log_ = hub_server_log(server);                                                                           \
        assert_string_equal(log_, wanted);                                                                             \
        free(log_);                                                                                                    \
    } while (0)

/* ---- the surroundings ---- */

/* No variable of the machine that the tests run on counts, and no proxy is asked. */
static inline void hub_environment_clear(void) {
    static const char *const names[] = {"HF_TOKEN",
                                        "HUGGING_FACE_HUB_TOKEN",
                                        "HF_TOKEN_PATH",
                                        "HF_HOME",
                                        "HF_HUB_CACHE",
                                        "HUGGINGFACE_HUB_CACHE",
                                        "HF_ENDPOINT",
                                        "HF_HUB_OFFLINE",
                                        "TRANSFORMERS_OFFLINE",
                                        "XDG_CACHE_HOME",
                                        "http_proxy",
                                        "https_proxy",
                                        "all_proxy",
                                        "ALL_PROXY",
                                        "HTTPS_PROXY",
                                        "HF_HUB_DISABLE_IMPLICIT_TOKEN",
                                        "HF_HUB_ETAG_TIMEOUT",
                                        "HF_HUB_DOWNLOAD_TIMEOUT"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unsetenv(names[i]);
    setenv("HF_HOME", "/nonexistent/qstream", 1);
}

#endif
