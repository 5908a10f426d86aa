#include "common/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/json_scan.h"
#include "common/name_table.h"
#include "common/utf8.h"

static const char index_file[] = "model.safetensors.index.json";
static const char single_file[] = "model.safetensors";
static const size_t json_file_max = (size_t)1 << 30; /* an index of 10 million tensors */

struct index;

/* A checkpoint that is being opened. */
struct reader {
    struct checkpoint *checkpoint;
    struct index *index; /* NULL: none that can be used */
    size_t capacity;     /* of checkpoint->tensors */
    checkpoint_problem_function *report;
    void *context;
};

/* Reports what *error says and goes on, or, where nobody wants reports, fails with it. */
static enum status problem(const struct reader *reader, enum checkpoint_problem kind, const char *subject,
                           const struct error *error) {
    if (!reader->report)
        return STATUS_BAD_INPUT;
    reader->report(reader->context, kind, subject, error->message);
    return STATUS_OK;
}

static int by_string(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static enum status shard_add(struct checkpoint *checkpoint, const char *file, struct error *error) {
    struct shard *shards = realloc(checkpoint->shards, (checkpoint->shard_count + 1) * sizeof *shards);
    if (!shards)
        return error_set_memory(error);
    checkpoint->shards = shards;
    shards[checkpoint->shard_count] = (struct shard){.file = strdup(file)};
    if (!shards[checkpoint->shard_count].file)
        return error_set_memory(error);
    checkpoint->shard_count++;
    return STATUS_OK;
}

/* A shard's name comes from a stranger's JSON and becomes part of a path. */
static enum status shard_name_check(const char *file, struct error *error) {
    if (strchr(file, '/') || file[0] == '.' || !text_ends_with(file, ".safetensors"))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' names the shard '%s', which is not a plain *.safetensors file name", index_file, file);
    return STATUS_OK;
}

/* What the index says, in its own order. */
struct index {
    struct index_entry {
        size_t name; /* offset into `names` */
        uint32_t file;
        bool held; /* a shard holds the tensor */
    } * entries;
    size_t count, capacity;
    struct text names; /* each NUL-terminated */
    char **files;
    size_t file_count, file_capacity;
    struct name_table by_name, by_file;
};

static void index_free(struct index *index) {
    name_table_free(&index->by_name);
    name_table_free(&index->by_file);
    for (size_t i = 0; i < index->file_count; i++)
        free(index->files[i]);
    free(index->files);
    free(index->entries);
    text_free(&index->names);
}

static enum status index_file_number(struct index *index, const char *file, uint32_t *number, struct error *error) {
    *number = name_table_find(&index->by_file, file, strlen(file));
    if (*number != NAME_UNKNOWN)
        return STATUS_OK;
    enum status status = shard_name_check(file, error);
    if (status != STATUS_OK)
        return status;
    char *copy = array_reserve(index->files, index->file_count + 1, &index->file_capacity) ? strdup(file) : NULL;
    if (!copy)
        return error_set_memory(error);
    *number = (uint32_t)index->file_count;
    index->files[index->file_count++] = copy;
    return name_table_add(&index->by_file, copy, strlen(copy), *number, NULL) ? STATUS_OK : error_set_memory(error);
}

/* One "tensor": "shard" member of the weight_map; `file` is scratch. */
static enum status index_entry_read(struct scanner *scan, struct index *index, struct text *file, struct error *error) {
    struct json_span key, value;
    struct index_entry entry = {.name = index->names.length};
    file->length = 0;
    if (!scan_string(scan, &key) || !scan_string_decode(scan, key, &index->names) ||
        !scan_expect(scan, ':', "':' was expected") || !scan_value(scan, &value))
        return STATUS_BAD_INPUT;
    text_append(&index->names, "", 1);
    if (index->names.failed)
        return error_set_memory(error);
    if (scan->json[value.begin] != '"')
        return error_set(error, STATUS_BAD_INPUT, "'%s': the shard of tensor '%s' is not a string", index_file,
                         index->names.bytes + entry.name);
    if (!scan_string_decode(scan, value, file))
        return STATUS_BAD_INPUT;
    enum status status = index_file_number(index, file->bytes, &entry.file, error);
    if (status != STATUS_OK)
        return status;
    if (!array_reserve(index->entries, index->count + 1, &index->capacity))
        return error_set_memory(error);
    index->entries[index->count++] = entry;
    return STATUS_OK;
}

static enum status weight_map_read(struct scanner *scan, struct index *index, struct error *error) {
    struct text file = {0};
    enum status status = scan_expect(scan, '{', "an object was expected") ? STATUS_OK : STATUS_BAD_INPUT;
    while (status == STATUS_OK && !scan_next_is(scan, '}')) {
        status = index_entry_read(scan, index, &file, error);
        if (status == STATUS_OK && !scan_next_is(scan, '}') &&
            !(scan_expect(scan, ',', "',' or '}' was expected") &&
              (scan_next_is(scan, '"') || scan_fail(scan, "a string was expected"))))
            status = STATUS_BAD_INPUT;
    }
    text_free(&file);
    return status;
}

/* Tensors by name, once all names have their place; a name that is there twice is an error. */
static enum status index_names_collect(struct index *index, const char *path, struct error *error) {
    for (size_t i = 0; i < index->count; i++) {
        const char *name = index->names.bytes + index->entries[i].name;
        bool added = false;
        if (!name_table_add(&index->by_name, name, strlen(name), (uint32_t)i, &added))
            return error_set_memory(error);
        if (!added)
            return error_set(error, STATUS_BAD_INPUT, "'%s' is not valid JSON: duplicate object key '%s'", path, name);
    }
    return STATUS_OK;
}

static enum status index_read(const struct folder *folder, const char *path, struct index *index,
                              struct json_span *metadata, char **bytes, struct error *error) {
    size_t length;
    struct json_member map, found;
    enum status status = folder_file_read(folder, index_file, json_file_max, bytes, &length, error);
    if (status == STATUS_OK)
        status = json_text_check(path, *bytes, length, error);
    if (status != STATUS_OK)
        return status;
    struct json_span root = json_text_object(*bytes, length);
    if (json_text_member(*bytes, root, "metadata", &found))
        *metadata = found.value;
    if (!json_text_member(*bytes, root, "weight_map", &map) || (*bytes)[map.value.begin] != '{')
        return error_set(error, STATUS_BAD_INPUT, "'%s' has no weight_map object with tensors in it", path);
    struct scanner scan = {.json = *bytes, .at = map.value.begin, .length = map.value.end, .python = true};
    status = weight_map_read(&scan, index, error);
    if (scan.problem == scan_memory)
        return error_set_memory(error);
    if (scan.problem)
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not valid JSON: %s (byte %zu)", path, scan.problem, scan.at);
    if (status == STATUS_OK && index->count == 0)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has no weight_map object with tensors in it", path);
    return status == STATUS_OK ? index_names_collect(index, path, error) : status;
}

/* Adds each shard that the index names, once, in the order of their names. */
static enum status shards_from_index(struct reader *reader, const struct index *index, struct error *error) {
    struct checkpoint *checkpoint = reader->checkpoint;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < index->file_count && status == STATUS_OK; i++)
        status = shard_add(checkpoint, index->files[i], error);
    if (checkpoint->shard_count > 0) /* struct shard begins with its file name */
        qsort(checkpoint->shards, checkpoint->shard_count, sizeof *checkpoint->shards, by_string);
    return status;
}

static enum status shards_from_folder(struct checkpoint *checkpoint, struct error *error) {
    if (folder_has(checkpoint->folder, single_file))
        return shard_add(checkpoint, single_file, error);
    struct folder_entry *entries;
    size_t count;
    enum status status = folder_list(checkpoint->folder, "", &entries, &count, error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) { /* in the order of their names */
        const char *file = entries[i].name;
        if (!text_ends_with(file, ".safetensors") || file[0] == '.' ||
            strncmp(file, "consolidated", strlen("consolidated")) == 0)
            continue;
        status = utf8_is_valid(file, strlen(file))
                     ? shard_add(checkpoint, file, error)
                     : error_set(error, STATUS_BAD_INPUT, "the name of the shard '%s/%s' is not UTF-8",
                                 checkpoint->path, file);
    }
    folder_entries_free(entries, count);
    if (status == STATUS_OK && checkpoint->shard_count == 0)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s' holds no checkpoint: neither %s nor %s nor any other .safetensors file",
                           checkpoint->path, index_file, single_file);
    return status;
}

/* What a shard's tensor and the index say of each other. */
static enum status indexed_check(struct reader *reader, const struct shard *shard, const char *name,
                                 struct error *error) {
    struct index *index = reader->index;
    uint32_t number = name_table_find(&index->by_name, name, strlen(name));
    if (number == NAME_UNKNOWN) {
        error_write(error, 0,
                    "'%s' holds tensor '%s', which '%s' does not name; an index that matches its shards is needed",
                    shard->source->name, name, index_file);
        return problem(reader, PROBLEM_TENSOR_UNINDEXED, name, error);
    }
    struct index_entry *entry = &index->entries[number];
    const char *file = index->files[entry->file];
    if (strcmp(file, shard->file) != 0) {
        entry->held = true; /* one problem is enough */
        error_write(error, 0, "tensor '%s' lies in '%s', but '%s' says '%s'", name, shard->file, index_file, file);
        return problem(reader, PROBLEM_INDEX_WRONG_SHARD, name, error);
    }
    entry->held = true;
    return STATUS_OK;
}

static enum status shard_read(struct reader *reader, size_t number, struct error *error) {
    struct checkpoint *checkpoint = reader->checkpoint;
    struct shard *shard = &checkpoint->shards[number];
    enum status status = folder_file_open(checkpoint->folder, shard->file, &shard->source, error);
    bool missing = status == STATUS_BAD_INPUT && !folder_has(checkpoint->folder, shard->file);
    if (missing && reader->index)
        error_write(error, 0, "'%s/%s' is missing, but '%s' places tensors in it; download it again", checkpoint->path,
                    shard->file, index_file);
    if (status != STATUS_OK)
        return status == STATUS_BAD_INPUT
                   ? problem(reader, missing ? PROBLEM_SHARD_MISSING : PROBLEM_SHARD_UNREADABLE, shard->file, error)
                   : status;
    struct safetensors file;
    status = safetensors_read(shard->source, &file, error);
    shard->data_offset = file.data_offset;
    if (status == STATUS_BAD_INPUT) {
        safetensors_free(&file);
        return problem(reader, PROBLEM_SHARD_UNREADABLE, shard->file, error);
    }
    shard->readable = status == STATUS_OK;
    if (status == STATUS_OK &&
        !array_reserve(checkpoint->tensors, checkpoint->tensor_count + file.count, &reader->capacity))
        status = error_set_memory(error);
    for (size_t i = 0; i < file.count && status == STATUS_OK; i++) {
        struct tensor_info *info = &file.tensors[i];
        if (reader->index)
            status = indexed_check(reader, shard, info->name, error);
        if (status != STATUS_OK)
            break;
        checkpoint->tensors[checkpoint->tensor_count++] = (struct tensor){*info, (uint32_t)number};
        info->name = NULL; /* moved */
    }
    safetensors_free(&file);
    return status;
}

static int by_tensor_name(const void *a, const void *b, void *context) {
    const struct tensor *tensors = context;
    return strcmp(tensors[*(const uint32_t *)a].info.name, tensors[*(const uint32_t *)b].info.name);
}

static enum status names_sort(struct reader *reader, struct error *error) {
    struct checkpoint *checkpoint = reader->checkpoint;
    size_t count = checkpoint->tensor_count;
    checkpoint->by_name = malloc((count + 1) * sizeof *checkpoint->by_name);
    if (!checkpoint->by_name)
        return error_set_memory(error);
    for (size_t i = 0; i < count; i++)
        checkpoint->by_name[i] = (uint32_t)i;
    qsort_r(checkpoint->by_name, count, sizeof *checkpoint->by_name, by_tensor_name, checkpoint->tensors);
    for (size_t i = 1; i < count; i++) {
        const struct tensor *a = &checkpoint->tensors[checkpoint->by_name[i - 1]];
        const struct tensor *b = &checkpoint->tensors[checkpoint->by_name[i]];
        if (strcmp(a->info.name, b->info.name) != 0)
            continue;
        error_write(error, 0, "tensor '%s' exists twice, in '%s' and in '%s'", a->info.name,
                    checkpoint->shards[a->shard].file, checkpoint->shards[b->shard].file);
        enum status status = problem(reader, PROBLEM_TENSOR_DUPLICATE, a->info.name, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

static enum status tensors_read(struct reader *reader, struct error *error) {
    struct checkpoint *checkpoint = reader->checkpoint;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < checkpoint->shard_count && status == STATUS_OK; i++)
        status = shard_read(reader, i, error);
    if (status == STATUS_OK)
        status = names_sort(reader, error);
    for (size_t i = 0; reader->index && i < reader->index->count && status == STATUS_OK; i++) {
        const struct index_entry *entry = &reader->index->entries[i];
        const char *file = reader->index->files[entry->file];
        const struct shard *shard =
            bsearch(&file, checkpoint->shards, checkpoint->shard_count, sizeof *checkpoint->shards, by_string);
        if (entry->held || !shard || !shard->readable)
            continue;
        const char *name = reader->index->names.bytes + entry->name;
        error_write(error, 0, "'%s' places tensor '%s' in '%s', which does not hold it", index_file, name, file);
        status = problem(reader, PROBLEM_INDEX_DANGLING, name, error);
    }
    return status;
}

/* The index, and the shards that it names; without one, or with one that cannot be used, those in the folder. */
static enum status shards_find(struct reader *reader, const char *path, struct index *index, struct error *error) {
    struct checkpoint *checkpoint = reader->checkpoint;
    struct folder_entry entry; /* a link that leads nowhere is an index that cannot be read, not none */
    enum status status = folder_look(checkpoint->folder, index_file, &entry, &checkpoint->has_index, error);
    if (status != STATUS_OK || !checkpoint->has_index)
        return status == STATUS_OK ? shards_from_folder(checkpoint, error) : status;
    char *bytes = NULL;
    struct json_span metadata = {0};
    status = index_read(checkpoint->folder, path, index, &metadata, &bytes, error);
    if (status == STATUS_OK && metadata.end > metadata.begin) {
        checkpoint->index_metadata = strndup(bytes + metadata.begin, metadata.end - metadata.begin);
        status = checkpoint->index_metadata ? STATUS_OK : error_set_memory(error);
    }
    free(bytes);
    if (status == STATUS_OK) {
        reader->index = index;
        return shards_from_index(reader, index, error);
    }
    if (status == STATUS_BAD_INPUT)
        status = problem(reader, PROBLEM_INDEX_INVALID, index_file, error);
    return status == STATUS_OK ? shards_from_folder(checkpoint, error) : status;
}

static enum status folder_find(const char *where, struct checkpoint *checkpoint, struct error *error) {
    *checkpoint = (struct checkpoint){.path = strdup(where)};
    return checkpoint->path ? folder_open(where, &checkpoint->folder, error) : error_set_memory(error);
}

enum status checkpoint_open_reporting(const char *where, checkpoint_problem_function *report, void *context,
                                      struct checkpoint *checkpoint, struct error *error) {
    enum status status = folder_find(where, checkpoint, error);
    if (status != STATUS_OK)
        return status;
    char *config = text_format("%s/config.json", where), *index_path = text_format("%s/%s", where, index_file);
    struct index index = {0};
    struct reader reader = {checkpoint, NULL, 0, report, context};
    if (!config || !index_path)
        status = error_set_memory(error);
    if (status == STATUS_OK)
        status = folder_file_read(checkpoint->folder, "config.json", json_file_max, &checkpoint->config,
                                  &checkpoint->config_length, error);
    if (status == STATUS_OK)
        status = json_text_check(config, checkpoint->config, checkpoint->config_length, error);
    if (status == STATUS_OK)
        status = shards_find(&reader, index_path, &index, error);
    if (status == STATUS_OK)
        status = tensors_read(&reader, error);
    index_free(&index);
    free(config);
    free(index_path);
    return status;
}

enum status checkpoint_open_files(const char *where, char *const *files, size_t count,
                                  checkpoint_problem_function *report, void *context, struct checkpoint *checkpoint,
                                  struct error *error) {
    enum status status = folder_find(where, checkpoint, error);
    struct reader reader = {checkpoint, NULL, 0, report, context};
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = shard_add(checkpoint, files[i], error);
    return status == STATUS_OK ? tensors_read(&reader, error) : status;
}

enum status checkpoint_names_sort(struct checkpoint *checkpoint, struct error *error) {
    struct reader reader = {.checkpoint = checkpoint};
    return names_sort(&reader, error);
}

enum status checkpoint_open(const char *where, struct checkpoint *checkpoint, struct error *error) {
    return checkpoint_open_reporting(where, NULL, NULL, checkpoint, error);
}

void checkpoint_close(struct checkpoint *checkpoint) {
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        byte_source_close(checkpoint->shards[i].source);
        free(checkpoint->shards[i].file);
    }
    for (size_t i = 0; i < checkpoint->tensor_count; i++)
        free(checkpoint->tensors[i].info.name);
    free(checkpoint->shards);
    free(checkpoint->tensors);
    free(checkpoint->by_name);
    free(checkpoint->config);
    free(checkpoint->index_metadata);
    free(checkpoint->path);
    folder_close(checkpoint->folder);
    *checkpoint = (struct checkpoint){0};
}

/* strcmp of `name` with the joined name. */
static int compare_joined(const char *name, const char *stem, size_t stem_length, const char *suffix) {
    int order = strncmp(name, stem, stem_length);
    return order ? order : strcmp(name + stem_length, suffix);
}

const struct tensor *checkpoint_find_joined(const struct checkpoint *checkpoint, const char *stem, size_t stem_length,
                                            const char *suffix) {
    size_t low = 0, high = checkpoint->tensor_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct tensor *tensor = &checkpoint->tensors[checkpoint->by_name[middle]];
        int order = compare_joined(tensor->info.name, stem, stem_length, suffix);
        if (order == 0)
            return tensor;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name) {
    return checkpoint_find_joined(checkpoint, name, strlen(name), "");
}

enum status checkpoint_read(const struct checkpoint *checkpoint, const struct tensor *tensor, uint64_t offset,
                            void *buffer, size_t size, struct error *error) {
    if (offset > tensor->info.size || size > tensor->info.size - offset)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s': tensor '%s' has %llu bytes, fewer than its shape and use take (%zu from byte %llu on): "
                         "it is truncated or of another format",
                         checkpoint->path, tensor->info.name, (unsigned long long)tensor->info.size, size,
                         (unsigned long long)offset);
    return byte_source_read_at(checkpoint->shards[tensor->shard].source, tensor->info.offset + offset, buffer, size,
                               error);
}

static const char *const role_names[ROLES] = {
    [ROLE_ATTENTION] = "attention", [ROLE_MLP] = "mlp",       [ROLE_EXPERT] = "expert",
    [ROLE_ROUTER] = "router",       [ROLE_NORM] = "norm",     [ROLE_EMBEDDING] = "embedding",
    [ROLE_HEAD] = "head",           [ROLE_VISION] = "vision", [ROLE_OTHER] = "other",
};

const char *role_name(enum role role) { return role_names[role]; }

enum role role_of(const char *name) {
    static const struct {
        const char *part;
        enum role role;
    } parts[] = {
        /* the first that occurs in the name decides */
        {"vision", ROLE_VISION},
        {"visual", ROLE_VISION},
        {"image_newline", ROLE_VISION},
        {"audio_tower", ROLE_VISION},
        {"projector", ROLE_VISION},
        {"patch_merger", ROLE_VISION},
        {"lm_head", ROLE_HEAD},
        {"embed_tokens", ROLE_EMBEDDING},
        {"norm", ROLE_NORM},
        {".shared_expert_gate.", ROLE_ROUTER},
        {"shared_expert", ROLE_MLP},
        {".experts.", ROLE_EXPERT},
        {".moe.", ROLE_EXPERT},
        {".mlp.gate.", ROLE_ROUTER},
        {".router.", ROLE_ROUTER},
        {".block_sparse_moe.gate.", ROLE_ROUTER},
        {"attn", ROLE_ATTENTION},
        {".attention.", ROLE_ATTENTION},
        {".mlp.", ROLE_MLP},
        {".feed_forward.", ROLE_MLP},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i].part))
            return parts[i].role;
    return ROLE_OTHER;
}
