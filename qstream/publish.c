#include "qstream/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/array.h"
#include "common/utf8.h"
#include "common/version.h"
#include "common/weight_files.h"
#include "qstream/config.h"
#include "qstream/report.h"

const char work_folder[] = ".qstream";
const char supply_folder[] = "source";

static const char card_name[] = "README.md";
static const char manifest_name[] = "qstream.json";
static const char index_name[] = "model.safetensors.index.json";
static const char config_name[] = "config.json";

enum { FOLDER_DEPTH_MAX = 8, COPY_BYTES = 1 << 18 };

/* ---- what is carried over ---- */

/* Source files and folders that describe or hold the weights in another form than the output has, or are unfinished. */
static bool describes_source(const char *name, bool folder) {
    if (folder)
        return weight_folder_is(name);
    return strcmp(name, "params.json") == 0 || strcmp(name, "hf_quant_config.json") == 0 ||
           text_ends_with(name, ".partial") || weight_file_is(name);
}

static bool made_anew(const char *name) {
    return strcmp(name, config_name) == 0 || strcmp(name, index_name) == 0 || strcmp(name, manifest_name) == 0;
}

/* Takes over `name` and `source`, frees them on failure. */
static struct publish_file *file_add(struct publication *publication, char *name, char *source) {
    if (!name || !array_reserve(publication->files, publication->count + 1, &publication->capacity)) {
        free(name);
        free(source);
        return NULL;
    }
    struct publish_file *file = &publication->files[publication->count++];
    *file = (struct publish_file){.name = name, .source = source};
    return file;
}

/* The name under which the source's README.md goes along: the output has one of its own. One that is not taken. */
static char *source_card_name(const struct folder *source) {
    char *name = strdup("README.source.md");
    for (int i = 2; name && folder_has(source, name); i++) {
        free(name);
        name = text_format("README.source-%d.md", i);
    }
    return name;
}

/* Whether `file` is a shard of the source. */
static bool is_shard(const struct plan *plan, const char *file) {
    for (size_t i = 0; i < plan->checkpoint->shard_count; i++)
        if (strcmp(plan->checkpoint->shards[i].file, file) == 0)
            return true;
    return false;
}

static enum status entry_carry(const struct plan *plan, const char *relative, const struct folder_entry *entry,
                               int depth, struct publication *publication, struct error *error);

/* `relative` is "" or a folder below the source with a '/' at its end. */
static enum status folder_carry(const struct plan *plan, const char *relative, int depth,
                                struct publication *publication, struct error *error) {
    struct folder_entry *entries;
    size_t count;
    enum status status = folder_list(plan->checkpoint->folder, relative, &entries, &count, error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++)
        status = entry_carry(plan, relative, &entries[i], depth, publication, error);
    folder_entries_free(entries, count);
    return status;
}

static enum status entry_carry(const struct plan *plan, const char *relative, const struct folder_entry *entry,
                               int depth, struct publication *publication, struct error *error) {
    const struct checkpoint *checkpoint = plan->checkpoint;
    const char *name = entry->name;
    if (!utf8_is_valid(name, strlen(name)))
        return error_set(error, STATUS_BAD_INPUT, "the name of '%s/%s%s' is not UTF-8: rename the file",
                         checkpoint->path, relative, name);
    if (entry->problem)
        return error_set_errno(error,
                               entry->problem == ENOENT || entry->problem == ELOOP ? STATUS_BAD_INPUT : STATUS_IO,
                               entry->problem, "cannot carry over '%s/%s%s'", checkpoint->path, relative, name);
    char *inside = text_format("%s%s", relative, name);
    enum status status = STATUS_OK;
    if (!inside) {
        status = error_set_memory(error);
    } else if (entry->kind == FOLDER_FOLDER) {
        bool skip = name[0] == '.' || describes_source(name, true) || entry->link || depth >= FOLDER_DEPTH_MAX;
        if (skip && name[0] != '.')
            text_printf(&publication->left_out, "%s/\n", inside);
        char *below = skip ? NULL : text_format("%s/", inside);
        if (below)
            status = folder_carry(plan, below, depth + 1, publication, error);
        else if (!skip)
            status = error_set_memory(error);
        free(below);
    } else if (!*relative && (made_anew(name) || is_shard(plan, name))) {
        ; /* the output has its own */
    } else if (entry->kind != FOLDER_FILE || describes_source(name, false)) {
        text_printf(&publication->left_out, "%s\n", inside);
    } else {
        bool card = !*relative && strcmp(name, card_name) == 0;
        struct publish_file *file =
            file_add(publication, card ? source_card_name(checkpoint->folder) : strdup(inside), strdup(inside));
        if (!file || !file->source)
            status = error_set_memory(error);
        else
            file->size = entry->size;
    }
    free(inside);
    return status;
}

static bool write_all(int fd, const void *bytes, size_t size) {
    for (size_t done = 0; done < size;) {
        const ssize_t wrote = write(fd, (const char *)bytes + done, size - done);
        if (wrote < 0 && errno != EINTR)
            return false;
        done += wrote > 0 ? (size_t)wrote : 0;
    }
    return true;
}

/* Copies a source file in pieces, and notes its digest. */
static enum status file_copy(const struct folder *folder, struct publish_file *file, int fd, struct error *error) {
    struct byte_source *source;
    enum status status = folder_file_open(folder, file->source, &source, error);
    if (status != STATUS_OK)
        return status;
    uint8_t *buffer = malloc(COPY_BYTES);
    struct sha256 *hash = sha256_new();
    if (!buffer || !hash)
        status = error_set_memory(error);
    if (status == STATUS_OK && source->identity.size != file->size)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' was changed during the run", source->name);
    for (uint64_t at = 0; at < file->size && status == STATUS_OK;) {
        size_t size = file->size - at < COPY_BYTES ? (size_t)(file->size - at) : COPY_BYTES;
        status = byte_source_read_at(source, at, buffer, size, error);
        if (status != STATUS_OK)
            break;
        sha256_update(hash, buffer, size);
        if (!write_all(fd, buffer, size))
            status = error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", file->name);
        at += size;
    }
    if (status == STATUS_OK)
        sha256_digest(hash, file->digest);
    if (status == STATUS_OK && source->identity.hashed &&
        memcmp(file->digest, source->identity.sha256, SHA256_SIZE) != 0)
        status = error_set(error, STATUS_IO, "what was read of '%s' does not have the SHA-256 that the Hub says",
                           source->name);
    sha256_free(hash);
    free(buffer);
    byte_source_close(source);
    return status;
}

/* ---- writing ---- */

/* Makes the folders above `path`, which lies below `folder`. */
static enum status folders_make(const char *folder, char *path, struct error *error) {
    for (char *slash = path + strlen(folder) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        int problem = mkdir(path, 0777) != 0 && errno != EEXIST ? errno : 0;
        enum status status = problem ? error_set_errno(error, STATUS_IO, problem, "cannot make '%s'", path) : STATUS_OK;
        *slash = '/';
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* Syncs the folders from the one that holds `path` up to, not including, `folder`. Shortens `path`. */
static enum status folders_sync(const char *folder, char *path, struct error *error) {
    enum status status = STATUS_OK;
    while (status == STATUS_OK && strlen(dirname(path)) > strlen(folder))
        status = folder_sync(path, error);
    return status;
}

/* Writes a file under a temporary name, syncs it and renames it. Of one that is carried over it notes the digest. */
static enum status file_write(const struct plan *plan, struct publish_file *file, const char *folder,
                              struct error *error) {
    char *path = text_format("%s/%s", folder, file->name);
    char *partial = text_format("%s/%s.partial", folder, file->name);
    enum status status = path && partial ? folders_make(folder, path, error) : error_set_memory(error);
    int fd = -1;
    if (status == STATUS_OK && (fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)) < 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot create '%s'", partial);
    if (status == STATUS_OK && file->source)
        status = file_copy(plan->checkpoint->folder, file, fd, error);
    else if (status == STATUS_OK && !write_all(fd, file->bytes.bytes, file->bytes.length))
        status = error_set_errno(error, STATUS_IO, errno, "cannot write '%s'", partial);
    if (status == STATUS_OK && fsync(fd) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot sync '%s'", partial);
    if (fd >= 0 && close(fd) != 0 && status == STATUS_OK)
        status = error_set_errno(error, STATUS_IO, errno, "cannot close '%s'", partial);
    if (status == STATUS_OK && rename(partial, path) != 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot rename '%s'", partial);
    if (status == STATUS_OK)
        status = folders_sync(folder, path, error);
    free(path);
    free(partial);
    return status;
}

/* ---- what is made ---- */

static void index_render(const struct plan *plan, struct text *out) {
    text_printf(out,
                "{\n  \"metadata\": {\n    \"total_parameters\": %" PRIu64 ",\n    \"total_size\": %" PRIu64 "\n  },\n",
                plan->parameters, plan->tensor_bytes);
    text_append_string(out, "  \"weight_map\": {");
    for (size_t i = 0; i < plan->output_count; i++) {
        text_append_string(out, i ? ",\n    " : "\n    ");
        text_append_json_string(out, plan->outputs[i].info.name);
        text_append_string(out, ": ");
        text_append_json_string(out, plan->shards[plan->outputs[i].shard].file);
    }
    text_append_string(out, "\n  }\n}\n");
}

/* The digest of a job's source bytes: SHA-256 over the digests of its tiles, in order. */
static enum status source_digest(const struct plan_job *job, const struct run_state *state, uint8_t digest[SHA256_SIZE],
                                 struct error *error) {
    return sha256_of(state->sources[job->first_tile], (size_t)job->tile_count * SHA256_SIZE, digest, error);
}

static enum status manifest_render(const struct plan *plan, const struct recipe *recipe, const struct run_state *state,
                                   const struct fingerprint *fingerprint, const struct publication *publication,
                                   struct text *out, struct error *error) {
    char hex[SHA256_HEX];
    static const uint8_t zeros[SHA256_SIZE];
    text_append_string(out, "{\n  \"schema\": \"qstream.manifest/1\",\n  \"qstream\": \"" QSTREAM_VERSION "\",\n");
    text_printf(out, "  \"output_version\": %d,\n  \"fingerprint\": {", QSTREAM_OUTPUT_VERSION);
    text_printf(out, "\"source\": \"%s\"", sha256_hex(fingerprint->source, hex));
    text_printf(out, ", \"recipe\": \"%s\"", sha256_hex(fingerprint->recipe, hex));
    text_printf(out, ", \"options\": \"%s\"},\n", sha256_hex(fingerprint->options, hex));
    text_printf(out, "  \"rule\": \"%s\",\n  \"gamma\": \"%s\",\n", scale_rule_name(plan->options.rule),
                gamma_name(plan->options.gamma));
    const struct plan_calibration *calibration = &plan->options.calibration;
    text_printf(out, "  \"rounding\": \"%s\",\n  \"ties\": \"%s\",\n",
                calibration->windows > 0 ? "calibrated" : "nearest",
                plan->options.rule == SCALE_RULE_QSTREAM ? "toward zero" : "even");
    if (calibration->windows > 0)
        text_printf(
            out,
            "  \"calibration\": {\"text_sha256\": \"%s\", \"tokens_sha256\": \"%s\", \"skip\": %" PRIu64
            ", \"windows\": %u, \"window\": %u, \"correction\": %.17g, \"damping\": %g, \"compute\": \"%s\", \"cpu\": "
            "\"%s\"},\n",
            calibration->text, calibration->tokens, calibration->skip, calibration->windows, calibration->window,
            calibration->correction, calibration->damping, calibration->bf16 ? "bf16" : "f32",
            cpu_level_name(calibration->cpu));
    text_printf(out, "  \"tensor_bytes\": %" PRIu64 ",\n  \"source\": {\n    \"name\": ", plan->tensor_bytes);
    char name[256];
    const char *repository = folder_repository(plan->checkpoint->folder);
    text_append_json_string(out, repository ? repository : source_name(plan->checkpoint->folder, name, sizeof name));
    text_append_string(out, ",\n    \"files\": [");
    for (size_t i = 0; i < plan->checkpoint->shard_count; i++) {
        const struct shard *shard = &plan->checkpoint->shards[i];
        text_append_string(out, i ? ",\n      {\"name\": " : "\n      {\"name\": ");
        text_append_json_string(out, shard->file);
        const struct source_identity *identity = &shard->source->identity;
        text_printf(out, ", \"size\": %" PRIu64, identity->size);
        if (identity->hashed)
            text_printf(out, ", \"sha256\": \"%s\"}", sha256_hex(identity->sha256, hex));
        else
            text_printf(out, ", \"mtime_ns\": %" PRId64 "}", identity->mtime_ns);
    }
    text_append_string(out, "\n    ]");
    if (plan->options.hash_source) {
        text_append_string(out, ",\n    \"tensors\": {");
        bool first = true;
        for (size_t j = 0; j < plan->job_count; j++) {
            const struct plan_job *job = &plan->jobs[j];
            uint8_t digest[SHA256_SIZE] = {0};
            enum status status = state ? source_digest(job, state, digest, error) : STATUS_OK;
            if (status != STATUS_OK)
                return status;
            text_append_string(out, first ? "\n      " : ",\n      ");
            text_append_json_string(out, plan->outputs[job->outputs[0]].info.name);
            text_printf(out, ": \"%s\"", sha256_hex(digest, hex));
            first = false;
        }
        text_append_string(out, "\n    }");
    }
    text_append_string(out, "\n  },\n  \"recipe\": ");
    json_t *parsed = json_loadb(recipe->bytes, recipe->length, 0, NULL);
    char *dumped = parsed ? json_dumps(parsed, JSON_COMPACT) : NULL;
    json_decref(parsed);
    if (!dumped)
        return error_set_memory(error);
    text_append_string(out, dumped);
    free(dumped);
    text_append_string(out, ",\n  \"files\": [");
    for (size_t i = 0; i < plan->shard_count; i++) {
        text_append_string(out, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        text_append_json_string(out, plan->shards[i].file);
        text_printf(out, ", \"size\": %" PRIu64 ", \"sha256\": \"%s\"}", plan->shards[i].size,
                    sha256_hex(state ? state->digests[i] : zeros, hex));
    }
    for (size_t i = 0; i < publication->count; i++) {
        const struct publish_file *file = &publication->files[i];
        text_append_string(out, ",\n    {\"name\": ");
        text_append_json_string(out, file->name);
        text_printf(out, ", \"size\": %" PRIu64 ", \"sha256\": \"%s\"}", file->size,
                    sha256_hex(state ? file->digest : zeros, hex));
    }
    text_append_string(out, "\n  ]\n}\n");
    return out->failed ? error_set_memory(error) : STATUS_OK;
}

bool manifest_fingerprint(const char *folder, struct fingerprint *fingerprint) {
    char *path = text_format("%s/%s", folder, manifest_name), *bytes = NULL;
    size_t length;
    json_t *root = NULL;
    if (path && file_read(path, (size_t)1 << 30, &bytes, &length, NULL) == STATUS_OK)
        root = json_loadb(bytes, length, 0, NULL);
    free(bytes);
    free(path);
    const json_t *parts = json_object_get(root, "fingerprint");
    static const char *const keys[] = {"source", "recipe", "options"};
    uint8_t *const fields[] = {fingerprint->source, fingerprint->recipe, fingerprint->options};
    bool good = true;
    for (int k = 0; k < 3 && good; k++) {
        const char *hex = json_string_value(json_object_get(parts, keys[k]));
        good = hex && sha256_from_hex(hex, fields[k]);
    }
    json_decref(root);
    return good;
}

/* Finishes a file made here: its size and digest follow from its bytes. */
static enum status made_finish(struct publish_file *file, struct error *error) {
    if (file->bytes.failed)
        return error_set_memory(error);
    file->size = file->bytes.length;
    return sha256_of(file->bytes.bytes, file->bytes.length, file->digest, error);
}

static struct publish_file *made_add(struct publication *publication, const char *name) {
    return file_add(publication, strdup(name), NULL);
}

enum status publication_prepare(const struct plan *plan, const struct recipe *recipe, const struct run_state *state,
                                const struct fingerprint *fingerprint, const char *folder,
                                struct publication *publication, struct error *error) {
    *publication = (struct publication){0};
    enum status status = folder_carry(plan, "", 0, publication, error);
    for (size_t i = 0; state && i < publication->count && status == STATUS_OK; i++)
        status = file_write(plan, &publication->files[i], folder, error);
    bool alone = plan->shard_count == 1 && strcmp(plan->shards[0].file, "model.safetensors") == 0;
    if (status == STATUS_OK && (plan->checkpoint->has_index || !alone)) {
        struct publish_file *index = made_add(publication, index_name);
        if (!index)
            return error_set_memory(error);
        index_render(plan, &index->bytes);
        status = made_finish(index, error);
    }
    /* config.json is written last but stands in the manifest: render it now, move it behind the others below. */
    struct text config = {0}, manifest = {0};
    if (status == STATUS_OK)
        status = config_build(plan, recipe, &config, error);
    struct publish_file *file = NULL;
    if (status == STATUS_OK && !(file = made_add(publication, card_name)))
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        card_render(plan, recipe, &file->bytes);
        status = made_finish(file, error);
    }
    if (status == STATUS_OK && !(file = made_add(publication, config_name)))
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        file->bytes = config;
        config = (struct text){0};
        status = made_finish(file, error);
    }
    if (status == STATUS_OK)
        status = manifest_render(plan, recipe, state, fingerprint, publication, &manifest, error);
    if (status == STATUS_OK && !(file = made_add(publication, manifest_name)))
        status = error_set_memory(error);
    if (status == STATUS_OK) {
        file->bytes = manifest;
        manifest = (struct text){0};
        status = made_finish(file, error);
    }
    if (status == STATUS_OK) {
        struct publish_file last = publication->files[publication->count - 1];
        publication->files[publication->count - 1] = publication->files[publication->count - 2];
        publication->files[publication->count - 2] = last;
        for (size_t i = 0; i < publication->count; i++)
            publication->folder_bytes += publication->files[i].size;
        for (size_t i = 0; i < plan->shard_count; i++)
            publication->folder_bytes += plan->shards[i].size;
    }
    text_free(&config);
    text_free(&manifest);
    return status;
}

void publication_free(struct publication *publication) {
    for (size_t i = 0; i < publication->count; i++) {
        free(publication->files[i].name);
        free(publication->files[i].source);
        text_free(&publication->files[i].bytes);
    }
    free(publication->files);
    text_free(&publication->left_out);
    *publication = (struct publication){0};
}

/* ---- publishing ---- */

static enum status shards_rename(const struct plan *plan, const char *folder, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t s = 0; s < plan->shard_count && status == STATUS_OK; s++) {
        char *partial = shard_partial_path(plan, s, folder), *final = shard_final_path(plan, s, folder);
        if (!partial || !final)
            status = error_set_memory(error);
        /* Not there: an earlier attempt renamed it. */
        else if (rename(partial, final) != 0 && (errno != ENOENT || access(final, F_OK) != 0))
            status = error_set_errno(error, STATUS_IO, errno, "cannot rename '%s'", partial);
        free(partial);
        free(final);
    }
    return status;
}

/* Removes a folder of ours: its files, and its folders with files. */
static void folder_clean(const char *path, bool deeper) {
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] == '.' || unlinkat(dirfd(folder), entry->d_name, 0) == 0 || !deeper)
            continue;
        char *inside = text_format("%s/%s", path, entry->d_name);
        if (inside)
            folder_clean(inside, false);
        free(inside);
    }
    if (folder)
        closedir(folder);
    rmdir(path);
}

void publication_clean(const char *folder) {
    char *path = text_format("%s/%s", folder, work_folder);
    if (path)
        folder_clean(path, true);
    free(path);
}

enum status publication_write(const struct plan *plan, const struct publication *publication, const char *folder,
                              struct error *error) {
    enum status status = STATUS_OK;
    for (size_t s = 0; s < plan->checkpoint->shard_count && status == STATUS_OK; s++)
        status = byte_source_check_unchanged(plan->checkpoint->shards[s].source, error);
    if (status == STATUS_OK)
        status = shards_rename(plan, folder, error);
    for (size_t i = 0; i + 1 < publication->count && status == STATUS_OK; i++)
        if (!publication->files[i].source)
            status = file_write(plan, &publication->files[i], folder, error);
    if (status == STATUS_OK)
        status = folder_sync(folder, error);
    if (status == STATUS_OK)
        status = file_write(plan, &publication->files[publication->count - 1], folder, error);
    if (status == STATUS_OK)
        status = folder_sync(folder, error);
    if (status == STATUS_OK)
        publication_clean(folder);
    return status;
}
