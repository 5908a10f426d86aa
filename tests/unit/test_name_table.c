/*
 * The table from names to numbers, against what it must be: the first number given for each name.
 */
#include "tests/unit/fixtures.h"

#include "common/name_table.h"

enum { NAMES = 20000 };

static void given_many_names_then_each_keeps_its_first_number(void **state) {
    static char names[NAMES][24];
    struct name_table table = {0};
    (void)state;
    assert_int_equal(name_table_find(&table, "nothing", 7), NAME_UNKNOWN);
    for (uint32_t i = 0; i < NAMES; i++) {
        bool added = false;
        snprintf(names[i], sizeof names[i], "%s%u", i % 2 ? "layers." : "", i / 2); /* of many lengths */
        assert_non_null(name_table_add(&table, names[i], strlen(names[i]), i, &added));
        assert_true(added);
    }
    for (uint32_t i = 0; i < NAMES; i++) {
        bool added = true;
        assert_int_equal(*name_table_add(&table, names[i], strlen(names[i]), i + 1, &added), i);
        assert_false(added);
        assert_int_equal(name_table_find(&table, names[i], strlen(names[i])), i);
    }
    assert_int_equal(table.count, NAMES);
    assert_int_equal(name_table_find(&table, "layers.x", 8), NAME_UNKNOWN);
    name_table_free(&table);
}

static void given_a_name_that_begins_another_then_they_differ(void **state) {
    struct name_table table = {0};
    (void)state;
    const char *name = "model.layers.1";
    for (uint32_t length = 0; length <= 14; length++)
        assert_int_equal(*name_table_add(&table, name, length, length, NULL), length);
    for (uint32_t length = 0; length <= 14; length++)
        assert_int_equal(name_table_find(&table, name, length), length);
    name_table_free(&table);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_many_names_then_each_keeps_its_first_number),
        cmocka_unit_test(given_a_name_that_begins_another_then_they_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
