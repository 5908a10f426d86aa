#include "common/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_source {
    struct byte_source base;
    int fd;
};

static struct source_identity identity_of(const struct stat *stat) {
    return (struct source_identity){
        .size = (uint64_t)stat->st_size,
        .mtime_ns = (int64_t)stat->st_mtim.tv_sec * 1000000000 + stat->st_mtim.tv_nsec,
    };
}

static enum status file_read_at(struct byte_source *source, uint64_t offset, void *buffer, size_t size,
                                struct error *error) {
    int fd = ((struct file_source *)source)->fd;
    size_t done = 0;
    while (done < size) {
        ssize_t got = pread(fd, (char *)buffer + done, size - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_set_errno(error, STATUS_IO, errno, "cannot read '%s' at byte %" PRIu64, source->name,
                                   offset + done);
        if (got == 0)
            return error_set(error, STATUS_BAD_INPUT,
                             "'%s' ends at byte %" PRIu64 ", before the %zu bytes at %" PRIu64
                             " that its header promises: it is truncated or was changed while being read",
                             source->name, offset + done, size, offset);
        done += (size_t)got;
    }
    return STATUS_OK;
}

static enum status file_identify(struct byte_source *source, struct source_identity *now, struct error *error) {
    struct stat stat;
    if (fstat(((struct file_source *)source)->fd, &stat) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot stat '%s'", source->name);
    *now = identity_of(&stat);
    return STATUS_OK;
}

static void file_prefetch(struct byte_source *source, uint64_t offset, uint64_t size) {
    posix_fadvise(((struct file_source *)source)->fd, (off_t)offset, (off_t)size, POSIX_FADV_WILLNEED);
}

static void file_close(struct byte_source *source) {
    close(((struct file_source *)source)->fd);
    free(source->name);
    free(source);
}

static const struct byte_source_operations file_operations = {
    .read_at = file_read_at,
    .identify = file_identify,
    .prefetch = file_prefetch,
    .close = file_close,
};

enum status byte_source_open_file(const char *path, struct byte_source **out, struct error *error) {
    *out = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (fd < 0)
        return error_set_errno(error, errno == ENOENT || errno == ENOTDIR ? STATUS_BAD_INPUT : STATUS_IO, errno,
                               "cannot open '%s'", path);
    struct stat stat;
    if (fstat(fd, &stat) != 0) {
        enum status status = error_set_errno(error, STATUS_IO, errno, "cannot stat '%s'", path);
        close(fd);
        return status;
    }
    if (!S_ISREG(stat.st_mode)) {
        close(fd);
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not a regular file", path);
    }
    struct file_source *source = calloc(1, sizeof *source);
    if (source)
        source->base = (struct byte_source){&file_operations, strdup(path), identity_of(&stat)};
    if (!source || !source->base.name) {
        free(source);
        close(fd);
        return error_set_memory(error);
    }
    source->fd = fd;
    *out = &source->base;
    return STATUS_OK;
}

/* ---- bytes in memory ---- */

struct bytes_source {
    struct byte_source base;
    char *bytes;
};

static enum status bytes_read_at(struct byte_source *source, uint64_t offset, void *buffer, size_t size,
                                 struct error *error) {
    const uint64_t length = source->identity.size;
    if (offset > length || size > length - offset)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' ends at byte %" PRIu64 ", before the end of the %zu bytes at %" PRIu64, source->name,
                         length, size, offset);
    memcpy(buffer, ((struct bytes_source *)source)->bytes + offset, size);
    return STATUS_OK;
}

static enum status bytes_identify(struct byte_source *source, struct source_identity *now, struct error *error) {
    (void)error;
    *now = source->identity;
    return STATUS_OK;
}

static void bytes_prefetch(struct byte_source *source, uint64_t offset, uint64_t size) {
    (void)source;
    (void)offset;
    (void)size;
}

static void bytes_close(struct byte_source *source) {
    free(((struct bytes_source *)source)->bytes);
    free(source->name);
    free(source);
}

static const struct byte_source_operations bytes_operations = {
    .read_at = bytes_read_at,
    .identify = bytes_identify,
    .prefetch = bytes_prefetch,
    .close = bytes_close,
};

enum status byte_source_of_bytes(const char *name, char *bytes, size_t length, struct byte_source **out,
                                 struct error *error) {
    *out = NULL;
    struct bytes_source *source = calloc(1, sizeof *source);
    if (source)
        source->base = (struct byte_source){&bytes_operations, strdup(name), {.size = length}};
    if (!source || !source->base.name) {
        free(source);
        free(bytes);
        return error_set_memory(error);
    }
    source->bytes = bytes;
    *out = &source->base;
    return STATUS_OK;
}

/* ---- */

enum status byte_source_read_at(struct byte_source *source, uint64_t offset, void *buffer, size_t size,
                                struct error *error) {
    return source->operations->read_at(source, offset, buffer, size, error);
}

enum status byte_source_check_unchanged(struct byte_source *source, struct error *error) {
    struct source_identity now;
    enum status status = source->operations->identify(source, &now, error);
    if (status != STATUS_OK)
        return status;
    if (now.size != source->identity.size || now.mtime_ns != source->identity.mtime_ns)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' was changed while it was being read (size or modification time differ): "
                         "what was made from it cannot be trusted",
                         source->name);
    return STATUS_OK;
}

void byte_source_prefetch(struct byte_source *source, uint64_t offset, uint64_t size) {
    source->operations->prefetch(source, offset, size);
}

void byte_source_close(struct byte_source *source) {
    if (source)
        source->operations->close(source);
}

enum status file_read(const char *path, size_t limit, char **bytes, size_t *length, struct error *error) {
    *bytes = NULL;
    *length = 0;
    struct byte_source *source;
    enum status status = byte_source_open_file(path, &source, error);
    if (status != STATUS_OK)
        return status;
    uint64_t size = source->identity.size;
    char *buffer = NULL;
    if (size > limit)
        status =
            error_set(error, STATUS_BAD_INPUT,
                      "'%s' has %" PRIu64 " bytes, more than the %zu that such a file may have", path, size, limit);
    else if (!(buffer = malloc((size_t)size + 1)))
        status = error_set_memory(error);
    else
        status = byte_source_read_at(source, 0, buffer, (size_t)size, error);
    byte_source_close(source);
    if (status != STATUS_OK) {
        free(buffer);
        return status;
    }
    buffer[size] = '\0';
    *bytes = buffer;
    *length = (size_t)size;
    return STATUS_OK;
}

enum status folder_sync(const char *path, struct error *error) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    enum status status = STATUS_OK;
    if (fd < 0 || fsync(fd) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot sync the folder '%s'", path);
    if (fd >= 0)
        close(fd);
    return status;
}

bool file_has_size(const char *path, uint64_t size) {
    struct stat file;
    return stat(path, &file) == 0 && S_ISREG(file.st_mode) && (uint64_t)file.st_size == size;
}

uint64_t file_disk_bytes(uint64_t size) {
    enum { BLOCK = 4096 };
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

enum status folder_make(const char *path, struct error *error) {
    char *copy = strdup(path);
    if (!copy)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    for (char *slash = copy + 1; status == STATUS_OK; slash++) {
        slash = strchr(slash, '/');
        if (slash)
            *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            status = error_set_errno(error, STATUS_IO, errno, "cannot make the folder '%s'", copy);
        if (!slash)
            break;
        *slash = '/';
    }
    free(copy);
    return status;
}

/* Does it to the folder that `path` lies in. */
static enum status above_do(const char *path, enum status (*act)(const char *folder, struct error *error),
                            struct error *error) {
    const char *slash = strrchr(path, '/');
    char *folder = !slash ? strdup(".") : slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
    enum status status = folder ? act(folder, error) : error_set_memory(error);
    free(folder);
    return status;
}

enum status folder_above_make(const char *path, struct error *error) { return above_do(path, folder_make, error); }

enum status folder_above_sync(const char *path, struct error *error) { return above_do(path, folder_sync, error); }
