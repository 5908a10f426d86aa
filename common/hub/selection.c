#include "common/hub/selection.h"

#include <stdlib.h>
#include <string.h>

#include "common/hub/wildcard.h"
#include "common/json_scan.h"
#include "common/weight_files.h"

static const char index_file[] = "model.safetensors.index.json";
static const char single_file[] = "model.safetensors";

const char *selection_reason_text(enum selection_reason reason) {
    static const char *const texts[SELECTION_REASONS] = {
        [SELECTION_TAKEN] = "",
        [SELECTION_OTHER_FORM] = "weights beside the checkpoint's",
        [SELECTION_LARGE] = "large, and no part of the checkpoint",
        [SELECTION_NOT_INCLUDED] = "matches no --include",
        [SELECTION_EXCLUDED] = "matches an --exclude",
    };
    return texts[reason];
}

const char *selection_reason_name(enum selection_reason reason) {
    static const char *const names[SELECTION_REASONS] = {
        [SELECTION_TAKEN] = "",
        [SELECTION_OTHER_FORM] = "other-form",
        [SELECTION_LARGE] = "large",
        [SELECTION_NOT_INCLUDED] = "not-included",
        [SELECTION_EXCLUDED] = "excluded",
    };
    return names[reason];
}

static bool any_matches(const char *const *patterns, size_t count, const char *path) {
    for (size_t i = 0; i < count; i++)
        if (wildcard_matches(patterns[i], path))
            return true;
    return false;
}

/* Whether the checkpoint decides. */
static bool by_checkpoint(const struct hub_listing *listing, const struct selection_rules *rules) {
    return !rules->all && rules->include_count == 0 && !listing->reference.dataset;
}

const struct hub_file *selection_index(const struct hub_listing *listing, const struct selection_rules *rules) {
    return by_checkpoint(listing, rules) ? hub_listing_find(listing, index_file) : NULL;
}

static const char *own_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* Whether a file is weights, or lies in a folder of another program's. */
static bool holds_weights(const char *path) {
    const char *slash = strchr(path, '/');
    if (!slash)
        return weight_file_is(path);
    char *folder = strndup(path, (size_t)(slash - path));
    const bool weights = !folder || weight_folder_is(folder);
    free(folder);
    return weights || weight_file_is(own_name(path));
}

/* ---- the checkpoint's shards ---- */

/* Marks the shard that an index names. */
static enum status shard_mark(const struct hub_listing *listing, const char *name, bool *shards, struct error *error) {
    const struct hub_file *file = hub_listing_find(listing, name);
    if (!file)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' places tensors in '%s', which '%s' does not have; --all fetches what there is",
                         index_file, name, listing->reference.repository);
    shards[file - listing->files] = true;
    return STATUS_OK;
}

static enum status weight_map_read(struct scanner *scan, const struct hub_listing *listing, bool *shards,
                                   struct error *error) {
    struct text name = {0};
    struct json_span span;
    bool more = scan_expect(scan, '{', "an object was expected") && !scan_next_is(scan, '}');
    enum status status = STATUS_OK;
    while (status == STATUS_OK && !scan->problem && more) {
        name.length = 0;
        if (scan_string(scan, &span) && scan_expect(scan, ':', "':' was expected") && scan_string(scan, &span) &&
            scan_string_decode(scan, span, &name))
            status = shard_mark(listing, name.bytes, shards, error);
        more = !scan_next_is(scan, '}');
        if (more)
            scan_expect(scan, ',', "',' or '}' was expected");
    }
    if (name.failed)
        status = error_set_memory(error);
    else if (scan->problem)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' of '%s' is no index: %s (byte %zu); --all needs none",
                           index_file, listing->reference.repository, scan->problem, scan->at);
    text_free(&name);
    return status;
}

static enum status shards_of_index(const struct hub_listing *listing, const char *index, size_t length, bool *shards,
                                   struct error *error) {
    struct json_member map;
    enum status status = json_text_check(index_file, index, length, error);
    if (status != STATUS_OK)
        return status;
    if (!json_text_member(index, json_text_object(index, length), "weight_map", &map))
        return error_set(error, STATUS_BAD_INPUT, "'%s' of '%s' has no weight_map; --all needs none", index_file,
                         listing->reference.repository);
    struct scanner scan = {.json = index, .at = map.value.begin, .length = map.value.end, .python = true};
    return weight_map_read(&scan, listing, shards, error);
}

static void shards_of_root(const struct hub_listing *listing, bool *shards) {
    const struct hub_file *single = hub_listing_find(listing, single_file);
    for (size_t i = 0; i < listing->count; i++) {
        const char *path = listing->files[i].path;
        shards[i] = single ? &listing->files[i] == single
                           : text_ends_with(path, ".safetensors") && !strchr(path, '/') &&
                                 strncmp(path, "consolidated", strlen("consolidated")) != 0;
    }
}

/* ---- the choice ---- */

static enum selection_reason reason_of(const struct hub_file *file, bool checkpoint, bool shard) {
    if (!checkpoint || shard || strcmp(file->path, index_file) == 0)
        return SELECTION_TAKEN;
    if (holds_weights(file->path))
        return SELECTION_OTHER_FORM;
    return file->size > SELECTION_SMALL ? SELECTION_LARGE : SELECTION_TAKEN;
}

enum status selection_make(const struct hub_listing *listing, const struct selection_rules *rules, const char *index,
                           size_t index_length, enum selection_reason *reasons, struct error *error) {
    bool *shards = calloc(listing->count + 1, sizeof *shards), checkpoint = false;
    enum status status = shards ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && index)
        status = shards_of_index(listing, index, index_length, shards, error);
    else if (status == STATUS_OK && by_checkpoint(listing, rules))
        shards_of_root(listing, shards);
    for (size_t i = 0; status == STATUS_OK && i < listing->count; i++)
        checkpoint = checkpoint || shards[i];
    for (size_t i = 0; status == STATUS_OK && i < listing->count; i++) {
        const char *path = listing->files[i].path;
        reasons[i] = reason_of(&listing->files[i], checkpoint, shards[i]);
        if (rules->include_count > 0 && !any_matches(rules->include, rules->include_count, path))
            reasons[i] = SELECTION_NOT_INCLUDED;
        else if (any_matches(rules->exclude, rules->exclude_count, path))
            reasons[i] = SELECTION_EXCLUDED;
    }
    free(shards);
    return status;
}
