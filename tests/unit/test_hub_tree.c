/*
 * What the Hub says about a repository's files: read exactly, or refused; and the hashes that files are held against.
 */
#include "tests/unit/fixtures.h"

#include "common/hub/file_range.h"
#include "common/hub/tree.h"

#define COMMIT "00112233445566778899aabbccddeeff00112233"
#define OID "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"                         /* git's hash of an empty file */
#define SHA "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" /* SHA-256 of nothing */

static void given_a_revision_then_its_commit_is_read(void **state) {
    (void)state;
    static const char *const good[] = {
        "{\"sha\":\"" COMMIT "\"}",
        " {\"id\": \"x\", \"siblings\": [{\"rfilename\": \"a\"}], \"sha\" : \"" COMMIT "\", \"n\": 1e400}\n",
    };
    static const char *const bad[] = {"",
                                      "null",
                                      "[]",
                                      "{}",
                                      "{\"sha\":null}",
                                      "{\"sha\":\"main\"}",
                                      "{\"sha\":\"" COMMIT "0\"}",
                                      "{\"sha\":\"00112233445566778899AABBCCDDEEFF00112233\"}",
                                      "{\"sha\":\"" COMMIT "\"",
                                      "{\"sha\":\"" COMMIT "\"} x",
                                      "{\"sha\":\"0011223344556677889\\u0000aabbccddeeff00112233\"}",
                                      "<html>"};
    char commit[HUB_OID_HEX];
    struct error error;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_ok(hub_tree_commit("URL", good[i], strlen(good[i]), commit, &error), error);
        assert_string_equal(commit, COMMIT);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (hub_tree_commit("URL", bad[i], strlen(bad[i]), commit, &error) != STATUS_BAD_INPUT ||
            !strstr(error.message, "URL"))
            fail_msg("taken: %s", bad[i]);
}

static enum status tree_read(const char *json, struct hub_listing *listing, struct error *error) {
    *listing = (struct hub_listing){.reference.repository = strdup("org/name"), .commit = COMMIT};
    enum status status = hub_tree_page("URL", json, strlen(json), listing, error);
    return status == STATUS_OK ? hub_tree_finish(listing, error) : status;
}

static void given_a_page_then_its_files_are_read(void **state) {
    (void)state;
    static const char json[] =
        "[{\"type\":\"directory\",\"oid\":\"" OID "\",\"size\":0,\"path\":\"b\"},\n"
        " {\"type\":\"file\",\"oid\":\"" OID "\",\"size\":9223372036854775807,\"path\":\"b/two \\u00e9.bin\",\"lfs\":"
        "{\"oid\":\"" SHA
        "\",\"size\":9223372036854775807,\"pointerSize\":134},\"xetHash\":\"x\",\"new\":{\"a\":[1]}},\n"
        " {\"type\":\"file\",\"oid\":\"" OID "\",\"size\":665,\"path\":\"a.json\",\"lfs\":null},"
        " {\"type\":\"file\",\"oid\":\"" OID "\",\"size\":0,\"path\":\"b.json\"}]";
    struct hub_listing listing;
    struct error error;
    char etag[HUB_ETAG_HEX];
    assert_ok(tree_read(json, &listing, &error), error);
    assert_int_equal(listing.count, 3);
    assert_string_equal(listing.files[0].path, "a.json");
    assert_string_equal(listing.files[1].path, "b.json"); /* by bytes: '.' before '/' */
    assert_string_equal(listing.files[2].path, "b/two \xc3\xa9.bin");
    assert_int_equal(listing.files[0].size, 665);
    assert_false(listing.files[0].lfs);
    assert_string_equal(hub_file_etag(&listing.files[0], etag), OID);
    assert_true(listing.files[2].size == INT64_MAX);
    assert_true(listing.files[2].lfs);
    assert_string_equal(hub_file_etag(&listing.files[2], etag), SHA);
    assert_ptr_equal(hub_listing_find(&listing, "b.json"), &listing.files[1]);
    assert_null(hub_listing_find(&listing, "b"));
    hub_listing_free(&listing);
    assert_ok(tree_read("[ ]", &listing, &error), error);
    assert_int_equal(listing.count, 0);
    assert_null(hub_listing_find(&listing, "x"));
    hub_listing_free(&listing);
}

#define FILE_OF(path, rest) "{\"type\":\"file\",\"oid\":\"" OID "\",\"size\":1,\"path\":\"" path "\"" rest "}"

static void given_a_hostile_page_then_it_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *json, *says;
    } cases[] = {
        {"", "array"},
        {"{}", "array"},
        {"{\"error\":\"x\"}", "array"},
        {"[", "object"},
        {"[1]", "object"},
        {"[{}]", "no type"},
        {"[" FILE_OF("a", ""), "']' was expected"},
        {"[" FILE_OF("a", "") "]]", "follows"},
        {"[" FILE_OF("a", "") ",]", "object"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"oid\":\"" OID "\"}]", "no size"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":1}]", "no hash"},
        {"[{\"type\":\"file\",\"size\":1,\"oid\":\"" OID "\"}]", "no path"},
        {"[{\"path\":\"a\",\"size\":1,\"oid\":\"" OID "\"}]", "no type"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":-1,\"oid\":\"" OID "\"}]", "byte"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":1.5,\"oid\":\"" OID "\"}]", "byte"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":1e3,\"oid\":\"" OID "\"}]", "byte"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":9223372036854775808,\"oid\":\"" OID "\"}]", "byte"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":\"1\",\"oid\":\"" OID "\"}]", "byte"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":1,\"oid\":\"../../x\"}]", "hash"},
        {"[{\"type\":\"file\",\"path\":\"a\",\"size\":1,\"oid\":7}]", "string"},
        {"[{\"type\":\"file\",\"path\":7,\"size\":1,\"oid\":\"" OID "\"}]", "string"},
        {"[" FILE_OF("a", ",\"lfs\":{}") "]", "no hash"},
        {"[" FILE_OF("a", ",\"lfs\":{\"size\":1}") "]", "no hash"},
        {"[" FILE_OF("a", ",\"lfs\":{\"oid\":\"" OID "\",\"size\":1}") "]", "hash"},
        {"[" FILE_OF("a", ",\"lfs\":{\"oid\":\"" SHA "\",\"size\":2}") "]", "two sizes"},
        {"[" FILE_OF("a", "") "," FILE_OF("b", "") "," FILE_OF("a", "") "]", "twice"},
        {"[" FILE_OF("a/b", "") "," FILE_OF("a-b", "") "," FILE_OF("a", "") "]", "as a file, too"},
        {"[" FILE_OF("a/b/c/d", "") "," FILE_OF("a/b", "") "]", "as a file, too"},
        {"[" FILE_OF("\\ud800", "") "]", "surrogate"},
        {"[" FILE_OF("a\\u0000b", "") "]", "NUL"},
        /* paths that lead out of the folder, or break a terminal */
        {"[" FILE_OF("", "") "]", "inside its folder"},
        {"[" FILE_OF("/etc/passwd", "") "]", "inside its folder"},
        {"[" FILE_OF("..", "") "]", "inside its folder"},
        {"[" FILE_OF("../x", "") "]", "inside its folder"},
        {"[" FILE_OF("a/../../x", "") "]", "inside its folder"},
        {"[" FILE_OF("a/./x", "") "]", "inside its folder"},
        {"[" FILE_OF("a//x", "") "]", "inside its folder"},
        {"[" FILE_OF("a/", "") "]", "inside its folder"},
        {"[" FILE_OF("\\u002e\\u002e/x", "") "]", "inside its folder"},
        {"[" FILE_OF("a\\nb", "") "]", "inside its folder"},
        {"[" FILE_OF("a\\u001b[31m", "") "]", "inside its folder"},
        {"[" FILE_OF("a\\u009b", "") "]", "inside its folder"},
        {"[" FILE_OF("a\\u007f", "") "]", "inside its folder"},
        {"[" FILE_OF("a/.GIT/hooks/post-checkout", "") "]", "inside its folder"},
        {"[" FILE_OF("a\xff", "") "]", "UTF-8"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hub_listing listing;
        struct error error = {{0}};
        const enum status status = tree_read(cases[i].json, &listing, &error);
        if (status != STATUS_BAD_INPUT || !strstr(error.message, cases[i].says))
            fail_msg("%s: %d, %s", cases[i].json, (int)status, error.message);
        hub_listing_free(&listing);
    }
}

static void given_long_names_then_what_a_file_system_takes_is_taken(void **state) {
    (void)state;
    char path[2000];
    memset(path, 'a', sizeof path);
    path[255] = '\0';
    assert_true(hub_tree_path_is_safe(path));
    path[255] = 'a';
    path[256] = '\0';
    assert_false(hub_tree_path_is_safe(path));
    for (size_t i = 0; i < sizeof path; i++)
        path[i] = i % 2 ? '/' : 'a';
    path[1023] = '\0';
    assert_true(hub_tree_path_is_safe(path));
    path[1023] = '/';
    path[1025] = '\0';
    assert_false(hub_tree_path_is_safe(path));
    static const char *const fine[] = {"a", ".gitattributes", ".a/..b", "...", "a b", "a\\b", "\xc3\xa9/\xe2\x82\xac"};
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++)
        assert_true(hub_tree_path_is_safe(fine[i]));
}

static void given_many_files_then_all_are_sorted(void **state) {
    (void)state;
    struct text json = {0};
    struct hub_listing listing;
    struct error error;
    uint64_t seed = 7;
    text_append_string(&json, "[");
    for (int i = 0; i < 5000; i++)
        text_printf(&json, "%s{\"type\":\"file\",\"size\":%d,\"oid\":\"" OID "\",\"path\":\"d%u/f%d\"}", i ? "," : "",
                    i, fixture_random(&seed) % 100, i);
    text_append_string(&json, "]");
    assert_ok(tree_read(json.bytes, &listing, &error), error);
    assert_int_equal(listing.count, 5000);
    for (size_t i = 1; i < listing.count; i++)
        assert_true(strcmp(listing.files[i - 1].path, listing.files[i].path) < 0);
    for (size_t i = 0; i < listing.count; i++)
        assert_ptr_equal(hub_listing_find(&listing, listing.files[i].path), &listing.files[i]);
    hub_listing_free(&listing);
    text_free(&json);
}

static void given_a_link_field_then_the_next_page_is_found(void **state) {
    (void)state;
    static const struct {
        const char *field, *next;
    } cases[] = {
        {"<https://h/x?cursor=a%3D%3D&limit=2>; rel=\"next\"", "https://h/x?cursor=a%3D%3D&limit=2"},
        {"<http://h/1>; rel=\"xet-auth\", <http://h/2>; rel=\"next\"", "http://h/2"},
        {"<http://h/1>; rel=next", "http://h/1"},
        {"<http://h/1>;REL = \"prev NEXT\" ;x=y", "http://h/1"},
        {"<http://h/1>; title=\"a, <b>; rel=next\"; rel=\"prev\", </2>; rel=\"next\"", "/2"},
        {"</1>; x; rel=\"next\"", "/1"},
        {"</1>; rel=\"nextpage\"", NULL},
        {"</1>; rel=\"prev\"", NULL},
        {"</1>", NULL},
        {"</1; rel=\"next\"", NULL},
        {"</1>; rel=\"", NULL},
        {"</1>; title=\"\\\"; rel=\\\"next", NULL},
        {"</1>; ,;;, = ; =, rel", NULL},
        {"", NULL},
        {"next", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *next = hub_tree_next(cases[i].field);
        if (!next != !cases[i].next || (next && strcmp(next, cases[i].next) != 0))
            fail_msg("%s leads to %s", cases[i].field, next ? next : "nowhere");
        free(next);
    }
}

/* ---- hashes ---- */

static bool checks(const struct hub_file *file, const char *bytes, size_t size, size_t pieces) {
    struct hub_check *check = hub_check_new(file);
    assert_non_null(check);
    for (size_t at = 0; at < size; at += pieces)
        hub_check_add(check, bytes + at, size - at < pieces ? size - at : pieces);
    const bool right = hub_check_end(check);
    hub_check_free(check);
    return right;
}

static void given_bytes_then_they_are_held_against_the_hash(void **state) {
    (void)state;
    /* printf 'hello\n' | git hash-object --stdin; and sha256sum */
    struct hub_file small = {.size = 6, .oid = "ce013625030ba8dba906f756967f9e9ca394464a"};
    struct hub_file large = {.size = 6, .lfs = true, .oid = OID};
    struct hub_file empty = {.size = 0, .oid = OID};
    sha256_of("hello\n", 6, large.sha256, NULL);
    char hex[SHA256_HEX];
    assert_string_equal(sha256_hex(large.sha256, hex),
                        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
    for (size_t pieces = 1; pieces <= 6; pieces++) {
        assert_true(checks(&small, "hello\n", 6, pieces));
        assert_true(checks(&large, "hello\n", 6, pieces));
    }
    assert_false(checks(&small, "hello!", 6, 6));
    assert_false(checks(&large, "hello!", 6, 6));
    assert_false(checks(&small, "hello", 5, 5));
    assert_false(checks(&large, "hello\n\n", 7, 7));
    assert_true(checks(&empty, "", 0, 1));
    assert_false(checks(&empty, "x", 1, 1));
    large.size = 7; /* right bytes, another size than is listed */
    assert_false(checks(&large, "hello\n", 6, 6));
}

static void given_fields_about_a_file_then_they_agree_with_the_listing(void **state) {
    (void)state;
    struct hub_listing listing = {.reference.repository = (char[]){"org/name"}, .commit = COMMIT};
    struct hub_file small = {.path = (char[]){"small"}, .size = 0, .oid = OID};
    struct hub_file large = {.path = (char[]){"large"}, .size = 0, .lfs = true, .oid = COMMIT};
    sha256_of("", 0, large.sha256, NULL);
    static const struct {
        const char *fields;
        bool large;
        const char *says; /* NULL: they agree */
    } cases[] = {
        {"", false, NULL},
        {"x-repo-commit: " COMMIT "\nx-linked-etag: \"" OID "\"\n", false, NULL},
        {"X-Repo-Commit: " COMMIT "\nX-Linked-Size: 0\nX-Linked-Etag: \"" SHA "\"\nETag: \"x\"\n", true, NULL},
        {"ETag: W/\"" OID "\"\n", false, NULL},
        {"ETag: \"another server's\"\n", false, NULL},
        {"ETag: \"" SHA "\"\n", false, "hash"},
        {"X-Linked-Etag: \"" OID "\"\n", true, "hash"},
        {"X-Linked-Etag: \"x\"\n", true, "hash"},
        {"X-Linked-Size: 1\n", true, "size"},
        {"X-Linked-Size: \n", true, "size"},
        {"X-Repo-Commit: ffff\n", true, "commit"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hub_route route = {0};
        struct error error;
        text_append_string(&route.fields, cases[i].fields);
        const enum status status = hub_route_check(&route, &listing, cases[i].large ? &large : &small, &error);
        if (status != (cases[i].says ? STATUS_BAD_INPUT : STATUS_OK) ||
            (cases[i].says && !strstr(error.message, cases[i].says)))
            fail_msg("%s: %d, %s", cases[i].fields, (int)status, status ? error.message : "");
        hub_route_free(&route);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_revision_then_its_commit_is_read),
        TEST(given_a_page_then_its_files_are_read),
        TEST(given_a_hostile_page_then_it_is_refused),
        TEST(given_long_names_then_what_a_file_system_takes_is_taken),
        TEST(given_many_files_then_all_are_sorted),
        TEST(given_a_link_field_then_the_next_page_is_found),
        TEST(given_bytes_then_they_are_held_against_the_hash),
        TEST(given_fields_about_a_file_then_they_agree_with_the_listing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
