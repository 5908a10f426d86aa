#include "common/hub/reference.h"

#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "common/utf8.h"

static const char scheme[] = "hf://", datasets[] = "datasets/";
enum { SCHEME = sizeof scheme - 1, DATASETS = sizeof datasets - 1, PART_MAX = 96, REVISION_MAX = 250 };

bool hub_reference_is(const char *text) { return strncmp(text, scheme, SCHEME) == 0; }

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The owner's or the repository's name. */
static bool part_is_valid(const char *part, size_t length) {
    if (length < 1 || length > PART_MAX || !is_word(part[0]) || !is_word(part[length - 1]))
        return false;
    for (size_t i = 0; i < length; i++)
        if (!is_word(part[i]) && part[i] != '-' && part[i] != '.')
            return false;
    return true;
}

/* huggingface_hub's rules: utils/_validators.py. */
static bool repository_is_valid(const char *name) {
    const char *slash = strchr(name, '/'), *last = slash ? slash + 1 : name;
    return (!slash || part_is_valid(name, (size_t)(slash - name))) && part_is_valid(last, strlen(last)) &&
           !strstr(name, "--") && !strstr(name, "..") && !text_ends_with(name, ".git");
}

/* git's rules for names of references: it becomes a file's name, too. */
static bool revision_is_valid(const char *revision) {
    const size_t length = strlen(revision);
    if (length < 1 || length > REVISION_MAX || strpbrk(revision, " ~^:?*[\\") || strstr(revision, "..") ||
        strstr(revision, "//") || strstr(revision, "@{") || strstr(revision, "/.") || *revision == '.' ||
        *revision == '/' || *revision == '-' || revision[length - 1] == '/' || revision[length - 1] == '.')
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)revision[i] < 0x20 || revision[i] == 0x7f)
            return false;
    return utf8_is_valid(revision, length);
}

enum status hub_reference_parse(const char *text, struct hub_reference *reference, struct error *error) {
    *reference = (struct hub_reference){0};
    const char *name = hub_reference_is(text) ? text + SCHEME : text;
    reference->dataset = strncmp(name, datasets, DATASETS) == 0;
    if (reference->dataset)
        name += DATASETS;
    const char *at = strchr(name, '@');
    reference->repository = strndup(name, at ? (size_t)(at - name) : strlen(name));
    reference->revision = strdup(at ? at + 1 : "main");
    if (!reference->repository || !reference->revision)
        return error_set_memory(error);
    if (!repository_is_valid(reference->repository))
        return error_set(
            error, STATUS_USAGE,
            "'%s' names no repository of the Hub: it has the form org/name[@revision], of letters, digits, "
            "'-', '_' and '.'",
            text);
    if (!revision_is_valid(reference->revision))
        return error_set(error, STATUS_USAGE,
                         "'%s': '%s' is no revision; it may be a branch, a tag, a commit or refs/pr/N", text,
                         reference->revision);
    return STATUS_OK;
}

char *hub_reference_text(const struct hub_reference *reference, const char *revision) {
    return text_format("%s%s%s%s%s", scheme, reference->dataset ? datasets : "", reference->repository,
                       revision ? "@" : "", revision ? revision : "");
}

bool hub_is_commit(const char *revision) {
    enum { COMMIT = 40 };
    return strlen(revision) == COMMIT && strspn(revision, "0123456789abcdef") == COMMIT;
}

void hub_reference_free(struct hub_reference *reference) {
    free(reference->repository);
    free(reference->revision);
    *reference = (struct hub_reference){0};
}
