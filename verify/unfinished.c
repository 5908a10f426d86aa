#include "verify/unfinished.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "common/array.h"
#include "common/text.h"

/*
 * A journal, little-endian: magic, u32 version, three SHA-256 digests of what the run follows from, CRC-32 of all that;
 * then records {u32 type, u32 first, u32 last, 32 bytes, CRC-32}. A record's CRC goes on from the header's, so that
 * those of another run do not count. A record of type 2 says: shard `first` is complete and on disk. A record that was
 * torn by a crash ends the journal.
 */
enum { MAGIC = 8, VERSION = 1, HEADER = 112, RECORD = 48, RECORD_SHARD = 2, RECORDS_AT_ONCE = 1024 };
static const char magic[MAGIC] = {'q', 's', 't', 'r', 'e', 'a', 'm', 'J'};

enum { SHARDS_MAX = 1 << 20 };
#define NO_NUMBER UINT32_MAX

static const char ending[] = ".safetensors", partial_ending[] = ".safetensors.partial";

/* ---- journals ---- */

/* What the journals of a folder say. */
struct journals {
    uint8_t header[HEADER]; /* of the first that has one */
    bool known;             /* there is one */
    uint32_t *shards;       /* complete ones */
    size_t count, capacity;
};

static uint32_t load32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static bool checksum_fits(uint32_t seed, const uint8_t *bytes, size_t size) {
    return load32(bytes + size - 4) == (uint32_t)crc32(seed, bytes, (unsigned)(size - 4));
}

static enum status shard_add(struct journals *journals, const char *path, uint32_t number, struct error *error) {
    if (journals->count == SHARDS_MAX)
        return error_set(error, STATUS_BAD_INPUT, "the journal '%s' speaks of more than %d shards", path, SHARDS_MAX);
    if (!array_reserve(journals->shards, journals->count + 1, &journals->capacity))
        return error_set_memory(error);
    journals->shards[journals->count++] = number;
    return STATUS_OK;
}

static enum status records_read(struct byte_source *source, struct journals *journals, struct error *error) {
    uint8_t *buffer = malloc((size_t)RECORDS_AT_ONCE * RECORD);
    if (!buffer)
        return error_set_memory(error);
    uint32_t seed = (uint32_t)crc32(0, journals->header, HEADER - 4);
    enum status status = STATUS_OK;
    bool torn = false;
    for (uint64_t at = HEADER; source->identity.size - at >= RECORD && !torn && status == STATUS_OK;) {
        uint64_t left = (source->identity.size - at) / RECORD;
        size_t count = left < RECORDS_AT_ONCE ? (size_t)left : RECORDS_AT_ONCE;
        status = byte_source_read_at(source, at, buffer, count * RECORD, error);
        for (size_t i = 0; i < count && !torn && status == STATUS_OK; i++) {
            const uint8_t *record = buffer + i * RECORD;
            torn = !checksum_fits(seed, record, RECORD);
            if (!torn && load32(record) == RECORD_SHARD)
                status = shard_add(journals, source->name, load32(record + 4), error);
        }
        at += count * RECORD;
    }
    free(buffer);
    return status;
}

static enum status journal_read(const char *path, struct journals *journals, struct error *error) {
    struct byte_source *source;
    enum status status = byte_source_open_file(path, &source, error);
    if (status != STATUS_OK)
        return status;
    uint8_t header[HEADER] = {0};
    uint64_t size = source->identity.size;
    if (size >= HEADER)
        status = byte_source_read_at(source, 0, header, HEADER, error);
    bool whole =
        size >= HEADER && status == STATUS_OK && memcmp(header, magic, MAGIC) == 0 && checksum_fits(0, header, HEADER);
    if (status != STATUS_OK || (!whole && size <= HEADER)) {
        ; /* torn before its first sync: it promises nothing */
    } else if (!whole) {
        status = error_set(error, STATUS_BAD_INPUT, "'%s' is damaged or no journal", path);
    } else if (load32(header + MAGIC) != VERSION) {
        status = error_set(error, STATUS_BAD_INPUT, "the journal '%s' is of version %" PRIu32 ", not %d", path,
                           load32(header + MAGIC), VERSION);
    } else if (journals->known && memcmp(header, journals->header, HEADER) != 0) {
        status = error_set(error, STATUS_BAD_INPUT, "the journal '%s' is of another run than those beside it", path);
    } else {
        memcpy(journals->header, header, HEADER);
        journals->known = true;
        status = records_read(source, journals, error);
    }
    byte_source_close(source);
    return status;
}

static bool is_journal(const char *name) { return strcmp(name, "journal") == 0 || strncmp(name, "part-", 5) == 0; }

static int journals_only(const struct dirent *entry) { return is_journal(entry->d_name); }

static int by_number(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static enum status journals_read(const char *folder, struct journals *journals, struct error *error) {
    char *work = text_format("%s/.qstream", folder);
    struct dirent **entries = NULL;
    int count = work ? scandir(work, &entries, journals_only, alphasort) : -1;
    enum status status = !work       ? error_set_memory(error)
                         : count < 0 ? error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", work)
                                     : STATUS_OK;
    for (int i = 0; i < count; i++) {
        char *path = status == STATUS_OK ? text_format("%s/%s", work, entries[i]->d_name) : NULL;
        if (path)
            status = journal_read(path, journals, error);
        else if (status == STATUS_OK)
            status = error_set_memory(error);
        free(path);
        free(entries[i]);
    }
    free(entries);
    free(work);
    if (journals->count > 0)
        qsort(journals->shards, journals->count, sizeof *journals->shards, by_number);
    return status;
}

static bool is_complete(const struct journals *journals, uint32_t number) {
    return journals->count > 0 && bsearch(&number, journals->shards, journals->count, sizeof number, by_number) != NULL;
}

/* ---- which shard a file is ---- */

/* N - 1 of model-N-of-TOTAL.safetensors, 0 of model.safetensors; NO_NUMBER for other names. */
static uint32_t number_of_name(const char *name, size_t length, uint32_t *total) {
    static const char alone[] = "model.safetensors", before[] = "model-", between[] = "-of-";
    char again[64], *end = NULL;
    *total = 1;
    if (length == sizeof alone - 1 && memcmp(name, alone, length) == 0)
        return 0;
    if (strncmp(name, before, sizeof before - 1) != 0)
        return NO_NUMBER;
    unsigned long number = strtoul(name + sizeof before - 1, &end, 10), of = 0;
    if (strncmp(end, between, sizeof between - 1) == 0)
        of = strtoul(end + sizeof between - 1, NULL, 10);
    if (number == 0 || number > of || of >= NO_NUMBER)
        return NO_NUMBER;
    *total = (uint32_t)of;
    int written = snprintf(again, sizeof again, "model-%05lu-of-%05lu.safetensors", number, of);
    return (size_t)written == length && memcmp(again, name, length) == 0 ? (uint32_t)number - 1 : NO_NUMBER;
}

/* The position of a name among the source's shards, which are sorted; NO_NUMBER when it is none of theirs. */
static uint32_t number_in_source(const struct checkpoint *source, const char *name, size_t length) {
    size_t low = 0, high = source->shard_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const char *file = source->shards[middle].file;
        int order = strncmp(name, file, length);
        if (order == 0 && !file[length])
            return (uint32_t)middle;
        if (order > 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NO_NUMBER;
}

/* How the shards that are in the folder are numbered. */
struct numbering {
    const struct checkpoint *source;
    bool of_source; /* all bear names of the source */
    bool mixed;     /* numbered names of different totals */
    uint32_t total; /* of numbered names; 0: none so far */
};

static size_t final_length(const char *file) {
    size_t length = strlen(file);
    return text_ends_with(file, partial_ending) ? length - (sizeof ".partial" - 1) : length;
}

static void numbering_learn(struct numbering *numbering, const char *file) {
    size_t length = final_length(file);
    uint32_t total;
    if (number_in_source(numbering->source, file, length) == NO_NUMBER)
        numbering->of_source = false;
    if (number_of_name(file, length, &total) == NO_NUMBER)
        return;
    numbering->mixed = numbering->mixed || (numbering->total && numbering->total != total);
    numbering->total = total;
}

/*
 * A name of the source's may have been given to a shard of another number, had the output been cut anew: then both must
 * be complete, since nothing tells which of the two it is.
 */
static bool file_is_complete(const struct numbering *numbering, const struct journals *journals, const char *file) {
    size_t length = final_length(file);
    uint32_t total, by_name = number_of_name(file, length, &total);
    if (!numbering->of_source)
        return by_name != NO_NUMBER && !numbering->mixed && is_complete(journals, by_name);
    return is_complete(journals, number_in_source(numbering->source, file, length)) &&
           (by_name == NO_NUMBER || is_complete(journals, by_name));
}

static int shards_only(const struct dirent *entry) {
    return text_ends_with(entry->d_name, ending) || text_ends_with(entry->d_name, partial_ending);
}

/* A final name beside its own NAME.partial, which follows it in the list: the run goes on with the latter. */
static bool is_superseded(struct dirent **entries, int count, int number) {
    const char *file = entries[number]->d_name;
    size_t length = strlen(file);
    for (int i = number + 1; i < count && strncmp(entries[i]->d_name, file, length) == 0; i++)
        if (strcmp(entries[i]->d_name + length, ".partial") == 0)
            return true;
    return false;
}

static enum status files_sort_out(struct dirent **entries, int count, const struct numbering *numbering,
                                  const struct journals *journals, struct unfinished *unfinished, struct error *error) {
    unfinished->files = calloc((size_t)count + 1, sizeof *unfinished->files);
    if (!unfinished->files)
        return error_set_memory(error);
    for (int i = 0; i < count; i++) {
        const char *file = entries[i]->d_name;
        if (is_superseded(entries, count, i) || !file_is_complete(numbering, journals, file)) {
            unfinished->incomplete++;
            continue;
        }
        if (!(unfinished->files[unfinished->count] = strdup(file)))
            return error_set_memory(error);
        unfinished->count++;
    }
    return STATUS_OK;
}

static int by_name(const struct dirent **a, const struct dirent **b) { return strcmp((*a)->d_name, (*b)->d_name); }

enum status unfinished_read(const char *folder, const struct checkpoint *source, struct unfinished *unfinished,
                            struct error *error) {
    *unfinished = (struct unfinished){0};
    struct journals journals = {0};
    struct numbering numbering = {.source = source, .of_source = true};
    struct dirent **entries = NULL;
    int count = 0;
    enum status status = journals_read(folder, &journals, error);
    if (status == STATUS_OK && (count = scandir(folder, &entries, shards_only, by_name)) < 0)
        status = error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", folder);
    for (int i = 0; i < count; i++)
        numbering_learn(&numbering, entries[i]->d_name);
    if (status == STATUS_OK)
        status = files_sort_out(entries, count, &numbering, &journals, unfinished, error);
    for (int i = 0; i < count; i++)
        free(entries[i]);
    free(entries);
    free(journals.shards);
    return status;
}

void unfinished_free(struct unfinished *unfinished) {
    for (size_t i = 0; i < unfinished->count; i++)
        free(unfinished->files[i]);
    free(unfinished->files);
    *unfinished = (struct unfinished){0};
}

/* ---- */

enum status unfinished_detect(const char *folder, bool *is_unfinished, struct error *error) {
    *is_unfinished = false;
    char *work = text_format("%s/.qstream", folder), *config = text_format("%s/config.json", folder);
    struct stat file;
    enum status status = STATUS_OK;
    DIR *list = NULL;
    if (!work || !config)
        status = error_set_memory(error);
    else if (lstat(config, &file) == 0)
        ; /* published */
    else if (!(list = opendir(work)) && errno != ENOENT && errno != ENOTDIR)
        status = error_set_errno(error, STATUS_IO, errno, "cannot list '%s'", work);
    struct dirent *entry;
    while (list && !*is_unfinished && (entry = readdir(list)))
        *is_unfinished = is_journal(entry->d_name);
    if (list)
        closedir(list);
    free(work);
    free(config);
    return status;
}
