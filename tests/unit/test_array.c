/*
 * Arrays that grow: what they hold stays, and what does not fit changes nothing.
 */
#include "tests/unit/fixtures.h"

#include "common/array.h"

enum { ITEMS = 10000 };

static void given_items_added_one_by_one_then_all_are_kept(void **state) {
    uint64_t *items = NULL;
    size_t capacity = 0;
    unsigned moves = 0;
    (void)state;
    for (size_t i = 0; i < ITEMS; i++) {
        const size_t before = capacity;
        assert_true(array_reserve(items, i + 1, &capacity));
        assert_true(capacity > i);
        moves += capacity != before;
        items[i] = i * i;
    }
    for (size_t i = 0; i < ITEMS; i++)
        assert_int_equal(items[i], i * i);
    assert_in_range(moves, 1, 14); /* it doubles */
    free(items);
}

static void given_many_at_once_then_there_is_room_for_all(void **state) {
    char *bytes = NULL;
    size_t capacity = 0;
    (void)state;
    assert_true(array_reserve(bytes, ITEMS, &capacity));
    assert_true(capacity >= ITEMS);
    memset(bytes, 1, capacity);
    const char *const same = bytes;
    assert_true(array_reserve(bytes, 1, &capacity)); /* there is */
    assert_ptr_equal(bytes, same);
    free(bytes);
}

static void given_more_than_there_can_be_then_nothing_changes(void **state) {
    uint64_t *items = NULL;
    size_t capacity = 0;
    (void)state;
    assert_true(array_reserve(items, 1, &capacity));
    items[0] = 7;
    const size_t before = capacity;
    assert_false(array_reserve(items, SIZE_MAX / sizeof *items + 2, &capacity)); /* bytes that would wrap around to 8 */
    assert_int_equal(capacity, before);
    assert_int_equal(items[0], 7);
    free(items);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_items_added_one_by_one_then_all_are_kept),
        cmocka_unit_test(given_many_at_once_then_there_is_room_for_all),
        cmocka_unit_test(given_more_than_there_can_be_then_nothing_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
