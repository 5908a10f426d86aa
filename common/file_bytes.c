#include "common/file_bytes.h"

#include <errno.h>
#include <unistd.h>

bool file_bytes_read(int fd, void *buffer, size_t size, uint64_t offset) {
    for (size_t done = 0; done < size;) {
        const ssize_t count = pread(fd, (char *)buffer + done, size - done, (off_t)(offset + done));
        if (count == 0)
            errno = EIO;
        if (count == 0 || (count < 0 && errno != EINTR))
            return false;
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}

bool file_bytes_write(int fd, const void *bytes, size_t size, uint64_t offset) {
    for (size_t done = 0; done < size;) {
        const ssize_t count = pwrite(fd, (const char *)bytes + done, size - done, (off_t)(offset + done));
        if (count < 0 && errno != EINTR)
            return false;
        done += count > 0 ? (size_t)count : 0;
    }
    return true;
}
