#include "common/hub/local_folder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/hub/cache.h"
#include "common/interrupt.h"
#include "common/new_file.h"
#include "common/source.h"

static const char notes[] = ".cache/huggingface";

/* ---- where things are ---- */

/* FOLDER/.cache/huggingface/download/PATH + `ending`. */
static char *note_path(const char *folder, const struct hub_file *file, const char *ending) {
    return text_format("%s/%s/download/%s%s", folder, notes, file->path, ending);
}

char *local_folder_path(const char *folder, const struct hub_file *file) {
    return text_format("%s/%s", folder, file->path);
}

char *local_folder_lock(const char *folder, const struct hub_file *file) { return note_path(folder, file, ".lock"); }

/* Of two files with the same bytes, each has one of its own: told apart by some digits of their paths' hashes. */
char *local_folder_target(const char *folder, const struct hub_file *file) {
    enum { DIGITS = 8 };
    char etag[HUB_ETAG_HEX], hex[SHA256_HEX];
    uint8_t digest[SHA256_SIZE];
    if (sha256_of(file->path, strlen(file->path), digest, NULL) != STATUS_OK)
        return NULL;
    const char *slash = strrchr(file->path, '/');
    const int above = slash ? (int)(slash + 1 - file->path) : 0;
    return text_format("%s/%s/download/%.*s%.*s.%s", folder, notes, above, file->path, DIGITS, sha256_hex(digest, hex),
                       hub_file_etag(file, etag));
}

enum status local_folder_prepare(const char *folder, struct error *error) {
    char *path = text_format("%s/%s", folder, notes), *ignore = text_format("%s/%s/.gitignore", folder, notes);
    enum status status = path && ignore ? folder_make(path, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = hub_cache_tag(path, error);
    if (status == STATUS_OK && access(ignore, F_OK) != 0)
        status = new_file_write(ignore, "*", 1, error);
    free(ignore);
    free(path);
    return status;
}

enum status local_folder_prepare_file(const char *folder, const struct hub_file *file, struct error *error) {
    if (strncmp(file->path, notes, sizeof notes - 1) == 0)
        return error_set(error, STATUS_BAD_INPUT,
                         "'%s' would lie among huggingface_hub's own notes in '%s'; --exclude it", file->path, folder);
    char *path = local_folder_path(folder, file), *lock = local_folder_lock(folder, file);
    enum status status = path && lock ? folder_above_make(path, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = folder_above_make(lock, error);
    free(lock);
    free(path);
    return status;
}

/* ---- what is there ---- */

struct note {
    char commit[HUB_OID_HEX], etag[HUB_ETAG_HEX];
    double time; /* seconds since the epoch */
};

/* Three words: false when they are none. */
static bool note_parse(char *bytes, struct note *note) {
    static const char space[] = " \t\r\n";
    char *rest = NULL, *commit = strtok_r(bytes, space, &rest), *etag = strtok_r(NULL, space, &rest);
    char *time = strtok_r(NULL, space, &rest), *end;
    if (!commit || !etag || !time || strlen(commit) >= sizeof note->commit || strlen(etag) >= sizeof note->etag)
        return false;
    memcpy(note->commit, commit, strlen(commit) + 1);
    memcpy(note->etag, etag, strlen(etag) + 1);
    note->time = strtod(time, &end);
    return *end == '\0';
}

/* False when there is no note, or one that cannot be read. */
static bool note_read(const char *folder, const struct hub_file *file, struct note *note) {
    enum { NOTE_BYTES_MAX = 4096 };
    char *path = note_path(folder, file, ".metadata"), *bytes = NULL;
    size_t length;
    const bool read =
        path && file_read(path, NOTE_BYTES_MAX, &bytes, &length, NULL) == STATUS_OK && note_parse(bytes, note);
    free(bytes);
    free(path);
    return read;
}

/* Whether the bytes of the file at `path` are those of `file`. */
static enum status hash_is(const char *path, const struct hub_file *file, bool *is, struct error *error) {
    enum { PIECE = 1 << 20 };
    struct byte_source *source = NULL;
    enum status status = byte_source_open_file(path, &source, error);
    struct hub_check *check = hub_check_new(file);
    char *buffer = malloc(PIECE);
    if (status == STATUS_OK && (!check || !buffer))
        status = error_set_memory(error);
    for (uint64_t at = 0; status == STATUS_OK && at < file->size;) {
        const size_t size = file->size - at < PIECE ? (size_t)(file->size - at) : PIECE;
        status = byte_source_read_at(source, at, buffer, size, error);
        if (status == STATUS_OK && interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
        if (status == STATUS_OK)
            hub_check_add(check, buffer, size);
        at += size;
    }
    *is = status == STATUS_OK && hub_check_end(check);
    free(buffer);
    hub_check_free(check);
    byte_source_close(source);
    return status;
}

enum status local_folder_has(const char *folder, const char *commit, const struct hub_file *file, bool *has,
                             bool *noted, struct error *error) {
    static const double tolerance = 1; /* seconds, as huggingface_hub has it */
    char *path = local_folder_path(folder, file), etag[HUB_ETAG_HEX];
    struct stat stat_file;
    struct note note;
    enum status status = path ? STATUS_OK : error_set_memory(error);
    *has = *noted = false;
    if (status == STATUS_OK && stat(path, &stat_file) == 0 && S_ISREG(stat_file.st_mode) &&
        (uint64_t)stat_file.st_size == file->size) {
        const bool valid = note_read(folder, file, &note) && (double)stat_file.st_mtim.tv_sec - tolerance <= note.time;
        if (valid) {
            *has = strcmp(note.etag, hub_file_etag(file, etag)) == 0;
            *noted = *has && strcmp(note.commit, commit) == 0;
        } else {
            status = hash_is(path, file, has, error);
        }
    }
    free(path);
    return status;
}

/* ---- placing ---- */

static enum status note_write(const char *folder, const char *commit, const struct hub_file *file,
                              struct error *error) {
    struct timespec now;
    struct text note = {0};
    char etag[HUB_ETAG_HEX], *path = note_path(folder, file, ".metadata");
    clock_gettime(CLOCK_REALTIME, &now);
    text_printf(&note, "%s\n%s\n%lld.%06ld\n", commit, hub_file_etag(file, etag), (long long)now.tv_sec,
                now.tv_nsec / 1000);
    const enum status status =
        path && !note.failed ? new_file_write(path, note.bytes, note.length, error) : error_set_memory(error);
    text_free(&note);
    free(path);
    return status;
}

enum status local_folder_place(const char *folder, const char *commit, const struct hub_file *file,
                               struct error *error) {
    char *target = local_folder_target(folder, file), *path = local_folder_path(folder, file);
    enum status status = target && path ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && rename(target, path) == 0)
        status = folder_above_sync(path, error); /* the note must not outlive what it is about */
    else if (status == STATUS_OK && errno != ENOENT)
        status = error_set_errno(error, STATUS_IO, errno, "cannot rename '%s' to '%s'", target, path);
    if (status == STATUS_OK)
        status = note_write(folder, commit, file, error);
    free(path);
    free(target);
    return status;
}
