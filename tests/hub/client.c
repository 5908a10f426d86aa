/*
 * The Hub client's network half for check_network.py, a command each:
 *
 *     hub_client environment                                      what is read from the environment, as JSON
 *     hub_client list REFERENCE                                   {"commit", "files": [{"path", "size", "etag", "lfs"}]}
 *     hub_client read REFERENCE FILE                              a file whole, checked by its hash, to stdout
 *     hub_client copy REFERENCE FILE PIECE                        by ranges, in order, to stdout
 *     hub_client ranges REFERENCE FILE LOCAL SEED READS THREADS   READS ranges at random places in each of THREADS threads,
 *                                                                 compared with a local file
 *     hub_client leave REFERENCE FILE - -                         ends while the file is being read ahead
 *     hub_client put URL LOCAL OFFSET SIZE                        sends a range of a local file
 *
 * Exit codes are qstream's.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/hub/range_source.h"
#include "common/interrupt.h"
#include "common/thread_team.h"

static enum status environment_print(struct error *error) {
    struct hub_environment environment;
    const enum status status = hub_environment_read(&environment, error);
    if (status == STATUS_OK) {
        json_t *object =
            json_pack("{s:s, s:s?, s:s, s:b, s:i, s:i}", "endpoint", environment.endpoint, "token", environment.token,
                      "cache", environment.cache, "offline", environment.offline, "connect_seconds",
                      (int)environment.connect_seconds, "stall_seconds", (int)environment.stall_seconds);
        json_dumpf(object, stdout, 0);
        json_decref(object);
    }
    hub_environment_free(&environment);
    return status;
}

static void listing_print(const struct hub_listing *listing) {
    json_t *files = json_array();
    char etag[HUB_ETAG_HEX];
    for (size_t i = 0; i < listing->count; i++) {
        const struct hub_file *file = &listing->files[i];
        json_array_append_new(files,
                              json_pack("{s:s, s:I, s:s, s:b}", "path", file->path, "size", (json_int_t)file->size,
                                        "etag", hub_file_etag(file, etag), "lfs", file->lfs));
    }
    json_t *object = json_pack("{s:s, s:o}", "commit", listing->commit, "files", files);
    json_dumpf(object, stdout, 0);
    json_decref(object);
}

static enum status file_print(struct hub *hub, const struct hub_listing *listing, const struct hub_file *file,
                              struct error *error) {
    char *bytes;
    size_t length;
    const enum status status = hub_file_read(hub, listing, file, (size_t)1 << 30, &bytes, &length, error);
    if (status == STATUS_OK)
        fwrite(bytes, 1, length, stdout);
    free(bytes);
    return status;
}

static enum status file_copy(struct byte_source *source, size_t piece, struct error *error) {
    char *buffer = malloc(piece);
    const uint64_t size = source->identity.size;
    enum status status = buffer ? STATUS_OK : error_set_memory(error);
    for (uint64_t at = 0; at < size && status == STATUS_OK; at += piece) {
        const size_t wanted = size - at < piece ? (size_t)(size - at) : piece;
        status = byte_source_read_at(source, at, buffer, wanted, error);
        if (status == STATUS_OK)
            fwrite(buffer, 1, wanted, stdout);
    }
    free(buffer);
    return status;
}

struct readers {
    struct byte_source *source, *local;
    unsigned seed;
    long reads;
    struct reader {
        enum status status;
        struct error error;
    } reader[64];
};

static enum status places_read(struct readers *readers, unsigned seed, struct error *error) {
    enum { MOST = 5 << 20 };
    const uint64_t size = readers->source->identity.size;
    char *ours = malloc(MOST), *theirs = malloc(MOST);
    enum status status = ours && theirs ? STATUS_OK : error_set_memory(error);
    for (long i = 0; i < readers->reads && status == STATUS_OK; i++) {
        const uint64_t offset = (uint64_t)((double)rand_r(&seed) / RAND_MAX * (double)size);
        size_t wanted = (size_t)rand_r(&seed) % (rand_r(&seed) % 2 ? 5000 : MOST);
        if (wanted > size - offset)
            wanted = (size_t)(size - offset);
        if (rand_r(&seed) % 4 == 0)
            byte_source_prefetch(readers->source, offset + wanted, MOST);
        status = byte_source_read_at(readers->source, offset, theirs, wanted, error);
        if (status == STATUS_OK)
            status = byte_source_read_at(readers->local, offset, ours, wanted, error);
        if (status == STATUS_OK && memcmp(ours, theirs, wanted) != 0)
            status = error_set(error, STATUS_CHECK_FAILED, "the bytes at %ju differ", (uintmax_t)offset);
    }
    free(ours);
    free(theirs);
    return status;
}

static void reader_run(void *context, unsigned number) {
    struct readers *readers = context;
    struct reader *reader = &readers->reader[number];
    reader->status = places_read(readers, readers->seed + number, &reader->error);
}

static enum status ranges_check(struct byte_source *source, char **arguments, struct error *error) {
    struct readers readers = {.source = source, .seed = (unsigned)atoi(arguments[1]), .reads = atol(arguments[2])};
    const unsigned threads = (unsigned)atoi(arguments[3]) % 64;
    struct thread_team team;
    enum status status = byte_source_open_file(arguments[0], &readers.local, error);
    if (status != STATUS_OK)
        return status;
    status = thread_team_start(&team, threads, reader_run, &readers, error);
    if (status == STATUS_OK)
        thread_team_join(&team);
    for (unsigned i = 0; i < threads && status == STATUS_OK; i++) {
        status = readers.reader[i].status;
        *error = readers.reader[i].error;
    }
    byte_source_close(readers.local);
    return status;
}

/* As a program does that has met an error elsewhere. */
static _Noreturn void leave(struct byte_source *source) {
    byte_source_prefetch(source, 0, source->identity.size);
    usleep(20000);
    exit(0);
}

/* All but put. */
static enum status repository_run(struct hub *hub, int count, char **arguments, struct error *error) {
    struct hub_reference reference = {0};
    struct hub_listing listing = {0};
    struct byte_source *source = NULL;
    enum status status = hub_reference_parse(arguments[2], &reference, error);
    if (status == STATUS_OK)
        status = hub_listing_read(hub, &reference, &listing, error);
    const struct hub_file *file = status == STATUS_OK && count > 3 ? hub_listing_find(&listing, arguments[3]) : NULL;
    if (status == STATUS_OK && count > 3 && !file)
        status = error_set(error, STATUS_BAD_INPUT, "no file '%s'", arguments[3]);
    if (status == STATUS_OK && count > 4)
        status = range_source_open(hub, &listing, file, &source, error);
    if (status == STATUS_OK && count == 3)
        listing_print(&listing);
    else if (status == STATUS_OK && count == 4)
        status = file_print(hub, &listing, file, error);
    else if (status == STATUS_OK && count == 5)
        status = file_copy(source, strtoul(arguments[4], NULL, 10), error);
    else if (status == STATUS_OK && strcmp(arguments[1], "leave") == 0)
        leave(source);
    else if (status == STATUS_OK)
        status = ranges_check(source, arguments + 4, error);
    byte_source_close(source);
    hub_listing_free(&listing);
    hub_reference_free(&reference);
    return status;
}

static enum status put(struct hub *hub, char **arguments, struct error *error) {
    struct hub_reference reference = {.repository = (char[]){"org/name"}, .revision = (char[]){"main"}};
    struct http_reply reply;
    const int fd = open(arguments[1], O_RDONLY | O_CLOEXEC);
    const struct hub_request request = {.subject.reference = &reference,
                                        .method = "PUT",
                                        .url = arguments[0],
                                        .body_file = fd,
                                        .body_offset = strtoull(arguments[2], NULL, 10),
                                        .body_size = strtoull(arguments[3], NULL, 10)};
    const enum status status = hub_perform(hub, &request, &reply, error);
    http_reply_free(&reply);
    close(fd);
    return status;
}

int main(int count, char **arguments) {
    struct error error = {{0}};
    struct hub *hub;
    const char *command = count > 1 ? arguments[1] : "";
    enum status status = STATUS_USAGE;
    interrupt_install();
    if (strcmp(command, "environment") == 0)
        status = environment_print(&error);
    else if (count > 2 && (status = hub_shared(&hub, &error)) == STATUS_OK)
        status = strcmp(command, "put") == 0 ? put(hub, arguments + 2, &error)
                                             : repository_run(hub, count, arguments, &error);
    if (status != STATUS_OK)
        fprintf(stderr, "%s\n", error.message);
    return (int)status;
}
