/*
 * The journal reader. The first byte says how the file is made: 0, the rest of the input as it is; else a header
 * that fits, records from the input with checksums that fit, and the last bytes as a torn record. Whatever is read
 * must be read again after new records were appended, and these behind it.
 */
#include <zlib.h>

#include "qstream/execute.h"
#include "tests/fuzz/fuzz.h"

enum { HEADER = 112, RECORD = 48, SEEN_MAX = 4096 };

static const struct fingerprint fingerprint = {.source = "source", .recipe = "recipe", .options = "options"};

struct seen {
    struct journal_record records[SEEN_MAX];
    size_t count;
    struct run_state *state;
};

static void visit(void *context, const struct journal_record *record) {
    struct seen *seen = context;
    if (seen->count < SEEN_MAX)
        seen->records[seen->count] = *record;
    seen->count++;
    run_state_visit(seen->state, record);
}

static void store32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* The file as the header of journal.h describes it. Returns its length. */
static size_t file_make(const uint8_t *data, size_t size, uint8_t *file) {
    memcpy(file, "qstreamJ", 8);
    store32(file + 8, 1);
    memcpy(file + 12, &fingerprint, sizeof fingerprint);
    store32(file + HEADER - 4, (uint32_t)crc32(0, file, HEADER - 4));
    uint32_t seed = (uint32_t)crc32(0, file, HEADER - 4); /* journal.h: not over its own CRC */
    size_t length = HEADER;
    for (; size >= RECORD - 4; data += RECORD - 4, size -= RECORD - 4, length += RECORD) {
        memcpy(file + length, data, RECORD - 4);
        store32(file + length + RECORD - 4, (uint32_t)crc32(seed, file + length, RECORD - 4));
    }
    memcpy(file + length, data, size);
    return length + size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct seen first, second;
    enum { RECORDS_MAX = 1500 }; /* more than the reader takes at once */
    if (size < 1 || size > RECORDS_MAX * (RECORD - 4))
        return 0;
    uint8_t *file = malloc(HEADER + 2 * size);
    REQUIRE(file);
    size_t length = size - 1;
    if (data[0] == 0)
        memcpy(file, data + 1, length);
    else
        length = file_make(data + 1, size - 1, file);
    folder_write("journal", file, length, 0);
    free(file);

    struct plan plan = {.tile_count = 40, .shard_count = 3, .job_count = 7};
    struct run_state state;
    struct error error;
    plan.options.hash_source = data[0] & 2;
    REQUIRE(run_state_init(&plan, &state, &error) == STATUS_OK);
    first.count = second.count = 0;
    first.state = second.state = &state;

    char path[128];
    snprintf(path, sizeof path, "%s/journal", fuzz_folder());
    struct journal *journal, *other;
    enum status status = journal_open(path, &fingerprint, visit, &first, &journal, &error);
    REQUIRE(status == STATUS_OK || status == STATUS_USAGE || status == STATUS_BAD_INPUT);
    REQUIRE((status == STATUS_OK) == (journal != NULL));
    if (data[0] != 0)
        REQUIRE(status == STATUS_OK && first.count == (size - 1) / (RECORD - 4));
    if (status == STATUS_OK) {
        const struct journal_record added[2] = {{.type = JOURNAL_TILES, .first = 1, .last = 3},
                                                {.type = JOURNAL_SHARD}};
        REQUIRE(journal_append(journal, added, 2, &error) == STATUS_OK);
        REQUIRE(journal_open(path, &fingerprint, visit, &second, &other, &error) == STATUS_USAGE); /* the lock */
        journal_close(journal);
        REQUIRE(journal_read(path, &fingerprint, visit, &second, &error) == STATUS_OK);
        REQUIRE(second.count == first.count + 2);
        for (size_t i = 0; i < second.count && i < SEEN_MAX; i++)
            REQUIRE(memcmp(&second.records[i], i < first.count ? &first.records[i] : &added[i - first.count],
                           sizeof *added) == 0);
        REQUIRE(state.tiles[1] && state.tiles[3] && state.shards[0]);
    }
    run_state_free(&state);
    folder_clear();
    return 0;
}
