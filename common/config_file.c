#include "common/config_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/program_folder.h"
#include "common/text.h"

char *config_file_find(const char *name, const char *ending) {
    if (strchr(name, '/') || text_ends_with(name, ".json") || access(name, F_OK) == 0)
        return strdup(name);
    char folder[PATH_MAX];
    program_folder(folder);
    static const char *const places[] = {"../configs", "../share/qstream/configs"}; /* build tree, installed */
    for (size_t i = 0; i < sizeof places / sizeof *places && *folder; i++) {
        char *path = text_format("%s/%s/%s%s", folder, places[i], name, ending);
        if (!path || access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) /* opening it tells more */
            return path;
        free(path);
    }
    return strdup(name);
}
