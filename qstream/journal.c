#include "qstream/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "common/file_bytes.h"

enum { VERSION = 1, HEADER = 8 + 4 + 3 * SHA256_SIZE + 4, RECORD = 48 };
static const char magic[8] = {'q', 's', 't', 'r', 'e', 'a', 'm', 'J'};

struct journal {
    int fd;
    char *path;
    off_t end; /* where the next record goes */
    uint32_t seed;
};

static void store32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t load32(const uint8_t *in) {
    return (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
}

static void header_fill(uint8_t header[HEADER], const struct fingerprint *fingerprint) {
    memcpy(header, magic, sizeof magic);
    store32(header + 8, VERSION);
    memcpy(header + 12, fingerprint->source, SHA256_SIZE);
    memcpy(header + 12 + SHA256_SIZE, fingerprint->recipe, SHA256_SIZE);
    memcpy(header + 12 + 2 * SHA256_SIZE, fingerprint->options, SHA256_SIZE);
    store32(header + HEADER - 4, (uint32_t)crc32(0, header, HEADER - 4));
}

/* What the records' checksums start from. (A CRC over the header with its own CRC would be the same for all headers.) */
static uint32_t header_seed(const uint8_t header[HEADER]) { return (uint32_t)crc32(0, header, HEADER - 4); }

static bool header_whole(const uint8_t header[HEADER]) {
    return memcmp(header, magic, sizeof magic) == 0 &&
           load32(header + HEADER - 4) == (uint32_t)crc32(0, header, HEADER - 4);
}

static void record_fill(uint8_t out[RECORD], const struct journal_record *record, uint32_t seed) {
    store32(out, record->type);
    store32(out + 4, record->first);
    store32(out + 8, record->last);
    memcpy(out + 12, record->payload, SHA256_SIZE);
    store32(out + RECORD - 4, (uint32_t)crc32(seed, out, RECORD - 4));
}

static enum status write_at(int fd, const char *path, const uint8_t *bytes, size_t size, off_t offset,
                            struct error *error) {
    return file_bytes_write(fd, bytes, size, (uint64_t)offset)
               ? STATUS_OK
               : error_set_errno(error, STATUS_IO, errno, "cannot write the journal '%s'", path);
}

static ssize_t read_all(int fd, uint8_t *bytes, size_t size, off_t offset) {
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, bytes + done, size - done, offset + (off_t)done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static enum status header_compare(const char *path, const uint8_t header[HEADER], const struct fingerprint *fingerprint,
                                  struct error *error) {
    if (!header_whole(header))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is damaged or no journal; remove the output folder to start anew", path);
    if (load32(header + 8) == VERSION && memcmp(header + 12, fingerprint->source, SHA256_SIZE) != 0)
        return error_set(
            error, STATUS_BAD_INPUT,
            "the source has changed since the unfinished run of '%s' (a file's size or modification time, or "
            "config.json, differs); restore it, or remove the output folder to start anew",
            path);
    const char *differs = NULL;
    if (load32(header + 8) != VERSION)
        differs = "another version of qstream";
    else if (memcmp(header + 12 + SHA256_SIZE, fingerprint->recipe, SHA256_SIZE) != 0)
        differs = "another recipe";
    else if (memcmp(header + 12 + 2 * SHA256_SIZE, fingerprint->options, SHA256_SIZE) != 0)
        differs =
            "other options (--rule, --gamma, --shard-size, --hash-source, what --calibrate is given, or with it --cpu)";
    if (differs)
        return error_set(error, STATUS_USAGE,
                         "'%s' belongs to an unfinished run with %s; run that one to its end, or remove the output "
                         "folder to start anew",
                         path, differs);
    return STATUS_OK;
}

/* Hands out the valid records; *end is where the first torn or foreign one begins. */
static enum status records_read(int fd, const char *path, uint32_t seed, journal_visit *visit, void *context,
                                off_t *end, struct error *error) {
    enum { AT_ONCE = 1024 };
    uint8_t *buffer = malloc(AT_ONCE * RECORD);
    if (!buffer)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    bool more = true;
    *end = HEADER;
    while (more && status == STATUS_OK) {
        ssize_t got = read_all(fd, buffer, AT_ONCE * RECORD, *end);
        if (got < 0)
            status = error_set_errno(error, STATUS_IO, errno, "cannot read the journal '%s'", path);
        more = got == AT_ONCE * RECORD;
        for (ssize_t at = 0; at + RECORD <= got; at += RECORD) {
            const uint8_t *bytes = buffer + at;
            if (load32(bytes + RECORD - 4) != (uint32_t)crc32(seed, bytes, RECORD - 4)) {
                more = false;
                break;
            }
            struct journal_record record = {load32(bytes), load32(bytes + 4), load32(bytes + 8), {0}};
            memcpy(record.payload, bytes + 12, SHA256_SIZE);
            visit(context, &record);
            *end += RECORD;
        }
    }
    free(buffer);
    return status;
}

static enum status open_locked(const char *path, int flags, int lock, int *fd, struct error *error) {
    *fd = open(path, flags | O_CLOEXEC, 0666);
    if (*fd < 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot open the journal '%s'", path);
    if (flock(*fd, lock | LOCK_NB) != 0) {
        enum status status =
            errno == EWOULDBLOCK
                ? error_set(error, STATUS_USAGE, "another qstream is at work on '%s'; wait for it, or stop it", path)
                : error_set_errno(error, STATUS_IO, errno, "cannot lock '%s'", path);
        close(*fd);
        *fd = -1;
        return status;
    }
    return STATUS_OK;
}

enum status journal_open(const char *path, const struct fingerprint *fingerprint, journal_visit *visit, void *context,
                         struct journal **out, struct error *error) {
    *out = NULL;
    struct journal *journal = calloc(1, sizeof *journal);
    if (!journal)
        return error_set_memory(error);
    journal->fd = -1;
    journal->path = strdup(path);
    enum status status =
        journal->path ? open_locked(path, O_RDWR | O_CREAT, LOCK_EX, &journal->fd, error) : error_set_memory(error);
    uint8_t header[HEADER], wanted[HEADER];
    header_fill(wanted, fingerprint);
    journal->seed = header_seed(wanted);
    ssize_t got = 0;
    if (status == STATUS_OK) {
        got = read_all(journal->fd, header, HEADER, 0);
        if (got < 0)
            status = error_set_errno(error, STATUS_IO, errno, "cannot read the journal '%s'", path);
    }
    struct stat file;
    if (status == STATUS_OK && fstat(journal->fd, &file) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot stat the journal '%s'", path);
    if (status == STATUS_OK && file.st_size <= HEADER && (got < HEADER || !header_whole(header))) {
        /* New, or torn before its first sync: nothing was promised yet. */
        journal->end = HEADER;
        status = write_at(journal->fd, path, wanted, HEADER, 0, error);
        if (status == STATUS_OK && (ftruncate(journal->fd, HEADER) != 0 || fsync(journal->fd) != 0))
            status = error_set_errno(error, STATUS_IO, errno, "cannot write the journal '%s'", path);
    } else if (status == STATUS_OK) {
        status = header_compare(path, header, fingerprint, error);
        if (status == STATUS_OK)
            status = records_read(journal->fd, path, journal->seed, visit, context, &journal->end, error);
        if (status == STATUS_OK && ftruncate(journal->fd, journal->end) != 0)
            status = error_set_errno(error, STATUS_IO, errno, "cannot cut the journal '%s'", path);
    }
    if (status != STATUS_OK) {
        journal_close(journal);
        return status;
    }
    *out = journal;
    return STATUS_OK;
}

enum status journal_read(const char *path, const struct fingerprint *fingerprint, journal_visit *visit, void *context,
                         struct error *error) {
    int fd;
    enum status status = open_locked(path, O_RDONLY, LOCK_SH, &fd, error);
    if (status != STATUS_OK)
        return status;
    uint8_t header[HEADER], wanted[HEADER];
    header_fill(wanted, fingerprint);
    off_t end;
    const ssize_t got = read_all(fd, header, HEADER, 0);
    if (got < 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot read the journal '%s'", path);
    else if (got != HEADER)
        status = error_set(error, STATUS_BAD_INPUT, "the journal '%s' is empty; run its part again", path);
    else
        status = header_compare(path, header, fingerprint, error);
    if (status == STATUS_OK)
        status = records_read(fd, path, header_seed(wanted), visit, context, &end, error);
    close(fd);
    return status;
}

enum status journal_append(struct journal *journal, const struct journal_record *records, size_t count,
                           struct error *error) {
    if (count == 0)
        return STATUS_OK;
    uint8_t *bytes = malloc(count * RECORD);
    if (!bytes)
        return error_set_memory(error);
    for (size_t i = 0; i < count; i++)
        record_fill(bytes + i * RECORD, &records[i], journal->seed);
    enum status status = write_at(journal->fd, journal->path, bytes, count * RECORD, journal->end, error);
    free(bytes);
    if (status == STATUS_OK && fdatasync(journal->fd) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot sync the journal '%s'", journal->path);
    if (status == STATUS_OK)
        journal->end += (off_t)(count * RECORD);
    return status;
}

void journal_close(struct journal *journal) {
    if (!journal)
        return;
    if (journal->fd >= 0)
        close(journal->fd); /* and with it the lock */
    free(journal->path);
    free(journal);
}
