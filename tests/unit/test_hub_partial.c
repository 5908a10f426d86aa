/* Files that are being downloaded: what a process leaves behind, wherever it ends, is what the next one finds. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/hub/partial.h"

enum { SIZE = (11 << 20) + 4321, SMALLEST_CHUNK = 4 << 20 };

static char folder[] = "/tmp/qstream-partial-XXXXXX";
static char path[64], target[64];
static unsigned char content[SIZE];
static struct hub_file file = {.path = (char *)"x.bin", .size = SIZE, .lfs = true};

static int setup(void **state) {
    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/x.partial", folder);
    snprintf(target, sizeof target, "%s/x", folder);
    for (size_t i = 0; i < SIZE; i++)
        content[i] = (unsigned char)(i * 2654435761u >> 13);
    return 0;
}

static int clean(void **state) {
    (void)state;
    unlink(path);
    unlink(target);
    return 0;
}

static int teardown(void **state) {
    clean(state);
    return rmdir(folder);
}

static struct partial *open_it(void) {
    struct partial *partial;
    struct error error;
    assert_int_equal(partial_open(path, &file, &partial, &error), STATUS_OK);
    return partial;
}

static void put(struct partial *partial, uint64_t offset, size_t size) {
    struct error error;
    assert_int_equal(partial_write(partial, offset, content + offset, size, &error), STATUS_OK);
}

/* Whether what is said to be there is. */
static void require_right(const struct partial *partial) {
    unsigned char *bytes = malloc(SIZE);
    struct error error;
    assert_non_null(bytes);
    uint64_t sum = 0;
    for (size_t chunk = 0; chunk < partial_chunk_count(partial); chunk++) {
        const uint64_t begin = chunk * SMALLEST_CHUNK, here = partial_chunk_here(partial, chunk);
        assert_in_range(here, begin, partial_chunk_end(partial, chunk));
        assert_int_equal(partial_read(partial, begin, bytes, (size_t)(here - begin), &error), STATUS_OK);
        assert_memory_equal(bytes, content + begin, (size_t)(here - begin));
        sum += here - begin;
    }
    assert_int_equal(partial_present(partial), sum);
    free(bytes);
}

static void given_nothing_then_chunks_cover_the_file(void **state) {
    (void)state;
    struct partial *partial = open_it();
    assert_int_equal(partial_chunk_end(partial, 0), SMALLEST_CHUNK);
    assert_int_equal(partial_chunk_count(partial), 3);
    assert_int_equal(partial_chunk_end(partial, 2), SIZE);
    assert_int_equal(partial_present(partial), 0);
    assert_int_equal(partial_frontier(partial, 0), 0);
    partial_close(partial);
}

static void given_a_process_that_dies_then_little_is_lost(void **state) {
    (void)state;
    uint64_t here[3] = {0};
    srand(1);
    for (int round = 0; round < 40; round++) {
        uint64_t next[3];
        const int chunk = rand() % 3;
        const uint64_t begin = (uint64_t)chunk * SMALLEST_CHUNK;
        const uint64_t length = chunk == 2 ? SIZE - 2 * SMALLEST_CHUNK : SMALLEST_CHUNK;
        uint64_t size = (uint64_t)rand() % (2 * PARTIAL_NOTE_BYTES);
        size = size > length - here[chunk] ? length - here[chunk] : size;
        const pid_t child = fork();
        if (child == 0) { /* writes in pieces, and is gone */
            struct partial *partial = open_it();
            for (uint64_t done = 0; done < size;) {
                const size_t piece = size - done < 16384 ? (size_t)(size - done) : 16384;
                put(partial, begin + here[chunk] + done, piece);
                done += piece;
            }
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        struct partial *partial = open_it();
        require_right(partial);
        for (size_t i = 0; i < 3; i++)
            next[i] = partial_chunk_here(partial, i) - i * SMALLEST_CHUNK;
        assert_in_range(next[chunk],
                        here[chunk] + size > PARTIAL_NOTE_BYTES ? here[chunk] + size - PARTIAL_NOTE_BYTES : 0,
                        here[chunk] + size);
        if (here[chunk] + size == length)
            assert_int_equal(next[chunk], length);
        memcpy(here, next, sizeof here);
        partial_close(partial);
        uint64_t present, taken;
        partial_look(path, &file, &present, &taken);
        assert_int_equal(present, here[0] + here[1] + here[2]);
    }
}

static void given_bytes_that_are_there_then_they_are_left_alone(void **state) {
    (void)state;
    static unsigned char other[SMALLEST_CHUNK + 1000];
    struct error error;
    struct partial *partial = open_it();
    put(partial, 0, 5000);
    put(partial, SMALLEST_CHUNK, 300);
    assert_int_equal(partial_write(partial, 0, other, 5000, &error), STATUS_OK);
    assert_int_equal(partial_frontier(partial, 0), 5000);
    put(partial, 0, SMALLEST_CHUNK + 1000); /* over the edge of a chunk */
    assert_int_equal(partial_frontier(partial, 0), SMALLEST_CHUNK + 1000);
    require_right(partial);
    partial_close(partial);
}

static void given_another_file_of_the_same_name_then_it_begins_anew(void **state) {
    (void)state;
    struct partial *partial = open_it();
    put(partial, 0, 3000000);
    partial_close(partial);
    file.sha256[5] ^= 1;
    uint64_t present, taken;
    partial_look(path, &file, &present, &taken);
    assert_int_equal(present, 0);
    partial = open_it();
    assert_int_equal(partial_present(partial), 0);
    partial_close(partial);
    file.sha256[5] ^= 1;
    partial = open_it();
    assert_int_equal(partial_present(partial), 0);
    partial_close(partial);
}

static void given_any_damage_to_the_note_then_nothing_false_is_believed(void **state) {
    (void)state;
    struct stat whole;
    srand(2);
    for (int round = 0; round < 300; round++) {
        struct partial *partial = open_it();
        assert_int_equal(partial_frontier(partial, 0) == SIZE, 0);
        put(partial, partial_chunk_here(partial, 0), partial_chunk_here(partial, 0) < 3000000 ? 100000 : 0);
        put(partial, partial_chunk_here(partial, 1), partial_chunk_here(partial, 1) < 7000000 ? 50000 : 0);
        partial_close(partial);
        const int fd = open(path, O_RDWR);
        assert_int_equal(fstat(fd, &whole), 0);
        assert_true(whole.st_size > SIZE);
        const off_t place = SIZE + rand() % (int)(whole.st_size - SIZE);
        unsigned char byte;
        switch (rand() % 4) {
        case 0:
            assert_int_equal(ftruncate(fd, place > SIZE ? place : place + 1), 0);
            break;
        case 1:
            assert_int_equal(ftruncate(fd, whole.st_size + 1 + rand() % 100), 0);
            break;
        default:
            assert_int_equal(pread(fd, &byte, 1, place), 1);
            byte ^= (unsigned char)(1 << rand() % 8);
            assert_int_equal(pwrite(fd, &byte, 1, place), 1);
        }
        close(fd);
        partial = open_it();
        require_right(partial);
        partial_close(partial);
    }
}

static void given_a_process_that_has_it_open_then_another_is_told(void **state) {
    (void)state;
    struct partial *partial = open_it(), *second;
    const pid_t child = fork();
    struct error error;
    if (child == 0)
        _exit(partial_open(path, &file, &second, &error) == STATUS_OK && !second ? 0 : 1);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    partial_close(partial);
    partial_close(open_it());
}

static void given_all_bytes_then_it_gets_its_name(void **state) {
    (void)state;
    struct error error;
    struct stat finished;
    struct partial *partial = open_it();
    put(partial, 0, SIZE);
    assert_int_equal(partial_frontier(partial, 0), SIZE);
    assert_int_equal(partial_finish(partial, target, &error), STATUS_OK);
    partial_close(partial);
    assert_int_equal(stat(target, &finished), 0);
    assert_int_equal(finished.st_size, SIZE);
    assert_int_equal(access(path, F_OK), -1);
    /* one that was about to get its name is whole, and can be begun anew all the same */
    assert_int_equal(rename(target, path), 0);
    partial = open_it();
    assert_int_equal(partial_present(partial), SIZE);
    require_right(partial);
    assert_int_equal(partial_restart(partial, &error), STATUS_OK);
    partial_close(partial);
    partial = open_it();
    assert_int_equal(partial_present(partial), 0);
    partial_close(partial);
}

static void given_no_bytes_or_too_many_then_that_is_no_problem(void **state) {
    (void)state;
    struct hub_file other = {.path = (char *)"other", .lfs = true};
    struct partial *partial;
    struct error error;
    struct stat finished;
    assert_int_equal(partial_open(path, &other, &partial, &error), STATUS_OK);
    assert_int_equal(partial_chunk_count(partial), 0);
    assert_int_equal(partial_frontier(partial, 0), 0);
    assert_int_equal(partial_finish(partial, target, &error), STATUS_OK);
    partial_close(partial);
    assert_int_equal(stat(target, &finished), 0);
    assert_int_equal(finished.st_size, 0);
    other.size = UINT64_MAX;
    assert_int_equal(partial_open(path, &other, &partial, &error), STATUS_BAD_INPUT);
    assert_null(partial);
    other.size = INT64_MAX / 4; /* no disk has so much room, and this one is not filled for that to show */
    assert_int_equal(partial_open(path, &other, &partial, &error), STATUS_IO);
    assert_null(partial);
    assert_int_equal(access(path, F_OK), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(given_nothing_then_chunks_cover_the_file, clean),
        cmocka_unit_test_teardown(given_a_process_that_dies_then_little_is_lost, clean),
        cmocka_unit_test_teardown(given_bytes_that_are_there_then_they_are_left_alone, clean),
        cmocka_unit_test_teardown(given_another_file_of_the_same_name_then_it_begins_anew, clean),
        cmocka_unit_test_teardown(given_any_damage_to_the_note_then_nothing_false_is_believed, clean),
        cmocka_unit_test_teardown(given_a_process_that_has_it_open_then_another_is_told, clean),
        cmocka_unit_test_teardown(given_all_bytes_then_it_gets_its_name, clean),
        cmocka_unit_test_teardown(given_no_bytes_or_too_many_then_that_is_no_problem, clean),
    };
    return cmocka_run_group_tests_name("hub_partial", tests, setup, teardown);
}
