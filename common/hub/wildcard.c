#include "common/hub/wildcard.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/utf8.h"

/* The character at *at, which moves behind it; a byte that is no UTF-8 is a character of its own. 0 at the end. */
static uint32_t character_next(const char **at) {
    static const uint32_t not_utf8 = 0x110000; /* beyond Unicode */
    const unsigned char byte = (unsigned char)**at;
    size_t length;
    bool good;
    if (!byte)
        return 0;
    const uint32_t character = utf8_decode(*at, UTF8_LENGTH_MAX, &length, &good);
    *at += good ? length : 1;
    return !good ? not_utf8 + byte : character == '\\' ? '/' : character;
}

/* The ']' that ends the set whose '[' is before `set`; NULL: that is no set. */
static const char *set_end(const char *set) {
    if (*set == '!')
        set++;
    return *set ? strchr(*set == ']' ? set + 1 : set, ']') : NULL;
}

/* Whether the set [set, end) has the character. A '-' that does not stand between two characters is one itself. */
static bool set_has(const char *set, const char *end, uint32_t character) {
    const bool inverted = *set == '!';
    bool found = false;
    for (set += inverted; set < end;) {
        const uint32_t first = character_next(&set);
        uint32_t last = first;
        if (*set == '-' && set + 1 < end) {
            set++;
            last = character_next(&set);
        }
        found = found || (first <= character && character <= last);
    }
    return found != inverted;
}

/* Whether the pattern's next element, which is no '*', takes the path's next character; both move behind it if so. */
static bool one_matches(const char **pattern, const char **path) {
    const char *wanted = *pattern, *rest = *path, *end;
    const uint32_t character = character_next(&rest);
    if (!character)
        return false;
    const uint32_t first = character_next(&wanted);
    bool matches;
    if (first == '[' && (end = set_end(wanted))) {
        matches = set_has(wanted, end, character);
        wanted = end + 1;
    } else {
        matches = first == '?' || first == character;
    }
    if (matches) {
        *pattern = wanted;
        *path = rest;
    }
    return matches;
}

bool wildcard_matches(const char *pattern, const char *path) {
    const size_t length = strlen(pattern);
    const bool below = length > 0 && (pattern[length - 1] == '/' || pattern[length - 1] == '\\');
    const char *star = NULL, *star_path = NULL; /* behind the last '*', and where what it takes ends for now */
    for (;;) {
        if (*pattern == '*') {
            star = ++pattern;
            star_path = path;
        } else if (!*pattern && (!*path || below)) {
            return true;
        } else if (!one_matches(&pattern, &path)) {
            /* the last star takes one more */
            if (!star || !character_next(&star_path))
                return false;
            pattern = star;
            path = star_path;
        }
    }
}
