/*
 * The journal: what was promised is read back, what a crash tore or another run wrote is not.
 */
#include "tests/unit/fixtures.h"

#include "qstream/journal.h"

enum { HEADER_BYTES = 8 + 4 + 3 * SHA256_SIZE + 4, RECORD_BYTES = 48, RECORDS = 6 };

struct seen {
    struct journal_record records[4096];
    size_t count;
};

static void remember(void *context, const struct journal_record *record) {
    struct seen *seen = context;
    assert_true(seen->count < sizeof seen->records / sizeof *seen->records);
    seen->records[seen->count++] = *record;
}

static struct fingerprint fingerprint_of(uint8_t source, uint8_t recipe, uint8_t options) {
    struct fingerprint fingerprint;
    memset(fingerprint.source, source, SHA256_SIZE);
    memset(fingerprint.recipe, recipe, SHA256_SIZE);
    memset(fingerprint.options, options, SHA256_SIZE);
    return fingerprint;
}

static struct journal_record record_number(uint32_t number) {
    struct journal_record record = {
        .type = JOURNAL_TILES + number % 4, .first = number * 7, .last = UINT32_MAX - number};
    memset(record.payload, (int)number, SHA256_SIZE);
    return record;
}

static void assert_records(const struct seen *seen, size_t count) {
    assert_int_equal(seen->count, count);
    for (size_t i = 0; i < count; i++) {
        struct journal_record wanted = record_number((uint32_t)i);
        assert_int_equal(seen->records[i].type, wanted.type);
        assert_int_equal(seen->records[i].first, wanted.first);
        assert_int_equal(seen->records[i].last, wanted.last);
        assert_memory_equal(seen->records[i].payload, wanted.payload, SHA256_SIZE);
    }
}

/* Opens, appends records [seen, seen + more), closes; `seen` has what was there before. */
static void extend(struct fixture *fixture, const char *path, size_t more, struct seen *seen) {
    struct fingerprint fingerprint = fingerprint_of(1, 2, 3);
    struct journal *journal;
    struct journal_record records[RECORDS];
    seen->count = 0;
    assert_ok(journal_open(path, &fingerprint, remember, seen, &journal, &fixture->error), fixture->error);
    for (size_t i = 0; i < more; i++)
        records[i] = record_number((uint32_t)(seen->count + i));
    enum status status = journal_append(journal, records, more, &fixture->error);
    journal_close(journal);
    assert_ok(status, fixture->error);
}

static void given_records_when_opened_again_then_they_come_back_in_order_and_more_can_follow(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    struct seen seen = {.count = 0};
    fixture_path(fixture, "journal", path);
    extend(fixture, path, 0, &seen);
    assert_int_equal(seen.count, 0);
    extend(fixture, path, 1, &seen);
    assert_int_equal(seen.count, 0);
    extend(fixture, path, 5, &seen);
    assert_records(&seen, 1);
    extend(fixture, path, 0, &seen);
    assert_records(&seen, 6);
    struct stat stat_file;
    assert_int_equal(stat(path, &stat_file), 0);
    assert_int_equal(stat_file.st_size, HEADER_BYTES + 6 * RECORD_BYTES);
    struct fingerprint fingerprint = fingerprint_of(1, 2, 3);
    seen.count = 0;
    assert_ok(journal_read(path, &fingerprint, remember, &seen, &fixture->error), fixture->error);
    assert_records(&seen, 6);
}

static void given_more_records_than_are_read_at_once_then_all_come_back(void **state) {
    struct fixture *fixture = *state;
    static const size_t counts[] = {1023, 1024, 1025, 2048, 2500};
    struct seen *seen = calloc(1, sizeof *seen);
    struct journal_record *records = calloc(2500, sizeof *records);
    assert_non_null(seen);
    assert_non_null(records);
    for (uint32_t i = 0; i < 2500; i++)
        records[i] = record_number(i);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        char path[256], name[32];
        snprintf(name, sizeof name, "journal%zu", c);
        fixture_path(fixture, name, path);
        struct fingerprint fingerprint = fingerprint_of(1, 2, 3);
        struct journal *journal;
        assert_ok(journal_open(path, &fingerprint, remember, seen, &journal, &fixture->error), fixture->error);
        assert_ok(journal_append(journal, records, counts[c], &fixture->error), fixture->error);
        journal_close(journal);
        seen->count = 0;
        assert_ok(journal_read(path, &fingerprint, remember, seen, &fixture->error), fixture->error);
        assert_records(seen, counts[c]);
    }
    free(seen);
    free(records);
}

static void given_a_tail_torn_at_any_length_then_whole_records_stay_and_new_ones_follow(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    fixture_path(fixture, "journal", path);
    for (off_t length = 0; length <= HEADER_BYTES + 2 * RECORD_BYTES; length++) {
        struct seen seen = {.count = 0};
        unlink(path);
        extend(fixture, path, 2, &seen);
        assert_int_equal(truncate(path, length), 0);
        size_t whole = length < HEADER_BYTES ? 0 : (size_t)(length - HEADER_BYTES) / RECORD_BYTES;
        extend(fixture, path, 1, &seen);
        assert_records(&seen, whole);
        extend(fixture, path, 0, &seen);
        assert_records(&seen, whole + 1);
    }
}

static void given_a_flipped_bit_in_a_record_then_reading_stops_before_it(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    fixture_path(fixture, "journal", path);
    for (long at = 0; at < 3 * RECORD_BYTES; at++) {
        struct seen seen = {.count = 0};
        unlink(path);
        extend(fixture, path, 3, &seen);
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        fseek(file, HEADER_BYTES + at, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, HEADER_BYTES + at, SEEK_SET);
        fputc(byte ^ 1 << at % 8, file);
        fclose(file);
        extend(fixture, path, 1, &seen); /* overwrites what cannot be trusted */
        assert_records(&seen, (size_t)(at / RECORD_BYTES));
        extend(fixture, path, 0, &seen);
        assert_records(&seen, (size_t)(at / RECORD_BYTES) + 1);
    }
}

static void given_a_damaged_header_then_it_is_refused_and_left_alone(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    struct fingerprint fingerprint = fingerprint_of(1, 2, 3);
    struct seen seen = {.count = 0};
    struct stat before, after;
    fixture_path(fixture, "journal", path);
    for (long at = 0; at < HEADER_BYTES; at++) {
        unlink(path);
        extend(fixture, path, 3, &seen);
        FILE *file = fopen(path, "r+b");
        assert_non_null(file);
        fseek(file, at, SEEK_SET);
        int byte = fgetc(file);
        fseek(file, at, SEEK_SET);
        fputc(byte ^ 0x10, file);
        fclose(file);
        stat(path, &before);
        struct journal *journal;
        assert_refused(journal_open(path, &fingerprint, remember, &seen, &journal, &fixture->error), STATUS_BAD_INPUT,
                       fixture->error, "is damaged or no journal");
        assert_null(journal);
        assert_refused(journal_read(path, &fingerprint, remember, &seen, &fixture->error), STATUS_BAD_INPUT,
                       fixture->error, "is damaged or no journal");
        stat(path, &after);
        assert_int_equal(before.st_size, after.st_size);
    }
}

static void given_another_fingerprint_then_the_refusal_says_what_differs(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        uint8_t source, recipe, options;
        enum status status;
        const char *part;
    } cases[] = {
        {9, 2, 3, STATUS_BAD_INPUT, "the source has changed"},
        {1, 9, 3, STATUS_USAGE, "another recipe"},
        {1, 2, 9, STATUS_USAGE, "other options (--rule"},
        {9, 9, 9, STATUS_BAD_INPUT, "the source has changed"},
        {1, 9, 9, STATUS_USAGE, "another recipe"},
    };
    char path[256];
    struct seen seen = {.count = 0};
    fixture_path(fixture, "journal", path);
    extend(fixture, path, 2, &seen);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fingerprint other = fingerprint_of(cases[i].source, cases[i].recipe, cases[i].options);
        struct journal *journal;
        seen.count = 0;
        assert_refused(journal_open(path, &other, remember, &seen, &journal, &fixture->error), cases[i].status,
                       fixture->error, cases[i].part);
        assert_null(journal);
        assert_refused(journal_read(path, &other, remember, &seen, &fixture->error), cases[i].status, fixture->error,
                       cases[i].part);
        assert_int_equal(seen.count, 0);
    }
    extend(fixture, path, 0, &seen); /* nothing of it was harmed */
    assert_records(&seen, 2);
}

static void given_the_lock_is_held_then_another_open_is_refused_until_it_is_released(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    struct fingerprint fingerprint = fingerprint_of(1, 2, 3);
    struct seen seen = {.count = 0};
    struct journal *first, *second;
    fixture_path(fixture, "journal", path);
    assert_ok(journal_open(path, &fingerprint, remember, &seen, &first, &fixture->error), fixture->error);
    assert_refused(journal_open(path, &fingerprint, remember, &seen, &second, &fixture->error), STATUS_USAGE,
                   fixture->error, "another qstream is at work");
    assert_null(second);
    assert_refused(journal_read(path, &fingerprint, remember, &seen, &fixture->error), STATUS_USAGE, fixture->error,
                   "another qstream is at work");
    struct journal_record record = record_number(0);
    assert_ok(journal_append(first, &record, 1, &fixture->error), fixture->error);
    journal_close(first);
    assert_ok(journal_open(path, &fingerprint, remember, &seen, &second, &fixture->error), fixture->error);
    assert_records(&seen, 1);
    journal_close(second);
    journal_close(NULL);
}

static void given_records_of_another_run_under_this_header_then_they_are_not_accepted(void **state) {
    struct fixture *fixture = *state;
    char path[256], other_path[256];
    struct seen seen = {.count = 0};
    fixture_path(fixture, "journal", path);
    fixture_path(fixture, "other", other_path);
    extend(fixture, path, 1, &seen);
    struct fingerprint other = fingerprint_of(1, 2, 4);
    struct journal *journal;
    struct journal_record records[2] = {record_number(0), record_number(1)};
    assert_ok(journal_open(other_path, &other, remember, &seen, &journal, &fixture->error), fixture->error);
    assert_ok(journal_append(journal, records, 2, &fixture->error), fixture->error);
    journal_close(journal);
    /* as a file system may leave them after a crash: blocks of an older file behind our own */
    uint8_t foreign[RECORD_BYTES];
    FILE *file = fopen(other_path, "rb");
    assert_non_null(file);
    fseek(file, HEADER_BYTES + RECORD_BYTES, SEEK_SET);
    assert_int_equal(fread(foreign, 1, sizeof foreign, file), sizeof foreign);
    fclose(file);
    file = fopen(path, "ab");
    assert_non_null(file);
    assert_int_equal(fwrite(foreign, 1, sizeof foreign, file), sizeof foreign);
    fclose(file);
    extend(fixture, path, 0, &seen);
    assert_records(&seen, 1);

    /* nor zeros, which a hole reads as */
    assert_int_equal(truncate(path, HEADER_BYTES + 5 * RECORD_BYTES), 0);
    extend(fixture, path, 0, &seen);
    assert_records(&seen, 1);
}

static void given_no_journal_then_reading_fails_and_opening_makes_one(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    struct fingerprint fingerprint = fingerprint_of(1, 2, 3);
    struct seen seen = {.count = 0};
    fixture_path(fixture, "journal", path);
    assert_refused(journal_read(path, &fingerprint, remember, &seen, &fixture->error), STATUS_IO, fixture->error,
                   "cannot open the journal");
    fixture_file(fixture, "journal", "");
    assert_refused(journal_read(path, &fingerprint, remember, &seen, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "is empty");
    extend(fixture, path, 1, &seen);
    assert_int_equal(seen.count, 0);
    fixture_path(fixture, "no/folder", path);
    struct journal *journal;
    assert_refused(journal_open(path, &fingerprint, remember, &seen, &journal, &fixture->error), STATUS_IO,
                   fixture->error, "cannot open the journal");
    assert_null(journal);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_records_when_opened_again_then_they_come_back_in_order_and_more_can_follow),
        TEST(given_more_records_than_are_read_at_once_then_all_come_back),
        TEST(given_a_tail_torn_at_any_length_then_whole_records_stay_and_new_ones_follow),
        TEST(given_a_flipped_bit_in_a_record_then_reading_stops_before_it),
        TEST(given_a_damaged_header_then_it_is_refused_and_left_alone),
        TEST(given_another_fingerprint_then_the_refusal_says_what_differs),
        TEST(given_the_lock_is_held_then_another_open_is_refused_until_it_is_released),
        TEST(given_records_of_another_run_under_this_header_then_they_are_not_accepted),
        TEST(given_no_journal_then_reading_fails_and_opening_makes_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
