#include "common/hub/url.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/libcurl.h"

enum { URL_MAX = 16 << 10 };

static CURLU *url_parse(const char *url, unsigned flags) {
    CURLU *parts = strlen(url) <= URL_MAX ? libcurl.url() : NULL;
    if (parts && libcurl.url_set(parts, CURLUPART_URL, url, flags) != CURLUE_OK) {
        libcurl.url_cleanup(parts);
        return NULL;
    }
    return parts;
}

/* A part as a string of libcurl's; NULL when there is none. */
static char *url_part(CURLU *parts, CURLUPart part, unsigned flags) {
    char *text = NULL;
    return libcurl.url_get(parts, part, &text, flags) == CURLUE_OK ? text : NULL;
}

static bool is_http(CURLU *parts) {
    char *scheme = url_part(parts, CURLUPART_SCHEME, 0);
    const bool is = scheme && (strcasecmp(scheme, "http") == 0 || strcasecmp(scheme, "https") == 0);
    libcurl.free(scheme);
    return is;
}

/* The whole URL as a string of our own. */
static char *url_copy(CURLU *parts) {
    char *text = url_part(parts, CURLUPART_URL, 0), *copy = text ? strdup(text) : NULL;
    libcurl.free(text);
    return copy;
}

char *hub_url_join(const char *base, const char *location) {
    char *joined = NULL;
    CURLU *parts = url_parse(base, 0);
    if (parts && strlen(location) <= URL_MAX &&
        libcurl.url_set(parts, CURLUPART_URL, location, CURLU_URLENCODE | CURLU_DISALLOW_USER) == CURLUE_OK &&
        is_http(parts) && libcurl.url_set(parts, CURLUPART_FRAGMENT, NULL, 0) == CURLUE_OK)
        joined = url_copy(parts);
    if (parts)
        libcurl.url_cleanup(parts);
    if (joined && strlen(joined) > URL_MAX) {
        free(joined);
        joined = NULL;
    }
    return joined;
}

static bool part_same(CURLU *a, CURLU *b, CURLUPart part) {
    char *of_a = url_part(a, part, CURLU_DEFAULT_PORT), *of_b = url_part(b, part, CURLU_DEFAULT_PORT);
    const bool same = of_a && of_b && strcasecmp(of_a, of_b) == 0;
    libcurl.free(of_a);
    libcurl.free(of_b);
    return same;
}

bool hub_url_same_origin(const char *a, const char *b) {
    CURLU *of_a = url_parse(a, 0), *of_b = url_parse(b, 0);
    const bool same = of_a && of_b && part_same(of_a, of_b, CURLUPART_SCHEME) &&
                      part_same(of_a, of_b, CURLUPART_HOST) && part_same(of_a, of_b, CURLUPART_PORT);
    if (of_a)
        libcurl.url_cleanup(of_a);
    if (of_b)
        libcurl.url_cleanup(of_b);
    return same;
}

bool hub_url_is_plain(const char *url) { return strncasecmp(url, "http:", 5) == 0; }

char *hub_url_shown(const char *url) {
    CURLU *parts = url_parse(url, 0);
    if (!parts)
        return strdup("a URL that is none");
    static const CURLUPart secrets[] = {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_QUERY, CURLUPART_FRAGMENT};
    for (size_t i = 0; i < sizeof secrets / sizeof *secrets; i++)
        libcurl.url_set(parts, secrets[i], NULL, 0);
    char *shown = url_copy(parts);
    libcurl.url_cleanup(parts);
    return shown;
}
