#include "common/hub/file_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* Opens the file, which everybody of the group may lock, whatever the umask. */
static int lock_open(const char *path) {
    enum { LOCK_MODE = 0664 };
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, LOCK_MODE);
    if (fd >= 0)
        fchmod(fd, LOCK_MODE);
    else if (errno == EEXIST)
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, LOCK_MODE);
    return fd;
}

enum status file_lock_try(const char *path, int *fd, struct error *error) {
    for (;;) {
        *fd = lock_open(path);
        if (*fd < 0)
            return error_set_errno(error, STATUS_IO, errno, "cannot open the lock '%s'", path);
        struct stat file;
        const int problem = flock(*fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
        if (problem == 0 && fstat(*fd, &file) == 0 && file.st_nlink > 0)
            return STATUS_OK;
        close(*fd);
        *fd = -1;
        if (problem == EWOULDBLOCK)
            return STATUS_OK;
        if (problem == ENOSYS || problem == EOPNOTSUPP || problem == ENOLCK)
            return error_set(error, STATUS_IO,
                             "cannot lock '%s': its file system has no locks; choose a folder of another one with "
                             "HF_HUB_CACHE, or --to",
                             path);
        if (problem && problem != EINTR)
            return error_set_errno(error, STATUS_IO, problem, "cannot lock '%s'", path);
        /* removed between the two calls: what others lock now is another file */
    }
}
