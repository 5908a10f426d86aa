#include "common/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

/* A file beside `name` that nobody has. mkstemp would not let the umask say what others may do with it. */
static int temporary_create(const char *name, char **path) {
    enum { ATTEMPTS = 100 };
    int fd = -1;
    for (unsigned attempt = 0; attempt < ATTEMPTS && fd < 0; attempt++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        free(*path);
        *path = text_format("%s.%x-%lx", name, (unsigned)getpid(), (unsigned long)now.tv_nsec);
        fd = *path ? open(*path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666) : -1;
        if (fd < 0 && errno != EEXIST)
            break;
    }
    return fd;
}

/* A new file beside `name`. mode: its permissions; 0: those that open(2) gives it. *path is the caller's to free. */
static FILE *temporary_open(const char *name, mode_t mode, char **path) {
    int fd = temporary_create(name, path);
    if (fd < 0)
        return NULL;
    if (mode)
        fchmod(fd, mode);
    FILE *stream = fdopen(fd, "w");
    if (!stream) {
        close(fd);
        unlink(*path);
    }
    return stream;
}

enum status new_file_begin(const char *name, struct new_file *file, struct error *error) {
    struct stat present;
    *file = (struct new_file){.name = name};
    if (strcmp(name, "-") == 0) {
        file->stream = stdout;
        return STATUS_OK;
    }
    const bool exists = lstat(name, &present) == 0, direct = exists && !S_ISREG(present.st_mode);
    file->stream =
        direct ? fopen(name, "w") : temporary_open(name, exists ? present.st_mode & 07777 : 0, &file->temporary);
    if (file->stream)
        return STATUS_OK;
    int reason = errno;
    free(file->temporary);
    return error_set_errno(error, STATUS_IO, reason, "cannot write '%s'", name);
}

enum status new_file_finish(struct new_file *file, struct error *error) {
    enum status status = STATUS_OK;
    if (fflush(file->stream) != 0 || ferror(file->stream))
        status = error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", file->name);
    if (file->stream == stdout)
        return status;
    if (status == STATUS_OK && file->temporary && fsync(fileno(file->stream)) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot sync '%s'", file->name);
    if (fclose(file->stream) != 0 && status == STATUS_OK)
        status = error_set_errno(error, STATUS_IO, errno, "cannot close '%s'", file->name);
    if (status == STATUS_OK && file->temporary && rename(file->temporary, file->name) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot rename '%s'", file->temporary);
    if (status != STATUS_OK && file->temporary)
        unlink(file->temporary);
    free(file->temporary);
    return status;
}

void new_file_discard(struct new_file *file) {
    if (file->stream != stdout)
        fclose(file->stream);
    if (file->temporary)
        unlink(file->temporary);
    free(file->temporary);
}

enum status new_file_probe(const char *name, struct error *error) {
    struct stat present;
    if (!*name)
        return error_set(error, STATUS_USAGE, "a file without a name cannot be written");
    if (strcmp(name, "-") == 0)
        return STATUS_OK;
    if (lstat(name, &present) == 0 && !S_ISREG(present.st_mode))
        return access(name, W_OK) == 0 && !S_ISDIR(present.st_mode)
                   ? STATUS_OK
                   : error_set_errno(error, STATUS_IO, S_ISDIR(present.st_mode) ? EISDIR : errno, "cannot write '%s'",
                                     name);
    struct new_file file;
    const enum status status = new_file_begin(name, &file, error);
    if (status != STATUS_OK)
        return status;
    new_file_discard(&file);
    return STATUS_OK;
}

enum status new_file_write(const char *name, const void *bytes, size_t size, struct error *error) {
    struct new_file file;
    enum status status = new_file_begin(name, &file, error);
    if (status != STATUS_OK)
        return status;
    fwrite(bytes, 1, size, file.stream);
    return new_file_finish(&file, error);
}
