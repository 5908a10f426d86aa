#include "common/hub/file_range.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/hub/retry.h"
#include "common/hub/url.h"

enum { SKIP_MOST = 8 << 20 }; /* bytes that are read in vain of a server that ignores ranges */

void hub_place_init(struct hub_place *place, const struct hub_listing *listing, const struct hub_file *file) {
    *place = (struct hub_place){.listing = listing, .file = file, .skip_most = SKIP_MOST};
    pthread_mutex_init(&place->lock, NULL);
}

void hub_place_free(struct hub_place *place) {
    pthread_mutex_destroy(&place->lock);
    free(place->url);
    *place = (struct hub_place){0};
}

bool hub_place_is_unranged(struct hub_place *place) {
    pthread_mutex_lock(&place->lock);
    const bool unranged = place->unranged;
    pthread_mutex_unlock(&place->lock);
    return unranged;
}

/* ---- what a reply says about a file ---- */

/* An entity tag without its quotes and W/, as huggingface_hub takes it for a file's name. */
static void etag_normalize(char *etag) {
    const char *begin = etag + strspn(etag, "W/");
    begin += strspn(begin, "\"");
    size_t length = strlen(begin);
    while (length > 0 && begin[length - 1] == '"')
        length--;
    memmove(etag, begin, length);
    etag[length] = '\0';
}

static bool looks_like_hash(const char *etag) {
    uint8_t digest[SHA256_SIZE];
    return hub_is_commit(etag) || sha256_from_hex(etag, digest);
}

static enum status contradiction(const struct hub_listing *listing, const struct hub_file *file, const char *what,
                                 const char *listed, const char *said, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s/%s': the Hub lists the %s %s, but sends the file with %.200s: it contradicts itself",
                     listing->reference.repository, file->path, what, listed, said);
}

enum status hub_route_check(const struct hub_route *route, const struct hub_listing *listing,
                            const struct hub_file *file, struct error *error) {
    char *commit = http_field_find(&route->fields, "X-Repo-Commit");
    char *linked = http_field_find(&route->fields, "X-Linked-Etag"), *plain = http_field_find(&route->fields, "ETag");
    char *size = http_field_find(&route->fields, "X-Linked-Size");
    char *etag = linked ? linked : plain, listed[HUB_ETAG_HEX], listed_size[24];
    enum status status = STATUS_OK;
    hub_file_etag(file, listed);
    snprintf(listed_size, sizeof listed_size, "%" PRIu64, file->size);
    if (etag)
        etag_normalize(etag);
    if (commit && strcmp(commit, listing->commit) != 0)
        status = contradiction(listing, file, "commit", listing->commit, commit, error);
    else if (etag && (linked || looks_like_hash(etag)) && strcmp(etag, listed) != 0)
        status = contradiction(listing, file, "hash", listed, etag, error);
    else if (size && strcmp(size, listed_size) != 0)
        status = contradiction(listing, file, "size", listed_size, size, error);
    free(commit);
    free(linked);
    free(plain);
    free(size);
    return status;
}

/* ---- one request ---- */

struct piece {
    struct hub_place *place;
    struct hub_route route;
    bool (*take)(void *context, const void *bytes, size_t size);
    void *context;
    uint64_t offset, size, done; /* what is wanted of the file; how much of it came */
    uint64_t skip;               /* bytes that come before those that are wanted */
    bool whole;                  /* the server sends the whole file */
    bool stopped;                /* `take` wants no more */
};

static enum status range_wrong(const struct piece *piece, const char *what, struct error *error) {
    char *shown = hub_url_shown(piece->route.url);
    error_write(error, 0, "'%s/%s': '%s' %s", piece->place->listing->reference.repository, piece->place->file->path,
                shown ? shown : "", what);
    free(shown);
    return STATUS_IO;
}

/* Whether "bytes FIRST-LAST/SIZE" is what was asked for, or its beginning. */
static bool content_range_is(const char *field, uint64_t first, uint64_t last, uint64_t size) {
    uint64_t numbers[3];
    if (strncasecmp(field, "bytes", 5) != 0)
        return false;
    const char *at = field + 5;
    for (int i = 0; i < 3; i++) {
        at += strspn(at, i == 0 ? " \t" : "");
        if (i == 2 && strcmp(at, "*") == 0)
            return numbers[0] == first && numbers[1] >= first && numbers[1] <= last;
        if (*at < '0' || *at > '9')
            return false;
        for (numbers[i] = 0; *at >= '0' && *at <= '9'; at++)
            if (__builtin_mul_overflow(numbers[i], 10, &numbers[i]) ||
                __builtin_add_overflow(numbers[i], (uint64_t)(*at - '0'), &numbers[i]))
                return false;
        if (*at != (i == 0 ? '-' : i == 1 ? '/' : '\0'))
            return false;
        at += i < 2;
    }
    return numbers[0] == first && numbers[1] >= first && numbers[1] <= last && numbers[2] == size;
}

static bool piece_begin(void *context, const struct http_reply *reply, enum status *status, struct error *error) {
    struct piece *piece = context;
    const uint64_t first = piece->offset + piece->done, last = piece->offset + piece->size - 1;
    char *range = http_reply_field(reply, "Content-Range"), *coding = http_reply_field(reply, "Content-Encoding");
    *status = hub_route_check(&piece->route, piece->place->listing, piece->place->file, error);
    if (*status == STATUS_OK && coding && *coding && strcasecmp(coding, "identity") != 0)
        *status = range_wrong(piece, "sends the bytes encoded, which was not asked for", error);
    else if (*status == STATUS_OK && reply->code == 206 &&
             !(range && content_range_is(range, first, last, piece->place->file->size)))
        *status = range_wrong(piece, "sends another range than was asked for", error);
    else if (*status == STATUS_OK && reply->code != 206 && reply->code != 200)
        *status = range_wrong(piece, "sends no bytes", error);
    else if (*status == STATUS_OK && reply->code == 200 && first > piece->place->skip_most)
        *status = range_wrong(piece,
                              "ignores ranges, so that a file cannot be read in parts: fetch it whole, with 'qstream "
                              "fetch'",
                              error);
    piece->whole = reply->code == 200;
    if (piece->whole && piece->size < piece->place->file->size) {
        pthread_mutex_lock(&piece->place->lock);
        piece->place->unranged = true;
        pthread_mutex_unlock(&piece->place->lock);
    }
    piece->skip = piece->whole ? first : 0;
    free(range);
    free(coding);
    return true;
}

static enum status piece_data(void *context, const void *bytes, size_t size, struct error *error) {
    struct piece *piece = context;
    (void)error;
    const char *at = bytes;
    const size_t skipped = size < piece->skip ? size : (size_t)piece->skip;
    piece->skip -= skipped;
    at += skipped;
    size -= skipped;
    bool beyond = size > piece->size - piece->done;
    if (beyond)
        size = (size_t)(piece->size - piece->done);
    if (size > 0) {
        piece->done += size;
        piece->stopped = !piece->take(piece->context, at, size);
    }
    /* What comes behind the last byte that is wanted is not waited for. */
    beyond = beyond ||
             (piece->whole && piece->done == piece->size && piece->offset + piece->size < piece->place->file->size);
    return beyond || piece->stopped ? STATUS_CHECK_FAILED : STATUS_OK;
}

/* Asks for what is missing, at `url` or, where that is NULL, at the Hub. */
static enum status piece_ask(struct hub *hub, struct piece *piece, const char *url, struct http_reply *reply,
                             struct error *error) {
    const struct hub_listing *listing = piece->place->listing;
    const struct hub_file *file = piece->place->file;
    const uint64_t first = piece->offset + piece->done, end = piece->offset + piece->size;
    char range[64];
    snprintf(range, sizeof range, "Range: bytes=%" PRIu64 "-%" PRIu64, first, end - 1);
    const char *const fields[] = {range};
    char *resolve = url ? NULL : hub_resolve_url(hub, &listing->reference, listing->commit, file->path);
    if (!url && !resolve)
        return error_set_memory(error);
    const struct hub_request request = {.subject = {.reference = &listing->reference, .file = file->path},
                                        .method = "GET",
                                        .url = url ? url : resolve,
                                        .fields = fields,
                                        .field_count = first > 0 || end < file->size, /* else all of it */
                                        .begin = piece_begin,
                                        .data = piece_data,
                                        .context = piece,
                                        .route = &piece->route,
                                        .once = url != NULL};
    const enum status status = hub_perform(hub, &request, reply, error);
    free(resolve);
    return status;
}

static char *place_url(struct hub_place *place) {
    pthread_mutex_lock(&place->lock);
    char *url = place->url ? strdup(place->url) : NULL;
    pthread_mutex_unlock(&place->lock);
    return url;
}

/* Remembers where the file was served; NULL: `old` is no longer good. */
static void place_note(struct hub_place *place, const char *old, const char *url) {
    char *copy = url ? strdup(url) : NULL;
    pthread_mutex_lock(&place->lock);
    if (copy || (place->url && old && strcmp(place->url, old) == 0)) {
        char *before = place->url;
        place->url = copy;
        copy = before;
    }
    pthread_mutex_unlock(&place->lock);
    free(copy);
}

enum status hub_range_read(struct hub *hub, struct hub_place *place, uint64_t offset, uint64_t size,
                           bool (*take)(void *context, const void *bytes, size_t size), void *context,
                           struct error *error) {
    struct piece piece = {.place = place, .take = take, .context = context, .offset = offset, .size = size};
    enum status status = STATUS_OK;
    for (unsigned fruitless = 0; status == STATUS_OK && piece.done < size;) {
        const uint64_t before = piece.done;
        struct http_reply reply = {0};
        char *url = place_url(place);
        status = piece_ask(hub, &piece, url, &reply, error);
        const bool came = piece.done > before;
        fruitless = came ? 0 : fruitless + 1;
        if (came && piece.route.away)
            place_note(place, NULL, piece.route.url);
        else if (!came && url)
            place_note(place, url, NULL);
        /* Worth another request: a range that was cut short, a connection that broke, an address that has expired. */
        const bool again = status == STATUS_OK || (status == STATUS_IO && reply.transient && came) || (url && !came);
        if (piece.done == size)
            status = STATUS_OK;
        else if (piece.stopped)
            status = STATUS_CHECK_FAILED;
        else if (fruitless >= HUB_ATTEMPTS && status == STATUS_OK)
            status = range_wrong(&piece, "ends before the bytes that were asked for", error);
        else if (again && status != STATUS_INTERRUPTED && fruitless < HUB_ATTEMPTS)
            status = fruitless > 1 ? retry_sleep(retry_wait(fruitless, hub->retry_seconds), error) : STATUS_OK;
        http_reply_free(&reply);
        free(url);
    }
    hub_route_free(&piece.route);
    return status;
}

static bool buffer_take(void *context, const void *bytes, size_t size) {
    char **to = context;
    memcpy(*to, bytes, size);
    *to += size;
    return true;
}

enum status hub_range_read_buffer(struct hub *hub, struct hub_place *place, uint64_t offset, void *buffer, size_t size,
                                  struct error *error) {
    char *to = buffer;
    return hub_range_read(hub, place, offset, size, buffer_take, &to, error);
}
