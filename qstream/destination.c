#include "qstream/destination.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/new_file.h"
#include "qstream/publish.h"

/* Whether `path` is `folder` or lies inside it; both absolute and resolved. */
static bool is_inside(const char *path, const char *folder) {
    size_t length = strlen(folder);
    if (strcmp(folder, "/") == 0)
        return true;
    return strncmp(path, folder, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* The nearest folder above `path` that exists, resolved; NULL when out of memory. */
static char *folder_above(const char *path) {
    char *copy = text_format(*path == '/' ? "%s" : "./%s", path), *above = NULL;
    for (char *slash; copy && !above && (slash = strrchr(copy, '/'));) {
        *slash = '\0';
        above = realpath(*copy ? copy : "/", NULL);
    }
    free(copy);
    return above;
}

enum status destination_overlap_check(const struct folder *source, const char *destination, struct error *error) {
    if (!folder_path(source))
        return STATUS_OK;
    char *from = realpath(folder_path(source), NULL), *to = realpath(destination, NULL);
    bool exists = to != NULL;
    if (!exists)
        to = folder_above(destination);
    enum status status = STATUS_OK;
    if (!from || !to)
        status = error_set_memory(error);
    else if (is_inside(to, from) || (exists && is_inside(from, to)))
        status = error_set(error, STATUS_USAGE, "SRC and DST must be separate folders, but '%s' and '%s' overlap",
                           folder_name(source), destination);
    free(from);
    free(to);
    return status;
}

enum status destination_look(const char *path, const struct fingerprint *fingerprint, enum destination_state *state,
                             struct error *error) {
    *state = DESTINATION_NEW;
    DIR *folder = opendir(path);
    if (!folder && errno == ENOENT)
        return STATUS_OK;
    if (!folder)
        return error_set_errno(error, errno == ENOTDIR ? STATUS_USAGE : STATUS_IO, errno, "cannot use '%s' as DST",
                               path);
    bool empty = true, begun = false, published = false;
    struct dirent *entry;
    while ((errno = 0, entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        empty = false;
        begun = begun || strcmp(entry->d_name, work_folder) == 0;
        published = published || strcmp(entry->d_name, "config.json") == 0;
    }
    int problem = errno;
    closedir(folder);
    if (problem)
        return error_set_errno(error, STATUS_IO, problem, "cannot list '%s'", path);
    struct fingerprint found;
    if (published && manifest_fingerprint(path, &found) && memcmp(&found, fingerprint, sizeof found) == 0)
        *state = DESTINATION_FINISHED;
    else if (begun && !published)
        *state = DESTINATION_BEGUN;
    else if (!empty)
        return error_set(error, STATUS_USAGE,
                         published ? "'%s' already holds a checkpoint, made otherwise; choose another DST or remove it"
                                   : "'%s' is not empty and not an unfinished run; choose another DST or empty it",
                         path);
    return STATUS_OK;
}

enum status destination_space_check(const struct plan *plan, size_t first, size_t end, const char *folder,
                                    uint64_t wanted, uint64_t *beside, struct error *error) {
    struct statvfs space;
    if (statvfs(folder, &space) != 0)
        return error_set_errno(error, STATUS_IO, errno, "cannot look at '%s'", folder);
    uint64_t there = 0, available = (uint64_t)space.f_bavail * space.f_frsize;
    for (size_t s = first; s < end; s++) {
        char *partial = shard_partial_path(plan, s, folder), *final = shard_final_path(plan, s, folder);
        struct stat file;
        if (partial && final && (stat(partial, &file) == 0 || stat(final, &file) == 0))
            there += (uint64_t)file.st_blocks * 512;
        free(partial);
        free(final);
    }
    uint64_t missing = wanted > there ? wanted - there : 0;
    if (missing > available) {
        char need[TEXT_SIZE_MAX], have[TEXT_SIZE_MAX];
        return error_set(error, STATUS_IO, "'%s' needs %s more, but only %s are free there", folder,
                         text_size(missing, need), text_size(available, have));
    }
    *beside = available - missing;
    return STATUS_OK;
}

char *destination_journal_path(const struct destination *destination) {
    if (!destination->parts)
        return text_format("%s/%s/journal", destination->path, work_folder);
    return text_format("%s/%s/part-%05u-of-%05u", destination->path, work_folder, destination->part,
                       destination->parts);
}

char *destination_supply_path(const struct destination *destination) {
    if (!destination->parts)
        return text_format("%s/%s/%s", destination->path, work_folder, supply_folder);
    return text_format("%s/%s/%s-%05u-of-%05u", destination->path, work_folder, supply_folder, destination->part,
                       destination->parts);
}

enum status destination_repository_check(const struct destination *destination, const char *repository,
                                         struct error *error) {
    enum { NAME_MAX_BYTES = 4096 };
    char *path = text_format("%s/%s/repository", destination->path, work_folder), *begun = NULL;
    size_t length;
    enum status status = path ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK && access(path, F_OK) == 0)
        status = file_read(path, NAME_MAX_BYTES, &begun, &length, error);
    if (status == STATUS_OK && begun && repository && strcmp(begun, repository) != 0)
        status = error_set(error, STATUS_BAD_INPUT,
                           "'%s' holds an unfinished run of %s, but the source is %s now: give the former as SRC to go "
                           "on, or remove the folder to start anew",
                           destination->path, begun, repository);
    else if (status == STATUS_OK && !begun && repository)
        status = new_file_write(path, repository, strlen(repository), error);
    free(begun);
    free(path);
    return status;
}

enum status destination_lock(const struct destination *destination, int *fd, struct error *error) {
    char *work = text_format("%s/%s", destination->path, work_folder);
    char *path = text_format("%s/%s/lock", destination->path, work_folder);
    enum status status = work && path ? folder_make(work, error) : error_set_memory(error);
    *fd = -1;
    if (status == STATUS_OK && (*fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666)) < 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot create '%s'", path);
    if (status == STATUS_OK && flock(*fd, (destination->parts ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0)
        status = errno == EWOULDBLOCK
                     ? error_set(error, STATUS_USAGE, "another qstream is at work on '%s'; wait for it, or stop it",
                                 destination->path)
                     : error_set_errno(error, STATUS_IO, errno, "cannot lock '%s'", path);
    if (status == STATUS_OK) /* the work folder must not vanish while what is recorded in it is relied on */
        status = folder_sync(destination->path, error);
    free(work);
    free(path);
    return status;
}

static int is_journal(const struct dirent *entry) {
    return strcmp(entry->d_name, "journal") == 0 || strncmp(entry->d_name, "part-", 5) == 0;
}

enum status destination_journals_check(const struct destination *destination, struct error *error) {
    char *work = text_format("%s/%s", destination->path, work_folder);
    struct dirent **entries = NULL;
    int count = work ? scandir(work, &entries, is_journal, alphasort) : -1;
    enum status status = count < 0 ? error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", work) : STATUS_OK;
    char ending[32];
    snprintf(ending, sizeof ending, "-of-%05u", destination->parts);
    for (int i = 0; i < count; i++) {
        bool ours = destination->parts ? text_ends_with(entries[i]->d_name, ending)
                                       : strcmp(entries[i]->d_name, "journal") == 0;
        if (!ours && status == STATUS_OK)
            status = error_set(error, STATUS_USAGE,
                               "'%s' holds the work of a run that was cut otherwise ('%s'); go on with that one, or "
                               "remove the folder to start anew",
                               destination->path, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    free(work);
    return status;
}

enum status destination_parts_collect(const struct destination *destination, const struct plan *plan,
                                      const struct fingerprint *fingerprint, struct run_state *state,
                                      struct error *error) {
    char *work = text_format("%s/%s", destination->path, work_folder);
    struct dirent **entries = NULL;
    int count = work ? scandir(work, &entries, is_journal, alphasort) : -1;
    enum status status = count < 0 ? error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", work) : STATUS_OK;
    const char *cut = NULL;
    for (int i = 0; i < count && status == STATUS_OK; i++) {
        const char *this_cut = strstr(entries[i]->d_name, "-of-");
        if (cut && this_cut && strcmp(cut, this_cut) != 0)
            status = error_set(error, STATUS_USAGE, "'%s' holds parts of different cuts: '%s' and others", work,
                               entries[i]->d_name);
        cut = this_cut;
        char *path = text_format("%s/%s", work, entries[i]->d_name);
        if (!path)
            status = error_set_memory(error);
        if (status == STATUS_OK)
            status = journal_read(path, fingerprint, run_state_visit, state, error);
        free(path);
    }
    size_t missing = 0, first_missing = 0;
    for (size_t s = plan->shard_count; s-- > 0;)
        if (!state->shards[s]) {
            missing++;
            first_missing = s;
        }
    if (status == STATUS_OK && missing > 0)
        status = error_set(error, STATUS_USAGE,
                           "%zu of %zu shards are not complete, '%s' first: run their parts (again) before --finish",
                           missing, plan->shard_count, plan->shards[first_missing].file);
    for (size_t s = 0; s < plan->shard_count && status == STATUS_OK; s++) {
        uint64_t size;
        status = shard_file_size(plan, s, destination->path, &size, error);
        if (status == STATUS_OK && size != plan->shards[s].size)
            status = error_set(error, STATUS_BAD_INPUT,
                               "'%s/%s.partial' is missing or has another size than its journal says; run its part "
                               "again from an empty folder",
                               destination->path, plan->shards[s].file);
    }
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    free(work);
    return status;
}
