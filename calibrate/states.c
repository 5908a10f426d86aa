#include "calibrate/states.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/file_bytes.h"
#include "common/source.h"
#include "common/text.h"

/* Before the values, in this machine's byte order. */
struct header {
    char magic[8];
    uint32_t version, layer;
    uint8_t identity[SHA256_SIZE];
    uint32_t windows, tokens, hidden, unused;
};
static const char magic[8] = {'q', 's', 't', 'r', 'e', 'a', 'm', 'H'};
enum { VERSION = 1 };

static struct header header_of(const struct states *states, uint32_t layer) {
    struct header header = {.version = VERSION,
                            .layer = layer,
                            .windows = states->windows,
                            .tokens = states->tokens,
                            .hidden = states->hidden};
    memcpy(header.magic, magic, sizeof magic);
    memcpy(header.identity, states->identity, SHA256_SIZE);
    return header;
}

static uint64_t window_bytes(const struct states *states) {
    return (uint64_t)states->tokens * states->hidden * sizeof(float);
}

static char *path_of(const struct states *states, uint32_t layer) {
    return text_format("%s/%s-%u", states->folder, states->name, layer);
}

static char *next_path(const struct states *states) {
    return text_format("%s/%s.partial", states->folder, states->name);
}

enum status states_open(struct states *states, uint32_t layer, bool *found, struct error *error) {
    *found = false;
    char *path = path_of(states, layer);
    if (!path)
        return error_set_memory(error);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct header wanted = header_of(states, layer), header;
    struct stat file;
    if (fd >= 0 && fstat(fd, &file) == 0 &&
        (uint64_t)file.st_size == sizeof header + states->windows * window_bytes(states) &&
        file_bytes_read(fd, &header, sizeof header, 0))
        *found = memcmp(&header, &wanted, sizeof header) == 0;
    enum status status =
        fd < 0 && errno != ENOENT ? error_set_errno(error, STATUS_IO, errno, "cannot open '%s'", path) : STATUS_OK;
    free(path);
    if (*found)
        states->in = fd;
    else if (fd >= 0)
        close(fd);
    return status;
}

enum status states_begin(struct states *states, struct error *error) {
    char *path = next_path(states);
    if (!path)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    states->out = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    int problem = states->out < 0 ? errno : 0;
    if (!problem)
        problem =
            posix_fallocate(states->out, 0, (off_t)(sizeof(struct header) + states->windows * window_bytes(states)));
    if (problem)
        status = error_set_errno(error, STATUS_IO, problem, "no room for the hidden states in '%s'", path);
    free(path);
    return status;
}

enum status states_read(const struct states *states, int file, uint32_t window, float *values, struct error *error) {
    const uint64_t bytes = window_bytes(states);
    return file_bytes_read(file, values, bytes, sizeof(struct header) + window * bytes)
               ? STATUS_OK
               : error_set_errno(error, STATUS_IO, errno, "'%s': hidden states could not be read", states->folder);
}

enum status states_write(const struct states *states, uint32_t window, const float *values, struct error *error) {
    const uint64_t bytes = window_bytes(states);
    return file_bytes_write(states->out, values, bytes, sizeof(struct header) + window * bytes)
               ? STATUS_OK
               : error_set_errno(error, STATUS_IO, errno, "'%s': hidden states could not be written", states->folder);
}

enum status states_commit(struct states *states, uint32_t layer, struct error *error) {
    const struct header header = header_of(states, layer);
    char *from = next_path(states), *to = path_of(states, layer);
    enum status status = from && to ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK &&
        (!file_bytes_write(states->out, &header, sizeof header, 0) || fsync(states->out) != 0 || rename(from, to) != 0))
        status = error_set_errno(error, STATUS_IO, errno, "cannot keep the hidden states in '%s'", to);
    if (status == STATUS_OK)
        status = folder_sync(states->folder, error);
    free(from);
    free(to);
    if (status == STATUS_OK) {
        if (states->in >= 0)
            close(states->in);
        states->in = states->out;
        states->out = -1;
    }
    return status;
}

void states_drop(struct states *states) {
    if (states->out < 0)
        return;
    char *path = next_path(states);
    if (path)
        unlink(path);
    free(path);
    close(states->out);
    states->out = -1;
}

void states_forget(const struct states *states, uint32_t layer) {
    char *path = path_of(states, layer);
    if (path)
        unlink(path);
    free(path);
}

void states_close(struct states *states) {
    if (states->in >= 0)
        close(states->in);
    if (states->out >= 0)
        close(states->out);
    states->in = states->out = -1;
}
