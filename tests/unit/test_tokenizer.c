/*
 * Tokenizers: ids of texts by small files in which each feature can be seen. That real files give the same ids as the
 * libraries do is shown by tests/tokenizer.
 */
#include "tests/unit/tokenizer_files.h"

#include <pthread.h>

#define SPECIAL ", \"special\": true"

/* ---- merging ---- */

static void given_no_merges_then_ids_are_those_of_the_bytes(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){0});
    assert_encodes_as_bytes(test, "a b\n\x7f\u00df\u4e2d\U0001f600", "a b\n\x7f\u00df\u4e2d\U0001f600");
    bytes_encode_as(test, "", 0, NULL, 0);
    bytes_encode_as(test, "\0a", 2, (const int32_t[]){0, 'a'}, 2);
    assert_int_equal(tokenizer_size(test->tokenizer), 256);
}

static void given_merges_then_the_first_of_the_list_goes_first(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256, \"bc\": 257, \"abc\": 258, \"aab\": 259",
                                                        .merges = "\"b c\", \"a b\", \"a bc\", \"a ab\""});
    assert_encodes(test, "abc", 258);
    assert_encodes(test, "ab", 256);
    assert_encodes(test, "aab", 259);
    assert_encodes(test, "aabc", 'a', 258); /* bc first: aab never comes to be */
    assert_encodes(test, "xabcx", 'x', 258, 'x');
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256, \"bc\": 257, \"abc\": 258",
                                                        .merges = "\"a b\", \"b c\", \"a bc\""});
    assert_encodes(test, "abc", 256, 'c');
    assert_encodes(test, "bbc", 'b', 257);
}

static void given_neighbours_that_all_merge_then_the_leftmost_go_first(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"aa\": 300, \"aaaa\": 301",
                                                        .merges = "[\"a\", \"a\"], [\"aa\", \"aa\"]"});
    assert_encodes(test, "aaa", 300, 'a');
    assert_encodes(test, "aaaaa", 301, 'a');
    assert_encodes(test, "aaaaaaa", 301, 300, 'a');
    assert_int_equal(tokenizer_size(test->tokenizer), 302);
}

static void given_a_version_line_among_the_merges_then_it_is_none(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256",
                                                        .merges = "\"#version: 0.2 - by a trainer\", \"a b\""});
    assert_encodes(test, "ab", 256);
}

/* Words of any length are merged in the same way, whichever of the ways to do it they take. */
static void given_words_of_many_lengths_then_all_are_merged_alike(void **state) {
    struct tokenizer_test *test = *state;
    enum { LONGEST = 400 };
    char word[LONGEST + 1];
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256, \"abab\": 257, \"ba\": 258",
                                                        .merges = "\"a b\", \"ab ab\", \"b a\""});
    for (size_t length = 1; length <= LONGEST; length++) {
        int32_t ids[LONGEST];
        size_t count = 0;
        for (size_t i = 0; i < length; i++)
            word[i] = "ab"[i % 2];
        word[length] = '\0';
        for (size_t i = 0; i < length / 4; i++)
            ids[count++] = 257;
        if (length % 4 >= 2)
            ids[count++] = 256;
        if (length % 2 == 1)
            ids[count++] = 'a';
        bytes_encode_as(test, word, length, ids, count);
    }
}

/* By the definition: of all neighbours that merge, those of the lowest rank, the leftmost first, until none do. */
static size_t merge_naively(int32_t *ids, size_t count, const int32_t (*merges)[2], size_t merge_count) {
    for (;;) {
        size_t best = merge_count, place = 0;
        for (size_t i = 0; i + 1 < count; i++)
            for (size_t rank = 0; rank < best; rank++)
                if (merges[rank][0] == ids[i] && merges[rank][1] == ids[i + 1]) {
                    best = rank;
                    place = i;
                }
        if (best == merge_count)
            return count;
        ids[place] = 256 + (int32_t)best;
        count--;
        memmove(ids + place + 1, ids + place + 2, (count - place - 1) * sizeof *ids);
    }
}

static void given_random_merges_then_words_of_all_lengths_are_merged_by_the_definition(void **state) {
    struct tokenizer_test *test = *state;
    enum { MERGES = 60, LONGEST = 300 };
    uint64_t seed = 1;
    for (int round = 0; round < 10; round++) {
        char names[MERGES][64];
        int32_t merges[MERGES][2];
        struct text vocab = {0}, list = {0};
        for (size_t count = 0; count < MERGES;) {
            const char *parts[2];
            char letters[2][2] = {{0}, {0}};
            for (size_t i = 0; i < 2; i++) {
                size_t from = fixture_random(&seed) % (count + 4);
                letters[i][0] = (char)('a' + fixture_random(&seed) % 3);
                merges[count][i] = from < count ? 256 + (int32_t)from : letters[i][0];
                parts[i] = from < count ? names[from] : letters[i];
            }
            bool taken = strlen(parts[0]) + strlen(parts[1]) >= sizeof *names;
            if (!taken)
                strcat(strcpy(names[count], parts[0]), parts[1]);
            for (size_t i = 0; i < count && !taken; i++)
                taken = strcmp(names[i], names[count]) == 0;
            if (taken)
                continue;
            text_printf(&vocab, "%s\"%s\": %zu", count ? ", " : "", names[count], 256 + count);
            text_printf(&list, "%s[\"%s\", \"%s\"]", count ? ", " : "", parts[0], parts[1]);
            count++;
        }
        tokenizer_given(test, (struct tokenizer_parts_json){.vocab = vocab.bytes, .merges = list.bytes});
        text_free(&vocab);
        text_free(&list);
        for (size_t length = 1; length <= LONGEST; length++) {
            char word[LONGEST + 1] = "";
            int32_t ids[LONGEST];
            for (size_t i = 0; i < length; i++)
                ids[i] = word[i] = (char)('a' + fixture_random(&seed) % 3);
            bytes_encode_as(test, word, length, ids, merge_naively(ids, length, merges, MERGES));
        }
    }
}

static void given_words_that_come_again_then_their_ids_are_the_same(void **state) {
    struct tokenizer_test *test = *state;
    struct text text = {0};
    int32_t ids[12000];
    size_t count = 0;
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256, \"\\u0120ab\": 257",
                                                        .merges = "\"a b\", \"\\u0120 ab\"",
                                                        .pre_tokenizer = GPT2});
    for (int round = 0; round < 500; round++) {
        static const char *const words[] = {" ab", " a", " b", " bab", "?", " aab"};
        static const int32_t word_ids[][4] = {{1, 257},           {2, ' ', 'a'}, {2, ' ', 'b'},
                                              {3, ' ', 'b', 256}, {1, '?'},      {3, ' ', 'a', 256}};
        size_t word = (size_t)(round * 7 + round / 5) % 6;
        text_append_string(&text, words[word]);
        for (int32_t i = 0; i < word_ids[word][0]; i++)
            ids[count++] = word_ids[word][i + 1];
    }
    bytes_encode_as(test, text.bytes, text.length, ids, count);
    text_free(&text);
}

static void given_ignore_merges_then_a_word_that_is_a_token_is_not_merged(void **state) {
    struct tokenizer_test *test = *state;
    struct tokenizer_parts_json parts = {.vocab = "\"ab\": 256, \"abc\": 257, \"\\u0120x\": 258", .merges = "\"a b\""};
    tokenizer_given(test, parts);
    assert_encodes(test, "abc", 256, 'c');
    parts.model = "\"ignore_merges\": true,";
    tokenizer_given(test, parts);
    assert_encodes(test, "abc", 257);
    assert_encodes(test, " x", 258);
    assert_encodes(test, "abcd", 256, 'c', 'd'); /* no token: merged */
}

/* NFC makes two characters of U+0958: the word is longer than the text was. */
static void given_ignore_merges_and_nfc_then_a_word_may_be_longer_than_the_text(void **state) {
    struct tokenizer_test *test = *state;
    struct text vocab = {0}, text = {0}, normalized = {0};
    text_printf(&vocab, "\"%0400d\": 256", 0);
    for (int i = 0; i < 40; i++) {
        text_append_string(&text, "\u0958");
        text_append_string(&normalized, "\u0915\u093c");
    }
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = vocab.bytes,
                                                        .model = "\"ignore_merges\": true,",
                                                        .normalizer = "{\"type\": \"NFC\"}"});
    assert_encodes_as_bytes(test, text.bytes, normalized.bytes);
    tokenizer_forget(test); /* what was written past its end is noticed here at the latest */
    text_free(&vocab);
    text_free(&text);
    text_free(&normalized);
}

static void given_options_that_are_off_then_they_are_fine(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test,
                    (struct tokenizer_parts_json){
                        .model = "\"dropout\": null, \"unk_token\": \"<unk>\", \"continuing_subword_prefix\": \"\", "
                                 "\"end_of_word_suffix\": \"\", \"fuse_unk\": false, \"byte_fallback\": false,"});
    assert_encodes(test, "ab", 'a', 'b');
}

/* ---- cutting into words ---- */

/* In these tests ab and bc are tokens, so that cuts can be seen: "ab|c" is 256 c, "a|bc" a 257. */
static void cuts(struct tokenizer_test *test, const char *pre_tokenizer) {
    tokenizer_given(test,
                    (struct tokenizer_parts_json){
                        .vocab = "\"ab\": 256, \"bc\": 257, \"cc\": 258, \"\\u0120a\": 259, \"12\": 260, \"b?\": 261",
                        .merges = "\"c c\", \"a b\", \"b c\", \"\\u0120 a\", \"1 2\", \"b ?\"",
                        .pre_tokenizer = pre_tokenizer});
}

static void given_a_split_then_its_behavior_decides_about_what_matches(void **state) {
    struct tokenizer_test *test = *state;
    cuts(test, SEQUENCE(SPLIT("Regex", "c", "Isolated", "false") "," BYTE_LEVEL));
    assert_encodes(test, "abcc", 256, 'c', 'c');
    cuts(test, SEQUENCE(SPLIT("Regex", "c", "Contiguous", "false") "," BYTE_LEVEL));
    assert_encodes(test, "bccb", 'b', 258, 'b');
    assert_encodes(test, "bcb", 'b', 'c', 'b');
    cuts(test, SEQUENCE(SPLIT("Regex", "c", "Removed", "false") "," BYTE_LEVEL));
    assert_encodes(test, "cabcbc", 256, 'b');
    cuts(test, SEQUENCE(SPLIT("Regex", "b", "MergedWithPrevious", "false") "," BYTE_LEVEL));
    assert_encodes(test, "bcabc", 'b', 'c', 256, 'c');
    cuts(test, SEQUENCE(SPLIT("Regex", "c", "MergedWithPrevious", "false") "," BYTE_LEVEL));
    assert_encodes(test, "bccx", 257, 'c', 'x');
    cuts(test, SEQUENCE(SPLIT("Regex", "b", "MergedWithNext", "false") "," BYTE_LEVEL));
    assert_encodes(test, "abcab", 'a', 257, 'a', 'b');
    cuts(test, SEQUENCE(SPLIT("Regex", "c", "MergedWithNext", "false") "," BYTE_LEVEL));
    assert_encodes(test, "ccb", 'c', 'c', 'b');
    cuts(test, SEQUENCE(SPLIT("Regex", "b", "Removed", "true") "," BYTE_LEVEL));
    assert_encodes(test, "abcb", 'b', 'b');
}

static void given_a_string_to_split_at_then_it_is_no_pattern(void **state) {
    struct tokenizer_test *test = *state;
    cuts(test, SEQUENCE(SPLIT("String", "c.", "Removed", "false") "," BYTE_LEVEL));
    assert_encodes(test, "abc.bcc", 256, 'b', 258);
}

static void given_several_pre_tokenizers_then_each_cuts_what_the_one_before_left(void **state) {
    struct tokenizer_test *test = *state;
    cuts(test, SEQUENCE(SPLIT("Regex", "\\\\p{N}{1,3}", "Isolated", "false") "," SPLIT("Regex", "a", "Isolated",
                                                                                       "false") "," BYTE_LEVEL));
    assert_encodes(test, "1212abc", 260, '1', '2', 'a', 257);
    cuts(test, SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": true}," BYTE_LEVEL));
    assert_encodes(test, "12ab", '1', '2', 256);
    cuts(test, SEQUENCE("{\"type\": \"Digits\", \"individual_digits\": false}," BYTE_LEVEL));
    assert_encodes(test, "12ab", 260, 256);
}

static void given_gpt2s_pattern_then_words_take_the_space_before_them(void **state) {
    struct tokenizer_test *test = *state;
    cuts(test, GPT2);
    assert_encodes(test, "  ab a?bc", ' ', ' ', 256, 259, '?', 257);
    assert_encodes(test, "b?", 'b', '?');
    cuts(test, BYTE_LEVEL);
    assert_encodes(test, "b?b a", 261, 'b', 259);
}

static void given_a_prefix_space_then_what_has_none_gets_one(void **state) {
    struct tokenizer_test *test = *state;
    cuts(test, "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"use_regex\": false}");
    assert_encodes(test, "a", 259);
    assert_encodes(test, " a", 259);
    bytes_encode_as(test, "", 0, NULL, 0);
}

static void given_letters_in_both_cases_then_a_caseless_group_takes_them(void **state) {
    struct tokenizer_test *test = *state;
    cuts(test, SEQUENCE(SPLIT("Regex", "(?i:B)", "Isolated", "false") "," BYTE_LEVEL));
    assert_encodes(test, "bcab", 'b', 'c', 'a', 'b');
    cuts(test, SEQUENCE(SPLIT("Regex", "(?:(?i:B)|A)|\u00e9|fi", "Isolated", "false") "," BYTE_LEVEL));
    assert_encodes(test, "cab", 'c', 'a', 'b');
    cuts(test, SEQUENCE(SPLIT("Regex", "B", "Isolated", "false") "," BYTE_LEVEL));
    assert_encodes(test, "bcab", 257, 256);
}

/* PCRE2 10.42 has faults in what it does to be faster: each of these was wrong. */
static void given_patterns_that_pcre2_would_speed_up_then_their_matches_are_those_of_the_definition(void **state) {
    struct tokenizer_test *test = *state;
    static const struct {
        const char *pattern, *text, *left;
    } examples[] = {
        {SEQUENCE(SPLIT("Regex", "\\\\P{N}+\\\\P{L}", "Removed", "false") "," BYTE_LEVEL), "!!a", "a"},
        {SEQUENCE(SPLIT("Regex", "\\\\P{Lu}*\\\\P{Ll}", "Removed", "false") "," BYTE_LEVEL), "1b", "b"},
        {SEQUENCE(SPLIT("Regex", "(?>[a-z]+|b?)z", "Removed", "false") "," BYTE_LEVEL), "xz", "xz"},
        {SEQUENCE(SPLIT("Regex", "(?:[a-z]+|b)?+z", "Removed", "false") "," BYTE_LEVEL), "xz", "xz"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        tokenizer_given(test, (struct tokenizer_parts_json){.pre_tokenizer = examples[i].pattern});
        assert_encodes_as_bytes(test, examples[i].text, examples[i].left);
    }
}

/* What \s, \d and letters are is decided by the libraries' Unicode, not by that of PCRE2. */
static void given_characters_then_their_classes_are_those_of_the_libraries(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){
                              .pre_tokenizer = SEQUENCE(SPLIT("Regex", "\\\\s", "Removed", "false") "," BYTE_LEVEL)});
    assert_encodes_as_bytes(test,
                            "a\xc2\x85"
                            "b\u3000c\u2028d\u00a0e",
                            "abcde");
    assert_encodes_as_bytes(test, "a\u180eb\u200bc\x1c", "a\u180eb\u200bc\x1c");
    tokenizer_given(
        test, (struct tokenizer_parts_json){
                  .pre_tokenizer = SEQUENCE(SPLIT("Regex", "\\\\p{Lu}|\\\\d", "Removed", "false") "," BYTE_LEVEL)});
    assert_encodes_as_bytes(test, "a\u1c89b\u0661c\u00c9", "abc"); /* U+1C89 came with Unicode 16 */
    assert_encodes_as_bytes(test, "a\u1c8ab\u00b2c", "a\u1c8ab\u00b2c");
}

/* New characters are replaced by others before categories are looked for: patterns that name them must not notice. */
static void given_a_pattern_that_names_new_characters_then_it_matches_these_and_no_others(void **state) {
    struct tokenizer_test *test = *state;
    static const struct {
        const char *pattern, *text, *left;
    } examples[] = {
        {SEQUENCE(SPLIT("Regex", "[\\\\x{1F300}-\\\\x{1FAFF}]+", "Removed", "false") "," BYTE_LEVEL), "a\U0001fae8b",
         "ab"},
        {SEQUENCE(SPLIT("Regex", "\U0001fae8", "Removed", "false") "," BYTE_LEVEL), "a\U0001fae8b\U0001fae9",
         "ab\U0001fae9"},
        {SEQUENCE(SPLIT("String", "\U0001fae8", "Removed", "false") "," BYTE_LEVEL), "a\U0001fae8b", "ab"},
        {SEQUENCE(SPLIT("Regex", "[\\\\x{10000}-\\\\x{1007F}]", "Removed", "false") "," BYTE_LEVEL),
         "\U00010000\U00031350", "\U00031350"},
        {SEQUENCE(SPLIT("Regex", "[^\\\\s\\\\S\U0001fae8]|\U00010137", "Removed", "false") "," BYTE_LEVEL),
         "\U00010137\U0001fae8", "\U0001fae8"},
        {SEQUENCE(SPLIT("Regex", "[\\\\p{Lu}\\\\x{10000}-\\\\x{10ffff}]", "Removed", "false") "," BYTE_LEVEL),
         "aA\U0001fae8\u1c89b", "ab"},
        {SEQUENCE(SPLIT("Regex", "[\u4e00-\u9fa5\u3040-\u30ff]\\\\p{L}", "Removed", "false") "," BYTE_LEVEL),
         "\u4e2d\u1c89\u1c89", "\u1c89"},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        tokenizer_given(test, (struct tokenizer_parts_json){.pre_tokenizer = examples[i].pattern});
        assert_encodes_as_bytes(test, examples[i].text, examples[i].left);
    }
}

/* ---- normalizing, invalid bytes ---- */

static void given_nfc_then_characters_are_composed(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.normalizer = "{\"type\": \"NFC\"}"});
    assert_encodes_as_bytes(test, "e\u0301", "\u00e9");
    assert_encodes_as_bytes(test, "x\u1112\u1161\u11aby", "x\ud55cy");
    assert_encodes_as_bytes(test, "q\u0307\u0323", "q\u0323\u0307"); /* marks in order */
    assert_encodes_as_bytes(test, "\u212b\u0958", "\u00c5\u0915\u093c");
    assert_encodes_as_bytes(test, "a\u033d\u0301", "a\u033d\u0301"); /* the first mark blocks the second */
    assert_encodes_as_bytes(test, "\uac00\u11a8\uac01\u11a8", "\uac01\uac01\u11a8");
    assert_encodes_as_bytes(test, "plain", "plain");
    tokenizer_given(test, (struct tokenizer_parts_json){
                              .normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}]}"});
    assert_encodes_as_bytes(test, "e\u0301", "\u00e9");
    tokenizer_given(test, (struct tokenizer_parts_json){0});
    assert_encodes_as_bytes(test, "e\u0301", "e\u0301");
}

static void given_bytes_that_are_no_utf8_then_they_are_read_as_python_reads_them(void **state) {
    static const struct {
        const char *bytes, *read;
    } examples[] = {
        {"a\xff", "a\ufffd"},
        {"\xc0\xaf", "\ufffd\ufffd"},
        {"\xe2\x82", "\ufffd"}, /* the beginning of a character */
        {"\xe2\x82x", "\ufffdx"},
        {"\xf0\x9f\x98\xf0\x9f\x98\x80", "\ufffd\U0001f600"},
        {"\xed\xa0\x80", "\ufffd\ufffd\ufffd"}, /* a surrogate */
        {"\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
        {"\xe0\x9f\xbf", "\ufffd\ufffd\ufffd"},
        {"\u00e9\x80", "\u00e9\ufffd"},
    };
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){0});
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        assert_encodes_as_bytes(test, examples[i].bytes, examples[i].read);
}

/* ---- added tokens ---- */

static void given_added_tokens_then_they_are_found_in_the_text(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(
        test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256, \"<v>\": 257",
                                            .merges = "\"a b\"",
                                            .added = ADDED("<s>", 258, SPECIAL) "," ADDED("<s", 259, "") "," ADDED(
                                                "<v>", 257, "") "," ADDED("aba", 260, "")});
    assert_encodes(test, "<s>ab<s>", 258, 256, 258);
    assert_encodes(test, "a<s>b", 'a', 258, 'b');
    assert_encodes(test, "<s<s>", 259, 258); /* the longest at a place */
    assert_encodes(test, "<v>", 257);        /* it has the vocabulary's id */
    assert_encodes(test, "<", '<');
    assert_encodes(test, "babab", 'b', 260, 'b'); /* they do not overlap */
    assert_int_equal(tokenizer_size(test->tokenizer), 261);
    assert_int_equal(tokenizer_id(test->tokenizer, "<s>"), 258);
    assert_int_equal(tokenizer_id(test->tokenizer, "ab"), 256);
    assert_int_equal(tokenizer_id(test->tokenizer, "<t>"), -1);
}

static void given_added_tokens_that_strip_then_they_take_the_white_space(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test,
                    (struct tokenizer_parts_json){.added = ADDED("<l>", 256, ", \"lstrip\": true") "," ADDED(
                                                      "<r>", 257, ", \"rstrip\": true") "," ADDED("<n>", 258, "")});
    assert_encodes(test, "a \t<l> b", 'a', 256, ' ', 'b');
    assert_encodes(test, "a <r>\u3000\n b", 'a', ' ', 257, 'b');
    assert_encodes(test, " <n> ", ' ', 258, ' ');
    assert_encodes(test, "<r>  <l>", 257, 256);
    tokenizer_given(test, (struct tokenizer_parts_json){.added = ADDED("<r>", 256, ", \"rstrip\": true") "," ADDED(
                                                            "  ", 257, ", \"lstrip\": true")});
    assert_encodes(test, "<r>    x   y", 256, 'x', 257, ' ', 'y'); /* what the first took is not taken again */
}

static void given_an_added_token_twice_or_an_empty_one_then_the_last_counts_and_none_is_found(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.added = ADDED("", 7, "") "," ADDED("<s>", 256, "") "," ADDED(
                                                            "<s>", 256, ", \"rstrip\": true")});
    assert_encodes(test, "a<s> b", 'a', 256, 'b');
    assert_int_equal(tokenizer_size(test->tokenizer), 257);
}

static void given_a_single_word_then_it_stands_between_other_characters(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.added = ADDED("<w>", 256, ", \"single_word\": true")});
    assert_encodes(test, "<w> <w>", 256, ' ', 256);
    assert_encodes(test, "a<w>", 'a', '<', 'w', '>');
    assert_encodes(test, "<w>_", '<', 'w', '>', '_');
    assert_encodes(test, "-<w>-", '-', 256, '-');
    assert_encodes_as_bytes(test, "<w>\u00e9", "<w>\u00e9");
}

static void given_normalized_added_tokens_then_they_are_looked_for_in_normalized_text(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){
                              .normalizer = "{\"type\": \"NFC\"}",
                              .added = ADDED("x\u00e9", 256, NORMALIZED) "," ADDED("x\u00fc", 257, "") "," ADDED(
                                  "xo\u0308", 258, NORMALIZED) "," ADDED("yu\u0308", 259, "")});
    assert_encodes(test, "xe\u0301", 256);
    assert_encodes(test, "x\u00fc", 257);
    assert_encodes_as_bytes(test, "xu\u0308", "x\u00fc"); /* that one is not normalized: only as it stands */
    assert_encodes(test, "x\u00f6", 258);
    assert_encodes(test, "yu\u0308", 259);
}

/* ---- decoding ---- */

static void given_ids_then_they_decode_to_their_bytes(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\\u0120\": 256, \"\u4e2d\": 257, \"c d\": 258",
                                                        .added = ADDED("<\u4e2d>", 259, SPECIAL)});
    assert_decodes(test, true, "ab x", 256, 'x');
    assert_decodes(test, true, "\u4e2d\u4e2d", 257, 0xe4, 0xb8, 0xad); /* no bytes of that alphabet: the text itself */
    assert_decodes(test, true, "\xe4", 0xe4);
    assert_decodes(test, true, "c d", 258);
    assert_decodes(test, true, "a<\u4e2d>b", 'a', 259, 'b');
    assert_decodes(test, false, "ab", 'a', 259, 'b');
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"\\u0120ab\": 300"});
    assert_decodes(test, true, " ab", 300);
    const int32_t unknown[] = {-1, 256, 299, 301, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        assert_refused(tokenizer_decode(test->tokenizer, unknown + i, 1, true, &test->text, &test->error),
                       STATUS_BAD_INPUT, test->error, "has no token");
}

static void given_any_bytes_then_decoding_gives_the_text_back(void **state) {
    struct tokenizer_test *test = *state;
    uint64_t seed = 1;
    tokenizer_given(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 256, \"bc\": 257, \"abab\": 258",
                                                        .merges = "\"a b\", \"ab ab\", \"b c\"",
                                                        .pre_tokenizer = GPT2,
                                                        .added = ADDED("cab", 259, "")});
    for (int round = 0; round < 2000; round++) {
        char text[300];
        size_t length = fixture_random(&seed) % sizeof text;
        for (size_t i = 0; i < length; i++)
            text[i] = "abc \n1'"[fixture_random(&seed) % 7];
        test->ids.count = test->text.length = 0;
        assert_ok(tokenizer_encode(test->tokenizer, text, length, &test->ids, &test->error), test->error);
        assert_ok(tokenizer_decode(test->tokenizer, test->ids.ids, test->ids.count, true, &test->text, &test->error),
                  test->error);
        assert_int_equal(test->text.length, length);
        if (length > 0)
            assert_memory_equal(test->text.bytes, text, length);
    }
}

/* ---- tekken.json ---- */

#define LETTERS "[^\\\\p{L}]?\\\\p{L}+|."
#define AB "{\"rank\": 256, \"token_bytes\": \"YWI=\", \"token_str\": \"ab\"}"
#define BC "{\"rank\": 257, \"token_bytes\": \"YmM=\", \"token_str\": \"bc\"}"
#define ABCD "{\"rank\": 258, \"token_bytes\": \"YWJjZA==\", \"token_str\": \"abcd\"}"

static void given_tekken_then_what_has_the_lowest_rank_is_made_first(void **state) {
    struct tokenizer_test *test = *state;
    tekken_json_write(test, LETTERS, "", 20, 3, AB "," BC "," ABCD);
    tokenizer_given_files(test);
    assert_encodes(test, "abc", 20 + 256, 20 + 'c');
    assert_encodes(test, "xbc", 20 + 'x', 20 + 257);
    assert_encodes(test, "abcd", 20 + 258);                                /* a word that is a token */
    assert_encodes(test, "xabcd", 20 + 'x', 20 + 256, 20 + 'c', 20 + 'd'); /* nothing leads to it by merging */
    assert_int_equal(tokenizer_size(test->tokenizer), 20 + 256 + 3);
    assert_decodes(test, true, "abcd", 20 + 256, 20 + 'c', 20 + 'd');
}

static void given_tekkens_config_then_it_says_how_much_of_the_vocab_is_used(void **state) {
    struct tokenizer_test *test = *state;
    tekken_json_write(test, LETTERS, "", 20, 1, AB "," BC);
    tokenizer_given_files(test);
    assert_encodes(test, "abxbc", 20 + 256, 20 + 'x', 20 + 'b', 20 + 'c');
    assert_int_equal(tokenizer_size(test->tokenizer), 20 + 257);
}

static void given_tekken_then_special_tokens_are_not_found_in_text(void **state) {
    struct tokenizer_test *test = *state;
    tekken_json_write(test, LETTERS, "\"type\": \"Tekken\", \"weight\": NaN,", 22, 0, "");
    tokenizer_given_files(test);
    assert_encodes(test, "<s>", 22 + '<', 22 + 's', 22 + '>');
    assert_int_equal(tokenizer_id(test->tokenizer, "<s>"), 1);
    assert_int_equal(tokenizer_id(test->tokenizer, "[TOOL_CONTENT]"), 19);
    assert_int_equal(tokenizer_id(test->tokenizer, "<SPECIAL_21>"), 21);
    assert_int_equal(tokenizer_id(test->tokenizer, "<SPECIAL_22>"), -1);
    assert_decodes(test, true, "<s>a<SPECIAL_20>", 1, 22 + 'a', 20);
    assert_decodes(test, false, "a", 1, 22 + 'a', 20);
    tekken_json_write(test, LETTERS,
                      "\"special_tokens\": [{\"rank\": 0, \"token_str\": \"[X]\", \"is_control\": true}],", 2, 0, "");
    tokenizer_given_files(test);
    assert_int_equal(tokenizer_id(test->tokenizer, "[X]"), 0);
    assert_int_equal(tokenizer_id(test->tokenizer, "<SPECIAL_1>"), 1);
    assert_encodes(test, "a", 2 + 'a');
}

static void given_tekkens_pattern_then_what_it_does_not_match_is_left_out(void **state) {
    struct tokenizer_test *test = *state;
    tekken_json_write(test, "[ab]+|\\\\xe9", "", 20, 1, AB);
    tokenizer_given_files(test);
    assert_encodes(test, "?abb1\u00e9a?", 20 + 256, 20 + 'b', 20 + 0xc3, 20 + 0xa9, 20 + 'a');
    assert_encodes(test, "aab", 20 + 'a', 20 + 256);
    bytes_encode_as(test, "cc", 2, NULL, 0);
}

/* ---- folders and threads ---- */

static void given_both_files_then_tokenizer_json_counts(void **state) {
    struct tokenizer_test *test = *state;
    tekken_json_write(test, LETTERS, "", 20, 0, "");
    tokenizer_given(test, (struct tokenizer_parts_json){0});
    assert_encodes(test, "a", 'a');
}

static void given_ids_already_then_new_ones_are_appended(void **state) {
    struct tokenizer_test *test = *state;
    tokenizer_given(test, (struct tokenizer_parts_json){0});
    assert_ok(token_ids_append(&test->ids, 7, &test->error), test->error);
    assert_ok(tokenizer_encode(test->tokenizer, "a", 1, &test->ids, &test->error), test->error);
    assert_int_equal(test->ids.count, 2);
    assert_int_equal(test->ids.ids[0], 7);
    assert_int_equal(test->ids.ids[1], 'a');
}

struct job {
    const struct tokenizer *tokenizer;
    const struct text *text;
    struct token_ids ids;
    enum status status;
};

static void *job_run(void *data) {
    struct job *job = data;
    struct error error;
    job->status = tokenizer_encode(job->tokenizer, job->text->bytes, job->text->length, &job->ids, &error);
    return NULL;
}

static void given_several_threads_then_one_tokenizer_serves_them(void **state) {
    struct tokenizer_test *test = *state;
    enum { THREADS = 4 };
    struct job jobs[THREADS] = {0};
    pthread_t threads[THREADS];
    struct text text = {0};
    tokenizer_given(test,
                    (struct tokenizer_parts_json){.vocab = "\"ab\": 256", .merges = "\"a b\"", .pre_tokenizer = GPT2});
    for (int i = 0; i < 5000; i++)
        text_printf(&text, " ab%d a", i);
    for (size_t i = 0; i < THREADS; i++) {
        jobs[i] = (struct job){.tokenizer = test->tokenizer, .text = &text};
        assert_int_equal(pthread_create(&threads[i], NULL, job_run, &jobs[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(jobs[i].status, STATUS_OK);
        bytes_encode_as(test, text.bytes, text.length, jobs[i].ids.ids, jobs[i].ids.count);
        token_ids_free(&jobs[i].ids);
    }
    text_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TOKENIZER_TEST(given_no_merges_then_ids_are_those_of_the_bytes),
        TOKENIZER_TEST(given_merges_then_the_first_of_the_list_goes_first),
        TOKENIZER_TEST(given_neighbours_that_all_merge_then_the_leftmost_go_first),
        TOKENIZER_TEST(given_a_version_line_among_the_merges_then_it_is_none),
        TOKENIZER_TEST(given_words_of_many_lengths_then_all_are_merged_alike),
        TOKENIZER_TEST(given_random_merges_then_words_of_all_lengths_are_merged_by_the_definition),
        TOKENIZER_TEST(given_words_that_come_again_then_their_ids_are_the_same),
        TOKENIZER_TEST(given_ignore_merges_then_a_word_that_is_a_token_is_not_merged),
        TOKENIZER_TEST(given_ignore_merges_and_nfc_then_a_word_may_be_longer_than_the_text),
        TOKENIZER_TEST(given_options_that_are_off_then_they_are_fine),
        TOKENIZER_TEST(given_a_split_then_its_behavior_decides_about_what_matches),
        TOKENIZER_TEST(given_a_string_to_split_at_then_it_is_no_pattern),
        TOKENIZER_TEST(given_several_pre_tokenizers_then_each_cuts_what_the_one_before_left),
        TOKENIZER_TEST(given_gpt2s_pattern_then_words_take_the_space_before_them),
        TOKENIZER_TEST(given_a_prefix_space_then_what_has_none_gets_one),
        TOKENIZER_TEST(given_letters_in_both_cases_then_a_caseless_group_takes_them),
        TOKENIZER_TEST(given_patterns_that_pcre2_would_speed_up_then_their_matches_are_those_of_the_definition),
        TOKENIZER_TEST(given_characters_then_their_classes_are_those_of_the_libraries),
        TOKENIZER_TEST(given_a_pattern_that_names_new_characters_then_it_matches_these_and_no_others),
        TOKENIZER_TEST(given_nfc_then_characters_are_composed),
        TOKENIZER_TEST(given_bytes_that_are_no_utf8_then_they_are_read_as_python_reads_them),
        TOKENIZER_TEST(given_added_tokens_then_they_are_found_in_the_text),
        TOKENIZER_TEST(given_added_tokens_that_strip_then_they_take_the_white_space),
        TOKENIZER_TEST(given_an_added_token_twice_or_an_empty_one_then_the_last_counts_and_none_is_found),
        TOKENIZER_TEST(given_a_single_word_then_it_stands_between_other_characters),
        TOKENIZER_TEST(given_normalized_added_tokens_then_they_are_looked_for_in_normalized_text),
        TOKENIZER_TEST(given_ids_then_they_decode_to_their_bytes),
        TOKENIZER_TEST(given_any_bytes_then_decoding_gives_the_text_back),
        TOKENIZER_TEST(given_tekken_then_what_has_the_lowest_rank_is_made_first),
        TOKENIZER_TEST(given_tekkens_config_then_it_says_how_much_of_the_vocab_is_used),
        TOKENIZER_TEST(given_tekken_then_special_tokens_are_not_found_in_text),
        TOKENIZER_TEST(given_tekkens_pattern_then_what_it_does_not_match_is_left_out),
        TOKENIZER_TEST(given_both_files_then_tokenizer_json_counts),
        TOKENIZER_TEST(given_ids_already_then_new_ones_are_appended),
        TOKENIZER_TEST(given_several_threads_then_one_tokenizer_serves_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
