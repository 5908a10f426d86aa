/* Patterns as Python's fnmatchcase reads them; the results below are Python's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "common/hub/wildcard.h"

static void given_patterns_then_they_match_as_in_python(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool matches;
    } cases[] = {
        {"*.json", "config.json", true},
        {"*.json", "a/b/.config.json", true},
        {"*.JSON", "config.json", false},
        {"config", "config.json", false},
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"a*b*c", "a/x/b/y/c", true},
        {"a*b*c", "acb", false},
        {"*a*a*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false},
        {"?", "/", true},
        {"?", "\xc3\xa9", true},
        {"?", "\xf0\x9f\x98\x80", true},
        {"?", "ab", false},
        {"model-[0-9].bin", "model-7.bin", true},
        {"model-[!0-9].bin", "model-7.bin", false},
        {"[^a]", "^", true},
        {"[^a]", "b", false},
        {"[]]", "]", true},
        {"[]-a]", "_", true},
        {"[!]]", "]", false},
        {"[a-]", "-", true},
        {"[-a]", "-", true},
        {"[c-a]", "b", false},
        {"[!c-a]", "b", true},
        {"[a-c-e]", "-", true},
        {"[a-c-e]", "d", false},
        {"[\xc3\xa0-\xc3\xbf]", "\xc3\xa9", true},
        {"[abc", "[abc", true},
        {"[abc", "a", false},
        {"[!", "[!", true},
        {"[[:alpha:]]", "a]", true},
        {"\\*", "/anything", true},
        {"a\\b", "a/b", true},
        {"a/b", "a\\b", true},
        {"dir/", "dir/", true},
        {"dir/", "dir/a/b", true},
        {"dir/", "dir", false},
        {"dir/", "other/dir/a", false},
        {"dir\\", "dir/a", true},
        {"*/", "a/b", true},
        {"\xff", "\xff", true},
        {"?", "\xff", true},
        {"[\xff]", "\xfe", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (wildcard_matches(cases[i].pattern, cases[i].path) != cases[i].matches)
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_patterns_then_they_match_as_in_python),
    };
    return cmocka_run_group_tests_name("hub_wildcard", tests, NULL, NULL);
}
