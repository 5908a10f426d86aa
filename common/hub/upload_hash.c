#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/hub/upload.h"
#include "common/interrupt.h"
#include "common/progress.h"
#include "common/thread_team.h"

enum { PIECE = 1 << 20 };

struct hashing {
    struct upload *upload;
    pthread_mutex_t lock; /* of all below */
    size_t next;          /* file that nobody has taken */
    struct progress progress;
    uint64_t done; /* bytes */
    enum status status;
    struct error error;
};

static bool piece_count(struct hashing *hashing, size_t size) {
    pthread_mutex_lock(&hashing->lock);
    hashing->done += size;
    progress_update(&hashing->progress, hashing->done);
    const bool on = hashing->status == STATUS_OK;
    pthread_mutex_unlock(&hashing->lock);
    return on;
}

static enum status file_hash(struct hashing *hashing, struct upload_file *file, uint8_t *piece, struct error *error) {
    const uint64_t total = file->source->identity.size;
    const bool small = total <= UPLOAD_INLINE_MOST;
    struct sha256 *hash = sha256_new();
    const struct hub_file as_blob = {.size = total};
    struct hub_check *blob = small ? hub_check_new(&as_blob) : NULL;
    enum status status = hash && (blob || !small) ? STATUS_OK : error_set_memory(error);
    uLong crc = crc32(0, NULL, 0);
    for (uint64_t at = 0; at < total && status == STATUS_OK;) {
        const size_t size = total - at < PIECE ? (size_t)(total - at) : PIECE;
        status = byte_source_read_at(file->source, at, piece, size, error);
        if (status != STATUS_OK)
            break;
        sha256_update(hash, piece, size);
        crc = crc32_z(crc, piece, size);
        if (small)
            hub_check_add(blob, piece, size);
        at += size;
        if (interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
        else if (!piece_count(hashing, size))
            status = error_set(error, STATUS_IO, "another file failed");
    }
    if (status == STATUS_OK)
        status = byte_source_check_unchanged(file->source, error);
    if (status == STATUS_OK) {
        sha256_digest(hash, file->sha256);
        file->crc32 = (uint32_t)crc;
        if (small) {
            hub_check_end(blob);
            snprintf(file->oid, sizeof file->oid, "%s", hub_check_hex(blob));
        }
    }
    sha256_free(hash);
    hub_check_free(blob);
    return status;
}

static void hasher_run(void *context, unsigned number) {
    struct hashing *hashing = context;
    struct error error;
    uint8_t *piece = malloc(PIECE);
    enum status status = piece ? STATUS_OK : error_set_memory(&error);
    (void)number;
    pthread_mutex_lock(&hashing->lock);
    while (hashing->status == STATUS_OK && status == STATUS_OK && hashing->next < hashing->upload->count) {
        struct upload_file *file = &hashing->upload->files[hashing->next++];
        pthread_mutex_unlock(&hashing->lock);
        status = file_hash(hashing, file, piece, &error);
        pthread_mutex_lock(&hashing->lock);
    }
    if (status != STATUS_OK && hashing->status == STATUS_OK) {
        hashing->status = status;
        hashing->error = error;
    }
    pthread_mutex_unlock(&hashing->lock);
    free(piece);
}

enum status upload_hash(struct upload *upload, unsigned jobs, bool quiet, struct error *error) {
    struct hashing hashing = {.upload = upload};
    struct thread_team team;
    uint64_t total = 0;
    for (size_t i = 0; i < upload->count; i++)
        total += upload->files[i].source->identity.size;
    pthread_mutex_init(&hashing.lock, NULL);
    progress_start(&hashing.progress, "hashing", total, 0, quiet);
    enum status status = thread_team_start(&team, jobs, hasher_run, &hashing, error);
    if (status == STATUS_OK) {
        thread_team_join(&team);
        status = hashing.status;
        if (status != STATUS_OK)
            *error = hashing.error;
    }
    progress_end(&hashing.progress);
    pthread_mutex_destroy(&hashing.lock);
    return status;
}
