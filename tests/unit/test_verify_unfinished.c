/*
 * verify: which shards of an unfinished folder are complete, told from journals that the quantizer's own writer made,
 * and from journals that a crash or a stranger did something to.
 */
#include <fcntl.h>

#include "qstream/journal.h"
#include "tests/unit/fixtures.h"
#include "verify/unfinished.h"

enum { HEADER = 112, RECORD = 48 };

static const struct fingerprint fingerprint = {.source = "source", .recipe = "recipe", .options = "options"};

static void no_visit(void *context, const struct journal_record *record) {
    (void)context;
    (void)record;
}

/* Writes records to .qstream/NAME. */
static void journal_write(struct fixture *fixture, const char *name, const struct fingerprint *of,
                          const struct journal_record *records, size_t count) {
    char path[256], file[128];
    struct journal *journal;
    mkdir(fixture_path(fixture, ".qstream", path), 0777);
    snprintf(file, sizeof file, ".qstream/%s", name);
    assert_ok(journal_open(fixture_path(fixture, file, path), of, no_visit, NULL, &journal, &fixture->error),
              fixture->error);
    assert_ok(journal_append(journal, records, count, &fixture->error), fixture->error);
    journal_close(journal);
}

/* A journal that calls the `count` shards complete, with tiles, amax and source records between. */
static void shards_journal(struct fixture *fixture, const char *name, const uint32_t *shards, size_t count) {
    struct journal_record records[64];
    size_t made = 0;
    for (size_t i = 0; i < count; i++) {
        records[made++] = (struct journal_record){.type = JOURNAL_TILES, .first = 5, .last = 9};
        records[made++] = (struct journal_record){.type = JOURNAL_AMAX, .first = 1, .last = 2};
        records[made++] = (struct journal_record){.type = JOURNAL_SHARD, .first = shards[i], .payload = "digest"};
        records[made++] = (struct journal_record){.type = JOURNAL_SOURCE, .first = 3};
    }
    journal_write(fixture, name, &fingerprint, records, made);
}

/* A source of which only the names of the shards are looked at. */
static struct checkpoint source_of(struct shard *shards, size_t count, char *const *names) {
    for (size_t i = 0; i < count; i++)
        shards[i] = (struct shard){.file = names[i]};
    return (struct checkpoint){.shards = shards, .shard_count = count};
}

/* The complete files, one after the other with a space behind each, are `wanted`. */
static void assert_complete(struct fixture *fixture, const struct checkpoint *source, const char *wanted,
                            size_t incomplete) {
    struct unfinished unfinished;
    assert_ok(unfinished_read(fixture->path, source, &unfinished, &fixture->error), fixture->error);
    struct text found = {0};
    text_append_string(&found, "");
    for (size_t i = 0; i < unfinished.count; i++)
        text_printf(&found, "%s ", unfinished.files[i]);
    size_t left = unfinished.incomplete;
    unfinished_free(&unfinished);
    bool same = strcmp(found.bytes, wanted) == 0;
    char shown[512];
    snprintf(shown, sizeof shown, "%s", found.bytes);
    text_free(&found);
    if (!same)
        fail_msg("complete are '%s', not '%s'", shown, wanted);
    assert_int_equal(left, incomplete);
}

static char *three_names[] = {"model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                              "model-00003-of-00003.safetensors"};
static char *odd_names[] = {"a.safetensors", "b.safetensors", "c.safetensors"};
static char *one_name[] = {"model.safetensors"};

static bool detect(struct fixture *fixture) {
    bool is_unfinished = false;
    assert_ok(unfinished_detect(fixture->path, &is_unfinished, &fixture->error), fixture->error);
    return is_unfinished;
}

static void given_a_journal_and_no_config_then_the_folder_is_unfinished_and_else_it_is_not(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    bool is_unfinished = true;
    assert_ok(unfinished_detect("/no/such/folder", &is_unfinished, &fixture->error), fixture->error);
    assert_false(is_unfinished);
    assert_false(detect(fixture));
    assert_int_equal(mkdir(fixture_path(fixture, ".qstream", path), 0777), 0);
    assert_false(detect(fixture));
    fixture_file(fixture, ".qstream/lock", "");
    assert_false(detect(fixture));
    fixture_file(fixture, ".qstream/part-00001-of-00002", "");
    assert_true(detect(fixture));
    assert_int_equal(unlink(fixture_path(fixture, ".qstream/part-00001-of-00002", path)), 0);
    fixture_file(fixture, ".qstream/journal", "");
    assert_true(detect(fixture));
    fixture_file(fixture, "config.json", "{}");
    assert_false(detect(fixture));
}

static void given_a_file_in_place_of_the_work_folder_then_it_is_not_unfinished(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, ".qstream", "journal");
    assert_false(detect(fixture));
}

static void given_shards_that_bear_the_sources_names_then_their_position_is_their_number(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[3];
    struct checkpoint source = source_of(shards, 3, odd_names);
    const uint32_t complete[] = {2, 0};
    shards_journal(fixture, "journal", complete, 2);
    fixture_file(fixture, "a.safetensors.partial", "x");
    fixture_file(fixture, "b.safetensors.partial", "x");
    fixture_file(fixture, "c.safetensors.partial", "x");
    assert_complete(fixture, &source, "a.safetensors.partial c.safetensors.partial ", 1);
    struct checkpoint numbered = source_of(shards, 3, three_names);
    fixture_clear(fixture);
    shards_journal(fixture, "journal", complete, 2);
    fixture_file(fixture, "model-00003-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00002-of-00003.safetensors.partial", "x");
    assert_complete(fixture, &numbered, "model-00003-of-00003.safetensors.partial ", 1);
}

static void given_shards_that_were_cut_anew_then_the_number_in_their_name_counts(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[3];
    static char *const *const names[] = {three_names, odd_names};
    for (int k = 0; k < 2; k++) {
        struct checkpoint source = source_of(shards, 3, names[k]);
        const uint32_t complete[] = {1, 11};
        fixture_clear(fixture);
        shards_journal(fixture, "journal", complete, 2);
        fixture_file(fixture, "model-00001-of-00012.safetensors.partial", "x");
        fixture_file(fixture, "model-00002-of-00012.safetensors.partial", "x");
        fixture_file(fixture, "model-00012-of-00012.safetensors.partial", "x");
        assert_complete(fixture, &source,
                        "model-00002-of-00012.safetensors.partial model-00012-of-00012.safetensors.partial ", 1);
    }
    /* as many as the source has, whose names are others */
    struct checkpoint source = source_of(shards, 3, odd_names);
    const uint32_t complete[] = {1};
    fixture_clear(fixture);
    shards_journal(fixture, "journal", complete, 1);
    fixture_file(fixture, "model-00002-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00003-of-00003.safetensors.partial", "x");
    assert_complete(fixture, &source, "model-00002-of-00003.safetensors.partial ", 1);
    /* into one */
    const uint32_t first[] = {0};
    fixture_clear(fixture);
    shards_journal(fixture, "journal", first, 1);
    fixture_file(fixture, "model.safetensors.partial", "x");
    assert_complete(fixture, &source, "model.safetensors.partial ", 0);
}

static void given_names_that_could_be_two_numbers_then_both_must_be_complete(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[2];
    char *names[] = {"model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"};
    struct checkpoint source = source_of(shards, 2, names);
    const uint32_t second[] = {1}, both[] = {0, 1};
    shards_journal(fixture, "part-00000-of-00002", second, 1);
    fixture_file(fixture, "model-00001-of-00002.safetensors.partial", "x");
    assert_complete(fixture, &source, "", 1);
    shards_journal(fixture, "part-00001-of-00002", both, 2);
    assert_complete(fixture, &source, "model-00001-of-00002.safetensors.partial ", 0);
}

static void given_journals_of_several_parts_then_they_add_up(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[3];
    struct checkpoint source = source_of(shards, 3, three_names);
    const uint32_t first[] = {0}, third[] = {2};
    shards_journal(fixture, "part-00000-of-00003", first, 1);
    shards_journal(fixture, "part-00002-of-00003", third, 1);
    fixture_file(fixture, "model-00001-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00002-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00003-of-00003.safetensors.partial", "x");
    assert_complete(fixture, &source,
                    "model-00001-of-00003.safetensors.partial model-00003-of-00003.safetensors.partial ", 1);
}

static void given_a_run_that_was_stopped_while_it_renamed_its_shards_then_both_kinds_of_names_count(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[3];
    struct checkpoint source = source_of(shards, 3, three_names);
    const uint32_t all[] = {0, 1, 2};
    shards_journal(fixture, "journal", all, 3);
    fixture_file(fixture, "model-00001-of-00003.safetensors", "x");
    fixture_file(fixture, "model-00002-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00003-of-00003.safetensors", "x");
    fixture_file(fixture, "model-00003-of-00003.safetensors.partial", "x"); /* begun again */
    fixture_file(fixture, "model.safetensors.index.json.partial", "{}");
    assert_complete(fixture, &source,
                    "model-00001-of-00003.safetensors model-00002-of-00003.safetensors.partial "
                    "model-00003-of-00003.safetensors.partial ",
                    1);
}

static void given_shards_that_no_journal_speaks_of_then_they_are_incomplete(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[1];
    struct checkpoint source = source_of(shards, 1, one_name);
    const uint32_t other[] = {7};
    shards_journal(fixture, "journal", other, 1);
    fixture_file(fixture, "model.safetensors.partial", "x");
    fixture_file(fixture, "model-00001.safetensors", "x");
    fixture_file(fixture, "model-0000x-of-00002.safetensors.partial", "x");
    fixture_file(fixture, "tokenizer.json", "x");
    assert_complete(fixture, &source, "", 3);
}

static void given_names_of_different_totals_then_none_is_taken_for_complete(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[1];
    struct checkpoint source = source_of(shards, 1, one_name);
    const uint32_t first[] = {0};
    shards_journal(fixture, "journal", first, 1);
    fixture_file(fixture, "model-00001-of-00002.safetensors.partial", "x");
    fixture_file(fixture, "model-00001-of-00005.safetensors.partial", "x");
    assert_complete(fixture, &source, "", 2);
}

/* ---- damage ---- */

static void given_a_torn_tail_then_what_stands_before_it_counts(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[3];
    struct checkpoint source = source_of(shards, 3, three_names);
    const uint32_t all[] = {0, 1, 2};
    char path[256];
    fixture_file(fixture, "model-00001-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00002-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00003-of-00003.safetensors.partial", "x");
    shards_journal(fixture, "journal", all, 3);
    for (off_t size = HEADER + 12 * RECORD; size >= 0; size--) { /* cut shorter and shorter */
        assert_int_equal(truncate(fixture_path(fixture, ".qstream/journal", path), size), 0);
        struct unfinished unfinished;
        assert_ok(unfinished_read(fixture->path, &source, &unfinished, &fixture->error), fixture->error);
        size_t records = size < HEADER ? 0 : (size_t)(size - HEADER) / RECORD;
        size_t wanted = (records + 1) / 4; /* the third of four is the shard's */
        assert_int_equal(unfinished.count, wanted);
        assert_int_equal(unfinished.incomplete, 3 - wanted);
        unfinished_free(&unfinished);
    }
}

static void given_a_changed_byte_then_no_shard_is_complete_that_was_not(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[3];
    struct checkpoint source = source_of(shards, 3, three_names);
    const uint32_t two[] = {0, 1};
    char path[256];
    fixture_file(fixture, "model-00001-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00002-of-00003.safetensors.partial", "x");
    fixture_file(fixture, "model-00003-of-00003.safetensors.partial", "x");
    shards_journal(fixture, "journal", two, 2);
    int fd = open(fixture_path(fixture, ".qstream/journal", path), O_RDWR);
    assert_true(fd >= 0);
    for (off_t at = 0; at < HEADER + 8 * RECORD; at++) {
        uint8_t byte, changed;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        changed = byte ^ (uint8_t)(1 << at % 8);
        assert_int_equal(pwrite(fd, &changed, 1, at), 1);
        struct unfinished unfinished;
        enum status status = unfinished_read(fixture->path, &source, &unfinished, &fixture->error);
        if (at < HEADER) {
            assert_int_equal(status, STATUS_BAD_INPUT);
            assert_contains(fixture->error.message, ".qstream/journal");
        } else {
            size_t before = (size_t)(at - HEADER) / RECORD; /* whole records before the changed one */
            assert_int_equal(status, STATUS_OK);
            assert_int_equal(unfinished.count, (before + 1) / 4);
        }
        unfinished_free(&unfinished);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
}

static void given_records_of_another_run_behind_ours_then_they_do_not_count(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[1];
    struct checkpoint source = source_of(shards, 1, one_name);
    const struct fingerprint foreign = {.source = "another"};
    const struct journal_record record = {.type = JOURNAL_SHARD};
    char path[256], bytes[RECORD];
    journal_write(fixture, "journal", &foreign, &record, 1);
    int fd = open(fixture_path(fixture, ".qstream/journal", path), O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, RECORD, HEADER), RECORD);
    close(fd);
    assert_int_equal(unlink(path), 0);
    journal_write(fixture, "journal", &fingerprint, &record, 0);
    fd = open(path, O_WRONLY | O_APPEND);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, RECORD), RECORD);
    close(fd);
    fixture_file(fixture, "model.safetensors.partial", "x");
    assert_complete(fixture, &source, "", 1);
}

static void given_journals_of_different_runs_then_that_is_an_error(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[1];
    struct checkpoint source = source_of(shards, 1, one_name);
    const struct fingerprint foreign = {.source = "another"};
    const struct journal_record record = {.type = JOURNAL_SHARD};
    struct unfinished unfinished;
    journal_write(fixture, "part-00000-of-00002", &fingerprint, &record, 1);
    journal_write(fixture, "part-00001-of-00002", &foreign, &record, 1);
    enum status status = unfinished_read(fixture->path, &source, &unfinished, &fixture->error);
    unfinished_free(&unfinished);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "part-00001-of-00002");
}

static void given_a_journal_that_is_none_then_it_is_named(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[1];
    struct checkpoint source = source_of(shards, 1, one_name);
    struct unfinished unfinished;
    char path[256], garbage[500];
    memset(garbage, 'g', sizeof garbage);
    assert_int_equal(mkdir(fixture_path(fixture, ".qstream", path), 0777), 0);
    fixture_bytes(fixture, ".qstream/journal", garbage, sizeof garbage);
    enum status status = unfinished_read(fixture->path, &source, &unfinished, &fixture->error);
    unfinished_free(&unfinished);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, ".qstream/journal' is damaged or no journal");
    fixture_clear(fixture); /* shorter than a header: torn before it promised anything */
    assert_int_equal(mkdir(fixture_path(fixture, ".qstream", path), 0777), 0);
    fixture_bytes(fixture, ".qstream/journal", garbage, 100);
    fixture_file(fixture, "model.safetensors.partial", "x");
    assert_complete(fixture, &source, "", 1);
    fixture_clear(fixture);
    assert_int_equal(mkdir(fixture_path(fixture, ".qstream", path), 0777), 0);
    assert_int_equal(mkdir(fixture_path(fixture, ".qstream/journal", path), 0777), 0);
    status = unfinished_read(fixture->path, &source, &unfinished, &fixture->error);
    unfinished_free(&unfinished);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "not a regular file");
}

static void given_more_records_than_are_read_at_once_then_all_are_read(void **state) {
    struct fixture *fixture = *state;
    struct shard shards[1];
    struct checkpoint source = source_of(shards, 1, one_name);
    enum { COUNT = 2500 };
    struct journal_record *records = calloc(COUNT, sizeof *records);
    assert_non_null(records);
    for (uint32_t i = 0; i < COUNT; i++)
        records[i] = (struct journal_record){.type = i % 2 ? JOURNAL_SHARD : JOURNAL_TILES, .first = i};
    journal_write(fixture, "journal", &fingerprint, records, COUNT);
    free(records);
    fixture_file(fixture, "model-00002-of-09999.safetensors.partial", "x");
    fixture_file(fixture, "model-00003-of-09999.safetensors.partial", "x");
    fixture_file(fixture, "model-02500-of-09999.safetensors.partial", "x");
    assert_complete(fixture, &source,
                    "model-00002-of-09999.safetensors.partial model-02500-of-09999.safetensors.partial ", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_journal_and_no_config_then_the_folder_is_unfinished_and_else_it_is_not),
        TEST(given_a_file_in_place_of_the_work_folder_then_it_is_not_unfinished),
        TEST(given_shards_that_bear_the_sources_names_then_their_position_is_their_number),
        TEST(given_shards_that_were_cut_anew_then_the_number_in_their_name_counts),
        TEST(given_names_that_could_be_two_numbers_then_both_must_be_complete),
        TEST(given_journals_of_several_parts_then_they_add_up),
        TEST(given_a_run_that_was_stopped_while_it_renamed_its_shards_then_both_kinds_of_names_count),
        TEST(given_shards_that_no_journal_speaks_of_then_they_are_incomplete),
        TEST(given_names_of_different_totals_then_none_is_taken_for_complete),
        TEST(given_a_torn_tail_then_what_stands_before_it_counts),
        TEST(given_a_changed_byte_then_no_shard_is_complete_that_was_not),
        TEST(given_records_of_another_run_behind_ours_then_they_do_not_count),
        TEST(given_journals_of_different_runs_then_that_is_an_error),
        TEST(given_a_journal_that_is_none_then_it_is_named),
        TEST(given_more_records_than_are_read_at_once_then_all_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
