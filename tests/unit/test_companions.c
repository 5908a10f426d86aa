/*
 * The file of companions: what is read from it is what was fetched, a file that is not whole or not for this run is none,
 * and a shard that says otherwise is found out.
 */
#include "tests/unit/fixtures.h"

#include <stdatomic.h>

#include "qstream/companions.h"

#define RULE(match, format) "{\"match\": \"" match "\", \"format\": \"" format "\"}"

static const uint8_t source[SHA256_SIZE] = {1, 2, 3}, other_source[SHA256_SIZE] = {1, 2, 4};
static const uint64_t sizes[] = {100, 100, 100, 100};

/* A model whose scales lie in shards of their own, one of them larger than what is fetched at a time. */
static void model_make(struct fixture *fixture, struct schedule *schedule) {
    fixture_file(fixture, "config.json", "{\"quantization_config\": {\"quant_method\": \"mxfp8\"}}");
    fixture_shard(fixture, "1.safetensors",
                  "a.weight F8_E4M3 3x64\nb.weight F8_E4M3 70000x512\nc.weight F8_E4M3 5x64\n");
    fixture_shard(fixture, "2.safetensors", "a.weight_scale U8 3x2\nb.weight_scale U8 70000x16\n");
    fixture_shard(fixture, "3.safetensors", "c.weight_scale U8 5x2\nunused U8 100\nd.weight_scale U8 7x2\n");
    fixture_shard(fixture, "4.safetensors", "d.weight F8_E4M3 7x64\n");
    fixture_plan(fixture, RULE("*", "mxfp4"), (struct plan_options){.rule = SCALE_RULE_AMAX});
    assert_ok(
        schedule_make(&fixture->plan, 0, (uint32_t)fixture->plan.shard_count, sizes, NULL, schedule, &fixture->error),
        fixture->error);
    assert_int_equal(schedule->companion_count, 4);
}

/* Reads the shards; the read that begins at `fail_at` of shard 2 fails. */
struct reading {
    struct fixture *fixture;
    uint64_t fail_at;
    atomic_uint reads;
};

static enum status shard_read(void *context, uint32_t shard, uint64_t offset, void *buffer, size_t size,
                              struct error *error) {
    struct reading *reading = context;
    atomic_fetch_add(&reading->reads, 1);
    if (shard == 2 && offset == reading->fail_at)
        return error_set(error, STATUS_IO, "the network is down");
    return byte_source_read_at(reading->fixture->checkpoint.shards[shard].source, offset, buffer, size, error);
}

static void file_make(struct fixture *fixture, const struct schedule *schedule, char path[256]) {
    struct reading reading = {.fixture = fixture};
    fixture_path(fixture, "companions", path);
    assert_ok(companions_make(path, schedule, source, shard_read, &reading, &fixture->error), fixture->error);
    /* two pieces of the large one with its neighbour, two in the other shard */
    assert_int_equal(atomic_load(&reading.reads), 4);
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    assert_int_equal(file.st_size, companions_file_bytes(schedule));
}

static struct companions *file_open(struct fixture *fixture, const struct schedule *schedule, const char *path,
                                    const uint8_t key[SHA256_SIZE]) {
    struct companions *companions;
    assert_ok(companions_open(path, schedule, key, &companions, &fixture->error), fixture->error);
    return companions;
}

static void given_companions_then_their_bytes_come_from_the_file_and_no_others(void **state) {
    struct fixture *fixture = *state;
    struct schedule schedule;
    char path[256];
    model_make(fixture, &schedule);
    assert_null(file_open(fixture, &schedule, fixture_path(fixture, "companions", path), source)); /* none yet */
    file_make(fixture, &schedule, path);
    struct companions *companions = file_open(fixture, &schedule, path, source);
    assert_non_null(companions);
    for (size_t i = 0; i < fixture->checkpoint.tensor_count; i++) {
        const struct tensor *tensor = &fixture->checkpoint.tensors[i];
        uint8_t *wanted = fixture_tensor(fixture, tensor->info.name), bytes[64];
        size_t part = tensor->info.size < sizeof bytes ? (size_t)tensor->info.size : sizeof bytes;
        const uint64_t places[] = {0, tensor->info.size - part, (tensor->info.size - part) / 2};
        for (size_t k = 0; k < 3; k++) {
            bool held;
            assert_ok(companions_read(companions, tensor->shard, tensor->info.offset + places[k], bytes, part, &held,
                                      &fixture->error),
                      fixture->error);
            assert_int_equal(held, strstr(tensor->info.name, "_scale") != NULL);
            if (held)
                assert_memory_equal(bytes, wanted + places[k], part);
        }
        bool held;
        assert_ok(companions_read(companions, tensor->shard, tensor->info.offset + tensor->info.size - 1, bytes, 2,
                                  &held, &fixture->error),
                  fixture->error);
        assert_false(held); /* not beyond the tensor's end */
        free(wanted);
    }
    companions_close(companions);
    schedule_free(&schedule);
}

static void given_a_file_that_is_not_whole_or_not_for_this_run_then_it_counts_as_none(void **state) {
    struct fixture *fixture = *state;
    struct schedule schedule, part;
    char path[256], *bytes;
    size_t length;
    model_make(fixture, &schedule);
    file_make(fixture, &schedule, path);
    assert_null(file_open(fixture, &schedule, path, other_source));
    assert_ok(file_read(path, 1 << 30, &bytes, &length, &fixture->error), fixture->error);
    for (size_t i = 0; i < length; i += i < 100 || i > length - 100 ? 1 : 9973) {
        bytes[i] ^= 1;
        fixture_bytes(fixture, "companions", bytes, length);
        assert_null(file_open(fixture, &schedule, path, source));
        bytes[i] ^= 1;
    }
    for (size_t cut = 0; cut < length; cut += length / 7) {
        fixture_bytes(fixture, "companions", bytes, cut);
        assert_null(file_open(fixture, &schedule, path, source));
    }
    fixture_bytes(fixture, "companions", bytes, length);
    struct companions *companions = file_open(fixture, &schedule, path, source);
    assert_non_null(companions);
    companions_close(companions);
    free(bytes);
    /* other companions of the same source */
    assert_ok(schedule_make(&fixture->plan, 0, 1, sizes, NULL, &part, &fixture->error), fixture->error);
    assert_int_equal(part.companion_count, 3);
    assert_null(file_open(fixture, &part, path, source));
    schedule_free(&part);
    schedule_free(&schedule);
}

static void given_a_read_that_fails_then_there_is_no_file(void **state) {
    struct fixture *fixture = *state;
    struct schedule schedule;
    char path[256];
    model_make(fixture, &schedule);
    const struct tensor *d = checkpoint_find(&fixture->checkpoint, "d.weight_scale");
    struct reading reading = {.fixture = fixture, .fail_at = d->info.offset};
    assert_refused(companions_make(fixture_path(fixture, "companions", path), &schedule, source, shard_read, &reading,
                                   &fixture->error),
                   STATUS_IO, fixture->error, "the network is down");
    assert_null(file_open(fixture, &schedule, path, source));
    schedule_free(&schedule);
}

static void given_a_shard_with_other_bytes_then_the_tensor_is_named(void **state) {
    struct fixture *fixture = *state;
    struct schedule schedule;
    char path[256], shard[256], *bytes;
    size_t length;
    model_make(fixture, &schedule);
    file_make(fixture, &schedule, path);
    struct companions *companions = file_open(fixture, &schedule, path, source);
    const struct tensor *c = checkpoint_find(&fixture->checkpoint, "c.weight_scale"),
                        *unused = checkpoint_find(&fixture->checkpoint, "unused");
    assert_ok(file_read(fixture_path(fixture, "3.safetensors", shard), 1 << 20, &bytes, &length, &fixture->error),
              fixture->error);
    for (uint32_t s = 0; s < 3; s++)
        assert_ok(companions_compare(companions, s, fixture->checkpoint.shards[s].source, &fixture->error),
                  fixture->error);
    const uint64_t places[] = {c->info.offset + c->info.size - 1, unused->info.offset};
    for (int i = 0; i < 2; i++) {
        struct byte_source *file;
        bytes[places[i]] ^= 1;
        fixture_bytes(fixture, "changed", bytes, length);
        bytes[places[i]] ^= 1;
        assert_ok(byte_source_open_file(fixture_path(fixture, "changed", shard), &file, &fixture->error),
                  fixture->error);
        if (i == 0)
            assert_refused(companions_compare(companions, 2, file, &fixture->error), STATUS_CHECK_FAILED,
                           fixture->error, "'c.weight_scale', as it was fetched by itself, is not what its shard '3.");
        else
            assert_ok(companions_compare(companions, 2, file, &fixture->error), fixture->error);
        byte_source_close(file);
    }
    free(bytes);
    companions_close(companions);
    schedule_free(&schedule);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_companions_then_their_bytes_come_from_the_file_and_no_others),
        TEST(given_a_file_that_is_not_whole_or_not_for_this_run_then_it_counts_as_none),
        TEST(given_a_read_that_fails_then_there_is_no_file),
        TEST(given_a_shard_with_other_bytes_then_the_tensor_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
