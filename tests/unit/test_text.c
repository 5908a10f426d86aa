/*
 * Text: what reaches a terminal is harmless, strings grow, sizes go both ways.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/status.h"
#include "common/text.h"

static void given_control_characters_when_escaped_then_each_is_shown_by_its_code(void **state) {
    (void)state;
    static const struct {
        const char *raw, *shown;
    } cases[] = {
        {"", ""},
        {"model.layers.0", "model.layers.0"},
        {"a\nb\tc\r", "a\\x0ab\\x09c\\x0d"},
        {"\x1b[31mred", "\\x1b[31mred"},
        {"\x01\x1f \x7e\x7f", "\\x01\\x1f ~\\x7f"},
        {"\xc2\x80\xc2\x9b\xc2\x9f", "\\x80\\x9b\\x9f"}, /* C1 as UTF-8 */
        {"\xc2\xa0\xc3\xa9", "\xc2\xa0\xc3\xa9"},        /* no-break space and e acute are none */
        {"\xe4\xb8\x80\xf0\x9f\x98\x80", "\xe4\xb8\x80\xf0\x9f\x98\x80"},
        {"\xc2", "\\xc2"}, /* cut short: nothing behind the end is read */
        {"\x9b"
         "a\xff",
         "\\x9b"
         "a\\xff"},                                           /* no UTF-8: a terminal may take it for C1 */
        {"\xe2\x80\xaegnp\xe2\x80\xac", "\\u202egnp\\u202c"}, /* right to left, and back */
        {"\xe2\x80\xa8\xef\xbb\xbf\xe2\x80\x8b", "\\u2028\\ufeff\\u200b"},
        {"\xf3\xa0\x81\x81", "\\U000e0041"},
        {"\xe2\x80\xa7\xe2\x80\xaf", "\xe2\x80\xa7\xe2\x80\xaf"}, /* their neighbours are shown */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[64];
        text_escape(out, sizeof out, cases[i].raw);
        assert_string_equal(out, cases[i].shown);
    }
    for (int c = 1; c < 256; c++) {
        const char raw[] = {(char)c, '\0'};
        char out[8], wanted[8];
        snprintf(wanted, sizeof wanted, c < 0x20 || c >= 0x7f ? "\\x%02x" : "%c", c);
        text_escape(out, sizeof out, raw);
        assert_string_equal(out, wanted);
    }
}

static void given_every_room_when_escaped_then_the_cut_is_never_inside_an_escape(void **state) {
    (void)state;
    static const char raw[] = "a\x1b\xc2\x9b\x7f"
                              "bc\n\xc2\x85z\x01";
    static const char *const units[] = {"a", "\\x1b", "\\x9b", "\\x7f", "b", "c", "\\x0a", "\\x85", "z", "\\x01"};
    for (size_t size = 1; size < 48; size++) {
        char wanted[64] = "", *out = malloc(size); /* of exactly this size: a byte too many is seen */
        for (size_t i = 0; i < sizeof units / sizeof *units && strlen(wanted) + strlen(units[i]) < size; i++)
            strcat(wanted, units[i]);
        assert_non_null(out);
        text_escape(out, size, raw);
        assert_string_equal(out, wanted);
        free(out);
    }
}

static void given_a_hostile_name_when_an_error_is_set_then_the_message_is_printable_and_fits(void **state) {
    (void)state;
    struct error error;
    char name[3000];
    memset(name, '\x1b', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(error_set(&error, STATUS_BAD_INPUT, "tensor '%s'", name), STATUS_BAD_INPUT);
    assert_true(strlen(error.message) < sizeof error.message);
    assert_true(strlen(error.message) > sizeof error.message - 8);
    for (const char *c = error.message; *c; c++)
        assert_true((unsigned char)*c >= 0x20 && *c != 0x7f);
    assert_int_equal(error_set_errno(&error, STATUS_IO, 2, "cannot open '%s'", "a\nb"), STATUS_IO);
    assert_string_equal(error.message, "cannot open 'a\\x0ab': No such file or directory");
    assert_int_equal(error_set(NULL, STATUS_USAGE, "nobody listens"), STATUS_USAGE);
}

static void given_pieces_of_all_lengths_when_appended_then_the_string_is_their_sequence(void **state) {
    (void)state;
    enum { LONGEST = 700 };
    struct text text = {0};
    char *wanted = malloc(LONGEST * LONGEST);
    size_t length = 0;
    assert_non_null(wanted);
    for (size_t piece = 0; piece < LONGEST; piece++) {
        char bytes[LONGEST];
        memset(bytes, 'a' + (int)(piece % 26), sizeof bytes);
        memcpy(wanted + length, bytes, piece);
        length += piece;
        if (piece % 2) {
            text_append(&text, bytes, piece);
        } else {
            bytes[piece] = '\0';
            text_printf(&text, "%s", bytes);
        }
        assert_false(text.failed);
        assert_int_equal(text.length, length);
        assert_int_equal(text.bytes[length], '\0');
        assert_true(text.capacity > text.length);
    }
    assert_memory_equal(text.bytes, wanted, length);
    text_free(&text);
    assert_null(text.bytes);
    assert_int_equal(text.length, 0);
    free(wanted);
}

static void given_a_piece_that_fills_the_room_exactly_then_there_is_still_room_for_the_nul(void **state) {
    (void)state;
    char bytes[1100];
    memset(bytes, 'x', sizeof bytes);
    for (size_t length = 0; length <= sizeof bytes; length++) {
        struct text once = {0}, twice = {0};
        text_append(&once, bytes, length);
        assert_true(once.capacity > length);
        assert_int_equal(strlen(once.bytes), length);
        text_append(&twice, bytes, 7);
        text_append(&twice, bytes, length);
        assert_true(twice.capacity > length + 7);
        assert_int_equal(strlen(twice.bytes), length + 7);
        text_free(&once);
        text_free(&twice);
    }
}

static void given_a_failed_allocation_then_later_appends_change_nothing(void **state) {
    (void)state;
    struct text text = {0};
    text_append_string(&text, "kept");
    text_append(&text, "never read", SIZE_MAX - 16);
    assert_true(text.failed);
    text_append_string(&text, " more");
    text_printf(&text, "%d", 5);
    text_append_json_string(&text, "x");
    assert_int_equal(text.length, 4);
    assert_string_equal(text.bytes, "kept");
    text_free(&text);
    assert_false(text.failed);
}

static void into_another(void *to, const char *bytes, size_t length) { text_append(to, bytes, length); }

static void given_a_text_that_is_passed_on_then_all_arrives_and_little_is_kept(void **state) {
    (void)state;
    struct text whole = {0}, arrived = {0}, passed = {.pass = into_another, .to = &arrived};
    for (int i = 0; i < 100000; i++) {
        text_printf(&whole, "%d,", i);
        text_append_string(&whole, "x");
        text_printf(&passed, "%d,", i);
        text_append_string(&passed, "x");
    }
    text_pass_rest(&passed);
    assert_false(passed.failed);
    assert_int_equal(arrived.length, whole.length);
    assert_string_equal(arrived.bytes, whole.bytes);
    assert_true(passed.capacity < whole.length / 4);
    text_free(&passed);
    text_free(&arrived);
    text_free(&whole);
}

static void given_any_string_when_written_as_json_then_it_reads_back(void **state) {
    (void)state;
    char all[128];
    for (int c = 1; c < 128; c++)
        all[c - 1] = (char)c;
    all[127] = '\0';
    const char *const strings[] = {"", "plain", "\"\\/\"", "\xc3\xa9\xe4\xb8\x80\xf0\x9f\x98\x80", "a\nb\x1f", all};
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        struct text text = {0};
        text_append_json_string(&text, strings[i]);
        json_t *read = json_loads(text.bytes, JSON_DECODE_ANY, NULL);
        assert_non_null(read);
        assert_string_equal(json_string_value(read), strings[i]);
        json_decref(read);
        text_free(&text);
    }
}

static void given_any_string_when_written_as_ascii_json_then_nothing_else_reaches_the_output(void **state) {
    (void)state;
    struct text text = {0};
    text_append_json_ascii(&text, "a\"\\<\x1b\x7f\xc2\x9b\xe2\x80\xae\xf0\x9f\x98\x80\xff"
                                  "b");
    assert_false(text.failed);
    assert_string_equal(text.bytes, "\"a\\\"\\\\<\\u001b\\u007f\\u009b\\u202e\\ud83d\\ude00\\ufffdb\"");
    text_free(&text);
}

/* RFC 4648, section 10, and all digits. */
static void given_bytes_when_written_as_base64_then_they_are_as_the_rfc_has_them(void **state) {
    static const char *const pairs[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"},
                                           {"\xfb\xef\xbe\xff\xff\xff", "++++////"}};
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct text text = {0};
        text_append_string(&text, ">");
        text_append_base64(&text, pairs[i][0], strlen(pairs[i][0]));
        assert_string_equal(text.bytes + 1, pairs[i][1]);
        text_free(&text);
    }
}

static void given_numbers_when_written_as_json_then_they_read_back_and_are_short(void **state) {
    (void)state;
    static const struct {
        double number;
        const char *shown;
    } cases[] = {{0, "0"},
                 {0.1, "0.1"},
                 {-448, "-448"},
                 {0x1p-127, "5.877471754111438e-39"},
                 {(double)0.1f, "0.10000000149011612"},
                 {INFINITY, "null"},
                 {-INFINITY, "null"},
                 {NAN, "null"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text text = {0};
        text_append_json_real(&text, cases[i].number);
        assert_string_equal(text.bytes, cases[i].shown);
        text_free(&text);
    }
    struct text text = {0};
    text_append_number(&text, 0);
    text_append_string(&text, " ");
    text_append_number(&text, UINT64_MAX);
    assert_string_equal(text.bytes, "0 18446744073709551615");
    text_free(&text);
}

static void given_endings_then_only_a_whole_suffix_counts(void **state) {
    (void)state;
    assert_true(text_ends_with("x.weight", ".weight"));
    assert_true(text_ends_with(".weight", ".weight"));
    assert_true(text_ends_with("x", ""));
    assert_false(text_ends_with("weight", ".weight"));
    assert_false(text_ends_with("x.weight_scale", ".weight"));
    char *formatted = text_format("%s/%d", "a", 7);
    assert_string_equal(formatted, "a/7");
    free(formatted);
}

static void given_byte_counts_when_shown_then_three_digits_and_a_decimal_unit(void **state) {
    (void)state;
    static const struct {
        uint64_t bytes;
        const char *shown;
    } cases[] = {
        {0, "0 B"},
        {1, "1 B"},
        {999, "999 B"},
        {1000, "1.00 kB"},
        {1024, "1.02 kB"},
        {9994, "9.99 kB"},
        {9996, "10.0 kB"},
        {99940, "99.9 kB"},
        {99960, "100 kB"},
        {999499, "999 kB"},
        {999500, "1.00 MB"},
        {133600000000, "134 GB"},
        {1380000000, "1.38 GB"},
        {90000000000000, "90.0 TB"},
        {UINT64_MAX, "18.4 EB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[TEXT_SIZE_MAX];
        assert_string_equal(text_size(cases[i].bytes, out), cases[i].shown);
    }
}

static void given_a_size_that_people_write_then_it_is_that_many_bytes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t bytes;
    } cases[] = {
        {"1", 1},
        {"4096", 4096},
        {"17B", 17},
        {"4k", 4096},
        {"4K", 4096},
        {"4KiB", 4096},
        {"4kiB", 4096},
        {"4KB", 4000},
        {"4kB", 4000},
        {"256MiB", 256u << 20},
        {"256M", 256u << 20},
        {"256MB", 256000000},
        {"1.5GB", 1500000000},
        {"1.5G", 1610612736},
        {"1.5GiB", 1610612736},
        {".5G", 0}, /* no digit before the point: refused */
        {"0.5K", 512},
        {"2TB", 2000000000000},
        {"2T", (uint64_t)2 << 40},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 0;
        if (text_parse_size(cases[i].text, &bytes) != (cases[i].bytes != 0) || bytes != cases[i].bytes)
            fail_msg("'%s' gives %llu", cases[i].text, (unsigned long long)bytes);
    }
}

static void given_anything_else_as_a_size_then_it_is_refused(void **state) {
    (void)state;
    static const char *const cases[] = {
        "",
        " 1",
        "1 ",
        "-1",
        "+1",
        "0",
        "0GB",
        "0.0",
        "K",
        "GB",
        "1X",
        "1KK",
        "1Ki",
        "1iB",
        "1Bi",
        "1 GB",
        "1,5GB",
        "1.5.0G",
        "1GBs",
        "1KiBx",
        "nan",
        "inf",
        "20000000000000000000",
        "9000000TiB",
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 77;
        if (text_parse_size(cases[i], &bytes))
            fail_msg("'%s' was taken for %llu", cases[i], (unsigned long long)bytes);
        assert_int_equal(bytes, 77);
    }
}

static void given_numbers_that_are_not_plain_digits_as_a_size_then_they_are_refused(void **state) {
    (void)state;
    static const char *const cases[] = {"1e3", "1e5G", "1E3", "0x10", "0x1p4", "0xA", "1.5" /* of a byte */};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 77;
        if (text_parse_size(cases[i], &bytes))
            fail_msg("'%s' was taken for %llu", cases[i], (unsigned long long)bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_control_characters_when_escaped_then_each_is_shown_by_its_code),
        cmocka_unit_test(given_every_room_when_escaped_then_the_cut_is_never_inside_an_escape),
        cmocka_unit_test(given_a_hostile_name_when_an_error_is_set_then_the_message_is_printable_and_fits),
        cmocka_unit_test(given_pieces_of_all_lengths_when_appended_then_the_string_is_their_sequence),
        cmocka_unit_test(given_a_piece_that_fills_the_room_exactly_then_there_is_still_room_for_the_nul),
        cmocka_unit_test(given_a_failed_allocation_then_later_appends_change_nothing),
        cmocka_unit_test(given_a_text_that_is_passed_on_then_all_arrives_and_little_is_kept),
        cmocka_unit_test(given_any_string_when_written_as_json_then_it_reads_back),
        cmocka_unit_test(given_any_string_when_written_as_ascii_json_then_nothing_else_reaches_the_output),
        cmocka_unit_test(given_bytes_when_written_as_base64_then_they_are_as_the_rfc_has_them),
        cmocka_unit_test(given_numbers_when_written_as_json_then_they_read_back_and_are_short),
        cmocka_unit_test(given_endings_then_only_a_whole_suffix_counts),
        cmocka_unit_test(given_byte_counts_when_shown_then_three_digits_and_a_decimal_unit),
        cmocka_unit_test(given_a_size_that_people_write_then_it_is_that_many_bytes),
        cmocka_unit_test(given_anything_else_as_a_size_then_it_is_refused),
        cmocka_unit_test(given_numbers_that_are_not_plain_digits_as_a_size_then_they_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
