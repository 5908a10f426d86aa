/*
 * UTF-8: every code point there and back, and what is none, as Python takes it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "common/text.h"
#include "common/utf8.h"

static void given_any_code_point_then_it_reads_as_it_was_written_unless_it_is_a_surrogate(void **state) {
    (void)state;
    for (uint32_t point = 0; point <= 0x110000; point++) {
        char bytes[UTF8_LENGTH_MAX];
        size_t length = utf8_encode(point, bytes), step;
        bool good, character = (point < 0xd800 || point > 0xdfff) && point <= 0x10ffff;
        uint32_t read = utf8_decode(bytes, length, &step, &good);
        assert_int_equal(read, character ? point : UTF8_REPLACEMENT);
        assert_int_equal(good, character);
        assert_int_equal(step, character ? length : 1);
        assert_int_equal(utf8_is_valid(bytes, length), character && point != 0);
    }
}

static void given_a_part_of_a_character_then_it_is_as_long_as_python_takes_it(void **state) {
    static const struct {
        const char *bytes;
        size_t step;
    } parts[] = {
        {"\x80", 1},         {"\xc2", 1},         {"\xc1\xbf", 1},     {"\xe2\x82", 2},         {"\xe2\x82z", 2},
        {"\xe0\x9f\xbf", 1}, {"\xed\xa0\x80", 1}, {"\xf0\x9f\x98", 3}, {"\xf0\x8f\xbf\xbf", 1}, {"\xf4\x90\x80\x80", 1},
        {"\xf5\x80", 1},     {"\xff", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        size_t step;
        bool good;
        assert_int_equal(utf8_decode(parts[i].bytes, UTF8_LENGTH_MAX, &step, &good), UTF8_REPLACEMENT);
        assert_false(good);
        assert_int_equal(step, parts[i].step);
    }
}

static void given_bytes_that_are_no_character_at_any_place_then_what_is_before_them_is_valid(void **state) {
    (void)state;
    for (size_t at = 0; at < 40; at++) {
        char bytes[40];
        memset(bytes, 'a', sizeof bytes);
        assert_true(utf8_is_valid(bytes, sizeof bytes));
        bytes[at] = '\0';
        assert_int_equal(utf8_valid_length(bytes, sizeof bytes), sizeof bytes);
        assert_false(utf8_is_valid(bytes, sizeof bytes));
        bytes[at] = '\xff';
        assert_int_equal(ascii_length(bytes, sizeof bytes), at);
        assert_int_equal(utf8_valid_length(bytes, sizeof bytes), at);
        assert_false(utf8_is_valid(bytes, sizeof bytes));
    }
}

static void given_a_text_that_is_no_utf8_then_its_repair_has_a_replacement_for_each_part(void **state) {
    static const char broken[] = "a\xff\xe2\x82z\xc3\xa9\xf0\x9f\x98";
    struct text text = {0};
    (void)state;
    utf8_repair(broken, strlen(broken), &text);
    assert_string_equal(text.bytes, "a\xef\xbf\xbd\xef\xbf\xbdz\xc3\xa9\xef\xbf\xbd");
    text_free(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_any_code_point_then_it_reads_as_it_was_written_unless_it_is_a_surrogate),
        cmocka_unit_test(given_a_part_of_a_character_then_it_is_as_long_as_python_takes_it),
        cmocka_unit_test(given_bytes_that_are_no_character_at_any_place_then_what_is_before_them_is_valid),
        cmocka_unit_test(given_a_text_that_is_no_utf8_then_its_repair_has_a_replacement_for_each_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
