#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/hub/upload.h"
#include "common/team_work.h"

enum { PIECE = 1 << 20 };

struct hashing {
    struct upload *upload;
    uint8_t *pieces; /* one per thread */
    struct team_work work;
};

static enum status file_hash(void *context, size_t number, unsigned thread, struct error *error) {
    struct hashing *hashing = context;
    struct upload_file *file = &hashing->upload->files[number];
    uint8_t *piece = hashing->pieces + (size_t)thread * PIECE;
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
        status = team_work_advance(&hashing->work, size, error);
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

enum status upload_hash(struct upload *upload, unsigned jobs, bool quiet, struct error *error) {
    const unsigned threads = jobs < upload->count ? jobs : (unsigned)upload->count;
    struct hashing hashing = {.upload = upload,
                              .pieces = malloc((size_t)threads * PIECE + 1),
                              .work = {.function = file_hash,
                                       .context = &hashing,
                                       .count = upload->count,
                                       .threads = threads,
                                       .verb = "hashing",
                                       .quiet = quiet}};
    for (size_t i = 0; i < upload->count; i++)
        hashing.work.bytes += upload->files[i].source->identity.size;
    enum status status = hashing.pieces ? team_work_run(&hashing.work, error) : error_set_memory(error);
    free(hashing.pieces);
    return status;
}
