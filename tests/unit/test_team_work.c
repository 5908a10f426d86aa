/*
 * Work that a team does: every item once, or all up to the first failure.
 */
#include "tests/unit/fixtures.h"

#include "common/team_work.h"

enum { ITEMS = 5000, THREADS = 4, NONE = ITEMS };

struct doing {
    struct team_work work;
    atomic_uint done[ITEMS];
    atomic_uint by_thread[THREADS];
    atomic_size_t begun;
    size_t failing, endless; /* items, or NONE */
};

static enum status item_do(void *context, size_t item, unsigned thread, struct error *error) {
    struct doing *doing = context;
    atomic_fetch_add(&doing->begun, 1);
    atomic_fetch_add(&doing->done[item], 1);
    atomic_fetch_add(&doing->by_thread[thread], 1);
    if (item == doing->failing)
        return error_set(error, STATUS_BAD_INPUT, "item %zu is bad", item);
    enum status status;
    do
        status = team_work_advance(&doing->work, 3, error);
    while (status == STATUS_OK && item == doing->endless);
    return status;
}

static struct doing *doing_new(size_t count) {
    struct doing *doing = calloc(1, sizeof *doing);
    assert_non_null(doing);
    doing->work = (struct team_work){.function = item_do,
                                     .context = doing,
                                     .count = count,
                                     .threads = THREADS,
                                     .verb = "testing",
                                     .bytes = 3 * count,
                                     .quiet = true};
    doing->failing = doing->endless = NONE;
    return doing;
}

static void given_items_then_each_is_done_once(void **state) {
    static const size_t counts[] = {0, 1, THREADS - 1, ITEMS};
    (void)state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct doing *doing = doing_new(counts[i]);
        struct error error;
        unsigned by_threads = 0;
        assert_ok(team_work_run(&doing->work, &error), error);
        for (size_t item = 0; item < ITEMS; item++)
            assert_int_equal(atomic_load(&doing->done[item]), item < counts[i]);
        for (unsigned thread = 0; thread < THREADS; thread++)
            by_threads += atomic_load(&doing->by_thread[thread]);
        assert_int_equal(by_threads, counts[i]);
        assert_int_equal(atomic_load(&doing->work.bytes_done), 3 * counts[i]);
        free(doing);
    }
}

static void given_an_item_that_fails_then_its_error_is_told_and_no_other_is_begun(void **state) {
    struct doing *doing = doing_new(ITEMS);
    struct error error;
    (void)state;
    doing->work.threads = 1;
    doing->failing = 2;
    assert_int_equal(team_work_run(&doing->work, &error), STATUS_BAD_INPUT);
    assert_string_equal(error.message, "item 2 is bad");
    assert_int_equal(atomic_load(&doing->begun), 3);
    free(doing);
}

static void given_an_item_that_fails_then_one_under_way_ends_too(void **state) {
    struct doing *doing = doing_new(ITEMS);
    struct error error;
    (void)state;
    doing->endless = 0;
    doing->failing = 1;
    assert_int_equal(team_work_run(&doing->work, &error), STATUS_BAD_INPUT);
    assert_string_equal(error.message, "item 1 is bad");
    free(doing);
    doing = doing_new(ITEMS);
    doing->failing = 0;
    assert_int_equal(team_work_run(&doing->work, NULL), STATUS_BAD_INPUT); /* nobody asks why */
    free(doing);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_items_then_each_is_done_once),
        cmocka_unit_test(given_an_item_that_fails_then_its_error_is_told_and_no_other_is_begun),
        cmocka_unit_test(given_an_item_that_fails_then_one_under_way_ends_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
