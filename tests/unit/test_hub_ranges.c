/*
 * Files on the Hub by ranges: how many requests and bytes reading costs, signed addresses that expire, and servers that
 * break off, ignore ranges or send others. Large files are served by another host than the Hub.
 */
#include "tests/unit/hub_server.h"
#include "tests/unit/scale.h"

#include <openssl/evp.h>

#include "common/hub/range_source.h"

#define COMMIT "00112233445566778899aabbccddeeff00112233"

enum { SMALL = 5000, LARGE = (70 << 20) + 12345, KIB = 1024, MIB = 1 << 20 };

/* What the servers do: the Hub's fields about the file, and how its bytes come. */
enum fault {
    FINE,
    CUT,          /* each reply breaks off after 300,000 bytes */
    SHORT,        /* each is shorter than was asked for, and says so */
    WHOLE,        /* ranges are ignored */
    SHIFTED,      /* another range */
    OTHER_SIZE,   /* Content-Range tells another size */
    NO_RANGE,     /* 206 without Content-Range */
    ENCODED,      /* Content-Encoding */
    WRONG_COMMIT, /* X-Repo-Commit */
    WRONG_HASH,   /* X-Linked-Etag */
    WRONG_SIZE,   /* X-Linked-Size */
    WRONG_BYTES,  /* at first; the second time they are right */
    WRONG_ALWAYS,
    GONE, /* the other host knows no address, ever */
    DEAD, /* it closes each connection */
};

struct world {
    struct hub_server server, away;
    struct hub hub;
    struct hub_listing listing;
    struct hub_file files[2];
    char *bytes; /* of both: the small one is the beginning of the large one */
    _Atomic enum fault fault;
    _Atomic unsigned signature; /* of the addresses that are good now */
    _Atomic bool expires;       /* an address is good once */
    _Atomic size_t faulty;      /* replies with wrong bytes so far */
    struct error error;
};

static char *bytes; /* the same for all tests */
static uint8_t bytes_sha256[SHA256_SIZE];
static char small_oid[HUB_OID_HEX];

static void answer_range(const struct hub_asked *asked, struct hub_answer *answer, const char *fields, size_t size) {
    struct world *world = asked->server->context;
    char range[256];
    unsigned long long first = 0, last = size - 1;
    const bool ranged = hub_asked_field(asked, "Range", range) && sscanf(range, "bytes=%llu-%llu", &first, &last) == 2;
    struct text all = {0};
    text_append_string(&all, fields);
    if (world->fault == ENCODED)
        text_append_string(&all, "Content-Encoding: gzip\r\n");
    if (!ranged || world->fault == WHOLE) {
        /* The end would be 70 MiB away: whoever reads it, reads zeros. */
        text_printf(&answer->bytes, "HTTP/1.1 200 X\r\n%sContent-Length: %zu\r\n\r\n", all.bytes ? all.bytes : "",
                    size);
        const size_t sent = ranged && size > 10 * MIB ? 10 * MIB : size;
        text_append(&answer->bytes, world->bytes, sent);
        if (!ranged && (world->fault == WRONG_ALWAYS || (world->fault == WRONG_BYTES && world->faulty++ == 0)))
            answer->bytes.bytes[answer->bytes.length - 1] ^= 1;
        answer->close = sent < size;
        text_free(&all);
        return;
    }
    if (world->fault == SHIFTED)
        first--, last--;
    if (world->fault == SHORT && last - first > 100000)
        last = first + 100000;
    if (world->fault != NO_RANGE)
        text_printf(&all, "Content-Range: bytes %llu-%llu/%zu\r\n", first, last, size + (world->fault == OTHER_SIZE));
    hub_answer_bytes(answer, 206, all.bytes ? all.bytes : "", world->bytes + first, last - first + 1);
    if (world->fault == CUT && last - first > 300000) {
        answer->bytes.length -= last - first - 300000;
        answer->close = true;
    }
    text_free(&all);
}

static void serve(const struct hub_asked *asked, struct hub_answer *answer) {
    struct world *world = asked->server->context;
    char fields[1024], etag[HUB_ETAG_HEX], signature[64];
    if (asked->server == &world->away) {
        snprintf(signature, sizeof signature, "/large?signature=%u", world->signature);
        if (world->fault == DEAD)
            answer->close = true;
        else if (strcmp(asked->target, signature) != 0 || world->fault == GONE)
            hub_answer_text(answer, 403, "", "<Error>AccessDenied</Error>");
        else
            answer_range(asked, answer, "ETag: \"of another kind\"\r\n", LARGE);
        world->signature += world->expires;
        return;
    }
    const bool large = strcmp(asked->target, "/org/name/resolve/" COMMIT "/large") == 0;
    const struct hub_file *file = &world->files[large];
    snprintf(fields, sizeof fields, "X-Repo-Commit: %s\r\nX-Linked-Etag: \"%s\"\r\nX-Linked-Size: %d\r\n",
             world->fault == WRONG_COMMIT ? "x" : COMMIT,
             world->fault == WRONG_HASH ? COMMIT : hub_file_etag(file, etag),
             world->fault == WRONG_SIZE ? 1 : (int)file->size);
    if (!large) {
        answer_range(asked, answer, fields, SMALL);
        return;
    }
    const size_t length = strlen(fields);
    snprintf(fields + length, sizeof fields - length, "Location: %s/large?signature=%u\r\n", world->away.url,
             world->signature);
    hub_answer_text(answer, 302, fields, "moved");
}

static void world_start(struct world *world) {
    *world = (struct world){.bytes = bytes};
    hub_server_start(&world->server, serve, world);
    hub_server_start(&world->away, serve, world);
    hub_environment_clear();
    setenv("HF_ENDPOINT", world->server.url, 1);
    setenv("HF_HUB_DOWNLOAD_TIMEOUT", "600", 1);
    assert_ok(hub_open(&world->hub, &world->error), world->error);
    world->hub.retry_seconds = 0;
    world->files[0] = (struct hub_file){.path = strdup("a small"), .size = SMALL};
    memcpy(world->files[0].oid, small_oid, HUB_OID_HEX);
    world->files[1] = (struct hub_file){.path = strdup("large"), .size = LARGE, .lfs = true, .oid = COMMIT};
    memcpy(world->files[1].sha256, bytes_sha256, SHA256_SIZE);
    world->listing = (struct hub_listing){.commit = COMMIT, .files = world->files, .count = 2};
    assert_ok(hub_reference_parse("org/name", &world->listing.reference, &world->error), world->error);
}

static void world_stop(struct world *world) {
    hub_close(&world->hub);
    hub_reference_free(&world->listing.reference);
    free(world->files[0].path);
    free(world->files[1].path);
    hub_server_stop(&world->server);
    hub_server_stop(&world->away);
}

static struct byte_source *source_open(struct world *world) {
    struct byte_source *source;
    assert_ok(range_source_open(&world->hub, &world->listing, &world->files[1], &source, &world->error), world->error);
    return source;
}

/* Requests of a server so far, and of how many bytes; forgets them. */
static size_t requests(struct hub_server *server, uint64_t *size) {
    char *log = hub_server_log(server);
    size_t count = 0;
    *size = 0;
    for (const char *line = log; *line; line = strchr(line, '\n') + 1) {
        unsigned long long first, last;
        const char *range = strstr(line, "range=bytes=");
        assert_non_null(range);
        assert_int_equal(sscanf(range, "range=bytes=%llu-%llu", &first, &last), 2);
        *size += last - first + 1;
        count++;
    }
    free(log);
    return count;
}

static void read_check(struct world *world, struct byte_source *source, uint64_t offset, size_t size) {
    char *buffer = malloc(size + 1);
    buffer[size] = 'x';
    assert_ok(byte_source_read_at(source, offset, buffer, size, &world->error), world->error);
    assert_memory_equal(buffer, bytes + offset, size);
    assert_int_equal(buffer[size], 'x');
    free(buffer);
}

/* ---- what reading costs ---- */

static void given_a_header_then_reading_it_costs_one_request(void **state) {
    (void)state;
    struct world world;
    uint64_t size;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    read_check(&world, source, 0, 8);
    read_check(&world, source, 8, 50000);
    assert_int_equal(requests(&world.away, &size), 1);
    assert_int_equal(size, RANGE_BLOCK_BYTES);
    assert_int_equal(requests(&world.server, &size), 1);
    /* A large one: what is missing, in one more, at the address that is known. */
    read_check(&world, source, 8, 3 * MIB);
    assert_int_equal(requests(&world.away, &size), 1);
    assert_int_equal(size, 24 * RANGE_BLOCK_BYTES);
    /* The end of the file. */
    read_check(&world, source, LARGE - 10, 10);
    assert_int_equal(requests(&world.away, &size), 1);
    assert_in_range(size, 10, RANGE_BLOCK_BYTES);
    read_check(&world, source, LARGE - 10, 10);
    read_check(&world, source, LARGE, 0);
    assert_int_equal(requests(&world.away, &size), 0);
    assert_int_equal(requests(&world.server, &size), 0);
    byte_source_close(source);
    world_stop(&world);
}

static void given_reading_in_order_then_few_bytes_come_twice(void **state) {
    (void)state;
    struct world world;
    uint64_t size;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    for (uint64_t at = 0; at < LARGE; at += 777777)
        read_check(&world, source, at, LARGE - at < 777777 ? (size_t)(LARGE - at) : 777777);
    const size_t count = requests(&world.away, &size);
    assert_int_equal(size, LARGE);                 /* each byte once, */
    assert_in_range(count, LARGE / (4 * MIB), 60); /* in large pieces */
    byte_source_close(source);
    world_stop(&world);
}

static void given_a_read_larger_than_the_blocks_then_it_is_one_request(void **state) {
    (void)state;
    struct world world;
    uint64_t size;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    read_check(&world, source, 1, LARGE - 1);
    assert_int_equal(requests(&world.away, &size), 1);
    assert_int_equal(size, LARGE - 1);
    byte_source_close(source);
    world_stop(&world);
}

static void given_a_hint_then_what_it_names_is_fetched_once(void **state) {
    (void)state;
    struct world world;
    uint64_t size;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    byte_source_prefetch(source, 20 * MIB, 8 * MIB);
    byte_source_prefetch(source, 20 * MIB, 8 * MIB);
    byte_source_prefetch(source, LARGE, 8 * MIB);
    byte_source_prefetch(source, UINT64_MAX, UINT64_MAX);
    byte_source_prefetch(source, 0, 0);
    for (uint64_t at = 20 * MIB; at < 28 * MIB; at += MIB)
        read_check(&world, source, at, MIB);
    byte_source_close(source); /* waits for what is under way */
    requests(&world.away, &size);
    assert_in_range(size, 8 * MIB, 28 * MIB); /* reading on was begun, too */
    world_stop(&world);
}

enum { READERS = 8, READS = 25 };

struct reader {
    struct world *world;
    struct byte_source *source;
    uint64_t seed;
    size_t wrong;
};

static void *read_around(void *context) {
    struct reader *reader = context;
    static const size_t most = 3 * MIB;
    char *buffer = malloc(most);
    struct error error;
    for (int i = 0, count = scaled(READS, 3); i < count; i++) {
        const uint64_t offset = fixture_random(&reader->seed) % LARGE;
        size_t size = fixture_random(&reader->seed) % most;
        if (size > LARGE - offset)
            size = (size_t)(LARGE - offset);
        if (i % 5 == 0)
            byte_source_prefetch(reader->source, fixture_random(&reader->seed) % LARGE, size);
        reader->wrong += byte_source_read_at(reader->source, offset, buffer, size, &error) != STATUS_OK ||
                         memcmp(buffer, bytes + offset, size) != 0;
    }
    free(buffer);
    return NULL;
}

static void readers_run(struct world *world) {
    struct reader readers[READERS];
    pthread_t threads[READERS];
    struct byte_source *sources[2] = {source_open(world), source_open(world)};
    for (uint64_t i = 0; i < READERS; i++) {
        readers[i] = (struct reader){world, sources[i % 2], i, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, read_around, &readers[i]), 0);
    }
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].wrong, 0);
    }
    byte_source_close(sources[0]);
    byte_source_close(sources[1]);
}

static void given_many_readers_then_each_gets_its_bytes(void **state) {
    (void)state;
    struct world world;
    world_start(&world);
    readers_run(&world);
    world.fault = CUT;
    readers_run(&world);
    world_stop(&world);
}

static void given_many_readers_of_one_place_then_it_is_fetched_once(void **state) {
    (void)state;
    struct world world;
    uint64_t size;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    struct reader readers[READERS];
    pthread_t threads[READERS];
    for (uint64_t i = 0; i < READERS; i++) {
        readers[i] = (struct reader){&world, source, 5, 0}; /* the same places */
        assert_int_equal(pthread_create(&threads[i], NULL, read_around, &readers[i]), 0);
    }
    for (int i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(readers[i].wrong, 0);
    }
    byte_source_close(source);
    requests(&world.away, &size);
    assert_in_range(size, 1, (uint64_t)(scaled(READS, 3) + 10) * 3 * MIB / 2); /* what one of them reads */
    world_stop(&world);
}

/* ---- the source's contract ---- */

static void given_a_source_then_it_tells_what_the_hub_does(void **state) {
    (void)state;
    struct world world;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    struct source_identity now;
    char buffer[16];
    assert_int_equal(source->identity.size, LARGE);
    assert_int_equal(source->identity.mtime_ns, 0);
    assert_true(source->identity.hashed);
    assert_memory_equal(source->identity.sha256, bytes_sha256, SHA256_SIZE);
    assert_string_equal(source->name, "hf://org/name@main/large");
    assert_ok(byte_source_check_unchanged(source, &world.error), world.error);
    assert_ok(source->operations->identify(source, &now, &world.error), world.error);
    assert_memory_equal(&now, &source->identity, sizeof now);
    assert_refused(byte_source_read_at(source, LARGE - 8, buffer, 9, &world.error), STATUS_BAD_INPUT, world.error,
                   "truncated");
    assert_refused(byte_source_read_at(source, UINT64_MAX, buffer, 9, &world.error), STATUS_BAD_INPUT, world.error,
                   "hf://org/name@main/large");
    byte_source_close(source);
    assert_ok(range_source_open(&world.hub, &world.listing, &world.files[0], &source, &world.error), world.error);
    assert_false(source->identity.hashed);
    read_check(&world, source, 100, 1000);
    byte_source_close(source);
    world_stop(&world);
}

/* ---- faults ---- */

static void given_addresses_that_expire_then_the_hub_is_asked_again(void **state) {
    (void)state;
    struct world world;
    uint64_t size;
    world_start(&world);
    struct byte_source *source = source_open(&world);
    world.expires = true;
    for (uint64_t at = 0; at < 10; at++)
        read_check(&world, source, at * 7 * MIB, 1000);
    assert_int_equal(requests(&world.server, &size), 10);
    assert_int_equal(requests(&world.away, &size), 19); /* but for the first, the old one was tried */
    world.fault = GONE;
    char byte;
    assert_refused(byte_source_read_at(source, 3 * MIB, &byte, 1, &world.error), STATUS_IO, world.error, "answers 403");
    assert_null(strstr(world.error.message, "signature")); /* a secret */
    world.fault = DEAD;
    assert_refused(byte_source_read_at(source, 3 * MIB, &byte, 1, &world.error), STATUS_IO, world.error, "/large");
    world.fault = FINE; /* a failure is not kept */
    read_check(&world, source, 3 * MIB, 1);
    byte_source_close(source);
    world_stop(&world);
}

static void given_replies_that_break_off_then_reading_goes_on_there(void **state) {
    (void)state;
    static const enum fault faults[] = {CUT, SHORT};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        struct world world;
        uint64_t size;
        world_start(&world);
        world.fault = faults[i];
        struct byte_source *source = source_open(&world);
        read_check(&world, source, 0, 2 * MIB);
        const size_t count = requests(&world.away, &size);
        assert_in_range(count, 2 * MIB / 300000, 2 * MIB / 100000 + 1);
        byte_source_close(source);
        world_stop(&world);
    }
}

static void given_a_server_that_ignores_ranges_then_only_the_beginning_is_read(void **state) {
    (void)state;
    struct world world;
    char byte;
    world_start(&world);
    world.fault = WHOLE;
    struct byte_source *source = source_open(&world);
    read_check(&world, source, 0, 8);
    read_check(&world, source, 8, 50000);
    read_check(&world, source, 7 * MIB, 1000);
    assert_refused(byte_source_read_at(source, 60 * MIB, &byte, 1, &world.error), STATUS_IO, world.error,
                   "ignores ranges");
    byte_source_close(source);
    world_stop(&world);
}

static void given_a_wrong_reply_then_it_is_refused(void **state) {
    (void)state;
    static const struct {
        enum fault fault;
        enum status status;
        const char *says;
    } cases[] = {
        {SHIFTED, STATUS_IO, "another range"},          {OTHER_SIZE, STATUS_IO, "another range"},
        {NO_RANGE, STATUS_IO, "another range"},         {ENCODED, STATUS_IO, "encoded"},
        {WRONG_COMMIT, STATUS_BAD_INPUT, "the commit"}, {WRONG_HASH, STATUS_BAD_INPUT, "the hash"},
        {WRONG_SIZE, STATUS_BAD_INPUT, "the size"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world world;
        char byte;
        world_start(&world);
        world.fault = cases[i].fault;
        struct byte_source *source = source_open(&world);
        assert_refused(byte_source_read_at(source, 10 * MIB, &byte, 1, &world.error), cases[i].status, world.error,
                       cases[i].says);
        assert_contains(world.error.message, "large");
        byte_source_close(source);
        world_stop(&world);
    }
}

/* ---- small files ---- */

static void given_a_small_file_then_it_is_read_whole_and_checked(void **state) {
    (void)state;
    static const enum fault faults[] = {FINE, WHOLE, WRONG_BYTES};
    char *text;
    size_t length;
    struct world world;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        world_start(&world);
        world.fault = faults[i];
        assert_ok(hub_file_read(&world.hub, &world.listing, &world.files[0], SMALL, &text, &length, &world.error),
                  world.error);
        assert_int_equal(length, SMALL);
        assert_memory_equal(text, bytes, SMALL);
        assert_int_equal(text[SMALL], '\0');
        free(text);
        assert_asked(&world.server, faults[i] == WRONG_BYTES ? "GET /org/name/resolve/" COMMIT "/a%20small\n"
                                                               "GET /org/name/resolve/" COMMIT "/a%20small\n"
                                                             : "GET /org/name/resolve/" COMMIT "/a%20small\n");
        world_stop(&world);
    }
    world_start(&world);
    assert_refused(hub_file_read(&world.hub, &world.listing, &world.files[0], SMALL - 1, &text, &length, &world.error),
                   STATUS_BAD_INPUT, world.error, "5000 bytes");
    assert_asked(&world.server, "");
    world.fault = WRONG_ALWAYS;
    assert_refused(hub_file_read(&world.hub, &world.listing, &world.files[0], SMALL, &text, &length, &world.error),
                   STATUS_IO, world.error, "the hash is another");
    assert_null(text);
    world_stop(&world);
}

static void given_an_empty_file_then_nothing_is_asked(void **state) {
    (void)state;
    struct world world;
    char *text;
    size_t length;
    world_start(&world);
    struct hub_file empty = {.path = world.files[0].path, .oid = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"};
    assert_ok(hub_file_read(&world.hub, &world.listing, &empty, 10, &text, &length, &world.error), world.error);
    assert_int_equal(length, 0);
    assert_string_equal(text, "");
    free(text);
    assert_asked(&world.server, "");
    world_stop(&world);
}

static int bytes_make(void **state) {
    (void)state;
    bytes = malloc(LARGE);
    if (!bytes)
        return -1;
    uint64_t seed = 42;
    for (size_t i = 0; i + 4 <= LARGE; i += 4) {
        const uint32_t word = fixture_random(&seed);
        memcpy(bytes + i, &word, 4);
    }
    /* git's hash of the small one, by its definition. */
    char blob[64 + SMALL];
    uint8_t digest[20];
    const int header = snprintf(blob, sizeof blob, "blob %d", SMALL) + 1;
    memcpy(blob + header, bytes, SMALL);
    if (!EVP_Digest(blob, (size_t)header + SMALL, digest, NULL, EVP_sha1(), NULL))
        return -1;
    for (size_t i = 0; i < sizeof digest; i++)
        snprintf(small_oid + 2 * i, 3, "%02x", digest[i]);
    return sha256_of(bytes, LARGE, bytes_sha256, NULL) == STATUS_OK ? 0 : -1;
}

static int bytes_free(void **state) {
    (void)state;
    free(bytes);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_a_header_then_reading_it_costs_one_request),
        TEST(given_reading_in_order_then_few_bytes_come_twice),
        TEST(given_a_read_larger_than_the_blocks_then_it_is_one_request),
        TEST(given_a_hint_then_what_it_names_is_fetched_once),
        TEST(given_many_readers_then_each_gets_its_bytes),
        TEST(given_many_readers_of_one_place_then_it_is_fetched_once),
        TEST(given_a_source_then_it_tells_what_the_hub_does),
        TEST(given_addresses_that_expire_then_the_hub_is_asked_again),
        TEST(given_replies_that_break_off_then_reading_goes_on_there),
        TEST(given_a_server_that_ignores_ranges_then_only_the_beginning_is_read),
        TEST(given_a_wrong_reply_then_it_is_refused),
        TEST(given_a_small_file_then_it_is_read_whole_and_checked),
        TEST(given_an_empty_file_then_nothing_is_asked),
    };
    return cmocka_run_group_tests(tests, bytes_make, bytes_free);
}
