#include "common/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/text.h"

struct folder {
    char *name;
    char *path; /* of a folder of this machine */
};

enum status folder_open(const char *where, struct folder **out, struct error *error) {
    struct stat stat_folder;
    *out = NULL;
    if (stat(where, &stat_folder) != 0)
        return error_set_errno(error, errno == ENOENT ? STATUS_BAD_INPUT : STATUS_IO, errno, "cannot open '%s'", where);
    if (!S_ISDIR(stat_folder.st_mode))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is not a folder; a checkpoint is a folder with config.json and .safetensors files",
                         where);
    struct folder *folder = calloc(1, sizeof *folder);
    if (!folder)
        return error_set_memory(error);
    folder->name = strdup(where);
    folder->path = strdup(where);
    if (!folder->name || !folder->path) {
        folder_close(folder);
        return error_set_memory(error);
    }
    *out = folder;
    return STATUS_OK;
}

void folder_close(struct folder *folder) {
    if (!folder)
        return;
    free(folder->name);
    free(folder->path);
    free(folder);
}

const char *folder_name(const struct folder *folder) { return folder->name; }

const char *folder_path(const struct folder *folder) { return folder->path; }

/* ---- files ---- */

/* The caller frees; NULL without memory. */
static char *path_of(const struct folder *folder, const char *file) { return text_format("%s/%s", folder->path, file); }

enum status folder_file_open(const struct folder *folder, const char *file, struct byte_source **source,
                             struct error *error) {
    *source = NULL;
    char *path = path_of(folder, file);
    enum status status = path ? byte_source_open_file(path, source, error) : error_set_memory(error);
    free(path);
    return status;
}

enum status folder_file_read(const struct folder *folder, const char *file, size_t limit, char **bytes, size_t *length,
                             struct error *error) {
    *bytes = NULL;
    *length = 0;
    char *path = path_of(folder, file);
    enum status status = path ? file_read(path, limit, bytes, length, error) : error_set_memory(error);
    free(path);
    return status;
}

bool folder_has(const struct folder *folder, const char *file) {
    char *path = path_of(folder, file);
    struct stat found;
    bool has = path && stat(path, &found) == 0;
    free(path);
    return has;
}

/* ---- entries ---- */

/* What `name` in the open folder `at` (or AT_FDCWD) is; errno when there is nothing that can be looked at. */
static int entry_look(int at, const char *name, struct folder_entry *entry) {
    struct stat found;
    if (fstatat(at, name, &found, AT_SYMLINK_NOFOLLOW) != 0)
        return entry->problem = errno;
    entry->link = S_ISLNK(found.st_mode);
    if (entry->link && fstatat(at, name, &found, 0) != 0) {
        entry->problem = errno;
        return 0;
    }
    if (S_ISREG(found.st_mode)) {
        entry->kind = FOLDER_FILE;
        entry->size = (uint64_t)found.st_size;
    } else if (S_ISDIR(found.st_mode)) {
        entry->kind = FOLDER_FOLDER;
    }
    return 0;
}

enum status folder_look(const struct folder *folder, const char *file, struct folder_entry *entry, bool *found,
                        struct error *error) {
    *entry = (struct folder_entry){.kind = FOLDER_OTHER};
    *found = false;
    char *path = path_of(folder, file);
    if (!path)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    int problem = entry_look(AT_FDCWD, path, entry);
    *found = problem == 0;
    /* a part of the name that is no folder, or too long for this file system: not there either */
    if (entry->problem == EACCES || entry->problem == EIO)
        status = error_set_errno(error, STATUS_IO, entry->problem, "cannot look at '%s'", path);
    free(path);
    return status;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct folder_entry *)a)->name, ((const struct folder_entry *)b)->name);
}

/* The entries of an open folder, in no order. */
static enum status entries_read(DIR *list, const char *path, struct folder_entry **entries, size_t *count,
                                struct error *error) {
    size_t capacity = 0;
    const struct dirent *found;
    while ((errno = 0, found = readdir(list))) {
        if (strcmp(found->d_name, ".") == 0 || strcmp(found->d_name, "..") == 0)
            continue;
        if (*count == capacity) {
            capacity = capacity ? 2 * capacity : 32;
            struct folder_entry *larger = realloc(*entries, capacity * sizeof *larger);
            if (!larger)
                return error_set_memory(error);
            *entries = larger;
        }
        struct folder_entry *entry = &(*entries)[*count];
        *entry = (struct folder_entry){.name = strdup(found->d_name), .kind = FOLDER_OTHER};
        if (!entry->name)
            return error_set_memory(error);
        (*count)++;
        entry_look(dirfd(list), entry->name, entry);
    }
    return errno ? error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", path) : STATUS_OK;
}

enum status folder_list(const struct folder *folder, const char *inside, struct folder_entry **entries, size_t *count,
                        struct error *error) {
    *entries = NULL;
    *count = 0;
    char *path = *inside ? path_of(folder, inside) : strdup(folder->path);
    if (!path)
        return error_set_memory(error);
    if (*inside)
        path[strlen(path) - 1] = '\0'; /* its '/' */
    DIR *list = opendir(path);
    enum status status = list ? entries_read(list, path, entries, count, error)
                              : error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", path);
    if (list)
        closedir(list);
    free(path);
    if (status != STATUS_OK) {
        folder_entries_free(*entries, *count);
        *entries = NULL;
        *count = 0;
    } else if (*count > 0) {
        qsort(*entries, *count, sizeof **entries, by_name);
    }
    return status;
}

void folder_entries_free(struct folder_entry *entries, size_t count) {
    for (size_t i = 0; i < count; i++)
        free(entries[i].name);
    free(entries);
}
