#include "infer/tokenizer/pattern_translate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "infer/tokenizer/unicode.h"

/* White_Space and what it leaves, as the inside of a class. PCRE2's own \s has U+180E too. */
#define SPACES                                                                                                         \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NO_SPACES                                                                                                      \
    "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}" \
    "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

struct translation {
    const char *regex, *at;
    enum pattern_dialect dialect;
    struct text *out;
    struct pattern_traits traits;
    struct error *error;
    size_t atom;      /* the work of what a quantifier would repeat */
    const char *torn; /* the first range that tells new characters from their stand-ins */
    int depth;
    int caseless_depth; /* of the innermost group (?i: ; 0: none */
    char previous;      /* the last caseless letter, 0 when something that no dialect joins to it came in between */
};

static enum status refuse(const struct translation *t, const char *what) {
    size_t place = (size_t)(t->at - t->regex);
    return error_set(t->error, STATUS_BAD_INPUT, "the pattern '%.200s' is not supported: %s (byte %zu)", t->regex, what,
                     place);
}

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* A character, or some of a class. */
static void append_range(struct translation *t, uint32_t first, uint32_t last) {
    text_printf(t->out, first == last ? "\\x{%x}" : "\\x{%x}-\\x{%x}", (unsigned)first, (unsigned)last);
    if (!t->torn && !unicode_range_is_whole(first, last))
        t->torn = t->at;
}

/*
 * Behind \x or \u: two or four digits, or any number in braces. Moves to what follows; UINT32_MAX when it is none.
 * Oniguruma has no braces behind \u, and two digits are a byte to it.
 */
static uint32_t hexadecimal(struct translation *t, int digits) {
    uint32_t point = 0;
    int count = 0;
    bool braces = *t->at == '{';
    t->at += braces;
    for (; (braces || count < digits) && count < 8; count++) {
        char c = *t->at;
        if (is_digit(c))
            point = point << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            point = point << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            break;
        t->at++;
    }
    bool closed = braces ? *t->at == '}' && count > 0 : count == digits;
    t->at += braces && closed;
    if (t->dialect == DIALECT_ONIGURUMA && (braces ? digits == 4 : digits == 2 && point >= 0x80))
        return UINT32_MAX;
    return closed && point <= 0x10ffff && (point < 0xd800 || point > 0xdfff) ? point : UINT32_MAX;
}

/* At a property behind \p or \P: {L}, {Lu}, {^L}; copied, as general categories are the same everywhere. */
static enum status property(struct translation *t, bool negated) {
    static const char categories[] =
        " L Lu Ll Lt Lm Lo M Mn Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs "
        "Zl Zp Cc Cf Co ";
    const char *end = *t->at == '{' ? strchr(t->at, '}') : NULL;
    const char *name = t->at + 1;
    if (end && *name == '^') {
        negated = !negated;
        name++;
    }
    char wanted[5] = " ";
    if (!end || end - name < 1 || end - name > 2 || !is_letter(*name))
        return refuse(t, "only properties that are general categories are known, such as \\p{L}");
    memcpy(wanted + 1, name, (size_t)(end - name));
    wanted[1 + (end - name)] = ' ';
    if (!strstr(categories, wanted))
        return refuse(t, "only properties that are general categories are known, such as \\p{L}");
    if (t->caseless_depth)
        return refuse(t, "a property inside (?i:, which dialects read differently");
    t->traits.categories = true;
    text_printf(t->out, "\\%c{%.*s}", negated ? 'P' : 'p', (int)(end - name), name);
    t->at = end + 1;
    return STATUS_OK;
}

/*
 * At the character behind a backslash. A single character is given as *point, for ranges; else *point is UINT32_MAX
 * and what the escape stands for has been appended.
 */
static enum status escape(struct translation *t, bool in_class, uint32_t *point) {
    static const char names[] = "nrtfvae", values[] = "\n\r\t\f\v\a\x1b";
    char c = *t->at;
    const char *name = c ? strchr(names, c) : NULL;
    *point = UINT32_MAX;
    if (!c)
        return refuse(t, "it ends in a backslash");
    if ((unsigned char)c >= 0x80)
        return refuse(t, "a backslash before a character that is not ASCII");
    t->at++;
    if (name) {
        *point = (uint32_t)values[name - names];
        return STATUS_OK;
    }
    if ((c == '<' || c == '>') && t->dialect == DIALECT_RUST)
        return refuse(t, "the edge of a word");
    if (!is_letter(c) && !is_digit(c)) {
        *point = (uint32_t)c;
        return STATUS_OK;
    }
    if ((c == 'D' || c == 'S') && in_class && t->caseless_depth)
        return refuse(t, "characters that are not ASCII in a class inside (?i:");
    switch (c) {
    case 'x':
    case 'u':
        *point = hexadecimal(t, c == 'x' ? 2 : 4);
        return *point == UINT32_MAX ? refuse(t, "not a hexadecimal number of a character") : STATUS_OK;
    case 'p':
    case 'P':
        return property(t, c == 'P');
    case 'd':
    case 'D':
        t->traits.categories = true;
        text_append_string(t->out, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
        return STATUS_OK;
    case 's':
        text_append_string(t->out, in_class ? SPACES : "[" SPACES "]");
        return STATUS_OK;
    case 'S':
        text_append_string(t->out, in_class ? NO_SPACES : "[^" SPACES "]");
        return STATUS_OK;
    default: {
        char what[40];
        t->at--;
        snprintf(what, sizeof what, "the escape \\%c", c);
        return refuse(t, what);
    }
    }
}

/* Whether one of Rust's set operators stands here. What it means at other places than between sets is no matter. */
static bool is_set_operator(const struct translation *t) {
    return t->dialect == DIALECT_RUST && (strncmp(t->at, "--", 2) == 0 || strncmp(t->at, "~~", 2) == 0);
}

/*
 * Oniguruma takes some characters for two letters when case does not count (the ligature U+FB01 for "fi"), PCRE2 none.
 */
static bool folds_with(char first, char second) {
    char pair[3] = {(char)(first | 0x20), (char)(second | 0x20), '\0'};
    return first && second && strstr("ss ff fi fl st", pair);
}

/* At a character that may be inside (?i: . What is between it and the letter before it may be joined by Oniguruma. */
static enum status fold_check(struct translation *t, uint32_t point) {
    char letter = point < 0x80 && is_letter((char)point) ? (char)point : '\0';
    if (t->caseless_depth && point >= 0x80)
        return refuse(t, "a character that is not ASCII inside (?i:");
    if (t->caseless_depth && folds_with(t->previous, letter))
        return refuse(t, "letters that dialects fold differently inside (?i:");
    t->previous = t->caseless_depth ? letter : '\0';
    return STATUS_OK;
}

/* One member of a class: as escape. */
static enum status class_member(struct translation *t, uint32_t *point) {
    if (*t->at == '[')
        return refuse(t, "a '[' inside a class");
    if (t->at[0] == '&' && t->at[1] == '&')
        return refuse(t, "an intersection of classes");
    if (is_set_operator(t))
        return refuse(t, "a difference of classes");
    if (*t->at == '\\') {
        t->at++;
        enum status status = escape(t, true, point);
        if (status != STATUS_OK)
            return status;
    } else {
        size_t step;
        *point = utf8_decode(t->at, strlen(t->at), &step, NULL);
        t->at += step;
    }
    return t->caseless_depth && *point != UINT32_MAX && *point >= 0x80
               ? refuse(t, "a character that is not ASCII inside (?i:")
               : STATUS_OK;
}

static enum status character_class(struct translation *t) {
    uint32_t only = UINT32_MAX; /* the one character in it */
    size_t members = 0;
    t->at++;
    text_append_string(t->out, "[");
    bool negated = *t->at == '^';
    if (negated) {
        text_append_string(t->out, "^");
        t->at++;
    }
    if (*t->at == ']')
        return refuse(t, "an empty class");
    while (*t->at && *t->at != ']') {
        uint32_t first, last, before = only;
        enum status status = class_member(t, &first);
        if (status != STATUS_OK)
            return status;
        if (is_set_operator(t))
            return refuse(t, "a difference of classes");
        if (*t->at == '-' && t->at[1] && t->at[1] != ']') {
            if (first == UINT32_MAX)
                return refuse(t, "a range that begins with a class");
            t->at++;
            status = class_member(t, &last);
            if (status != STATUS_OK)
                return status;
            if (last == UINT32_MAX || last < first)
                return refuse(t, "a range without an end");
            append_range(t, first, last);
            only = first == last ? first : UINT32_MAX;
        } else {
            only = first;
            if (first != UINT32_MAX)
                append_range(t, first, first);
        }
        if (members++ > 0 && only != before)
            only = UINT32_MAX;
    }
    if (!*t->at)
        return refuse(t, "a class without an end");
    t->at++;
    text_append_string(t->out, "]");
    t->atom = members;
    if (only != UINT32_MAX && !negated)
        return fold_check(t, only); /* to Oniguruma a class of one character is this character */
    t->previous = 0;
    return STATUS_OK;
}

/* At a quantifier, or nothing: copies it, and counts the work. Behind a group only ? may follow. */
static enum status quantifier(struct translation *t, bool group) {
    const char *begin = t->at;
    size_t repeats = 1;
    if (*t->at == '{') {
        const char *digits = t->at + 1;
        size_t least = strspn(digits, "0123456789"), most = 0;
        const char *end = digits + least;
        if (*end == ',') {
            most = strspn(end + 1, "0123456789");
            end += 1 + most;
        }
        if (least < 1 || least > 3 || most > 3 || *end != '}')
            return refuse(t, "braces that are no {n}, {n,} or {n,m} below 1000");
        t->at = end + 1;
        repeats = strtoul(digits, NULL, 10);
        if (*t->at && strchr("?+*{", *t->at))
            return refuse(t, "a quantifier behind braces, which dialects read differently");
    } else if (*t->at == '?' || *t->at == '*' || *t->at == '+') {
        t->at++;
        if (*t->at == '?' || *t->at == '+')
            t->at++;
        if (*t->at && strchr("?+*{", *t->at))
            return refuse(t, "a quantifier behind another");
    }
    if (group && t->at > begin && *begin != '?') {
        t->at = begin;
        return refuse(t, "a repeated group");
    }
    if (*begin != '?' && t->at > begin && folds_with(t->previous, t->previous)) {
        t->at = begin;
        return refuse(t, "letters that dialects fold differently inside (?i:");
    }
    t->traits.work += group ? 1 : t->atom * (repeats > 1 ? repeats : 1);
    text_append(t->out, begin, (size_t)(t->at - begin));
    if (group || t->at > begin)
        text_append_string(t->out, "(?C)");
    return STATUS_OK;
}

static enum status literal(struct translation *t, uint32_t point) {
    enum status status = fold_check(t, point);
    if (status != STATUS_OK)
        return status;
    append_range(t, point, point);
    t->atom = 1;
    return quantifier(t, false);
}

static enum status group_open(struct translation *t) {
    static const char *const kinds[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (t->depth >= 32)
        return refuse(t, "groups nested too deeply");
    t->depth++;
    if (t->at[1] != '?') {
        text_append_string(t->out, "(?:"); /* nobody looks at what it captured */
        t->at++;
        return STATUS_OK;
    }
    if (strncmp(t->at, "(?i:", 4) == 0) {
        text_append_string(t->out, "(?i:");
        t->caseless_depth = t->caseless_depth ? t->caseless_depth : t->depth;
        t->at += 4;
        return STATUS_OK;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t length = strlen(kinds[i]);
        if (strncmp(t->at, kinds[i], length) == 0) {
            text_append_string(t->out, kinds[i]);
            t->at += length;
            return STATUS_OK;
        }
    }
    return refuse(t, "a group of an unknown kind");
}

static enum status element(struct translation *t) {
    enum status status;
    uint32_t point;
    size_t step;
    switch (*t->at) {
    case '(':
        return group_open(t);
    case ')':
        if (t->depth == 0)
            return refuse(t, "a ')' without its '('");
        if (t->caseless_depth == t->depth)
            t->caseless_depth = 0;
        t->depth--;
        t->at++;
        text_append_string(t->out, ")");
        return quantifier(t, true);
    case '[':
        status = character_class(t);
        return status == STATUS_OK ? quantifier(t, false) : status;
    case '|':
    case '.':
        t->previous = 0;
        t->atom = 1;
        text_append(t->out, t->at++, 1);
        return t->at[-1] == '.' ? quantifier(t, false) : STATUS_OK;
    case '\\':
        t->at++;
        status = escape(t, false, &point);
        if (status == STATUS_OK && point != UINT32_MAX)
            return literal(t, point);
        t->previous = 0;
        t->atom = 1;
        return status == STATUS_OK ? quantifier(t, false) : status;
    case '^':
    case '$':
        return refuse(t, "an anchor");
    case '*':
    case '+':
    case '?':
    case '{':
        return refuse(t, "a quantifier with nothing before it");
    default:
        point = utf8_decode(t->at, strlen(t->at), &step, NULL);
        t->at += step;
        return literal(t, point);
    }
}

enum status pattern_translate(const char *regex, enum pattern_dialect dialect, struct text *out,
                              struct pattern_traits *traits, struct error *error) {
    struct translation t = {.regex = regex, .at = regex, .dialect = dialect, .out = out, .error = error};
    while (*t.at) {
        enum status status = element(&t);
        if (status != STATUS_OK)
            return status;
    }
    if (t.depth > 0)
        return refuse(&t, "a group without its ')'");
    if (t.traits.categories && t.torn) {
        t.at = t.torn;
        return refuse(&t, "characters newer than Unicode 14, or of their kinds, beside classes such as \\p{L}");
    }
    *traits = t.traits;
    return out->failed ? error_set_memory(error) : STATUS_OK;
}
