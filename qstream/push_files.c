#include "qstream/push_files.h"

#include <stdlib.h>
#include <string.h>

#include "common/hub/tree.h"
#include "common/text.h"
#include "qstream/publish.h"

enum { DEPTH_MAX = 16 };

static const char card_name[] = "README.md", manifest_name[] = "qstream.json";

/* Loaders need the shards, which of them hold what, and what the model is. */
static bool is_needed(const char *path) {
    return text_ends_with(path, ".safetensors") || strcmp(path, "model.safetensors.index.json") == 0 ||
           strcmp(path, "config.json") == 0;
}

/* Takes over `path`. */
static enum status file_add(const struct folder *folder, struct upload *upload, char *path, struct error *error) {
    struct upload_file *files = reallocarray(upload->files, upload->count + 1, sizeof *files);
    if (!files) {
        free(path);
        return error_set_memory(error);
    }
    upload->files = files;
    struct upload_file *file = &files[upload->count++];
    *file = (struct upload_file){.path = path, .needed = is_needed(path)};
    return folder_file_open(folder, path, &file->source, error);
}

static enum status level_open(const struct folder *folder, const char *inside, int depth, struct upload *upload,
                              struct error *error);

static enum status entry_open(const struct folder *folder, const char *inside, const struct folder_entry *entry,
                              int depth, struct upload *upload, struct error *error) {
    const bool work = !*inside && strcmp(entry->name, work_folder) == 0;
    if (work || text_ends_with(entry->name, ".partial"))
        return error_set(error, STATUS_CHECK_FAILED,
                         "'%s' is not finished: it has '%s%s'. Run the 'qstream quantize' that made it once more",
                         folder_name(folder), inside, entry->name);
    if (entry->name[0] == '.')
        return STATUS_OK;
    char *path = text_format("%s%s", inside, entry->name);
    if (!path)
        return error_set_memory(error);
    enum status status;
    if (!hub_tree_path_is_safe(path)) {
        status = error_set(error, STATUS_BAD_INPUT, "the Hub takes no file of the name '%s/%s': rename it",
                           folder_name(folder), path);
    } else if (entry->kind == FOLDER_FILE) {
        return file_add(folder, upload, path, error);
    } else if (entry->kind == FOLDER_FOLDER && !entry->link && depth < DEPTH_MAX) {
        char *below = text_format("%s/", path);
        status = below ? level_open(folder, below, depth + 1, upload, error) : error_set_memory(error);
        free(below);
    } else {
        status =
            error_set(error, STATUS_BAD_INPUT, "'%s/%s' is %s: a repository cannot hold it", folder_name(folder), path,
                      entry->problem                 ? "a link that leads nowhere"
                      : entry->kind == FOLDER_FOLDER ? entry->link ? "a link to a folder" : "a folder too deep inside"
                                                     : "neither a file nor a folder");
    }
    free(path);
    return status;
}

static enum status level_open(const struct folder *folder, const char *inside, int depth, struct upload *upload,
                              struct error *error) {
    struct folder_entry *entries;
    size_t count;
    enum status status = folder_list(folder, inside, &entries, &count, error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = entry_open(folder, inside, &entries[i], depth, upload, error);
    folder_entries_free(entries, count);
    return status;
}

enum status push_files_open(const struct folder *folder, struct upload *upload, struct error *error) {
    return level_open(folder, "", 0, upload, error);
}

static const struct upload_file *file_find(const struct upload *upload, const char *path) {
    for (size_t i = 0; i < upload->count; i++)
        if (strcmp(upload->files[i].path, path) == 0)
            return &upload->files[i];
    return NULL;
}

/* A name of which a part begins with a dot: such files stay here. */
static bool is_hidden(const char *path) { return path[0] == '.' || strstr(path, "/."); }

enum status push_files_compare(const struct upload *upload, const struct manifest *manifest, struct error *error) {
    const struct upload_file *own = file_find(upload, manifest_name);
    if (!own || memcmp(own->sha256, manifest->sha256, SHA256_SIZE) != 0)
        return error_set(error, STATUS_BAD_INPUT, "the manifest qstream.json was changed while it was read");
    for (size_t i = 0; i < manifest->file_count; i++) {
        const struct manifest_file *wanted = &manifest->files[i];
        const struct upload_file *file = file_find(upload, wanted->name);
        if (is_hidden(wanted->name) || (file && strcmp(wanted->name, card_name) == 0))
            continue;
        if (!file)
            return error_set(error, STATUS_CHECK_FAILED,
                             "the manifest qstream.json lists '%s', which is not in the folder", wanted->name);
        if (memcmp(file->sha256, wanted->sha256, SHA256_SIZE) != 0)
            return error_set(error, STATUS_CHECK_FAILED,
                             "'%s' is not the file that the manifest qstream.json lists: their SHA-256 differ",
                             file->source->name);
    }
    return STATUS_OK;
}
