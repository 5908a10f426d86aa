#include "qstream/fetch_dataset.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/new_file.h"
#include "common/parquet.h"
#include "common/source.h"
#include "common/wikitext.h"

static const struct named_dataset datasets[] = {
    {.name = "wikitext-2",
     .reference = "hf://datasets/Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3",
     .file = "wikitext-2-raw-v1/test-00000-of-00001.parquet",
     .text = "wiki.test.raw",
     .convert = wikitext_from_parquet,
     .check = wikitext_2_test_check},
};

const struct named_dataset *named_dataset_find(const char *name) {
    for (size_t i = 0; i < sizeof datasets / sizeof *datasets; i++)
        if (strcmp(datasets[i].name, name) == 0)
            return &datasets[i];
    return NULL;
}

char *named_dataset_path(const struct named_dataset *dataset, const char *to) {
    struct stat folder;
    if (!to)
        return strdup(dataset->text);
    if (!text_ends_with(to, "/") && (stat(to, &folder) != 0 || !S_ISDIR(folder.st_mode)))
        return strdup(to);
    return text_format("%s%s%s", to, text_ends_with(to, "/") ? "" : "/", dataset->text);
}

/* Whether the text is there already. */
static bool is_written(const struct text *text, const char *path) {
    char *bytes = NULL;
    size_t length;
    const bool same = file_read(path, text->length, &bytes, &length, NULL) == STATUS_OK && length == text->length &&
                      memcmp(bytes, text->bytes, length) == 0;
    free(bytes);
    return same;
}

enum status named_dataset_write(const struct named_dataset *dataset, const struct fetch *fetch, const char *path,
                                struct error *error) {
    char *file = text_format("%s/%s", fetch->where, dataset->file), *bytes = NULL;
    size_t length = 0;
    struct text text = {0};
    enum status status = file ? file_read(file, PARQUET_LIMIT, &bytes, &length, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = dataset->convert(dataset->file, bytes, length, &text, error);
    if (status == STATUS_OK)
        status = dataset->check(dataset->name, text.bytes, text.length, error);
    if (status == STATUS_OK && !is_written(&text, path)) {
        status = folder_above_make(path, error);
        if (status == STATUS_OK)
            status = new_file_write(path, text.bytes, text.length, error);
    }
    text_free(&text);
    free(bytes);
    free(file);
    return status;
}
