#include "common/hub/environment.h"

#include <ctype.h>
#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "common/source.h"
#include "common/text.h"

enum { SECONDS_DEFAULT = 10, SECONDS_MOST = 24 * 60 * 60, TOKEN_FILE_MAX = 64 << 10, ENDPOINT_MAX = 2000 };

/* A variable that is set, and not empty; else NULL. */
static const char *variable(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static bool is_true(const char *value) {
    static const char *const words[] = {"1", "on", "yes", "true"};
    for (size_t i = 0; value && i < sizeof words / sizeof *words; i++)
        if (strcasecmp(value, words[i]) == 0)
            return true;
    return false;
}

/* ---- paths, as Python's os.path reads them ---- */

/* The home folder of `name`, or of this user, who may have set HOME. */
static char *home_of(const char *name, size_t length) {
    const char *home = length == 0 ? getenv("HOME") : NULL;
    if (home)
        return strdup(home);
    char *user = strndup(name, length);
    const struct passwd *entry = !user ? NULL : length == 0 ? getpwuid(getuid()) : getpwnam(user);
    free(user);
    return entry ? strdup(entry->pw_dir) : NULL;
}

/* ~ and ~user at the beginning; as it is when there is no such user. */
static char *user_expand(const char *path) {
    if (*path != '~')
        return strdup(path);
    const size_t length = strcspn(path, "/");
    char *home = home_of(path + 1, length - 1);
    if (!home)
        return strdup(path);
    for (size_t end = strlen(home); end > 0 && home[end - 1] == '/'; end--)
        home[end - 1] = '\0';
    char *expanded = text_format("%s%s", *home || path[length] ? home : "/", path + length);
    free(home);
    return expanded;
}

/* $NAME and ${NAME}; one that is not set stays. */
static char *variables_expand(const char *path) {
    struct text out = {0};
    text_append(&out, "", 0);
    while (*path) {
        size_t plain = strcspn(path, "$");
        text_append(&out, path, plain);
        path += plain;
        if (!*path)
            break;
        const bool braces = path[1] == '{';
        const char *name = path + 1 + braces;
        size_t length = 0;
        while (braces ? name[length] && name[length] != '}'
                      : isalnum((unsigned char)name[length]) || name[length] == '_')
            length++;
        char *copy = strndup(name, length);
        const char *value = copy && length > 0 && (!braces || name[length] == '}') ? getenv(copy) : NULL;
        const char *end = name + length + (value && braces);
        if (value)
            text_append_string(&out, value);
        else
            text_append(&out, path, (size_t)(end - path));
        out.failed = out.failed || !copy;
        free(copy);
        path = end;
    }
    if (out.failed)
        text_free(&out);
    return out.bytes;
}

static char *path_expand(const char *path) {
    char *home = path ? user_expand(path) : NULL, *expanded = home ? variables_expand(home) : NULL;
    free(home);
    return expanded;
}

/* `folder`/`name`; an empty folder is this one. */
static char *path_join(const char *folder, const char *name) {
    return text_format("%s%s%s", folder, !*folder || text_ends_with(folder, "/") ? "" : "/", name);
}

/* What variable `name` says, expanded, else folder/tail. */
static char *path_choose(const char *name, const char *older, const char *folder, const char *tail) {
    const char *value = getenv(name);
    if (!value && older)
        value = getenv(older);
    char *otherwise = path_join(folder, tail), *path = path_expand(value ? value : otherwise);
    free(otherwise);
    if (path && !*path) { /* this folder, not the root of what is appended */
        free(path);
        path = strdup(".");
    }
    return path;
}

static char *home_choose(void) {
    const char *cache = getenv("XDG_CACHE_HOME");
    char *user = user_expand("~"), *own = user ? path_join(user, ".cache") : NULL;
    char *home = own ? path_choose("HF_HOME", NULL, cache ? cache : own, "huggingface") : NULL;
    free(user);
    free(own);
    return home;
}

/* ---- the token ---- */

/* Without line breaks, and white space around it; empty: none. */
static char *token_clean(const char *value) {
    char *token = strdup(value), *to = token;
    if (!token)
        return NULL;
    for (const char *from = value; *from; from++)
        if (*from != '\r' && *from != '\n')
            *to++ = *from;
    *to = '\0';
    while (to > token && isspace((unsigned char)to[-1]))
        *--to = '\0';
    const size_t before = strspn(token, " \t\v\f");
    memmove(token, token + before, strlen(token + before) + 1);
    return token;
}

static enum status token_set(struct hub_environment *environment, const char *value, const char *where,
                             struct error *error) {
    char *token = token_clean(value);
    if (!token)
        return error_set_memory(error);
    for (const char *at = token; *at; at++)
        if (*at <= ' ' || *at >= 0x7f) {
            free(token);
            return error_set(error, STATUS_USAGE, "the token in %s has a character that no token has", where);
        }
    if (*token)
        environment->token = token;
    else
        free(token);
    return STATUS_OK;
}

static enum status token_file_read(struct hub_environment *environment, const char *path, struct error *error) {
    char *bytes = NULL, *where = NULL;
    size_t length;
    if (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return STATUS_OK;
    enum status status = file_read(path, TOKEN_FILE_MAX, &bytes, &length, error);
    if (status != STATUS_OK)
        return STATUS_IO; /* it is there */
    where = text_format("'%s'", path);
    status = where ? token_set(environment, bytes, where, error) : error_set_memory(error);
    free(where);
    free(bytes);
    return status;
}

static enum status token_read(struct hub_environment *environment, const char *home, struct error *error) {
    if (is_true(getenv("HF_HUB_DISABLE_IMPLICIT_TOKEN")))
        return STATUS_OK;
    enum status status = STATUS_OK;
    const char *token = variable("HF_TOKEN"), *older = variable("HUGGING_FACE_HUB_TOKEN");
    if (token)
        status = token_set(environment, token, "HF_TOKEN", error);
    else if (older)
        status = token_set(environment, older, "HUGGING_FACE_HUB_TOKEN", error);
    if (status != STATUS_OK || environment->token)
        return status;
    char *path = path_choose("HF_TOKEN_PATH", NULL, home, "token");
    status = path ? token_file_read(environment, path, error) : error_set_memory(error);
    free(path);
    return status;
}

/* ---- the rest ---- */

static enum status endpoint_read(struct hub_environment *environment, struct error *error) {
    const char *value = variable("HF_ENDPOINT");
    if (!value)
        value = "https://huggingface.co";
    size_t length = strlen(value);
    while (length > 0 && value[length - 1] == '/')
        length--;
    const char *host = strncasecmp(value, "https://", 8) == 0  ? value + 8
                       : strncasecmp(value, "http://", 7) == 0 ? value + 7
                                                               : NULL;
    bool good = host && length > (size_t)(host - value) && length <= ENDPOINT_MAX && *host != '/';
    for (size_t i = 0; good && i < length; i++)
        good = value[i] > ' ' && value[i] < 0x7f && !strchr("@?#\\\"<>'", value[i]);
    if (!good)
        return error_set(error, STATUS_USAGE,
                         "HF_ENDPOINT has to be an address such as https://huggingface.co, without a user, '?' or '#'");
    environment->endpoint = strndup(value, length);
    return environment->endpoint ? STATUS_OK : error_set_memory(error);
}

static enum status seconds_read(const char *name, long *seconds, struct error *error) {
    const char *value = getenv(name);
    *seconds = SECONDS_DEFAULT;
    if (!value)
        return STATUS_OK;
    char *end;
    errno = 0;
    const long number = strtol(value, &end, 10);
    const bool digits = end > value;
    end += strspn(end, " \t\r\n\v\f");
    if (!digits || *end || errno || number < 0)
        return error_set(error, STATUS_USAGE, "%s has to be a number of seconds, not '%s'", name, value);
    if (number > 0)
        *seconds = number < SECONDS_MOST ? number : SECONDS_MOST;
    return STATUS_OK;
}

enum status hub_environment_read(struct hub_environment *environment, struct error *error) {
    *environment = (struct hub_environment){0};
    const char *offline = variable("HF_HUB_OFFLINE");
    environment->offline = is_true(offline ? offline : getenv("TRANSFORMERS_OFFLINE"));
    char *home = home_choose();
    if (!home)
        return error_set_memory(error);
    environment->cache = path_choose("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", home, "hub");
    enum status status = environment->cache ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK)
        status = endpoint_read(environment, error);
    if (status == STATUS_OK)
        status = seconds_read("HF_HUB_ETAG_TIMEOUT", &environment->connect_seconds, error);
    if (status == STATUS_OK)
        status = seconds_read("HF_HUB_DOWNLOAD_TIMEOUT", &environment->stall_seconds, error);
    if (status == STATUS_OK)
        status = token_read(environment, home, error);
    free(home);
    return status;
}

void hub_environment_free(struct hub_environment *environment) {
    free(environment->endpoint);
    free(environment->token);
    free(environment->cache);
    *environment = (struct hub_environment){0};
}
