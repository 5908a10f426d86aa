#include "verify/folder_list.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/text.h"

enum { DEPTH_MAX = 8 };

struct listing {
    const char *folder;
    folder_skip *skip;
    bool has_except;
    struct stat except;
    struct folder_list *list;
    struct error *error;
};

static enum status file_add(struct listing *listing, const char *name) {
    struct folder_list *list = listing->list;
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 32;
        char **files = realloc(list->files, capacity * sizeof *files);
        if (!files)
            return error_set_memory(listing->error);
        list->files = files;
        list->capacity = capacity;
    }
    if (!(list->files[list->count] = strdup(name)))
        return error_set_memory(listing->error);
    list->count++;
    return STATUS_OK;
}

static int not_hidden(const struct dirent *entry) { return entry->d_name[0] != '.'; }

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

static enum status level_list(struct listing *listing, const char *relative, int depth);

static enum status entry_list(struct listing *listing, const char *relative, const char *name, int depth) {
    char *inside = text_format("%s%s", relative, name);
    char *path = inside ? text_format("%s/%s", listing->folder, inside) : NULL;
    struct stat link, target;
    enum status status = STATUS_OK;
    if (!path) {
        status = error_set_memory(listing->error);
    } else if (lstat(path, &link) != 0 || stat(path, &target) != 0) {
        ; /* gone, or a link that leads nowhere */
    } else if (S_ISREG(target.st_mode)) {
        status = file_add(listing, inside);
    } else if (S_ISDIR(link.st_mode) && depth < DEPTH_MAX && !(listing->skip && listing->skip(name)) &&
               !(listing->has_except && link.st_dev == listing->except.st_dev &&
                 link.st_ino == listing->except.st_ino)) {
        char *below = text_format("%s/", inside);
        status = below ? level_list(listing, below, depth + 1) : error_set_memory(listing->error);
        free(below);
    }
    free(inside);
    free(path);
    return status;
}

/* `relative` is "" or a folder with a '/' at its end. */
static enum status level_list(struct listing *listing, const char *relative, int depth) {
    char *path = text_format("%s/%s", listing->folder, relative);
    if (!path)
        return error_set_memory(listing->error);
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, not_hidden, by_name);
    enum status status = STATUS_OK;
    if (count < 0)
        status = error_set_errno(listing->error, STATUS_IO, errno, "cannot list '%s'", path);
    for (int i = 0; i < count; i++) {
        if (status == STATUS_OK)
            status = entry_list(listing, relative, entries[i]->d_name, depth);
        free(entries[i]);
    }
    free(entries);
    free(path);
    return status;
}

enum status folder_list_make(const char *folder, folder_skip *skip, const char *except, struct folder_list *list,
                             struct error *error) {
    struct listing listing = {.folder = folder, .skip = skip, .list = list, .error = error};
    *list = (struct folder_list){0};
    listing.has_except = except && stat(except, &listing.except) == 0;
    return level_list(&listing, "", 0);
}

void folder_list_free(struct folder_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->files[i]);
    free(list->files);
    *list = (struct folder_list){0};
}
