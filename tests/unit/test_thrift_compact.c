/*
 * Thrift's compact protocol: fields come in any order and unknown ones are passed over; nothing is read beyond the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "common/thrift_compact.h"

#define BYTES(...)                                                                                                     \
    (struct thrift_reader) { (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), 0, NULL }

/* Passes over a struct of these bytes; what is wrong with it, or NULL. All must have been read. */
static const char *problem_of(const uint8_t *bytes, size_t length) {
    uint8_t *copy = malloc(length ? length : 1); /* so that a sanitizer sees a byte too many */
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    struct thrift_reader reader = {copy, length, 0, NULL};
    thrift_skip(&reader, THRIFT_STRUCT);
    assert_true(reader.problem || reader.at == length);
    free(copy);
    return reader.problem;
}
#define PROBLEM(...) problem_of((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void given_fields_of_every_type_when_read_then_they_have_their_values(void **state) {
    (void)state;
    struct thrift_reader reader = BYTES(0x15, 0x09,                         /* 1: i32 -5 */
                                        0x16, 0xfe, 0xff, 0xff, 0xff, 0x1f, /* 2: i64 2^32 - 1 */
                                        0x18, 3, 'a', 'b', 'c',             /* 3: binary */
                                        0x11, 0x12,                         /* 4: true, 5: false */
                                        0x19, 0x25, 2, 4,                   /* 6: list of two i32 */
                                        0x1c, 0x15, 14, 0,                  /* 7: struct {1: i32 7} */
                                        0x08, 0x28, 1, 'z',                 /* 20: binary, in the long form */
                                        0x05, 0x06, 0x0a,                   /* 3: i32 5, back again */
                                        0x00, 0xff);                        /* the end; something else */
    struct thrift_field field = {0};
    assert_true(thrift_field_next(&reader, &field));
    assert_int_equal(field.id, 1);
    assert_int_equal(thrift_i32(&reader, field.type), -5);
    assert_true(thrift_field_next(&reader, &field));
    assert_int_equal(field.id, 2);
    assert_int_equal(thrift_i64(&reader, field.type), 0xffffffff);
    assert_true(thrift_field_next(&reader, &field));
    const struct thrift_binary binary = thrift_binary(&reader, field.type);
    assert_int_equal(binary.length, 3);
    assert_memory_equal(binary.bytes, "abc", 3);
    assert_true(thrift_field_next(&reader, &field) && field.id == 4 && thrift_bool(&reader, field.type));
    assert_true(thrift_field_next(&reader, &field) && field.id == 5 && !thrift_bool(&reader, field.type));
    assert_true(thrift_field_next(&reader, &field));
    assert_int_equal(thrift_list(&reader, field.type, THRIFT_I32), 2);
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), 1);
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), 2);
    assert_true(thrift_field_next(&reader, &field));
    thrift_struct(&reader, field.type);
    struct thrift_field inner = {0};
    assert_true(thrift_field_next(&reader, &inner) && inner.id == 1);
    assert_int_equal(thrift_i32(&reader, inner.type), 7);
    assert_false(thrift_field_next(&reader, &inner));
    assert_true(thrift_field_next(&reader, &field) && field.id == 20);
    assert_int_equal(thrift_binary(&reader, field.type).length, 1);
    assert_true(thrift_field_next(&reader, &field) && field.id == 3);
    assert_int_equal(thrift_i32(&reader, field.type), 5);
    assert_false(thrift_field_next(&reader, &field));
    assert_null(reader.problem);
    assert_int_equal(reader.at, reader.length - 1);
}

static void given_the_largest_numbers_when_read_then_nothing_overflows(void **state) {
    (void)state;
    struct thrift_reader reader = BYTES(0xff, 0xff, 0xff, 0xff, 0x0f, 0xfe, 0xff, 0xff, 0xff, 0x0f, //
                                        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, //
                                        0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01);
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), INT32_MIN);
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), INT32_MAX);
    assert_true(thrift_i64(&reader, THRIFT_I64) == INT64_MIN);
    assert_true(thrift_i64(&reader, THRIFT_I64) == INT64_MAX);
    assert_null(reader.problem);
    reader = BYTES(0xff, 0xff, 0xff, 0xff, 0x1f);
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), 0);
    assert_string_equal(reader.problem, "a number in the metadata is too large");
    reader = BYTES(0x80, 0x80, 0x80, 0x80, 0x80, 0x00);
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), 0);
    assert_string_equal(reader.problem, "a number in the metadata is too large");
    reader = BYTES(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x03);
    assert_true(thrift_i64(&reader, THRIFT_I64) == 0);
    assert_string_equal(reader.problem, "a number in the metadata is too large");
}

static void given_another_type_than_wanted_when_read_then_it_is_a_problem(void **state) {
    (void)state;
    static const char other_type[] = "a value in the metadata is of another type than the format says";
    struct thrift_reader reader = BYTES(2);
    assert_int_equal(thrift_i32(&reader, THRIFT_I64), 0);
    assert_string_equal(reader.problem, other_type);
    assert_int_equal(reader.at, 0);
    reader = BYTES(2);
    assert_true(thrift_i64(&reader, THRIFT_I32) == 0 && reader.problem);
    reader = BYTES(0x25, 2, 4);
    assert_int_equal(thrift_list(&reader, THRIFT_LIST, THRIFT_STRUCT), 0);
    assert_string_equal(reader.problem, other_type);
    reader = BYTES(0x25, 2, 4);
    assert_true(thrift_list(&reader, THRIFT_SET, THRIFT_I32) == 0 && reader.problem);
    reader = BYTES(0);
    assert_false(thrift_bool(&reader, THRIFT_I8));
    assert_non_null(reader.problem);
    reader = BYTES(0);
    thrift_struct(&reader, THRIFT_BINARY);
    assert_non_null(reader.problem);
    reader = BYTES(0x05); /* an empty list may have any type of elements */
    assert_int_equal(thrift_list(&reader, THRIFT_LIST, THRIFT_STRUCT), 0);
    assert_null(reader.problem);
}

static void given_a_problem_when_reading_on_then_all_is_zero_and_the_problem_stays(void **state) {
    (void)state;
    struct thrift_reader reader = BYTES(0x15, 2, 0x15, 2, 0x25, 2, 2, 1, 'x');
    struct thrift_field field = {0};
    thrift_binary(&reader, THRIFT_I32);
    const char *first = reader.problem;
    assert_non_null(first);
    assert_false(thrift_field_next(&reader, &field));
    assert_int_equal(thrift_i32(&reader, THRIFT_I32), 0);
    assert_true(thrift_i64(&reader, THRIFT_I64) == 0);
    assert_int_equal(thrift_list(&reader, THRIFT_LIST, THRIFT_I32), 0);
    assert_int_equal(thrift_binary(&reader, THRIFT_BINARY).length, 0);
    assert_false(thrift_bool(&reader, THRIFT_TRUE));
    thrift_skip(&reader, THRIFT_UUID);
    assert_ptr_equal(reader.problem, first);
    assert_int_equal(reader.at, 0);
}

static void given_values_of_every_type_when_skipped_then_exactly_they_are(void **state) {
    (void)state;
    assert_null(PROBLEM(0));
    assert_null(PROBLEM(0x11, 0x12, 0x13, 7, 0x14, 9, 0x15, 9, 0x16, 0x80, 1, 0)); /* booleans and integers */
    assert_null(PROBLEM(0x17, 1, 2, 3, 4, 5, 6, 7, 8, 0x18, 2, 'a', 'b', 0));      /* double, binary */
    assert_null(PROBLEM(0x19, 0x32, 1, 0, 1, 0x1a, 0x21, 1, 1, 0));                /* list and set of booleans */
    assert_null(PROBLEM(0x19, 0xf3, 15, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0));
    assert_null(PROBLEM(0x1b, 0, 0x1b, 2, 0x85, 1, 'a', 4, 1, 'b', 6, 0)); /* maps */
    assert_null(PROBLEM(0x19, 0x2c, 0, 0x15, 2, 0, 0));                    /* list of structs */
    assert_null(PROBLEM(0x1d, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0));
}

static void given_values_that_are_cut_off_when_skipped_then_nothing_beyond_is_read(void **state) {
    (void)state;
    static const uint8_t whole[] = {0x11, 0x13, 7,    0x17, 1,    2, 3,    4,    5,  6,    7,    8,   0x18, 2,
                                    'a',  'b',  0x19, 0x32, 1,    0, 1,    0x1b, 1,  0x85, 1,    'a', 4,    0x1c,
                                    0x15, 2,    0,    0x16, 0x80, 1, 0x08, 0x28, 1,  'z',  0x1d, 1,   2,    3,
                                    4,    5,    6,    7,    8,    9, 10,   11,   12, 13,   14,   15,  16,   0};
    assert_null(problem_of(whole, sizeof whole));
    for (size_t cut = 0; cut < sizeof whole; cut++)
        assert_non_null(problem_of(whole, cut));
    assert_string_equal(PROBLEM(0x18, 200, 1, 'a'), "a value goes beyond the metadata");
    assert_string_equal(PROBLEM(0x19, 0xf3, 0xff, 0xff, 0xff, 0xff, 0x0f, 0), "a list goes beyond the metadata");
    assert_string_equal(PROBLEM(0x1b, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x33, 0), "a map goes beyond the metadata");
    assert_string_equal(PROBLEM(0x1e, 0), "a value in the metadata is of a type that Thrift does not have");
    assert_string_equal(PROBLEM(0x05, 0xfe, 0xff, 0x0f, 2, 0), "the number of a field in the metadata is too large");
}

/* Structs, then lists, in each other. */
static void given_nested_values_when_skipped_then_their_depth_is_bounded(void **state) {
    (void)state;
    enum { MUCH = 100000 };
    uint8_t *bytes = malloc(2 * MUCH);
    assert_non_null(bytes);
    for (unsigned depth = THRIFT_DEPTH - 2; depth < THRIFT_DEPTH + 3; depth++) {
        memset(bytes, 0x1c, depth);
        memset(bytes + depth, 0, depth + 1);
        const char *problem = problem_of(bytes, 2 * (size_t)depth + 1);
        if (depth <= THRIFT_DEPTH)
            assert_null(problem);
        else
            assert_string_equal(problem, "the metadata are nested too deeply");
    }
    memset(bytes, 0x1c, 2 * MUCH);
    assert_string_equal(problem_of(bytes, 2 * MUCH), "the metadata are nested too deeply");
    memset(bytes, 0x19, 2 * MUCH); /* a list of one list of one list */
    assert_string_equal(problem_of(bytes, 2 * MUCH), "the metadata are nested too deeply");
    memset(bytes, 0x1b, 2 * MUCH);
    assert_non_null(problem_of(bytes, 2 * MUCH));
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_fields_of_every_type_when_read_then_they_have_their_values),
        cmocka_unit_test(given_the_largest_numbers_when_read_then_nothing_overflows),
        cmocka_unit_test(given_another_type_than_wanted_when_read_then_it_is_a_problem),
        cmocka_unit_test(given_a_problem_when_reading_on_then_all_is_zero_and_the_problem_stays),
        cmocka_unit_test(given_values_of_every_type_when_skipped_then_exactly_they_are),
        cmocka_unit_test(given_values_that_are_cut_off_when_skipped_then_nothing_beyond_is_read),
        cmocka_unit_test(given_nested_values_when_skipped_then_their_depth_is_bounded),
    };
    return cmocka_run_group_tests_name("thrift_compact", tests, NULL, NULL);
}
