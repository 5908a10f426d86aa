#include "infer/server/address.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/libcurl.h"
#include "common/text.h"

/* The path up to /v1, which `path` may or may not have, without slashes at its end; *length gets its length. */
static void path_root(const char *path, size_t *length) {
    static const char *const tails[] = {"/completions", "/v1"};
    *length = strlen(path);
    for (size_t i = 0; i <= sizeof tails / sizeof *tails; i++) {
        while (*length > 0 && path[*length - 1] == '/')
            --*length;
        const size_t tail = i < sizeof tails / sizeof *tails ? strlen(tails[i]) : SIZE_MAX;
        if (tail <= *length && memcmp(path + *length - tail, tails[i], tail) == 0)
            *length -= tail;
    }
}

/* The URL with another path, as a string of our own; NULL when out of memory. */
static char *url_with_path(CURLU *url, const char *root, size_t root_length, const char *tail) {
    char *text = NULL, *copy = NULL, *path = text_format("%.*s%s", (int)root_length, root, tail);
    if (path && libcurl.url_set(url, CURLUPART_PATH, path, 0) == CURLUE_OK &&
        libcurl.url_get(url, CURLUPART_URL, &text, 0) == CURLUE_OK)
        copy = strdup(text);
    libcurl.free(text);
    free(path);
    return copy;
}

/* Whether `parts` take the URL, and it is one of http or https. A scheme that is missing is taken to be http. */
static bool url_parse(CURLU *parts, const char *url) {
    static const size_t url_max = 4096;
    char *scheme = NULL;
    bool good =
        *url && strlen(url) <= url_max && !strpbrk(url, " \t\r\n") &&
        libcurl.url_set(parts, CURLUPART_URL, url, CURLU_GUESS_SCHEME | CURLU_NON_SUPPORT_SCHEME) == CURLUE_OK &&
        libcurl.url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        (strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0) &&
        libcurl.url_set(parts, CURLUPART_SCHEME, scheme, 0) == CURLUE_OK && /* one that was guessed is not kept */
        libcurl.url_set(parts, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK;
    libcurl.free(scheme);
    return good;
}

enum status address_make(const char *url, struct address *address, struct error *error) {
    *address = (struct address){0};
    const enum status status = libcurl_load(error);
    if (status != STATUS_OK)
        return status;
    CURLU *parts = libcurl.url();
    if (!parts)
        return error_set_memory(error);
    if (!url_parse(parts, url)) {
        libcurl.url_cleanup(parts);
        /* Without the URL itself, which may hold a password. */
        return error_set(error, STATUS_USAGE,
                         "the server's URL is none of http or https, such as http://localhost:8000");
    }
    char *path = NULL;
    if (libcurl.url_get(parts, CURLUPART_PATH, &path, 0) == CURLUE_OK) {
        size_t root;
        path_root(path, &root);
        address->completions = url_with_path(parts, path, root, "/v1/completions");
        address->models = url_with_path(parts, path, root, "/v1/models");
        libcurl.url_set(parts, CURLUPART_USER, NULL, 0);
        libcurl.url_set(parts, CURLUPART_PASSWORD, NULL, 0);
        libcurl.url_set(parts, CURLUPART_QUERY, NULL, 0);
        address->shown = url_with_path(parts, path, root, "");
    }
    if (address->shown && text_ends_with(address->shown, "/")) /* the path of a host alone */
        address->shown[strlen(address->shown) - 1] = '\0';
    libcurl.free(path);
    libcurl.url_cleanup(parts);
    return address->completions && address->models && address->shown ? STATUS_OK : error_set_memory(error);
}

void address_free(struct address *address) {
    free(address->completions);
    free(address->models);
    free(address->shown);
    *address = (struct address){0};
}
