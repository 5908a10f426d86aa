/*
 * Names of repositories and revisions, and parts of addresses.
 */
#include "tests/unit/fixtures.h"

#include "common/hub/hub.h"
#include "common/hub/url.h"
#include "common/libcurl.h"

static void given_a_name_then_it_is_taken_apart(void **state) {
    (void)state;
    static const struct {
        const char *text, *repository, *revision, *whole;
        bool dataset;
    } cases[] = {
        {"org/name", "org/name", "main", "hf://org/name@main", false},
        {"hf://org/name", "org/name", "main", "hf://org/name@main", false},
        {"gpt2", "gpt2", "main", "hf://gpt2@main", false},
        {"hf://org/name@v1.0", "org/name", "v1.0", "hf://org/name@v1.0", false},
        {"org/name@refs/pr/12", "org/name", "refs/pr/12", "hf://org/name@refs/pr/12", false},
        {"org/name@feature/a_b", "org/name", "feature/a_b", "hf://org/name@feature/a_b", false},
        {"org/name@00112233445566778899aabbccddeeff00112233", "org/name", "00112233445566778899aabbccddeeff00112233",
         "hf://org/name@00112233445566778899aabbccddeeff00112233", false},
        {"datasets/Salesforce/wikitext", "Salesforce/wikitext", "main", "hf://datasets/Salesforce/wikitext@main", true},
        {"hf://datasets/squad@x", "squad", "x", "hf://datasets/squad@x", true},
        {"_a/b_", "_a/b_", "main", "hf://_a/b_@main", false},
        {"a-b.c/d.e-f", "a-b.c/d.e-f", "main", "hf://a-b.c/d.e-f@main", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hub_reference reference;
        struct error error;
        assert_ok(hub_reference_parse(cases[i].text, &reference, &error), error);
        char *whole = hub_reference_text(&reference, reference.revision);
        assert_string_equal(reference.repository, cases[i].repository);
        assert_string_equal(reference.revision, cases[i].revision);
        assert_int_equal(reference.dataset, cases[i].dataset);
        assert_string_equal(whole, cases[i].whole);
        free(whole);
        hub_reference_free(&reference);
    }
    assert_true(hub_reference_is("hf://x"));
    assert_false(hub_reference_is("hf:/x"));
    assert_false(hub_reference_is("org/name"));
}

static void given_what_the_hub_would_not_take_then_it_is_refused(void **state) {
    (void)state;
    char longest[200] = "org/", longer[200] = "org/", revision[300] = "org/name@";
    memset(longest + 4, 'a', 96);
    memset(longer + 4, 'a', 97);
    memset(revision + 9, 'a', 251);
    const char *const bad[] = {"", "hf://", "/name", "org/", "a/b/c", "./name", "../name", "org/..", "org/a..b",
                               "org/a--b", "org/name.git", ".a/b", "-a/b", "a-/b", "a/b.", "a b/c", "org/n\xc3\xa4me",
                               "org/name\n", "org/na%6de", "~/x", "org\\name", longer, revision,
                               /* revisions: git's rules, for they become names of files */
                               "org/name@", "org/name@..", "org/name@a/../b", "org/name@/etc", "org/name@a/",
                               "org/name@a//b", "org/name@.a", "org/name@a/.b", "org/name@-x", "org/name@a b",
                               "org/name@a\tb", "org/name@a:b", "org/name@a~1", "org/name@a^", "org/name@a?",
                               "org/name@a*", "org/name@[a", "org/name@a\\b", "org/name@a.", "org/name@@{1}",
                               "org/name@\x7f", "org/name@\xff", "org/name@a\x1b[31m"};
    struct hub_reference reference;
    struct error error;
    assert_ok(hub_reference_parse(longest, &reference, &error), error);
    hub_reference_free(&reference);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        error.message[0] = '\0';
        if (hub_reference_parse(bad[i], &reference, &error) != STATUS_USAGE || !error.message[0])
            fail_msg("taken: '%s'", bad[i]);
        hub_reference_free(&reference);
    }
}

static void given_a_revision_then_a_commit_is_told(void **state) {
    (void)state;
    assert_true(hub_is_commit("00112233445566778899aabbccddeeff00112233"));
    assert_false(hub_is_commit("00112233445566778899AABBCCDDEEFF00112233"));
    assert_false(hub_is_commit("00112233445566778899aabbccddeeff0011223"));
    assert_false(hub_is_commit("00112233445566778899aabbccddeeff001122334"));
    assert_false(hub_is_commit("00112233445566778899aabbccddeeff0011223g"));
    assert_false(hub_is_commit("main"));
    assert_false(hub_is_commit(""));
}

/* ---- addresses ---- */

/* What Python's urllib.parse.quote gives. */
static void given_a_text_then_it_is_quoted_as_python_does(void **state) {
    (void)state;
    static const struct {
        const char *text, *kept, *quoted;
    } cases[] = {
        {"dir/\xc3\xa9 ~+(x)&=@:.txt", "/", "dir/%C3%A9%20~%2B%28x%29%26%3D%40%3A.txt"},
        {"refs/pr/1", "", "refs%2Fpr%2F1"},
        {"azAZ09-_.~", "", "azAZ09-_.~"},
        {"%41?#\"\\", "/", "%2541%3F%23%22%5C"},
        {"", "/", ""},
        {"\xff\x01", "", "%FF%01"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *quoted = hub_quote(cases[i].text, cases[i].kept);
        assert_string_equal(quoted, cases[i].quoted);
        free(quoted);
    }
}

static void given_a_file_then_its_address_is_huggingface_hubs(void **state) {
    (void)state;
    struct hub hub = {.environment.endpoint = (char[]){"https://h/prefix"}};
    struct hub_reference reference = {.repository = (char[]){"org/name"}};
    char *url = hub_resolve_url(&hub, &reference, "refs/pr/1", "a dir/x#y.json");
    assert_string_equal(url, "https://h/prefix/org/name/resolve/refs%2Fpr%2F1/a%20dir/x%23y.json");
    free(url);
    reference.dataset = true;
    url = hub_resolve_url(&hub, &reference, "main", "x");
    assert_string_equal(url, "https://h/prefix/datasets/org/name/resolve/main/x");
    free(url);
}

static void given_a_location_then_it_leads_somewhere_or_nowhere(void **state) {
    (void)state;
    struct error error;
    assert_ok(libcurl_load(&error), error);
    static const struct {
        const char *base, *location, *joined;
    } cases[] = {
        {"https://h/a/b?q", "/c?d=%2F&e", "https://h/c?d=%2F&e"},
        {"https://h/a/b?q", "c", "https://h/a/c"},
        {"https://h/a/b", "?x", "https://h/a/b?x"},
        {"https://h/a/b", "//other/c", "https://other/c"},
        {"https://h/a", "http://other:8080/x#part", "http://other:8080/x"},
        {"https://h/a", "https://cdn/x?sig=a%2Fb%3D&k=v~", "https://cdn/x?sig=a%2Fb%3D&k=v~"},
        {"http://h:1/a", "/x y", "http://h:1/x%20y"},
        {"http://h/a", "file:///etc/passwd", NULL},
        {"http://h/a", "ftp://h/x", NULL},
        {"http://h/a", "javascript:1", NULL},
        {"http://h/a", "https://user:password@h/x", NULL},
        {"http://h/a", "http://", NULL},
        {"http://h/a", "http://h:99999/", NULL},
        {"nonsense", "/x", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *joined = hub_url_join(cases[i].base, cases[i].location);
        if (!joined != !cases[i].joined || (joined && strcmp(joined, cases[i].joined) != 0))
            fail_msg("'%s' from '%s' leads to '%s'", cases[i].location, cases[i].base, joined ? joined : "nowhere");
        free(joined);
    }
    char *endless = malloc(100000);
    memset(endless, 'a', 99999);
    endless[0] = '/';
    endless[99999] = '\0';
    assert_null(hub_url_join("http://h/", endless));
    free(endless);
}

static void given_two_addresses_then_their_origin_is_compared(void **state) {
    (void)state;
    struct error error;
    assert_ok(libcurl_load(&error), error);
    static const struct {
        const char *a, *b;
        bool same;
    } cases[] = {
        {"https://h/x", "https://h/y?z", true},
        {"https://h", "https://H:443/", true},
        {"HTTPS://h/", "https://h/", true},
        {"http://h:80/", "http://h/", true},
        {"https://h/", "http://h/", false},
        {"https://h/", "https://h:8443/", false},
        {"https://huggingface.co/", "https://cdn.huggingface.co/", false},
        {"https://huggingface.co/", "https://huggingface.co.evil.org/", false},
        {"https://huggingface.co/", "https://evil.org/huggingface.co", false},
        {"https://huggingface.co/", "https://huggingface.co@evil.org/", false},
        /* What is before the @ is a user, and where libcurl goes is the Hub. */
        {"https://huggingface.co/", "https://evil.org\\@huggingface.co/", true},
        {"https://huggingface.co/", "https://evil.org#@huggingface.co/", false},
        {"nonsense", "nonsense", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (hub_url_same_origin(cases[i].a, cases[i].b) != cases[i].same)
            fail_msg("'%s' and '%s'", cases[i].a, cases[i].b);
}

static void given_an_address_for_a_message_then_it_has_no_secrets(void **state) {
    (void)state;
    struct error error;
    assert_ok(libcurl_load(&error), error);
    char *shown = hub_url_shown("https://user:password@h:1/a/b?signature=x#y");
    assert_string_equal(shown, "https://h:1/a/b");
    free(shown);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_name_then_it_is_taken_apart),
        TEST(given_what_the_hub_would_not_take_then_it_is_refused),
        TEST(given_a_revision_then_a_commit_is_told),
        TEST(given_a_text_then_it_is_quoted_as_python_does),
        TEST(given_a_file_then_its_address_is_huggingface_hubs),
        TEST(given_a_location_then_it_leads_somewhere_or_nowhere),
        TEST(given_two_addresses_then_their_origin_is_compared),
        TEST(given_an_address_for_a_message_then_it_has_no_secrets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
