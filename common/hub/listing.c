#include "common/hub/listing.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/hub/file_range.h"
#include "common/hub/tree.h"
#include "common/hub/url.h"
#include "common/name_table.h"

enum { PAGE_BYTES_MAX = 10 << 20, PAGES_MAX = 10000, INFO_BYTES_MAX = 64 << 20 };

/* ---- asking ---- */

static enum status page_get(struct hub *hub, const struct hub_listing *listing, const char *url, size_t limit,
                            struct http_reply *reply, struct error *error) {
    const struct hub_request request = {
        .subject = {.reference = &listing->reference}, .method = "GET", .url = url, .body_limit = limit};
    return hub_perform(hub, &request, reply, error);
}

static enum status commit_read(struct hub *hub, struct hub_listing *listing, struct error *error) {
    const struct hub_reference *reference = &listing->reference;
    if (hub_is_commit(reference->revision)) {
        memcpy(listing->commit, reference->revision, HUB_OID_HEX);
        return STATUS_OK;
    }
    struct http_reply reply = {0};
    char *url = hub_api_url(hub, reference, "revision", reference->revision, "");
    enum status status = url ? page_get(hub, listing, url, INFO_BYTES_MAX, &reply, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status =
            hub_tree_commit(url, reply.body.bytes ? reply.body.bytes : "", reply.body.length, listing->commit, error);
    http_reply_free(&reply);
    free(url);
    return status;
}

/* The page after `url`, NULL when it was the last. */
static enum status next_page(const struct hub *hub, const char *url, const struct http_reply *reply, char **next,
                             struct error *error) {
    *next = NULL;
    char *field = http_reply_field(reply, "Link"), *link = field ? hub_tree_next(field) : NULL;
    free(field);
    if (!link)
        return STATUS_OK;
    *next = hub_url_join(url, link);
    enum status status = STATUS_OK;
    if (!*next || !hub_url_same_origin(*next, hub->environment.endpoint))
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s': the next page of the list of files is said to be elsewhere than on the Hub: '%.200s'",
                           url, link);
    free(link);
    return status;
}

/* URLs of pages that were read: a page that leads back to one would never end. */
struct pages {
    struct name_table seen;
    char **urls;
    size_t count;
};

static enum status pages_add(struct pages *pages, char *url, struct error *error) {
    bool added;
    char **urls = pages->count < PAGES_MAX ? reallocarray(pages->urls, pages->count + 1, sizeof *urls) : NULL;
    if (!urls) {
        const bool many = pages->count >= PAGES_MAX;
        free(url);
        return many ? error_set(error, STATUS_BAD_INPUT, "the list of files has more than %d pages", PAGES_MAX)
                    : error_set_memory(error);
    }
    pages->urls = urls;
    urls[pages->count++] = url;
    if (!name_table_add(&pages->seen, url, strlen(url), 0, &added))
        return error_set_memory(error);
    return added
               ? STATUS_OK
               : error_set(error, STATUS_BAD_INPUT, "'%s': the pages of the list of files lead around in circles", url);
}

static void pages_free(struct pages *pages) {
    for (size_t i = 0; i < pages->count; i++)
        free(pages->urls[i]);
    free(pages->urls);
    name_table_free(&pages->seen);
}

static enum status tree_read(struct hub *hub, struct hub_listing *listing, struct error *error) {
    struct pages pages = {0};
    enum status status = STATUS_OK;
    char *url = hub_api_url(hub, &listing->reference, "tree", listing->commit, "?recursive=true&expand=false");
    if (!url)
        status = error_set_memory(error);
    while (status == STATUS_OK && url) {
        struct http_reply reply = {0};
        char *next = NULL;
        status = pages_add(&pages, url, error);
        if (status == STATUS_OK)
            status = page_get(hub, listing, url, PAGE_BYTES_MAX, &reply, error);
        if (status == STATUS_OK)
            status = hub_tree_page(url, reply.body.bytes ? reply.body.bytes : "", reply.body.length, listing, error);
        if (status == STATUS_OK)
            status = next_page(hub, url, &reply, &next, error);
        http_reply_free(&reply);
        url = next;
        if (status != STATUS_OK)
            free(next);
    }
    if (status == STATUS_OK)
        status = hub_tree_finish(listing, error);
    pages_free(&pages);
    return status;
}

enum status hub_listing_read(struct hub *hub, const struct hub_reference *reference, struct hub_listing *listing,
                             struct error *error) {
    enum status status = hub_listing_begin(reference, listing, error);
    if (status == STATUS_OK)
        status = commit_read(hub, listing, error);
    return status == STATUS_OK ? tree_read(hub, listing, error) : status;
}

/* ---- a listing ---- */

enum status hub_listing_begin(const struct hub_reference *reference, struct hub_listing *listing, struct error *error) {
    *listing = (struct hub_listing){.reference.dataset = reference->dataset};
    listing->reference.repository = strdup(reference->repository);
    listing->reference.revision = strdup(reference->revision);
    return listing->reference.repository && listing->reference.revision ? STATUS_OK : error_set_memory(error);
}

enum status hub_listing_add(struct hub_listing *listing, const struct hub_file *file, struct error *error) {
    if (!file->path || !array_reserve(listing->files, listing->count + 1, &listing->capacity)) {
        free(file->path);
        return error_set_memory(error);
    }
    listing->files[listing->count++] = *file;
    return STATUS_OK;
}

void hub_listing_free(struct hub_listing *listing) {
    for (size_t i = 0; i < listing->count; i++)
        free(listing->files[i].path);
    free(listing->files);
    hub_reference_free(&listing->reference);
    *listing = (struct hub_listing){0};
}

static int path_compare(const void *path, const void *file) {
    return strcmp(path, ((const struct hub_file *)file)->path);
}

const struct hub_file *hub_listing_find(const struct hub_listing *listing, const char *path) {
    return listing->count ? bsearch(path, listing->files, listing->count, sizeof *listing->files, path_compare) : NULL;
}

/* ---- hashes ---- */

const char *hub_file_etag(const struct hub_file *file, char etag[HUB_ETAG_HEX]) {
    if (file->lfs)
        return sha256_hex(file->sha256, etag);
    return memcpy(etag, file->oid, HUB_OID_HEX);
}

struct hub_check {
    const struct hub_file *file;
    EVP_MD_CTX *hash;
    uint64_t size;
    char hex[2 * EVP_MAX_MD_SIZE + 1];
};

struct hub_check *hub_check_new(const struct hub_file *file) {
    struct hub_check *check = calloc(1, sizeof *check);
    if (!check)
        return NULL;
    *check = (struct hub_check){.file = file, .hash = EVP_MD_CTX_new()};
    if (!check->hash || EVP_DigestInit_ex(check->hash, file->lfs ? EVP_sha256() : EVP_sha1(), NULL) != 1) {
        hub_check_free(check);
        return NULL;
    }
    if (!file->lfs) { /* what git hashes before the bytes: their number, and a NUL */
        char header[40];
        const int length = snprintf(header, sizeof header, "blob %" PRIu64, file->size);
        EVP_DigestUpdate(check->hash, header, (size_t)length + 1);
    }
    return check;
}

void hub_check_add(struct hub_check *check, const void *bytes, size_t size) {
    EVP_DigestUpdate(check->hash, bytes, size);
    check->size += size;
}

bool hub_check_end(struct hub_check *check) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    char etag[HUB_ETAG_HEX];
    EVP_DigestFinal_ex(check->hash, digest, &length);
    for (unsigned i = 0; i < length; i++)
        snprintf(check->hex + (size_t)2 * i, 3, "%02x", digest[i]);
    return check->size == check->file->size && strcmp(check->hex, hub_file_etag(check->file, etag)) == 0;
}

const char *hub_check_hex(const struct hub_check *check) { return check->hex; }

void hub_check_free(struct hub_check *check) {
    if (check)
        EVP_MD_CTX_free(check->hash);
    free(check);
}

/* ---- a small file ---- */

static enum status read_checked(struct hub *hub, struct hub_place *place, char *buffer, bool *right,
                                struct error *error) {
    const size_t size = (size_t)place->file->size;
    enum status status = hub_range_read_buffer(hub, place, 0, buffer, size, error);
    struct hub_check *check = status == STATUS_OK ? hub_check_new(place->file) : NULL;
    if (status != STATUS_OK)
        return status;
    if (!check)
        return error_set_memory(error);
    hub_check_add(check, buffer, size);
    *right = hub_check_end(check);
    hub_check_free(check);
    return STATUS_OK;
}

enum status hub_file_read(struct hub *hub, const struct hub_listing *listing, const struct hub_file *file, size_t limit,
                          char **bytes, size_t *length, struct error *error) {
    *bytes = NULL;
    *length = 0;
    const char *repository = listing->reference.repository;
    if (file->size > limit)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s/%s' has %" PRIu64 " bytes, more than the %zu that such a file may have", repository,
                         file->path, file->size, limit);
    char *buffer = malloc((size_t)file->size + 1);
    if (!buffer)
        return error_set_memory(error);
    struct hub_place place;
    bool right = false;
    enum status status = STATUS_OK;
    hub_place_init(&place, listing, file);
    for (int tries = 0; tries < 2 && status == STATUS_OK && !right; tries++)
        status = read_checked(hub, &place, buffer, &right, error);
    hub_place_free(&place);
    if (status == STATUS_OK && !right)
        status =
            error_set(error, STATUS_IO, "'%s/%s': what the Hub sends is not what it lists: the hash is another, twice",
                      repository, file->path);
    if (status != STATUS_OK) {
        free(buffer);
        return status;
    }
    buffer[file->size] = '\0';
    *bytes = buffer;
    *length = (size_t)file->size;
    return STATUS_OK;
}
