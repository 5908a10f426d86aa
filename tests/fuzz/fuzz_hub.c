/*
 * What a Hub answers, any bytes. Up to the first empty line they are a reply's header fields, behind it a page of a tree.
 * Fields are found, redirects and links resolved, waits bounded; a listing that is taken has safe paths in order, each once.
 */
#include <time.h>

#include "common/hub/file_range.h"
#include "common/hub/retry.h"
#include "common/hub/tree.h"
#include "common/hub/url.h"
#include "common/libcurl.h"
#include "tests/fuzz/fuzz.h"

static bool is_hex(const char *text, size_t digits) {
    return strlen(text) == digits && strspn(text, "0123456789abcdef") == digits;
}

static void path_check(const char *path) {
    REQUIRE(*path && *path != '/' && !strstr(path, "//") && !text_ends_with(path, "/"));
    for (const char *part = path; part; part = strchr(part, '/') ? strchr(part, '/') + 1 : NULL)
        REQUIRE(strcspn(part, "/") != strspn(part, ".") || strcspn(part, "/") > 2);
    for (const char *c = path; *c; c++)
        REQUIRE((unsigned char)*c >= ' ' && *c != 0x7f);
}

static void tree_check(const char *json, size_t length) {
    struct hub_listing listing = {.reference.repository = strdup("org/name")};
    struct error error = {{0}};
    char etag[HUB_ETAG_HEX], commit[HUB_OID_HEX];
    enum status status = hub_tree_page("page", json, length, &listing, &error);
    if (status == STATUS_OK)
        status = hub_tree_finish(&listing, &error);
    REQUIRE(status == STATUS_OK || error.message[0]);
    for (size_t i = 0; i < listing.count && status == STATUS_OK; i++) {
        const struct hub_file *file = &listing.files[i];
        path_check(file->path);
        REQUIRE(i == 0 || strcmp(listing.files[i - 1].path, file->path) < 0);
        REQUIRE(hub_listing_find(&listing, file->path) == file);
        REQUIRE(file->size <= INT64_MAX);
        REQUIRE(is_hex(hub_file_etag(file, etag), file->lfs ? 64 : 40));
    }
    if (hub_tree_commit("revision", json, length, commit, &error) == STATUS_OK)
        REQUIRE(is_hex(commit, 40));
    hub_listing_free(&listing);
}

static void location_check(const char *location) {
    static const char base[] = "https://hub.example:8443/org/name/resolve/main/x?y";
    char *joined = hub_url_join(base, location);
    if (!joined)
        return;
    char *again = hub_url_join(joined, joined), *shown = hub_url_shown(joined);
    REQUIRE(strncasecmp(joined, "http://", 7) == 0 || strncasecmp(joined, "https://", 8) == 0);
    REQUIRE(again && strcmp(again, joined) == 0); /* what is judged is what is asked */
    REQUIRE(shown && !strchr(shown, '?') && !strchr(shown, '#'));
    REQUIRE(hub_url_same_origin(joined, joined));
    free(joined);
    free(again);
    free(shown);
}

static void fields_check(const char *text) {
    static char path[] = "file", repository[] = "org/name";
    const struct hub_listing listing = {.reference.repository = repository, .commit = "0"};
    const struct hub_file file = {.path = path, .oid = "0"};
    struct http_reply reply = {.code = 429};
    struct hub_route route = {0};
    struct error error = {{0}};
    text_append_string(&reply.fields, text);
    text_append_string(&route.fields, text);
    const double wait = retry_asked(&reply, 1700000000);
    REQUIRE(wait == -1 || (wait >= 1 && wait <= 1e9 + 1));
    char *location = http_reply_field(&reply, "Location"), *link = http_reply_field(&reply, "Link");
    char *next = link ? hub_tree_next(link) : NULL;
    if (location)
        location_check(location);
    if (next) {
        REQUIRE(!strchr(next, '>'));
        location_check(next);
    }
    REQUIRE(hub_route_check(&route, &listing, &file, &error) == STATUS_OK || error.message[0]);
    free(location);
    free(link);
    free(next);
    http_reply_free(&reply);
    hub_route_free(&route);
}

static void reference_check(const char *text) {
    struct hub_reference reference, again;
    struct error error;
    if (hub_reference_parse(text, &reference, &error) == STATUS_OK) {
        char *whole = hub_reference_text(&reference, reference.revision), *quoted = hub_quote(reference.revision, "");
        REQUIRE(whole && hub_reference_is(whole) && quoted && !strpbrk(quoted, "/?#&"));
        REQUIRE(hub_reference_parse(whole, &again, &error) == STATUS_OK);
        REQUIRE(strcmp(again.repository, reference.repository) == 0 && again.dataset == reference.dataset);
        REQUIRE(strcmp(again.revision, reference.revision) == 0 && !strstr(again.revision, ".."));
        hub_reference_free(&again);
        free(whole);
        free(quoted);
    }
    hub_reference_free(&reference);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct error error;
    REQUIRE(libcurl_load(&error) == STATUS_OK);
    const uint8_t *empty = memmem(data, size, "\n\n", 2);
    const size_t length = empty ? (size_t)(empty - data) + 1 : size, body = empty ? length + 1 : size;
    char *fields = strndup((const char *)data, length), *json = malloc(size - body + (size == body));
    REQUIRE(fields && json);
    memcpy(json, data + body, size - body); /* without a NUL: a read behind its end is seen */
    tree_check(json, size - body);
    fields_check(fields);
    reference_check(fields);
    free(fields);
    free(json);
    return 0;
}
