/*
 * What the cache says of a repository's files when the Hub is not asked.
 */
#include "tests/unit/fixtures.h"

#include "common/hub/cache_listing.h"
#include "common/source.h"

#define FOLDER "models--org--name/"
#define COMMIT "0123456789abcdef0123456789abcdef01234567"
#define TREE "{\"format_version\": 1, \"files\": {\"a.json\": {\"size\": 3, \"blob_id\": \"" COMMIT "\"}"

/* A cache whose snapshot has config.json and whose list is `tree`; lists it. */
static void list(struct fixture *fixture, const char *tree, struct hub_listing *listing, bool *whole) {
    static const char *const folders[] = {FOLDER "trees", FOLDER "snapshots/" COMMIT};
    const struct hub_environment environment = {.cache = fixture->path};
    const struct hub_reference reference = {.repository = (char[]){"org/name"}, .revision = (char[]){COMMIT}};
    for (size_t i = 0; i < 2; i++) {
        char *path = text_format("%s/%s", fixture->path, folders[i]);
        assert_ok(folder_make(path, &fixture->error), fixture->error);
        free(path);
    }
    fixture_file(fixture, FOLDER "snapshots/" COMMIT "/config.json", "{}");
    fixture_file(fixture, FOLDER "trees/" COMMIT ".json", tree);
    assert_ok(hub_cache_listing(&environment, &reference, listing, whole, &fixture->error), fixture->error);
}

/* Lists it: it is this file alone. */
static void lists_only(struct fixture *fixture, const char *tree, const char *path, uint64_t size, bool is_whole) {
    struct hub_listing listing;
    bool whole;
    list(fixture, tree, &listing, &whole);
    assert_int_equal(whole, is_whole);
    assert_int_equal(listing.count, 1);
    assert_string_equal(listing.files[0].path, path);
    assert_int_equal(listing.files[0].size, size);
    hub_listing_free(&listing);
}

static void given_a_list_then_it_counts(void **state) { lists_only(*state, TREE "}}", "a.json", 3, true); }

static void given_a_list_that_is_wrong_behind_its_first_file_then_what_lies_there_counts(void **state) {
    lists_only(*state, TREE ", \"b.json\": {}}}", "config.json", 2, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_list_then_it_counts),
        TEST(given_a_list_that_is_wrong_behind_its_first_file_then_what_lies_there_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
