/*
 * The variables that users of the Hub have. tests/hub compares what is read with what huggingface_hub reads.
 */
#include "tests/unit/hub_server.h"

#include "common/hub/environment.h"

struct variable {
    const char *name, *value; /* $FOLDER at its beginning: the test's folder */
};

static void variables_set(const struct fixture *fixture, const struct variable variables[8]) {
    hub_environment_clear();
    unsetenv("HF_HOME");
    setenv("HOME", fixture->path, 1);
    for (int i = 0; i < 8 && variables[i].name; i++) {
        char value[512];
        const bool inside = strncmp(variables[i].value, "$FOLDER", 7) == 0;
        snprintf(value, sizeof value, "%s%s", inside ? fixture->path : "", variables[i].value + (inside ? 7 : 0));
        setenv(variables[i].name, value, 1);
    }
}

/* Whether `text` is `wanted`, whose $FOLDER at the beginning is the test's folder. */
static bool is(const struct fixture *fixture, const char *text, const char *wanted) {
    if (!text || !wanted)
        return text == wanted;
    if (strncmp(wanted, "$FOLDER", 7) != 0)
        return strcmp(text, wanted) == 0;
    const size_t length = strlen(fixture->path);
    return strncmp(text, fixture->path, length) == 0 && strcmp(text + length, wanted + 7) == 0;
}

static void given_variables_then_the_cache_is_where_huggingface_hub_has_it(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        struct variable variables[8];
        const char *cache;
    } cases[] = {
        {{{0}}, "$FOLDER/.cache/huggingface/hub"},
        {{{"XDG_CACHE_HOME", "/xdg"}}, "/xdg/huggingface/hub"},
        {{{"XDG_CACHE_HOME", "~/x"}}, "$FOLDER/x/huggingface/hub"},
        {{{"XDG_CACHE_HOME", "/xdg"}, {"HF_HOME", "/home/"}}, "/home/hub"},
        {{{"HF_HOME", "~"}}, "$FOLDER/hub"},
        {{{"HF_HOME", "~/a"}}, "$FOLDER/a/hub"},
        {{{"HF_HOME", "/x/$WHERE/${WHERE}y/$NOTSET/${NOTSET}/$/${WHERE"}, {"WHERE", "there"}},
         "/x/there/therey/$NOTSET/${NOTSET}/$/${WHERE/hub"},
        {{{"HF_HOME", ""}}, "./hub"},
        {{{"HF_HOME", "relative"}}, "relative/hub"},
        {{{"HF_HOME", "/x/~"}}, "/x/~/hub"},
        {{{"HF_HOME", "~nosuchuser/x"}}, "~nosuchuser/x/hub"},
        {{{"HF_HUB_CACHE", "/cache"}, {"HF_HOME", "/home"}, {"HUGGINGFACE_HUB_CACHE", "/old"}}, "/cache"},
        {{{"HF_HOME", "/home"}, {"HUGGINGFACE_HUB_CACHE", "~/old"}}, "$FOLDER/old"},
        {{{"HF_HUB_CACHE", ""}, {"HUGGINGFACE_HUB_CACHE", "/old"}}, "."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hub_environment environment;
        variables_set(fixture, cases[i].variables);
        assert_ok(hub_environment_read(&environment, &fixture->error), fixture->error);
        if (!is(fixture, environment.cache, cases[i].cache))
            fail_msg("%s instead of %s", environment.cache, cases[i].cache);
        hub_environment_free(&environment);
    }
}

static void given_tokens_then_the_first_counts(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        struct variable variables[8];
        const char *file, *token; /* of $FOLDER/token */
    } cases[] = {
        {{{"HF_HOME", "$FOLDER"}}, NULL, NULL},
        {{{"HF_HOME", "$FOLDER"}}, "", NULL},
        {{{"HF_HOME", "$FOLDER"}}, " \n", NULL},
        {{{"HF_HOME", "$FOLDER"}}, "hf_file\n", "hf_file"},
        {{{"HF_HOME", "$FOLDER"}, {"HF_TOKEN", "hf_one"}}, "hf_file", "hf_one"},
        {{{"HF_HOME", "$FOLDER"}, {"HF_TOKEN", "hf_one"}, {"HUGGING_FACE_HUB_TOKEN", "hf_two"}}, "hf_file", "hf_one"},
        {{{"HF_HOME", "$FOLDER"}, {"HF_TOKEN", ""}, {"HUGGING_FACE_HUB_TOKEN", "hf_two"}}, "hf_file", "hf_two"},
        {{{"HF_HOME", "$FOLDER"}, {"HF_TOKEN", " "}, {"HUGGING_FACE_HUB_TOKEN", "hf_two"}}, "hf_file", "hf_file"},
        {{{"HF_HOME", "/none"}, {"HF_TOKEN_PATH", "$FOLDER/token"}}, "\r\n hf_file \n", "hf_file"},
        {{{"HF_HOME", "$FOLDER"}, {"HF_TOKEN_PATH", "/none"}}, "hf_file", NULL},
        {{{"HF_TOKEN", "\thf_\r\none \n"}}, NULL, "hf_one"},
        {{{"HF_TOKEN", "hf_one"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "yes"}}, NULL, NULL},
        {{{"HF_TOKEN", "hf_one"}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "0"}}, NULL, "hf_one"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hub_environment environment;
        char path[256];
        unlink(fixture_path(fixture, "token", path));
        if (cases[i].file)
            fixture_file(fixture, "token", cases[i].file);
        variables_set(fixture, cases[i].variables);
        assert_ok(hub_environment_read(&environment, &fixture->error), fixture->error);
        if (!is(fixture, environment.token, cases[i].token))
            fail_msg("%zu: %s instead of %s", i, environment.token ? environment.token : "none",
                     cases[i].token ? cases[i].token : "none");
        hub_environment_free(&environment);
    }
}

static void given_switches_then_they_are_read_as_huggingface_hub_does(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        struct variable variables[8];
        const char *endpoint;
        bool offline;
        long connect_seconds, stall_seconds;
    } cases[] = {
        {{{0}}, "https://huggingface.co", false, 10, 10},
        {{{"HF_ENDPOINT", "http://127.0.0.1:8080/x//"}}, "http://127.0.0.1:8080/x", false, 10, 10},
        {{{"HF_ENDPOINT", ""}}, "https://huggingface.co", false, 10, 10},
        {{{"HF_HUB_OFFLINE", "1"}}, "https://huggingface.co", true, 10, 10},
        {{{"HF_HUB_OFFLINE", "True"}}, "https://huggingface.co", true, 10, 10},
        {{{"HF_HUB_OFFLINE", "on"}}, "https://huggingface.co", true, 10, 10},
        {{{"HF_HUB_OFFLINE", "y"}}, "https://huggingface.co", false, 10, 10},
        {{{"HF_HUB_OFFLINE", " 1"}}, "https://huggingface.co", false, 10, 10},
        {{{"HF_HUB_OFFLINE", "0"}, {"TRANSFORMERS_OFFLINE", "1"}}, "https://huggingface.co", false, 10, 10},
        {{{"HF_HUB_OFFLINE", ""}, {"TRANSFORMERS_OFFLINE", "YES"}}, "https://huggingface.co", true, 10, 10},
        {{{"HF_HUB_ETAG_TIMEOUT", "7"}, {"HF_HUB_DOWNLOAD_TIMEOUT", " 30\n"}}, "https://huggingface.co", false, 7, 30},
        {{{"HF_HUB_ETAG_TIMEOUT", "0"}, {"HF_HUB_DOWNLOAD_TIMEOUT", "+5"}}, "https://huggingface.co", false, 10, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct hub_environment environment;
        variables_set(fixture, cases[i].variables);
        assert_ok(hub_environment_read(&environment, &fixture->error), fixture->error);
        assert_string_equal(environment.endpoint, cases[i].endpoint);
        assert_int_equal(environment.offline, cases[i].offline);
        assert_int_equal(environment.connect_seconds, cases[i].connect_seconds);
        assert_int_equal(environment.stall_seconds, cases[i].stall_seconds);
        hub_environment_free(&environment);
    }
}

static void given_what_cannot_be_understood_then_it_is_named(void **state) {
    struct fixture *fixture = *state;
    static const struct variable bad[] = {
        {"HF_ENDPOINT", "huggingface.co"},
        {"HF_ENDPOINT", "ftp://h"},
        {"HF_ENDPOINT", "https://"},
        {"HF_ENDPOINT", "https:///x"},
        {"HF_ENDPOINT", "https://u:p@h"},
        {"HF_ENDPOINT", "https://h/?x"},
        {"HF_ENDPOINT", "https://h/#x"},
        {"HF_ENDPOINT", "https://a b"},
        {"HF_ENDPOINT", "https://h\n"},
        {"HF_HUB_ETAG_TIMEOUT", "soon"},
        {"HF_HUB_ETAG_TIMEOUT", ""},
        {"HF_HUB_ETAG_TIMEOUT", "-1"},
        {"HF_HUB_DOWNLOAD_TIMEOUT", "1.5"},
        {"HF_HUB_DOWNLOAD_TIMEOUT", "1s"},
        {"HF_TOKEN", "hf_\xc3\xa4"},
        {"HF_HUB_DOWNLOAD_TIMEOUT", "99999999999999999999"},
        {"HF_TOKEN", "a b"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct hub_environment environment;
        variables_set(fixture, (const struct variable[8]){bad[i]});
        assert_refused(hub_environment_read(&environment, &fixture->error), STATUS_USAGE, fixture->error, bad[i].name);
        assert_null(strstr(fixture->error.message, "a b")); /* a token is a secret, wrong or not */
        hub_environment_free(&environment);
    }
    struct hub_environment environment; /* a token that is there and cannot be read */
    variables_set(fixture, (const struct variable[8]){{"HF_TOKEN_PATH", "$FOLDER"}});
    assert_refused(hub_environment_read(&environment, &fixture->error), STATUS_IO, fixture->error, fixture->path);
    hub_environment_free(&environment);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_variables_then_the_cache_is_where_huggingface_hub_has_it),
        TEST(given_tokens_then_the_first_counts),
        TEST(given_switches_then_they_are_read_as_huggingface_hub_does),
        TEST(given_what_cannot_be_understood_then_it_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
