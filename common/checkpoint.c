#include "common/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json_text.h"

static const char index_file[] = "model.safetensors.index.json";
static const char single_file[] = "model.safetensors";
static const size_t json_file_max = (size_t)1 << 30; /* an index of 10 million tensors */

static int by_string(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static char *path_join(const char *folder, const char *file) { return text_format("%s/%s", folder, file); }

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

static enum status index_read(const char *path, json_t **weight_map, struct error *error) {
    char *bytes = NULL;
    size_t length;
    enum status status = file_read(path, json_file_max, &bytes, &length, error);
    if (status != STATUS_OK)
        return status;
    json_error_t at;
    json_t *root = json_loadb(bytes, length, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &at);
    free(bytes);
    if (!root)
        return error_set(error, STATUS_BAD_INPUT, "'%s' is not valid JSON: %s (line %d)", path, at.text, at.line);
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' has no weight_map object with tensors in it", path);
    else
        *weight_map = json_incref(map);
    json_decref(root);
    return status;
}

/* Adds each shard that the index names, once, in the order of their names. */
static enum status shards_from_index(struct checkpoint *checkpoint, json_t *weight_map, struct error *error) {
    const char **files = calloc(json_object_size(weight_map), sizeof *files);
    if (!files)
        return error_set_memory(error);
    size_t count = 0;
    const char *name;
    json_t *value;
    enum status status = STATUS_OK;
    json_object_foreach(weight_map, name, value) {
        if (!json_is_string(value)) {
            status =
                error_set(error, STATUS_BAD_INPUT, "'%s': the shard of tensor '%s' is not a string", index_file, name);
            break;
        }
        files[count++] = json_string_value(value);
    }
    if (status == STATUS_OK)
        qsort(files, count, sizeof *files, by_string);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        if (i > 0 && strcmp(files[i], files[i - 1]) == 0)
            continue;
        status = shard_name_check(files[i], error);
        if (status == STATUS_OK)
            status = shard_add(checkpoint, files[i], error);
    }
    free(files);
    return status;
}

static enum status shards_from_folder(struct checkpoint *checkpoint, struct error *error) {
    char *path = path_join(checkpoint->path, single_file);
    if (!path)
        return error_set_memory(error);
    struct stat stat_single;
    bool single = stat(path, &stat_single) == 0;
    free(path);
    if (single)
        return shard_add(checkpoint, single_file, error);

    DIR *folder = opendir(checkpoint->path);
    if (!folder)
        return error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", checkpoint->path);
    enum status status = STATUS_OK;
    struct dirent *entry;
    while (status == STATUS_OK && (errno = 0, entry = readdir(folder))) {
        const char *file = entry->d_name;
        if (!text_ends_with(file, ".safetensors") || file[0] == '.' ||
            strncmp(file, "consolidated", strlen("consolidated")) == 0)
            continue;
        status = text_is_utf8(file) ? shard_add(checkpoint, file, error)
                                    : error_set(error, STATUS_BAD_INPUT, "the name of the shard '%s/%s' is not UTF-8",
                                                checkpoint->path, file);
    }
    if (status == STATUS_OK && errno)
        status = error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", checkpoint->path);
    closedir(folder);
    if (status != STATUS_OK)
        return status;
    if (checkpoint->shard_count == 0)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' holds no checkpoint: neither %s nor %s nor any other .safetensors file",
                         checkpoint->path, index_file, single_file);
    /* struct shard begins with its file name */
    qsort(checkpoint->shards, checkpoint->shard_count, sizeof *checkpoint->shards, by_string);
    return STATUS_OK;
}

static enum status shard_read(struct checkpoint *checkpoint, size_t number, json_t *weight_map, size_t *capacity,
                              struct error *error) {
    struct shard *shard = &checkpoint->shards[number];
    char *path = path_join(checkpoint->path, shard->file);
    if (!path)
        return error_set_memory(error);
    enum status status = byte_source_open_file(path, &shard->source, error);
    if (status == STATUS_BAD_INPUT && weight_map && access(path, F_OK) != 0)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' is missing, but '%s' places tensors in it; download it again",
                           path, index_file);
    free(path);
    if (status != STATUS_OK)
        return status;
    struct safetensors file;
    status = safetensors_read(shard->source, &file, error);
    shard->data_offset = file.data_offset;
    if (status == STATUS_OK && checkpoint->tensor_count + file.count > *capacity) {
        *capacity = (checkpoint->tensor_count + file.count) * 3 / 2;
        struct tensor *tensors = realloc(checkpoint->tensors, *capacity * sizeof *tensors);
        if (tensors)
            checkpoint->tensors = tensors;
        else
            status = error_set_memory(error);
    }
    for (size_t i = 0; i < file.count && status == STATUS_OK; i++) {
        struct tensor_info *info = &file.tensors[i];
        if (weight_map) {
            const char *indexed = json_string_value(json_object_get(weight_map, info->name));
            if (!indexed)
                status = error_set(
                    error, STATUS_BAD_INPUT,
                    "'%s' holds tensor '%s', which '%s' does not name; an index that matches its shards is needed",
                    shard->source->name, info->name, index_file);
            else if (strcmp(indexed, shard->file) != 0)
                status = error_set(error, STATUS_BAD_INPUT, "tensor '%s' lies in '%s', but '%s' says '%s'", info->name,
                                   shard->file, index_file, indexed);
            if (status != STATUS_OK)
                break;
        }
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

static enum status names_sort(struct checkpoint *checkpoint, struct error *error) {
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
        if (strcmp(a->info.name, b->info.name) == 0)
            return error_set(error, STATUS_BAD_INPUT, "tensor '%s' exists twice, in '%s' and in '%s'", a->info.name,
                             checkpoint->shards[a->shard].file, checkpoint->shards[b->shard].file);
    }
    return STATUS_OK;
}

static enum status tensors_read(struct checkpoint *checkpoint, json_t *weight_map, struct error *error) {
    size_t capacity = 0;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < checkpoint->shard_count && status == STATUS_OK; i++)
        status = shard_read(checkpoint, i, weight_map, &capacity, error);
    if (status == STATUS_OK)
        status = names_sort(checkpoint, error);
    if (status != STATUS_OK || !weight_map || checkpoint->tensor_count == json_object_size(weight_map))
        return status;
    const char *name;
    json_t *value;
    json_object_foreach(weight_map, name, value) {
        if (!checkpoint_find(checkpoint, name))
            return error_set(error, STATUS_BAD_INPUT, "'%s' places tensor '%s' in '%s', which does not hold it",
                             index_file, name, json_string_value(value));
    }
    return STATUS_OK;
}

enum status checkpoint_open(const char *path, struct checkpoint *checkpoint, struct error *error) {
    *checkpoint = (struct checkpoint){.path = strdup(path)};
    if (!checkpoint->path)
        return error_set_memory(error);
    struct stat folder;
    if (stat(path, &folder) != 0)
        return error_set_errno(error, errno == ENOENT ? STATUS_BAD_INPUT : STATUS_IO, errno, "cannot open '%s'", path);
    if (!S_ISDIR(folder.st_mode))
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' is not a folder; a checkpoint is a folder with config.json and .safetensors files",
                         path);

    char *config = path_join(path, "config.json"), *index = path_join(path, index_file);
    json_t *weight_map = NULL;
    enum status status = error_set_memory(error);
    if (config && index)
        status = file_read(config, json_file_max, &checkpoint->config, &checkpoint->config_length, error);
    if (status == STATUS_OK)
        status = json_text_check(config, checkpoint->config, checkpoint->config_length, error);
    if (status == STATUS_OK) {
        struct stat stat_index; /* a link that leads nowhere is an index that cannot be read, not none */
        checkpoint->has_index = lstat(index, &stat_index) == 0;
        if (checkpoint->has_index) {
            status = index_read(index, &weight_map, error);
            if (status == STATUS_OK)
                status = shards_from_index(checkpoint, weight_map, error);
        } else {
            status = shards_from_folder(checkpoint, error);
        }
    }
    if (status == STATUS_OK)
        status = tensors_read(checkpoint, weight_map, error);
    json_decref(weight_map);
    free(config);
    free(index);
    return status;
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
    free(checkpoint->path);
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
