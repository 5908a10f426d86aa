#include "common/config_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/program_folder.h"
#include "common/text.h"

static const struct {
    const char *noun, *ending;
} kinds[] = {
    [CONFIG_RECIPE] = {"recipe", ".json"},
    [CONFIG_THRESHOLDS] = {"file of thresholds", ".thresholds.json"},
    [CONFIG_EXPECTATION] = {"file of expectations", ".ppl.json"},
};

static const char *const places[] = {"../configs", "../share/qstream/configs"}; /* build tree, installed */
enum { PLACES = sizeof places / sizeof *places };

/* A recipe's ending is one of all the others, too. */
static bool is_of_kind(const char *file, enum config_kind kind) {
    static const char *const others[] = {".thresholds.json", ".ppl.json", ".schema.json"};
    bool is = text_ends_with(file, kinds[kind].ending);
    for (size_t i = 0; i < sizeof others / sizeof *others && kind == CONFIG_RECIPE; i++)
        is = is && !text_ends_with(file, others[i]);
    return is;
}

/* The names of a kind's files in a folder, with commas before all but the first of the text. */
static void names_append(struct text *names, const char *folder, enum config_kind kind) {
    struct dirent **files;
    const int count = scandir(folder, &files, NULL, alphasort);
    names->failed |= count < 0 && errno == ENOMEM;
    for (int i = 0; i < count; i++) {
        const char *file = files[i]->d_name;
        if (is_of_kind(file, kind))
            text_printf(names, "%s%.*s", names->length ? ", " : "", (int)(strlen(file) - strlen(kinds[kind].ending)),
                        file);
        free(files[i]);
    }
    if (count >= 0)
        free(files);
}

static enum status missing_tell(enum config_kind kind, const char *name, const char *folder, struct error *error) {
    struct text names = {0};
    for (size_t i = 0; i < PLACES && *folder; i++) {
        char *place = text_format("%s/%s", folder, places[i]);
        if (place)
            names_append(&names, place, kind);
        names.failed |= !place;
        free(place);
    }
    const enum status status =
        names.failed
            ? error_set_memory(error)
            : error_set(error, STATUS_BAD_INPUT, "'%s' is neither a file nor a %s that comes with qstream; there %s%s",
                        name, kinds[kind].noun, names.length ? "are: " : "is none beside the program",
                        names.length ? names.bytes : "");
    text_free(&names);
    return status;
}

enum status config_file_find(enum config_kind kind, const char *name, char **path, struct error *error) {
    char folder[PATH_MAX];
    program_folder(folder);
    if (strchr(name, '/') || text_ends_with(name, ".json") || access(name, F_OK) == 0) {
        *path = strdup(name);
        return *path ? STATUS_OK : error_set_memory(error);
    }
    for (size_t i = 0; i < PLACES && *folder; i++) {
        *path = text_format("%s/%s/%s%s", folder, places[i], name, kinds[kind].ending);
        if (!*path)
            return error_set_memory(error);
        if (access(*path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) /* opening it tells more */
            return STATUS_OK;
        free(*path);
    }
    *path = strdup(name);
    return *path ? missing_tell(kind, name, folder, error) : error_set_memory(error);
}
