#include "verify/folder_list.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/array.h"
#include "common/text.h"

enum { DEPTH_MAX = 8 };

struct listing {
    const struct folder *folder;
    folder_skip *skip;
    bool has_except;
    struct stat except;
    struct folder_list *list;
    struct error *error;
};

static enum status file_add(struct listing *listing, const char *name) {
    struct folder_list *list = listing->list;
    if (!array_reserve(list->files, list->count + 1, &list->capacity))
        return error_set_memory(listing->error);
    if (!(list->files[list->count] = strdup(name)))
        return error_set_memory(listing->error);
    list->count++;
    return STATUS_OK;
}

static enum status level_list(struct listing *listing, const char *inside, int depth);

/* Whether the folder `inside` is the one that is to be left out. */
static bool is_except(const struct listing *listing, const char *inside) {
    char *path = listing->has_except ? text_format("%s/%s", folder_path(listing->folder), inside) : NULL;
    struct stat found;
    bool is = path && stat(path, &found) == 0 && found.st_dev == listing->except.st_dev &&
              found.st_ino == listing->except.st_ino;
    free(path);
    return is;
}

static enum status entry_list(struct listing *listing, const char *inside, const struct folder_entry *entry,
                              int depth) {
    bool below = entry->kind == FOLDER_FOLDER && !entry->link && depth < DEPTH_MAX &&
                 !(listing->skip && listing->skip(entry->name));
    if (entry->name[0] == '.' || (!below && entry->kind != FOLDER_FILE))
        return STATUS_OK;
    char *name = text_format(below ? "%s%s/" : "%s%s", inside, entry->name);
    enum status status = STATUS_OK;
    if (!name)
        status = error_set_memory(listing->error);
    else if (!below)
        status = file_add(listing, name);
    else if (!is_except(listing, name))
        status = level_list(listing, name, depth + 1);
    free(name);
    return status;
}

/* `inside` is "" or a folder with a '/' at its end. */
static enum status level_list(struct listing *listing, const char *inside, int depth) {
    struct folder_entry *entries;
    size_t count;
    enum status status = folder_list(listing->folder, inside, &entries, &count, listing->error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = entry_list(listing, inside, &entries[i], depth);
    folder_entries_free(entries, count);
    return status;
}

enum status folder_list_make(const struct folder *folder, folder_skip *skip, const char *except,
                             struct folder_list *list, struct error *error) {
    struct listing listing = {.folder = folder, .skip = skip, .list = list, .error = error};
    *list = (struct folder_list){0};
    listing.has_except = folder_path(folder) && except && stat(except, &listing.except) == 0;
    return level_list(&listing, "", 0);
}

void folder_list_free(struct folder_list *list) {
    for (size_t i = 0; i < list->count; i++)
        free(list->files[i]);
    free(list->files);
    *list = (struct folder_list){0};
}
