/*
 * Folders of this machine: what they hold is listed and told apart, links are followed or told to lead nowhere, files are
 * named as the user named the folder.
 */
#include "common/folder.h"
#include "tests/unit/fixtures.h"

static struct folder *open_folder(struct fixture *fixture) {
    struct folder *folder;
    assert_ok(folder_open(fixture->path, &folder, &fixture->error), fixture->error);
    return folder;
}

static void link_to(struct fixture *fixture, const char *target, const char *file) {
    char path[256];
    assert_int_equal(symlink(target, fixture_path(fixture, file, path)), 0);
}

/* Each entry as "NAME kind[ link][ SIZE][ broken]"; all of them, a line each. */
static void list_is(struct fixture *fixture, const char *inside, const char *wanted) {
    static const char *const kinds[] = {[FOLDER_FILE] = "file", [FOLDER_FOLDER] = "folder", [FOLDER_OTHER] = "other"};
    struct folder *folder = open_folder(fixture);
    struct folder_entry *entries;
    size_t count;
    enum status status = folder_list(folder, inside, &entries, &count, &fixture->error);
    folder_close(folder);
    assert_ok(status, fixture->error);
    text_free(&fixture->text);
    text_append_string(&fixture->text, "");
    for (size_t i = 0; i < count; i++) {
        text_printf(&fixture->text, "%s %s", entries[i].name, kinds[entries[i].kind]);
        text_append_string(&fixture->text, entries[i].link ? " link" : "");
        if (entries[i].kind == FOLDER_FILE)
            text_printf(&fixture->text, " %" PRIu64, entries[i].size);
        text_append_string(&fixture->text, entries[i].problem ? " broken\n" : "\n");
    }
    folder_entries_free(entries, count);
    assert_string_equal(fixture->text.bytes, wanted);
}

static void given_a_folder_then_its_entries_are_listed_by_their_bytes(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    list_is(fixture, "", "");
    assert_int_equal(mkdir(fixture_path(fixture, "a", path), 0777), 0);
    assert_int_equal(mkdir(fixture_path(fixture, "a/inner", path), 0777), 0);
    fixture_file(fixture, "a/inner/x", "12345");
    fixture_file(fixture, "a.b", "1");
    fixture_file(fixture, "a-b", "");
    fixture_file(fixture, ".hidden", "123");
    fixture_file(fixture, "B", "12");
    assert_int_equal(mkfifo(fixture_path(fixture, "pipe", path), 0666), 0);
    link_to(fixture, "a.b", "to-file");
    link_to(fixture, "a/inner", "to-folder");
    link_to(fixture, "gone", "to-nowhere");
    list_is(fixture, "",
            ".hidden file 3\nB file 2\na folder\na-b file 0\na.b file 1\npipe other\nto-file file link 1\n"
            "to-folder folder link\nto-nowhere other link broken\n");
    list_is(fixture, "a/", "inner folder\n");
    list_is(fixture, "a/inner/", "x file 5\n");
}

static void given_what_is_no_folder_then_listing_it_names_it(void **state) {
    struct fixture *fixture = *state;
    struct folder *folder = open_folder(fixture);
    struct folder_entry *entries;
    size_t count;
    fixture_file(fixture, "file", "");
    enum status status = folder_list(folder, "none/", &entries, &count, &fixture->error);
    assert_refused(status, STATUS_IO, fixture->error, "/none': No such file");
    status = folder_list(folder, "file/", &entries, &count, &fixture->error);
    assert_refused(status, STATUS_IO, fixture->error, "/file': Not a directory");
    assert_null(entries);
    assert_int_equal(count, 0);
    folder_close(folder);
}

static void given_a_name_then_what_there_is_of_it_is_told(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *file;
        bool found, has;
        enum folder_entry_kind kind;
    } cases[] = {
        {"file", true, true, FOLDER_FILE},          {"below", true, true, FOLDER_FOLDER},
        {"below/inner", true, true, FOLDER_FILE},   {"to-file", true, true, FOLDER_FILE},
        {"to-nowhere", true, false, FOLDER_OTHER},  {"none", false, false, FOLDER_OTHER},
        {"file/inner", false, false, FOLDER_OTHER},
    };
    char path[256];
    assert_int_equal(mkdir(fixture_path(fixture, "below", path), 0777), 0);
    fixture_file(fixture, "file", "1234");
    fixture_file(fixture, "below/inner", "12");
    link_to(fixture, "file", "to-file");
    link_to(fixture, "gone", "to-nowhere");
    struct folder *folder = open_folder(fixture);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct folder_entry entry;
        bool found;
        assert_ok(folder_look(folder, cases[i].file, &entry, &found, &fixture->error), fixture->error);
        assert_int_equal(found, cases[i].found);
        assert_int_equal(entry.kind, cases[i].kind);
        assert_int_equal(folder_has(folder, cases[i].file), cases[i].has);
    }
    folder_close(folder);
}

static void given_a_file_then_it_is_read_and_named_as_the_folder_was_given(void **state) {
    struct fixture *fixture = *state;
    struct folder *folder = open_folder(fixture);
    struct byte_source *source;
    char *bytes, path[256], read[5] = "";
    size_t length;
    assert_string_equal(folder_name(folder), fixture->path);
    assert_string_equal(folder_path(folder), fixture->path);
    fixture_file(fixture, "file", "1234");
    assert_ok(folder_file_open(folder, "file", &source, &fixture->error), fixture->error);
    assert_string_equal(source->name, fixture_path(fixture, "file", path));
    assert_int_equal(source->identity.size, 4);
    assert_false(source->identity.hashed);
    assert_ok(byte_source_read_at(source, 1, read, 3, &fixture->error), fixture->error);
    assert_string_equal(read, "234");
    byte_source_close(source);
    assert_ok(folder_file_read(folder, "file", 4, &bytes, &length, &fixture->error), fixture->error);
    assert_string_equal(bytes, "1234");
    assert_int_equal(length, 4);
    free(bytes);
    assert_refused(folder_file_read(folder, "file", 3, &bytes, &length, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "more than the 3");
    assert_refused(folder_file_read(folder, "none", 3, &bytes, &length, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, fixture_path(fixture, "none': No such file", path));
    assert_refused(folder_file_open(folder, "none", &source, &fixture->error), STATUS_BAD_INPUT, fixture->error, path);
    assert_null(source);
    folder_close(folder);
}

static void given_no_folder_then_opening_says_so(void **state) {
    struct fixture *fixture = *state;
    struct folder *folder;
    char path[256];
    assert_refused(folder_open(fixture_path(fixture, "none", path), &folder, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "none': No such file");
    fixture_file(fixture, "file", "");
    assert_refused(folder_open(fixture_path(fixture, "file", path), &folder, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "is not a folder");
    assert_null(folder);
    folder_close(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_folder_then_its_entries_are_listed_by_their_bytes),
        TEST(given_what_is_no_folder_then_listing_it_names_it),
        TEST(given_a_name_then_what_there_is_of_it_is_told),
        TEST(given_a_file_then_it_is_read_and_named_as_the_folder_was_given),
        TEST(given_no_folder_then_opening_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
