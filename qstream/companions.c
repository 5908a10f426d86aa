#include "qstream/companions.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/file_bytes.h"
#include "common/thread_team.h"

enum { VERSION = 1, HEADER = 8 + 4 + 4 + SHA256_SIZE, PIECE_BYTES = 1 << 20, READERS = 8 };
static const char magic[8] = {'q', 's', 't', 'r', 'e', 'a', 'm', 'C'};

struct companions {
    const struct schedule *schedule;
    struct byte_source *file;
    uint64_t *places; /* of the schedule's companions in the file */
};

static const struct tensor *tensor_of(const struct schedule *schedule, size_t number) {
    return &schedule->plan->checkpoint->tensors[schedule->companions[number]];
}

uint64_t companions_file_bytes(const struct schedule *schedule) {
    uint64_t bytes = HEADER + SHA256_SIZE;
    for (size_t i = 0; i < schedule->companion_count; i++)
        bytes += tensor_of(schedule, i)->info.size;
    return schedule->companion_count > 0 ? bytes : 0;
}

static void store32(uint8_t *out, size_t value) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* The header binds the file to the source and to which of its bytes it holds. */
static enum status header_fill(const struct schedule *schedule, const uint8_t source[SHA256_SIZE],
                               uint8_t header[HEADER], struct error *error) {
    struct text key = {0};
    text_append(&key, source, SHA256_SIZE);
    for (size_t i = 0; i < schedule->companion_count; i++)
        text_printf(&key, "%s\n", tensor_of(schedule, i)->info.name);
    memcpy(header, magic, sizeof magic);
    store32(header + 8, VERSION);
    store32(header + 12, schedule->companion_count);
    enum status status =
        key.failed ? error_set_memory(error) : sha256_of(key.bytes, key.length, header + HEADER - SHA256_SIZE, error);
    text_free(&key);
    return status;
}

/* The SHA-256 of a file's bytes but its last SHA256_SIZE. */
static enum status file_digest(struct byte_source *file, uint64_t size, uint8_t digest[SHA256_SIZE],
                               struct error *error) {
    void *buffer = malloc(PIECE_BYTES);
    struct sha256 *hash = sha256_new();
    enum status status = buffer && hash ? STATUS_OK : error_set_memory(error);
    for (uint64_t at = 0; at < size && status == STATUS_OK;) {
        size_t piece = size - at < PIECE_BYTES ? (size_t)(size - at) : PIECE_BYTES;
        status = byte_source_read_at(file, at, buffer, piece, error);
        if (status == STATUS_OK)
            sha256_update(hash, buffer, piece);
        at += piece;
    }
    if (status == STATUS_OK)
        sha256_digest(hash, digest);
    sha256_free(hash);
    free(buffer);
    return status;
}

/* ---- reading ---- */

/* Whether an open file is whole and the one that is wanted. */
static enum status file_check(struct byte_source *file, const struct schedule *schedule,
                              const uint8_t source[SHA256_SIZE], bool *good, struct error *error) {
    uint8_t wanted[HEADER], header[HEADER], digest[SHA256_SIZE] = {0}, noted[SHA256_SIZE];
    uint64_t size = companions_file_bytes(schedule);
    *good = false;
    if (file->identity.size != size)
        return STATUS_OK;
    enum status status = header_fill(schedule, source, wanted, error);
    if (status == STATUS_OK)
        status = byte_source_read_at(file, 0, header, HEADER, error);
    if (status == STATUS_OK)
        status = byte_source_read_at(file, size - SHA256_SIZE, noted, SHA256_SIZE, error);
    if (status == STATUS_OK)
        status = file_digest(file, size - SHA256_SIZE, digest, error);
    *good = status == STATUS_OK && memcmp(header, wanted, HEADER) == 0 && memcmp(digest, noted, SHA256_SIZE) == 0;
    return status;
}

enum status companions_open(const char *path, const struct schedule *schedule, const uint8_t source[SHA256_SIZE],
                            struct companions **out, struct error *error) {
    *out = NULL;
    if (access(path, F_OK) != 0)
        return STATUS_OK;
    struct companions *companions = calloc(1, sizeof *companions);
    if (!companions)
        return error_set_memory(error);
    *companions = (struct companions){.schedule = schedule,
                                      .places = calloc(schedule->companion_count + 1, sizeof *companions->places)};
    bool good = false;
    enum status status =
        companions->places ? byte_source_open_file(path, &companions->file, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = file_check(companions->file, schedule, source, &good, error);
    uint64_t place = HEADER;
    for (size_t i = 0; i < schedule->companion_count && companions->places; i++) {
        companions->places[i] = place;
        place += tensor_of(schedule, i)->info.size;
    }
    if (status == STATUS_OK && good)
        *out = companions;
    else
        companions_close(companions);
    return status;
}

void companions_close(struct companions *companions) {
    if (!companions)
        return;
    byte_source_close(companions->file);
    free(companions->places);
    free(companions);
}

/* The first companion of a shard that ends behind `offset`; the schedule has them by shard and offset. */
static size_t companion_from(const struct schedule *schedule, uint32_t shard, uint64_t offset) {
    size_t low = 0, high = schedule->companion_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct tensor *tensor = tensor_of(schedule, middle);
        if (tensor->shard < shard || (tensor->shard == shard && tensor->info.offset + tensor->info.size <= offset))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

enum status companions_read(const struct companions *companions, uint32_t shard, uint64_t offset, void *buffer,
                            size_t size, bool *held, struct error *error) {
    size_t number = companion_from(companions->schedule, shard, offset);
    *held = false;
    if (number == companions->schedule->companion_count)
        return STATUS_OK;
    const struct tensor *tensor = tensor_of(companions->schedule, number);
    uint64_t inside = offset - tensor->info.offset;
    *held = tensor->shard == shard && offset >= tensor->info.offset && size <= tensor->info.size - inside;
    return *held ? byte_source_read_at(companions->file, companions->places[number] + inside, buffer, size, error)
                 : STATUS_OK;
}

static enum status tensor_compare(const struct companions *companions, size_t number, struct byte_source *file,
                                  uint8_t *buffer, struct error *error) {
    const struct tensor *tensor = tensor_of(companions->schedule, number);
    enum status status = STATUS_OK;
    for (uint64_t at = 0; at < tensor->info.size && status == STATUS_OK;) {
        uint64_t left = tensor->info.size - at;
        size_t piece = left < PIECE_BYTES / 2 ? (size_t)left : PIECE_BYTES / 2;
        status = byte_source_read_at(file, tensor->info.offset + at, buffer, piece, error);
        if (status == STATUS_OK)
            status = byte_source_read_at(companions->file, companions->places[number] + at, buffer + PIECE_BYTES / 2,
                                         piece, error);
        if (status == STATUS_OK && memcmp(buffer, buffer + PIECE_BYTES / 2, piece) != 0)
            status = error_set(error, STATUS_CHECK_FAILED,
                               "tensor '%s', as it was fetched by itself, is not what its shard '%s' holds",
                               tensor->info.name, companions->schedule->plan->checkpoint->shards[tensor->shard].file);
        at += piece;
    }
    return status;
}

enum status companions_compare(const struct companions *companions, uint32_t shard, struct byte_source *file,
                               struct error *error) {
    uint8_t *buffer = malloc(PIECE_BYTES);
    enum status status = buffer ? STATUS_OK : error_set_memory(error);
    for (size_t i = companion_from(companions->schedule, shard, 0);
         i < companions->schedule->companion_count && tensor_of(companions->schedule, i)->shard == shard &&
         status == STATUS_OK;
         i++)
        status = tensor_compare(companions, i, file, buffer, error);
    free(buffer);
    return status;
}

/* ---- making ---- */

/* The file that is being made, by several threads. */
struct making {
    const struct schedule *schedule;
    companions_read_function *read;
    void *context;
    const char *path;
    int fd;
    pthread_mutex_t lock; /* guards what follows */
    size_t number;        /* of the companion that is next, */
    uint64_t inside;      /* its byte that is next, */
    uint64_t place;       /* and where that goes */
    enum status status;   /* the first failure */
    struct error error;
};

struct piece {
    uint32_t shard;
    uint64_t offset, place;
    size_t size;
};

/* Takes what is to be read next: companions that lie behind each other in one piece. */
static bool piece_take(struct making *making, struct piece *piece) {
    const struct schedule *schedule = making->schedule;
    *piece = (struct piece){.place = making->place};
    while (making->number < schedule->companion_count && piece->size < PIECE_BYTES) {
        const struct tensor *tensor = tensor_of(schedule, making->number);
        uint64_t offset = tensor->info.offset + making->inside, left = tensor->info.size - making->inside;
        if (piece->size == 0) {
            piece->shard = tensor->shard;
            piece->offset = offset;
        } else if (tensor->shard != piece->shard || offset != piece->offset + piece->size) {
            break;
        }
        size_t room = PIECE_BYTES - piece->size, part = left < room ? (size_t)left : room;
        piece->size += part;
        making->inside += part;
        making->place += part;
        if (making->inside == tensor->info.size) {
            making->number++;
            making->inside = 0;
        }
    }
    return piece->size > 0;
}

static enum status write_at(const struct making *making, const uint8_t *bytes, size_t size, uint64_t offset,
                            struct error *error) {
    return file_bytes_write(making->fd, bytes, size, offset)
               ? STATUS_OK
               : error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", making->path);
}

static void reader_main(void *context, unsigned number) {
    struct making *making = context;
    struct error error;
    struct piece piece;
    uint8_t *buffer = malloc(PIECE_BYTES);
    enum status status = buffer ? STATUS_OK : error_set_memory(&error);
    (void)number;
    pthread_mutex_lock(&making->lock);
    while (status == STATUS_OK && making->status == STATUS_OK && piece_take(making, &piece)) {
        pthread_mutex_unlock(&making->lock);
        status = making->read(making->context, piece.shard, piece.offset, buffer, piece.size, &error);
        if (status == STATUS_OK)
            status = write_at(making, buffer, piece.size, piece.place, &error);
        pthread_mutex_lock(&making->lock);
    }
    if (status != STATUS_OK && making->status == STATUS_OK) {
        making->status = status;
        making->error = error;
    }
    pthread_mutex_unlock(&making->lock);
    free(buffer);
}

/* Everything between the header and the digest. */
static enum status bodies_write(struct making *making, struct error *error) {
    struct thread_team team;
    unsigned readers =
        making->schedule->companion_count < READERS ? (unsigned)making->schedule->companion_count : READERS;
    enum status status = thread_team_start(&team, readers, reader_main, making, error);
    if (status != STATUS_OK)
        return status;
    thread_team_join(&team);
    if (making->status != STATUS_OK)
        *error = making->error;
    return making->status;
}

/* The digest of what is written goes behind it. */
static enum status digest_write(const struct making *making, struct error *error) {
    uint8_t digest[SHA256_SIZE];
    uint64_t end = companions_file_bytes(making->schedule) - SHA256_SIZE;
    struct byte_source *file;
    enum status status = byte_source_open_file(making->path, &file, error);
    if (status != STATUS_OK)
        return status;
    status = file_digest(file, end, digest, error);
    byte_source_close(file);
    return status == STATUS_OK ? write_at(making, digest, SHA256_SIZE, end, error) : status;
}

enum status companions_make(const char *path, const struct schedule *schedule, const uint8_t source[SHA256_SIZE],
                            companions_read_function *read, void *context, struct error *error) {
    char *partial = text_format("%s.partial", path);
    struct making making = {.schedule = schedule,
                            .read = read,
                            .context = context,
                            .path = partial,
                            .fd = -1,
                            .lock = PTHREAD_MUTEX_INITIALIZER,
                            .place = HEADER};
    uint8_t header[HEADER];
    enum status status = partial ? header_fill(schedule, source, header, error) : error_set_memory(error);
    if (status == STATUS_OK && (making.fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot create '%s'", partial);
    if (status == STATUS_OK)
        status = write_at(&making, header, HEADER, 0, error);
    if (status == STATUS_OK)
        status = bodies_write(&making, error);
    if (status == STATUS_OK)
        status = digest_write(&making, error);
    if (status == STATUS_OK && fsync(making.fd) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot sync '%s'", partial);
    if (making.fd >= 0)
        close(making.fd);
    if (status == STATUS_OK && rename(partial, path) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot rename '%s'", partial);
    if (status == STATUS_OK)
        status = folder_above_sync(path, error);
    free(partial);
    return status;
}
