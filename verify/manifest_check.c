#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/name_table.h"
#include "common/team_work.h"
#include "common/text.h"
#include "verify/folder_check.h"
#include "verify/folder_list.h"

enum { PIECE = 1 << 20 }; /* bytes that a worker reads at once */
static const uint64_t prefetch_bytes = (uint64_t)8 << 20;
static const uint64_t small_file = (uint64_t)64 << 20; /* up to here files are hashed without being asked to */
enum { EXTRA_SHOWN = 100 };                            /* of files that the manifest does not name */
enum { JOBS_MAX = 32 };                                /* more are not faster than the disk, and each has a buffer */

static const char shard_ending[] = ".safetensors", card_name[] = "README.md", manifest_name[] = "qstream.json";

/* People edit the model card: that is not damage. */
static enum verify_severity severity_of(const char *file) {
    return strcmp(file, card_name) == 0 ? VERIFY_WARNING : VERIFY_ERROR;
}

/* ---- hashing ---- */

struct hashing {
    const struct folder_check *check;
    uint32_t *files; /* of the manifest, to be hashed */
    size_t count;
    uint8_t (*digests)[SHA256_SIZE]; /* of each of `files` */
    uint8_t *buffers;                /* a piece per thread */
    struct team_work work;
};

static enum status pieces_hash(struct hashing *hashing, struct byte_source *source, struct sha256 *hash,
                               uint8_t *buffer, struct error *error) {
    uint64_t size = source->identity.size;
    for (uint64_t at = 0; at < size;) {
        size_t piece = size - at < PIECE ? (size_t)(size - at) : PIECE;
        if (at % prefetch_bytes == 0)
            byte_source_prefetch(source, at, 2 * prefetch_bytes);
        enum status status = byte_source_read_at(source, at, buffer, piece, error);
        if (status == STATUS_OK) {
            sha256_update(hash, buffer, piece);
            status = team_work_advance(&hashing->work, piece, error);
        }
        if (status != STATUS_OK)
            return status;
        at += piece;
    }
    return STATUS_OK;
}

static enum status file_hash(void *context, size_t number, unsigned thread, struct error *error) {
    struct hashing *hashing = context;
    const struct manifest_file *file = &hashing->check->manifest->files[hashing->files[number]];
    struct byte_source *source = NULL;
    struct sha256 *hash = sha256_new();
    enum status status =
        hash ? folder_file_open(hashing->check->output->folder, file->name, &source, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = pieces_hash(hashing, source, hash, hashing->buffers + (size_t)thread * PIECE, error);
    if (status == STATUS_OK)
        sha256_digest(hash, hashing->digests[number]);
    byte_source_close(source);
    sha256_free(hash);
    return status;
}

static enum status digests_check(const struct hashing *hashing, struct verify_findings *findings, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < hashing->count && status == STATUS_OK; i++) {
        const struct manifest_file *file = &hashing->check->manifest->files[hashing->files[i]];
        char is[SHA256_HEX], wanted[SHA256_HEX];
        if (memcmp(file->sha256, hashing->digests[i], SHA256_SIZE) != 0)
            status = verify_find(findings, severity_of(file->name), "manifest-hash", file->name, error,
                                 "its SHA-256 is %s, the manifest says %s", sha256_hex(hashing->digests[i], is),
                                 sha256_hex(file->sha256, wanted));
    }
    return status;
}

/* Hashes the files that were chosen; `bytes` are in them. */
static enum status files_hash(struct hashing *hashing, uint64_t bytes, struct verify_findings *findings,
                              struct error *error) {
    if (hashing->count == 0)
        return STATUS_OK;
    unsigned jobs = hashing->check->jobs < hashing->count ? hashing->check->jobs : (unsigned)hashing->count;
    jobs = jobs > JOBS_MAX ? JOBS_MAX : jobs ? jobs : 1;
    hashing->digests = calloc(hashing->count, SHA256_SIZE);
    hashing->buffers = malloc((size_t)jobs * PIECE);
    enum status status = hashing->digests && hashing->buffers ? STATUS_OK : error_set_memory(error);
    hashing->work = (struct team_work){.function = file_hash,
                                       .context = hashing,
                                       .count = hashing->count,
                                       .threads = jobs,
                                       .verb = "hashing",
                                       .bytes = bytes,
                                       .quiet = hashing->check->quiet};
    if (status == STATUS_OK)
        status = team_work_run(&hashing->work, error);
    if (status == STATUS_OK)
        status = digests_check(hashing, findings, error);
    free(hashing->digests);
    free(hashing->buffers);
    return status;
}

/* ---- the manifest's files ---- */

/* Whether the file is there and of its size. */
static enum status size_check(const struct folder_check *check, const struct manifest_file *file, bool *good,
                              struct verify_findings *findings, struct error *error) {
    struct folder_entry entry;
    bool found;
    *good = false;
    enum status status = folder_look(check->output->folder, file->name, &entry, &found, error);
    if (status != STATUS_OK)
        return status;
    if (!found || entry.problem)
        return verify_find(findings, VERIFY_ERROR, "file-missing", file->name, error,
                           "the manifest lists this file, the folder does not have it");
    if (entry.kind != FOLDER_FILE)
        return verify_find(findings, VERIFY_ERROR, "file-missing", file->name, error,
                           "the manifest lists this file, but it is not a regular file");
    if (entry.size != file->size)
        return verify_find(findings, severity_of(file->name), "manifest-size", file->name, error,
                           "it has %" PRIu64 " bytes, the manifest says %" PRIu64, entry.size, file->size);
    *good = true;
    return STATUS_OK;
}

static enum status files_check(const struct folder_check *check, struct verify_findings *findings,
                               struct error *error) {
    const struct manifest *manifest = check->manifest;
    struct hashing hashing = {.check = check, .files = malloc((manifest->file_count + 1) * sizeof *hashing.files)};
    uint64_t bytes = 0;
    enum status status = hashing.files ? STATUS_OK : error_set_memory(error);
    for (size_t i = 0; i < manifest->file_count && status == STATUS_OK; i++) {
        const struct manifest_file *file = &manifest->files[i];
        bool good, small = file->size < small_file && !text_ends_with(file->name, shard_ending);
        status = size_check(check, file, &good, findings, error);
        if (good && (check->hash || small)) {
            hashing.files[hashing.count++] = (uint32_t)i;
            bytes += file->size;
        }
    }
    if (status == STATUS_OK)
        status = files_hash(&hashing, bytes, findings, error);
    free(hashing.files);
    return status;
}

/* ---- other files, and the source ---- */

static enum status extra_check(const struct folder_check *check, struct verify_findings *findings,
                               struct error *error) {
    const struct manifest *manifest = check->manifest;
    struct name_table names = {0};
    struct folder_list list = {0};
    size_t extra = 0;
    enum status status = folder_list_make(check->output->folder, NULL, NULL, &list, error);
    for (size_t i = 0; i < manifest->file_count && status == STATUS_OK; i++)
        if (!name_table_add(&names, manifest->files[i].name, strlen(manifest->files[i].name), 0, NULL))
            status = error_set_memory(error);
    for (size_t i = 0; i < list.count && status == STATUS_OK; i++) {
        const char *file = list.files[i];
        if (strcmp(file, manifest_name) == 0 || name_table_find(&names, file, strlen(file)) != NAME_UNKNOWN)
            continue;
        bool shard = text_ends_with(file, shard_ending);
        if (extra++ < EXTRA_SHOWN)
            status = verify_find(findings, shard ? VERIFY_WARNING : VERIFY_NOTE, "file-not-in-manifest", file, error,
                                 "the manifest does not list this file");
    }
    if (extra > EXTRA_SHOWN && status == STATUS_OK)
        status = verify_find(findings, VERIFY_NOTE, "file-not-in-manifest", manifest_name, error,
                             "it does not list %zu files more", extra - EXTRA_SHOWN);
    name_table_free(&names);
    folder_list_free(&list);
    return status;
}

static const struct shard *shard_find(const struct checkpoint *checkpoint, const char *file) {
    size_t low = 0, high = checkpoint->shard_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(file, checkpoint->shards[middle].file);
        if (order == 0)
            return &checkpoint->shards[middle];
        if (order > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static enum status source_check(const struct folder_check *check, struct verify_findings *findings,
                                struct error *error) {
    static const char id[] = "manifest-source", meaning[] = "the folder was not made from this source";
    const struct manifest *manifest = check->manifest;
    struct name_table names = {0};
    char is[SHA256_HEX], was[SHA256_HEX];
    enum status status = STATUS_OK;
    for (size_t i = 0; i < manifest->source_count && status == STATUS_OK; i++) {
        const struct manifest_source *wanted = &manifest->sources[i];
        const struct shard *shard = shard_find(check->source, wanted->name);
        if (!name_table_add(&names, wanted->name, strlen(wanted->name), 0, NULL))
            status = error_set_memory(error);
        else if (!shard)
            status = verify_find(findings, VERIFY_ERROR, id, wanted->name, error,
                                 "the manifest names this shard, the source does not have it: %s", meaning);
        else if (shard->source && shard->source->identity.size != wanted->size)
            status = verify_find(findings, VERIFY_ERROR, id, wanted->name, error,
                                 "it has %" PRIu64 " bytes, the manifest says %" PRIu64 ": %s",
                                 shard->source->identity.size, wanted->size, meaning);
        else if (shard->source && shard->source->identity.hashed && wanted->hashed &&
                 memcmp(shard->source->identity.sha256, wanted->sha256, SHA256_SIZE) != 0)
            status =
                verify_find(findings, VERIFY_ERROR, id, wanted->name, error,
                            "the Hub says that its SHA-256 is %s, the manifest says %s: %s",
                            sha256_hex(shard->source->identity.sha256, is), sha256_hex(wanted->sha256, was), meaning);
    }
    for (size_t i = 0; i < check->source->shard_count && status == STATUS_OK; i++) {
        const char *file = check->source->shards[i].file;
        if (name_table_find(&names, file, strlen(file)) == NAME_UNKNOWN)
            status = verify_find(findings, VERIFY_ERROR, id, file, error,
                                 "the source has this shard, the manifest does not name it: %s", meaning);
    }
    name_table_free(&names);
    return status;
}

enum status manifest_files_check(const struct folder_check *check, struct verify_findings *findings,
                                 struct error *error) {
    if (!check->manifest)
        return STATUS_OK;
    enum status status = source_check(check, findings, error);
    if (status == STATUS_OK)
        status = files_check(check, findings, error);
    if (status == STATUS_OK)
        status = extra_check(check, findings, error);
    return status;
}
