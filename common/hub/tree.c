#include "common/hub/tree.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/json_scan.h"
#include "common/utf8.h"

enum { FILES_MAX = 1000000, PATH_BYTES_MAX = 1024, PART_BYTES_MAX = 255 };

/* ---- JSON ---- */

static enum status json_wrong(const char *name, const struct scanner *scan, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT, "'%s' answers with something else than was asked for: %s, at byte %zu",
                     name, scan->problem ? scan->problem : "no memory", scan->at);
}

/* Goes through the members of an object; `member` gets each key and takes its value. */
static bool object_scan(struct scanner *scan, bool (*member)(struct scanner *scan, const char *key, void *context),
                        void *context) {
    if (!scan_expect(scan, '{', "an object was expected"))
        return false;
    if (scan_next_is(scan, '}'))
        return scan_expect(scan, '}', "");
    do {
        struct json_span span;
        struct text key = {0};
        bool good = scan_string(scan, &span) && scan_string_decode(scan, span, &key) && !key.failed &&
                    scan_expect(scan, ':', "':' was expected") && member(scan, key.bytes, context);
        text_free(&key);
        if (!good)
            return false;
    } while (scan_next_is(scan, ',') && scan_expect(scan, ',', ""));
    return scan_expect(scan, '}', "',' or '}' was expected");
}

static bool value_skip(struct scanner *scan) {
    struct json_span skipped;
    return scan_value(scan, &skipped);
}

/* A string: git's SHA-1 of something, or the SHA-256 of bytes; the other one is NULL. */
static bool hash_scan(struct scanner *scan, char *oid, uint8_t *sha256) {
    struct json_span span;
    struct text text = {0};
    bool good = scan_string(scan, &span) && scan_string_decode(scan, span, &text) && !text.failed;
    if (good && !(oid ? hub_is_commit(text.bytes) : sha256_from_hex(text.bytes, sha256)))
        good = scan_fail(scan, "a hash was expected");
    if (good && oid)
        memcpy(oid, text.bytes, HUB_OID_HEX);
    text_free(&text);
    return good;
}

/* ---- the commit ---- */

static bool commit_member(struct scanner *scan, const char *key, void *context) {
    char *commit = context;
    return strcmp(key, "sha") == 0 ? hash_scan(scan, commit, NULL) : value_skip(scan);
}

enum status hub_tree_commit(const char *name, const char *json, size_t length, char commit[HUB_OID_HEX],
                            struct error *error) {
    struct scanner scan = {.json = json, .length = length};
    commit[0] = '\0';
    bool good = object_scan(&scan, commit_member, commit);
    scan_space(&scan);
    if (good && scan.at < length)
        good = scan_fail(&scan, "something follows the object");
    if (good && !*commit)
        good = scan_fail(&scan, "no \"sha\"");
    return good ? STATUS_OK : json_wrong(name, &scan, error);
}

/* ---- paths ---- */

bool hub_tree_path_is_safe(const char *path) {
    if (!utf8_is_valid(path, strlen(path)) || strlen(path) > PATH_BYTES_MAX)
        return false;
    for (const unsigned char *c = (const unsigned char *)path; *c; c++)
        if (*c < 0x20 || *c == 0x7f || (*c == 0xc2 && c[1] < 0xa0)) /* C0, DEL, C1 */
            return false;
    for (const char *part = path;;) {
        const size_t length = strcspn(part, "/");
        if (length == 0 || length > PART_BYTES_MAX || (length == 1 && *part == '.') ||
            (length == 2 && memcmp(part, "..", 2) == 0))
            return false;
        /* A git folder would run its hooks. */
        if (length == 4 && strncasecmp(part, ".git", 4) == 0)
            return false;
        if (!part[length])
            return true;
        part += length + 1;
    }
}

/* ---- entries ---- */

struct entry {
    struct hub_file file;
    struct text path;
    uint64_t lfs_size;
    bool is_file, typed, sized, hashed, lfs_hashed, lfs_sized;
};

static bool lfs_member(struct scanner *scan, const char *key, void *context) {
    struct entry *entry = context;
    if (strcmp(key, "oid") == 0) {
        entry->lfs_hashed = true;
        return hash_scan(scan, NULL, entry->file.sha256);
    }
    if (strcmp(key, "size") == 0) {
        entry->lfs_sized = true;
        return scan_unsigned(scan, &entry->lfs_size);
    }
    return value_skip(scan);
}

static bool type_scan(struct scanner *scan, struct entry *entry) {
    struct json_span span;
    struct text type = {0};
    entry->typed = scan_string(scan, &span) && scan_string_decode(scan, span, &type) && !type.failed;
    entry->is_file = entry->typed && strcmp(type.bytes, "file") == 0;
    text_free(&type);
    return entry->typed;
}

static bool entry_member(struct scanner *scan, const char *key, void *context) {
    struct entry *entry = context;
    struct json_span span;
    scan_space(scan);
    if (strcmp(key, "type") == 0)
        return type_scan(scan, entry);
    if (strcmp(key, "path") == 0) {
        text_free(&entry->path);
        return scan_string(scan, &span) && scan_string_decode(scan, span, &entry->path) && !entry->path.failed;
    }
    if (strcmp(key, "size") == 0) {
        entry->sized = true;
        return scan_unsigned(scan, &entry->file.size);
    }
    if (strcmp(key, "oid") == 0) {
        entry->hashed = true;
        return hash_scan(scan, entry->file.oid, NULL);
    }
    if (strcmp(key, "lfs") == 0 && scan_next_is(scan, '{')) {
        entry->file.lfs = true;
        return object_scan(scan, lfs_member, entry);
    }
    return value_skip(scan);
}

static enum status entry_add(const char *name, struct entry *entry, struct hub_listing *listing, struct error *error) {
    if (!entry->typed || !entry->path.bytes)
        return error_set(error, STATUS_BAD_INPUT, "'%s': an entry of the list of files has no type or no path", name);
    const char *path = entry->path.bytes;
    if (!entry->is_file)
        return STATUS_OK;
    if (!hub_tree_path_is_safe(path))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': the file '%.300s' would not lie inside its folder, or has a name that no file should "
                         "have: nothing of this repository is read",
                         name, path);
    struct hub_file *file = &entry->file;
    if (!entry->sized || !entry->hashed || (file->lfs && !entry->lfs_hashed))
        return error_set(error, STATUS_BAD_INPUT, "'%s': the file '%s' has no size or no hash", name, path);
    if (file->lfs && entry->lfs_sized && entry->lfs_size != file->size)
        return error_set(error, STATUS_BAD_INPUT, "'%s': the file '%s' has two sizes", name, path);
    if (listing->count == FILES_MAX)
        return error_set(error, STATUS_BAD_INPUT, "'%s': more than %d files", name, FILES_MAX);
    file->path = entry->path.bytes; /* goes over */
    entry->path = (struct text){0};
    return hub_listing_add(listing, file, error);
}

enum status hub_tree_page(const char *name, const char *json, size_t length, struct hub_listing *listing,
                          struct error *error) {
    struct scanner scan = {.json = json, .length = length};
    enum status status = STATUS_OK;
    bool good = scan_expect(&scan, '[', "an array was expected");
    for (bool more = good && !scan_next_is(&scan, ']'); more && good && status == STATUS_OK;) {
        struct entry entry = {0};
        good = object_scan(&scan, entry_member, &entry);
        if (good)
            status = entry_add(name, &entry, listing, error);
        text_free(&entry.path);
        more = good && scan_next_is(&scan, ',') && scan_expect(&scan, ',', "");
    }
    if (status != STATUS_OK)
        return status;
    good = good && scan_expect(&scan, ']', "',' or ']' was expected");
    scan_space(&scan);
    if (good && scan.at < length)
        good = scan_fail(&scan, "something follows the array");
    return good ? STATUS_OK : json_wrong(name, &scan, error);
}

static int file_compare(const void *a, const void *b) {
    return strcmp(((const struct hub_file *)a)->path, ((const struct hub_file *)b)->path);
}

/* Whether a folder that the path lies in is a file, too. */
static bool folder_is_file(const struct hub_listing *listing, char *path) {
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        const bool is = hub_listing_find(listing, path) != NULL;
        *slash = '/';
        if (is)
            return true;
    }
    return false;
}

enum status hub_tree_finish(struct hub_listing *listing, struct error *error) {
    if (listing->count)
        qsort(listing->files, listing->count, sizeof *listing->files, file_compare);
    for (size_t i = 0; i < listing->count; i++) {
        const char *path = listing->files[i].path;
        if (i > 0 && strcmp(path, listing->files[i - 1].path) == 0)
            return error_set(error, STATUS_BAD_INPUT, "the Hub lists the file '%s' of '%s' twice", path,
                             listing->reference.repository);
        char *copy = strdup(path);
        if (!copy)
            return error_set_memory(error);
        const bool both = folder_is_file(listing, copy);
        free(copy);
        if (both)
            return error_set(error, STATUS_BAD_INPUT, "the Hub lists a folder of '%s' in '%s' as a file, too", path,
                             listing->reference.repository);
    }
    return STATUS_OK;
}

/* ---- Link ---- */

/* Behind a parameter's value, which may be quoted. */
static const char *value_end(const char *value) {
    if (*value != '"')
        return value + strcspn(value, ";,");
    for (value++; *value && *value != '"'; value++)
        if (*value == '\\' && value[1])
            value++;
    return *value ? value + 1 : value;
}

/* Whether one of the words in a value, quoted or not, is `next`. */
static bool has_next(const char *value, const char *end) {
    static const char next[] = "next";
    for (const char *word = value; word < end;) {
        const size_t length = strcspn(word, "\" \t");
        const size_t inside = length < (size_t)(end - word) ? length : (size_t)(end - word);
        if (inside == sizeof next - 1 && strncasecmp(word, next, inside) == 0)
            return true;
        word += inside + 1;
    }
    return false;
}

char *hub_tree_next(const char *field) {
    while ((field = strchr(field, '<'))) {
        const char *target = field + 1, *close = strchr(target, '>');
        if (!close)
            return NULL;
        bool next = false;
        for (field = close + 1; *field && *field != ',';) {
            field += strspn(field, " \t;");
            if (*field == ',' || !*field)
                break;
            const size_t name = strcspn(field, "=;, \t");
            const bool is_rel = name == 3 && strncasecmp(field, "rel", 3) == 0;
            field += name + strspn(field + name, " \t");
            if (*field != '=')
                continue;
            const char *value = field + 1 + strspn(field + 1, " \t");
            field = value_end(value);
            next = next || (is_rel && has_next(value, field));
        }
        if (next)
            return strndup(target, (size_t)(close - target));
    }
    return NULL;
}
