/*
 * The device itself: opening, memory, copies, the order of streams, failures.
 */
#include "tests/cuda/test_plugin.h"

static void given_devices_then_each_can_be_opened_and_no_other(void **state) {
    (void)state;
    char message[CUDA_MESSAGE_MAX] = "";
    const int count = plugin->device_count(message);
    assert_true(count >= 1);
    assert_true(info.name[0] && memchr(info.name, 0, CUDA_NAME_MAX));
    assert_true(info.multiprocessors >= 1 && info.memory >= info.memory_free && info.memory_free > 0);
    assert_int_equal(info.fp8, info.major * 10 + info.minor >= 89);
    assert_true(info.bandwidth >= 0);
    assert_true(plugin->toolkit && plugin->toolkit[0]);
    struct cuda_info none;
    assert_null(plugin->open(count, &none, message));
    assert_true(message[0] && !strchr(message, '\n') && memchr(message, 0, sizeof message));
    struct cuda_info second;
    struct cuda_device *other = plugin->open(0, &second, message);
    assert_non_null(other);
    assert_string_equal(second.name, info.name);
    assert_non_null(plugin->allocate(other, 1000)); /* left to close */
    plugin->close(other);
    plugin->close(NULL);
}

static void given_memory_then_it_holds_what_was_copied(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 3, 255, 256, 257, 4096, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *bytes = host_memory(sizes[i]);
        for (size_t j = 0; j < sizes[i]; j++)
            bytes[j] = (unsigned char)(j * 7 + i);
        unsigned char *memory = on_device(bytes, sizes[i]);
        assert_memory_equal(from_device(memory, sizes[i]), bytes, sizes[i]);
        const size_t from = sizes[i] / 3, n = sizes[i] / 2;
        plugin->clear(device, memory + from, n);
        memset(bytes + from, 0, n);
        assert_memory_equal(from_device(memory, sizes[i]), bytes, sizes[i]);
    }
    plugin->release(device, NULL);
}

static void given_host_memory_then_copies_and_the_device_see_it(void **state) {
    (void)state;
    enum { BYTES = 5000 };
    void *address = NULL;
    unsigned char *host = plugin->allocate_host(device, BYTES, &address), *memory = for_result(BYTES);
    assert_non_null(host);
    for (int i = 0; i < BYTES; i++)
        host[i] = (unsigned char)(i * 3);
    plugin->copy_in(device, CUDA_COPY, memory, host, BYTES);
    assert_true(plugin->synchronize(device, CUDA_COPY));
    assert_memory_equal(from_device(memory, BYTES), host, BYTES);
    memset(host, 0, BYTES);
    plugin->copy_out(device, CUDA_COPY, host, memory, BYTES);
    assert_true(plugin->synchronize(device, CUDA_COPY));
    assert_int_equal(host[1234], (unsigned char)(1234 * 3));
    if (info.unified)
        assert_non_null(address);
    if (address) { /* operations may read and write it in place */
        plugin->clear(device, address, BYTES / 2);
        assert_true(plugin->synchronize(device, CUDA_COMPUTE));
        assert_int_equal(host[BYTES / 2 - 1], 0);
        assert_int_equal(host[BYTES / 2], (unsigned char)(BYTES / 2 * 3));
    }
    plugin->release_host(device, host);
    plugin->release_host(device, NULL);
}

/*
 * As weights are streamed: pieces go through a ring of buffers on the copy stream, the compute stream unpacks each when it
 * has come, and a buffer is filled again only when that is done.
 */
static void given_pieces_in_a_ring_then_each_is_computed_with_when_it_has_come(void **state) {
    (void)state;
    enum { RING = 3, PIECES = 20, N = 3000 };
    float *pinned = plugin->allocate_host(device, (uint64_t)PIECES * N * sizeof *pinned, &(void *){NULL});
    assert_non_null(pinned);
    uint64_t random = 1;
    for (size_t i = 0; i < (size_t)PIECES * N; i++)
        pinned[i] = (float)uniform(&random);
    float *ring[RING], *out = for_result((size_t)PIECES * N * sizeof *out);
    for (int i = 0; i < RING; i++)
        ring[i] = for_result(N * sizeof *pinned);
    for (unsigned i = 0; i < PIECES; i++) {
        const unsigned slot = i % RING;
        if (i >= RING)
            plugin->event_follow(device, RING + slot, CUDA_COPY);
        plugin->copy_in(device, CUDA_COPY, ring[slot], pinned + (size_t)i * N, N * sizeof *pinned);
        plugin->event_record(device, slot, CUDA_COPY);
        plugin->event_follow(device, slot, CUDA_COMPUTE);
        const struct weight weight = {.format = WEIGHT_F32, .rows = 1, .columns = N, .codes = ring[slot]};
        plugin->unpack(device, &weight, 0, 1, CUDA_F32, out + (size_t)i * N);
        plugin->event_record(device, RING + slot, CUDA_COMPUTE);
    }
    assert_memory_equal(from_device(out, (size_t)PIECES * N * sizeof *out), pinned, (size_t)PIECES * N * sizeof *out);
    plugin->release_host(device, pinned);
}

static void given_events_then_the_caller_waits_for_what_was_before(void **state) {
    (void)state;
    enum { N = 20000 };
    plugin->event_wait(device, CUDA_EVENTS - 1); /* never recorded: over */
    plugin->event_follow(device, CUDA_EVENTS - 1, CUDA_COMPUTE);
    float *pinned = plugin->allocate_host(device, 2 * N * sizeof *pinned, &(void *){NULL});
    assert_non_null(pinned);
    float *memory = for_result(N * sizeof *pinned), *x = random_floats(N, 1, 1);
    for (int turn = 0; turn < 5; turn++) {
        for (size_t i = 0; i < N; i++)
            pinned[i] = x[i] + (float)turn;
        plugin->copy_in(device, CUDA_COMPUTE, memory, pinned, N * sizeof *pinned);
        plugin->event_record(device, 2, CUDA_COMPUTE);
        plugin->event_follow(device, 2, CUDA_COPY);
        plugin->copy_out(device, CUDA_COPY, pinned + N, memory, N * sizeof *pinned);
        plugin->event_record(device, 3, CUDA_COPY);
        plugin->event_wait(device, 3);
        assert_memory_equal(pinned + N, pinned, N * sizeof *pinned);
    }
    plugin->release_host(device, pinned);
}

/* On a device of its own: it does not recover. */
static void given_more_than_there_is_then_it_fails_with_a_message_and_nothing_is_done_after(void **state) {
    (void)state;
    char message[CUDA_MESSAGE_MAX];
    struct cuda_info of;
    struct cuda_device *other = plugin->open(0, &of, message);
    assert_non_null(other);
    assert_null(plugin->failure(other));
    unsigned char *memory = plugin->allocate(other, 4096), before[64], after[64];
    float *host = plugin->allocate_host(other, 4096, &(void *){NULL});
    memset(before, 0x5a, sizeof before);
    memset(after, 0x77, sizeof after);
    plugin->copy_in(other, CUDA_COMPUTE, memory, before, sizeof before);
    assert_true(plugin->synchronize(other, CUDA_COMPUTE));
    assert_null(plugin->allocate(other, of.memory * 4 + ((uint64_t)1 << 40)));
    const char *failure = plugin->failure(other);
    assert_non_null(failure);
    assert_true(failure[0] && !strchr(failure, '\n'));
    snprintf(message, sizeof message, "%s", failure);
    const struct weight weight = {.format = WEIGHT_F32, .rows = 1, .columns = 8, .codes = memory};
    plugin->clear(other, memory, sizeof before);
    plugin->copy_in(other, CUDA_COMPUTE, memory, after, sizeof after);
    plugin->unpack(other, &weight, 0, 1, CUDA_F32, memory + 32);
    plugin->finite_check(other, (float *)(void *)memory, 16, (uint64_t *)(void *)memory);
    plugin->copy_out(other, CUDA_COMPUTE, after, memory, sizeof after);
    plugin->event_record(other, 0, CUDA_COPY);
    plugin->event_follow(other, 0, CUDA_COMPUTE);
    plugin->event_wait(other, 0);
    assert_false(plugin->synchronize(other, CUDA_COMPUTE));
    assert_false(plugin->synchronize(other, CUDA_COPY));
    assert_int_equal(after[0], 0x77);
    assert_int_equal(after[63], 0x77);
    assert_null(plugin->allocate(other, 16));
    plugin->graph_begin(other);
    assert_null(plugin->graph_end(other));
    plugin->graph_run(other, NULL);
    plugin->graph_free(NULL);
    assert_string_equal(plugin->failure(other), message); /* the first one */
    plugin->release(other, memory);
    plugin->release_host(other, host);
    plugin->close(other);
    assert_null(plugin->failure(device)); /* the other's, not this one's */
    void *memory_here = on_device(before, sizeof before);
    assert_memory_equal(from_device(memory_here, sizeof before), before, sizeof before);
}

const struct CMUnitTest device_tests[] = {
    cmocka_unit_test(given_devices_then_each_can_be_opened_and_no_other),
    cmocka_unit_test(given_memory_then_it_holds_what_was_copied),
    cmocka_unit_test(given_host_memory_then_copies_and_the_device_see_it),
    cmocka_unit_test(given_pieces_in_a_ring_then_each_is_computed_with_when_it_has_come),
    cmocka_unit_test(given_events_then_the_caller_waits_for_what_was_before),
    cmocka_unit_test(given_more_than_there_is_then_it_fails_with_a_message_and_nothing_is_done_after),
};
const size_t device_test_count = sizeof device_tests / sizeof *device_tests;
