#include "common/hub/refusal.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/retry.h"
#include "common/hub/url.h"
#include "common/json_scan.h"

/* The first line of a text that a stranger wrote, bounded; *line is freed by the caller, NULL when there is nothing. */
static char *line_of(const char *text) {
    enum { LINE_MAX_BYTES = 240 };
    while (isspace((unsigned char)*text))
        text++;
    size_t length = strcspn(text, "\r\n");
    if (length > LINE_MAX_BYTES)
        length = LINE_MAX_BYTES;
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    return length > 0 ? strndup(text, length) : NULL;
}

/* The member "error" of a JSON object. */
static char *json_error(const struct text *body) {
    struct json_member member;
    struct error ignored;
    struct text value = {0};
    char *line = NULL;
    if (!body->bytes || json_text_check("reply", body->bytes, body->length, &ignored) != STATUS_OK)
        return NULL;
    struct scanner scan = {.json = body->bytes, .length = body->length};
    if (json_text_member(body->bytes, json_text_object(body->bytes, body->length), "error", &member) &&
        body->bytes[member.value.begin] == '"' && scan_string_decode(&scan, member.value, &value) && !value.failed)
        line = line_of(value.bytes);
    text_free(&value);
    return line;
}

/* What the server itself says about it; nothing that repeats the token. */
static char *server_words(const struct http_reply *reply, const char *token) {
    char *field = http_reply_field(reply, "X-Error-Message"), *line = field ? line_of(field) : NULL;
    free(field);
    if (!line)
        line = json_error(&reply->body);
    if (!line && reply->body.bytes && *reply->body.bytes != '<' && *reply->body.bytes != '{')
        line = line_of(reply->body.bytes);
    if (line && token && strstr(line, token)) {
        free(line);
        line = NULL;
    }
    return line;
}

/* The repository's page, to visit. */
static char *page_text(const struct hub *hub, const struct hub_reference *reference) {
    return text_format("%s/%s%s", hub->environment.endpoint, reference->dataset ? "datasets/" : "",
                       reference->repository);
}

enum kind {
    GATED,
    NO_REPOSITORY,
    NO_REVISION,
    NO_ENTRY,
    DISABLED,
    WRONG_TOKEN,
    UNKNOWN_OR_PRIVATE, /* the Hub does not tell strangers which */
    FORBIDDEN,
    LIMITED,
    LEGAL,
    OTHER
};

static enum kind kind_of(const struct http_reply *reply) {
    static const struct {
        const char *code;
        enum kind kind;
    } codes[] = {{"RevisionNotFound", NO_REVISION},
                 {"EntryNotFound", NO_ENTRY},
                 {"GatedRepo", GATED},
                 {"RepoNotFound", NO_REPOSITORY}};
    char *code = http_reply_field(reply, "X-Error-Code"), *message = http_reply_field(reply, "X-Error-Message");
    enum kind kind = OTHER;
    for (size_t i = 0; code && i < sizeof codes / sizeof *codes; i++)
        if (strcmp(code, codes[i].code) == 0)
            kind = codes[i].kind;
    if (kind == OTHER && message && strcmp(message, "Access to this resource is disabled.") == 0)
        kind = DISABLED;
    if (kind == OTHER && reply->code == 401)
        kind = message && strcmp(message, "Invalid credentials in Authorization header") == 0 ? WRONG_TOKEN
                                                                                              : UNKNOWN_OR_PRIVATE;
    if (kind == OTHER)
        kind = reply->code == 403 ? FORBIDDEN : reply->code == 429 ? LIMITED : reply->code == 451 ? LEGAL : OTHER;
    free(code);
    free(message);
    return kind;
}

static enum status kind_write(const struct hub *hub, const struct hub_subject *subject, enum kind kind,
                              const char *repository, const char *page, const char *words, struct error *error) {
    const bool token = hub->environment.token != NULL;
    const char *before = words ? " (it says: " : "", *after = words ? ")" : "";
    words = words ? words : "";
    switch (kind) {
    case GATED:
        if (token)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s' is gated, and your token may not read it: ask for access at %s, or use the token of "
                             "an account that has it%s%s%s",
                             repository, page, before, words, after);
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is gated: ask for access at %s, then set HF_TOKEN or run 'hf auth login'%s%s%s",
                         repository, page, before, words, after);
    case NO_REPOSITORY:
    case UNKNOWN_OR_PRIVATE:
        if (token)
            return error_set(error, STATUS_BAD_INPUT,
                             "%s has no '%s', or it is private and your token may not read it%s%s%s%s",
                             hub->environment.endpoint, repository,
                             kind == UNKNOWN_OR_PRIVATE ? ", or the token is not valid" : "", before, words, after);
        /* Its own words to strangers, "Invalid username or password.", lead astray. */
        return error_set(error, STATUS_BAD_INPUT,
                         "%s has no '%s', or it is private: check the name; of a private one, set HF_TOKEN or run 'hf "
                         "auth login'",
                         hub->environment.endpoint, repository);
    case NO_REVISION:
        return error_set(error, STATUS_BAD_INPUT, "'%s' has no revision '%s'%s%s%s", repository,
                         subject->reference->revision, before, words, after);
    case NO_ENTRY:
        return error_set(error, STATUS_BAD_INPUT, "'%s@%s' has no file '%s'", repository, subject->reference->revision,
                         subject->file ? subject->file : "that was asked for");
    case DISABLED:
        return error_set(error, STATUS_BAD_INPUT, "the Hub has disabled access to '%s'; %s may say why", repository,
                         page);
    case LEGAL:
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not available for legal reasons%s%s%s", repository, before,
                         words, after);
    case WRONG_TOKEN:
        return error_set(error, STATUS_BAD_INPUT,
                         "%s does not take your token: it is mistyped, or was revoked. Set another as HF_TOKEN or by "
                         "'hf auth login', or HF_HUB_DISABLE_IMPLICIT_TOKEN=1 to go without",
                         hub->environment.endpoint);
    case FORBIDDEN:
        return error_set(error, STATUS_BAD_INPUT, "access to '%s' is forbidden%s%s%s%s", repository,
                         token ? " to your token" : "; a token (HF_TOKEN, 'hf auth login') may allow it", before, words,
                         after);
    case LIMITED:
        return error_set(error, STATUS_IO, "%s wants fewer requests: try again later%s%s%s%s",
                         hub->environment.endpoint, token ? "" : ", or with a token, which allows more", before, words,
                         after);
    default:
        return STATUS_OK;
    }
}

enum status hub_refusal(const struct hub *hub, const struct hub_subject *subject, const char *url, bool away,
                        const struct http_reply *reply, struct error *error) {
    char *shown = hub_url_shown(url), *words = server_words(reply, hub->environment.token);
    char *repository = hub_reference_text(subject->reference, NULL), *page = page_text(hub, subject->reference);
    const char *file = subject->file ? subject->file : "", *slash = subject->file ? "/" : "";
    enum status status;
    if (!shown || !repository || !page) {
        status = error_set_memory(error);
    } else {
        const enum kind kind = away ? OTHER : kind_of(reply);
        status = kind_write(hub, subject, kind, repository, page, words, error);
        if (status == STATUS_OK) /* no code that is known */
            status = error_set(error, retry_code(reply->code) || away ? STATUS_IO : STATUS_BAD_INPUT,
                               "'%s%s%s': '%s' answers %ld%s%s", repository, slash, file, shown, reply->code,
                               words ? ": " : "", words ? words : "");
    }
    free(shown);
    free(words);
    free(repository);
    free(page);
    return status;
}
