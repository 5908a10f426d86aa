#include "common/program_folder.h"

#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

void program_folder(char folder[PATH_MAX]) {
    const ssize_t length = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[length > 0 ? length : 0] = '\0';
    if (length <= 0) { /* no /proc, as in a bare chroot: the path that the kernel was given */
        const char *started = (const char *)getauxval(AT_EXECFN);
        if (!started || !realpath(started, folder))
            *folder = '\0';
    }
    char *slash = strrchr(folder, '/');
    *(slash ? slash : folder) = '\0';
}
