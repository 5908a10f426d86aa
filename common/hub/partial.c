#include "common/hub/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <zlib.h>

#include "common/file_bytes.h"
#include "common/source.h"

/* As it lies behind the file's bytes, in this machine's byte order. */
struct header {
    char magic[16];
    uint64_t byte_order; /* of the machine that wrote it */
    uint64_t size, chunk_bytes;
    uint8_t hash[SHA256_SIZE]; /* SHA-256 of a large file, else git's SHA-1 in hexadecimal, cut */
};

struct record {
    uint64_t here;  /* bytes of the chunk */
    uint64_t check; /* CRC-32 of the header, the chunk's number and `here` */
};

struct chunk {
    _Atomic uint64_t here; /* bytes from its beginning */
    uint64_t noted;
};

struct partial {
    char *path;
    int fd;
    struct header header;
    size_t count;
    struct chunk *chunks;
    bool removed;
};

/* ---- the note ---- */

static uint64_t chunk_bytes_of(uint64_t size) {
    /* Small enough that several connections share a file and hashing follows closely, large enough that few requests are
     * needed; and a bounded number. */
    static const uint64_t smallest = 4 << 20, usual = 64 << 20, count_usual = 64, count_most = 1 << 14;
    uint64_t bytes = smallest;
    while ((bytes < usual && size / bytes > count_usual) || size / bytes >= count_most)
        bytes *= 2;
    return bytes;
}

static struct header header_of(const struct hub_file *file) {
    struct header header = {.magic = "qstream partial",
                            .byte_order = 0x0102030405060708,
                            .size = file->size,
                            .chunk_bytes = chunk_bytes_of(file->size)};
    if (file->lfs)
        memcpy(header.hash, file->sha256, sizeof header.hash);
    else
        memcpy(header.hash, file->oid, sizeof header.hash);
    return header;
}

static size_t count_of(const struct header *header) {
    return (size_t)(header->size / header->chunk_bytes + (header->size % header->chunk_bytes != 0));
}

static uint64_t length_with_note(const struct header *header) {
    return header->size + sizeof *header + count_of(header) * sizeof(struct record);
}

uint64_t partial_bytes(const struct hub_file *file) {
    const struct header header = header_of(file);
    return length_with_note(&header);
}

/* Bytes of a chunk that is complete. */
static uint64_t chunk_length(const struct header *header, size_t number) {
    const uint64_t begin = number * header->chunk_bytes;
    return header->size - begin < header->chunk_bytes ? header->size - begin : header->chunk_bytes;
}

static uint64_t record_check(const struct header *header, uint64_t number, uint64_t here) {
    const uint64_t fields[] = {number, here};
    const uLong check = crc32(0, (const Bytef *)header, sizeof *header);
    return crc32(check, (const Bytef *)fields, sizeof fields);
}

/* What a chunk's record says; 0 when it cannot be believed. */
static uint64_t record_read(int fd, const struct header *header, size_t number) {
    struct record record;
    if (!file_bytes_read(fd, &record, sizeof record, header->size + sizeof *header + number * sizeof record) ||
        record.check != record_check(header, number, record.here) || record.here > chunk_length(header, number))
        return 0;
    return record.here;
}

/* What a file has of the bytes that `header` is about. */
enum note { NOTE_NONE, NOTE_THERE, NOTE_COMPLETE };
static enum note note_find(int fd, const struct header *header) {
    struct stat file;
    struct header found;
    if (fstat(fd, &file) != 0)
        return NOTE_NONE;
    if ((uint64_t)file.st_size == header->size && header->size > 0)
        return NOTE_COMPLETE;
    return (uint64_t)file.st_size == length_with_note(header) &&
                   file_bytes_read(fd, &found, sizeof found, header->size) && memcmp(&found, header, sizeof found) == 0
               ? NOTE_THERE
               : NOTE_NONE;
}

void partial_look(const char *path, const struct hub_file *file, uint64_t *present, uint64_t *taken) {
    const struct header header = header_of(file);
    struct stat stat;
    *present = *taken = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    const enum note note = note_find(fd, &header);
    if (note == NOTE_COMPLETE)
        *present = header.size;
    for (size_t i = 0; note == NOTE_THERE && i < count_of(&header); i++)
        *present += record_read(fd, &header, i);
    if (fstat(fd, &stat) == 0)
        *taken = (uint64_t)stat.st_blocks * 512;
    close(fd);
}

/* Notes what came of a chunk since its last note. */
static enum status chunk_note(struct partial *partial, size_t number, struct error *error) {
    struct chunk *chunk = &partial->chunks[number];
    const uint64_t here = atomic_load(&chunk->here);
    if (here == chunk->noted)
        return STATUS_OK;
    const struct record record = {here, record_check(&partial->header, number, here)};
    const uint64_t offset = partial->header.size + sizeof partial->header + number * sizeof record;
    if (!file_bytes_write(partial->fd, &record, sizeof record, offset))
        return error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", partial->path);
    chunk->noted = here;
    return STATUS_OK;
}

/* ---- opening ---- */

/* Opens the file and locks it. *fd -1 with STATUS_OK: another process holds it. */
static enum status file_take(const char *path, int *fd, struct error *error) {
    for (;;) {
        *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
        struct stat ours, named;
        if (*fd < 0 || fstat(*fd, &ours) != 0 || !S_ISREG(ours.st_mode)) {
            const int problem = *fd < 0 ? errno : EINVAL;
            if (*fd >= 0)
                close(*fd);
            return error_set_errno(error, STATUS_IO, problem, "cannot open '%s'", path);
        }
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        /* Where there are no such locks, the one of the download itself has to do. */
        const bool held = fcntl(*fd, F_OFD_SETLK, &lock) != 0 && (errno == EAGAIN || errno == EACCES);
        if (!held && stat(path, &named) == 0 && named.st_ino == ours.st_ino && named.st_dev == ours.st_dev)
            return STATUS_OK;
        close(*fd);
        *fd = -1;
        if (held)
            return STATUS_OK;
        /* it got its name, or was removed, before it was locked */
    }
}

/* Whether the disk has room for `length` bytes in all: one that has not would be filled to the brim before that shows. */
static bool has_room(int fd, uint64_t length) {
    struct statvfs space;
    struct stat file;
    if (fstat(fd, &file) != 0 || fstatvfs(fd, &space) != 0)
        return true;
    const uint64_t taken = (uint64_t)file.st_blocks * 512;
    return length <= taken || length - taken <= (uint64_t)space.f_bavail * space.f_frsize;
}

/* Takes room for the file. */
static enum status room_take(struct partial *partial, struct error *error) {
    const uint64_t length = length_with_note(&partial->header);
    int problem = has_room(partial->fd, length) ? EINTR : ENOSPC;
    while (problem == EINTR)
        problem = fallocate(partial->fd, 0, 0, (off_t)length) != 0 ? errno : 0;
    if (problem == EOPNOTSUPP || problem == ENOSYS || problem == EINVAL)
        problem = ftruncate(partial->fd, (off_t)length) != 0 ? errno : 0;
    if (!problem)
        return STATUS_OK;
    char size[TEXT_SIZE_MAX];
    return error_set_errno(error, STATUS_IO, problem, "no room for the %s of '%s'",
                           text_size(partial->header.size, size), partial->path);
}

static enum status header_write(struct partial *partial, struct error *error) {
    if (file_bytes_write(partial->fd, &partial->header, sizeof partial->header, partial->header.size))
        return STATUS_OK;
    return error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", partial->path);
}

/* Begins a file that has nothing, or nothing that can be believed. */
static enum status file_begin(struct partial *partial, struct error *error) {
    if (ftruncate(partial->fd, 0) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", partial->path);
    enum status status = room_take(partial, error);
    if (status == STATUS_OK)
        status = header_write(partial, error);
    if (status != STATUS_OK)
        partial_remove(partial);
    return status;
}

/* Goes on with a file that is there. */
static enum status file_continue(struct partial *partial, enum note note, struct error *error) {
    for (size_t i = 0; i < partial->count; i++) {
        struct chunk *chunk = &partial->chunks[i];
        chunk->noted = note == NOTE_THERE ? record_read(partial->fd, &partial->header, i) : 0;
        atomic_init(&chunk->here, note == NOTE_COMPLETE ? chunk_length(&partial->header, i) : chunk->noted);
    }
    enum status status = room_take(partial, error);
    if (status == STATUS_OK && note == NOTE_COMPLETE)
        status = header_write(partial, error);
    return status;
}

enum status partial_open(const char *path, const struct hub_file *file, struct partial **out, struct error *error) {
    *out = NULL;
    struct partial *partial = calloc(1, sizeof *partial);
    if (!partial)
        return error_set_memory(error);
    partial->fd = -1;
    partial->header = header_of(file);
    partial->count = count_of(&partial->header);
    partial->path = strdup(path);
    partial->chunks = calloc(partial->count + 1, sizeof *partial->chunks);
    enum status status = partial->path && partial->chunks ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && file->size > INT64_MAX / 2)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' cannot be so large", file->path);
    if (status == STATUS_OK)
        status = file_take(path, &partial->fd, error);
    if (status == STATUS_OK && partial->fd >= 0) {
        const enum note note = note_find(partial->fd, &partial->header);
        status = note == NOTE_NONE ? file_begin(partial, error) : file_continue(partial, note, error);
    }
    if (status == STATUS_OK && partial->fd >= 0)
        *out = partial;
    else
        partial_close(partial);
    return status;
}

void partial_close(struct partial *partial) {
    if (!partial)
        return;
    for (size_t i = 0; partial->fd >= 0 && partial->chunks && i < partial->count && !partial->removed; i++)
        chunk_note(partial, i, NULL); /* what cannot be noted is fetched again */
    if (partial->fd >= 0)
        close(partial->fd);
    free(partial->chunks);
    free(partial->path);
    free(partial);
}

/* ---- its bytes ---- */

size_t partial_chunk_count(const struct partial *partial) { return partial->count; }

uint64_t partial_chunk_end(const struct partial *partial, size_t chunk) {
    return chunk * partial->header.chunk_bytes + chunk_length(&partial->header, chunk);
}

uint64_t partial_chunk_here(const struct partial *partial, size_t chunk) {
    return chunk * partial->header.chunk_bytes + atomic_load(&partial->chunks[chunk].here);
}

uint64_t partial_present(const struct partial *partial) {
    uint64_t sum = 0;
    for (size_t i = 0; i < partial->count; i++)
        sum += atomic_load(&partial->chunks[i].here);
    return sum;
}

uint64_t partial_frontier(const struct partial *partial, uint64_t offset) {
    for (size_t i = (size_t)(offset / partial->header.chunk_bytes); i < partial->count; i++) {
        const uint64_t here = partial_chunk_here(partial, i);
        if (here < partial_chunk_end(partial, i))
            return here;
    }
    return partial->header.size;
}

enum status partial_write(struct partial *partial, uint64_t offset, const void *bytes, size_t size,
                          struct error *error) {
    const char *at = bytes;
    while (size > 0) {
        const size_t number = (size_t)(offset / partial->header.chunk_bytes);
        struct chunk *chunk = &partial->chunks[number];
        const uint64_t here = partial_chunk_here(partial, number), end = partial_chunk_end(partial, number);
        const size_t length = end - offset < size ? (size_t)(end - offset) : size;
        const size_t known = here <= offset ? 0 : here - offset < length ? (size_t)(here - offset) : length;
        if (known < length) {
            if (!file_bytes_write(partial->fd, at + known, length - known, offset + known))
                return error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", partial->path);
            const uint64_t now = offset + length - number * partial->header.chunk_bytes;
            atomic_store(&chunk->here, now);
            if (now - chunk->noted >= PARTIAL_NOTE_BYTES || offset + length == end) {
                const enum status status = chunk_note(partial, number, error);
                if (status != STATUS_OK)
                    return status;
            }
        }
        at += length;
        offset += length;
        size -= length;
    }
    return STATUS_OK;
}

enum status partial_read(const struct partial *partial, uint64_t offset, void *buffer, size_t size,
                         struct error *error) {
    if (file_bytes_read(partial->fd, buffer, size, offset))
        return STATUS_OK;
    return error_set_errno(error, STATUS_IO, errno, "cannot read '%s'", partial->path);
}

enum status partial_restart(struct partial *partial, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < partial->count && status == STATUS_OK; i++) {
        atomic_store(&partial->chunks[i].here, 0);
        status = chunk_note(partial, i, error);
    }
    return status;
}

/* ---- its end ---- */

enum status partial_finish(struct partial *partial, const char *target, struct error *error) {
    /* The bytes first, which takes long: without its note the file would have to be hashed again. */
    if (fdatasync(partial->fd) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot sync '%s'", partial->path);
    if (ftruncate(partial->fd, (off_t)partial->header.size) != 0 || fdatasync(partial->fd) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", partial->path);
    if (rename(partial->path, target) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot rename '%s' to '%s'", partial->path, target);
    partial->removed = true;
    return folder_above_sync(target, error);
}

void partial_remove(struct partial *partial) {
    unlink(partial->path);
    partial->removed = true;
}
