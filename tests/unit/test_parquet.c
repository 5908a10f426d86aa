/*
 * The Parquet reader: what it says it reads it reads, all else is refused by name, and nothing is believed.
 * tests/parquet compares it with pyarrow.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/parquet.h"
#include "common/parquet_encoding.h"
#include "common/wikitext.h"
#include "tests/unit/parquet_file.h"

/* Rows as one text: each behind a '|'. */
static enum status row_append(void *context, const char *bytes, size_t length, struct error *error) {
    (void)error;
    text_append_string(context, "|");
    text_append(context, bytes, length);
    return STATUS_OK;
}

/* Reads from memory that ends where the file ends. */
static enum status read_bytes(const void *bytes, size_t length, struct text *rows, struct error *error) {
    char *copy = malloc(length ? length : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, length);
    error->message[0] = '\0';
    const enum status status = parquet_strings_read("a.parquet", copy, length, "text", row_append, rows, error);
    free(copy);
    return status;
}

static enum status read_given(const struct given *given, struct text *rows, struct error *error) {
    struct text file = parquet_file(given);
    assert_false(file.failed);
    const enum status status = read_bytes(file.bytes, file.length, rows, error);
    text_free(&file);
    return status;
}

static void assert_rows(const struct given *given, const char *wanted) {
    struct text rows = {0};
    struct error error;
    if (read_given(given, &rows, &error) != STATUS_OK)
        fail_msg("%s", error.message);
    assert_string_equal(rows.bytes ? rows.bytes : "", wanted);
    text_free(&rows);
}

struct refused {
    struct given given;
    const char *part; /* of the message */
};

static void assert_all_refused(const struct refused *cases, size_t count) {
    for (size_t i = 0; i < count; i++) {
        struct text rows = {0};
        struct error error;
        const enum status status = read_given(&cases[i].given, &rows, &error);
        if (status != STATUS_BAD_INPUT || !strstr(error.message, cases[i].part) ||
            !strstr(error.message, "'a.parquet'"))
            fail_msg("case %zu: status %d, '%s', wanted '%s'", i, (int)status, error.message, cases[i].part);
        text_free(&rows);
    }
}
#define ASSERT_ALL_REFUSED(cases) assert_all_refused(cases, sizeof(cases) / sizeof *(cases))

#define PLAIN 0
#define DICT 8
#define WORDS                                                                                                          \
    { .kind = DICTIONARY, .values = 3, CONTENT("\1\0\0\0a\2\0\0\0bb\0\0\0\0") }

static void given_files_of_every_supported_kind_when_read_then_the_rows_come_in_order(void **state) {
    (void)state;
    static const char three[] = "|one||three";
    assert_rows(&(struct given){0}, three);
    assert_rows(&(struct given){.required = true}, three);
    assert_rows(&(struct given){.mark = CONVERTED}, three);
    assert_rows(&(struct given){.mark = LOGICAL}, three);
    assert_rows(&(struct given){.is_signed = true, .behind_metadata = "a nonce and a tag: 28 bytes."}, three);
    assert_rows(&(struct given){.dictionary_offset = true}, three);
    assert_rows(&(struct given){.pages = {{.kind = DATA_V2, .values = 3, .levels = 2, CONTENT(LEVELS STRINGS)}}},
                three);
    assert_rows(&(struct given){.required = true, .pages = {{.kind = DATA_V2, .values = 3, CONTENT(STRINGS)}}}, three);
    assert_rows(&(struct given){.pages = {WORDS,
                                          {.kind = DATA, .values = 2, .encoding = 2, CONTENT("\2\0\0\0\4\1\2\4\1")},
                                          {.kind = DATA,
                                           .values = 3,
                                           .encoding = DICT,
                                           CONTENT("\2\0\0\0\3\7\2\3\x24\0")}}}, /* bits 00 01 10 */
                "|bb|bb|a|bb|");
    assert_rows(&(struct given){.required = true,
                                .pages = {WORDS,
                                          {.kind = DATA_V2, .values = 2, .encoding = DICT, CONTENT("\0\4")},
                                          {.kind = DATA, .values = 1, .encoding = PLAIN, CONTENT("\2\0\0\0no")}}},
                "|a|a|no");
    assert_rows(&(struct given){.pages = {{.kind = DATA, .values = 0, CONTENT("")},
                                          {.kind = DATA, .values = 3, .crc = 1, CONTENT("\2\0\0\0" LEVELS STRINGS)}}},
                three);
}

static void given_no_rows_when_read_then_there_are_none(void **state) {
    (void)state;
    assert_rows(&(struct given){.pages = {{.kind = DATA, .values = 0, CONTENT("")}}}, "");
    assert_rows(&(struct given){.no_group = true}, "");
    assert_rows(
        &(struct given){.pages = {{.kind = DATA, .values = 0, CONTENT("")}}, .chunk_begin = -4, .chunk_size = -1}, "");
}

static void given_each_codec_when_read_then_pages_are_decompressed(void **state) {
    (void)state;
    enum { SNAPPY = 1, GZIP = 2, ZSTD = 6 };
    assert_rows(&(struct given){.required = true,
                                .codec = SNAPPY,
                                .pages = {{.kind = DATA, .values = 1, .plain_size = -2, CONTENT("\5\x10\1\0\0\0x")}}},
                "|x");
    assert_rows(&(struct given){.required = true,
                                .codec = ZSTD,
                                .pages = {{.kind = DATA,
                                           .values = 1,
                                           .plain_size = -9,
                                           CONTENT("\x28\xb5\x2f\xfd\x20\5\x29\0\0\1\0\0\0x")}}},
                "|x");
    /* the levels of version 2 are never compressed, and the rest may not be */
    assert_rows(
        &(struct given){
            .codec = SNAPPY,
            .pages = {{.kind = DATA_V2, .values = 1, .levels = 2, .plain_size = -2, CONTENT("\2\1\5\x10\1\0\0\0x")}}},
        "|x");
    assert_rows(
        &(struct given){
            .codec = SNAPPY,
            .pages = {{.kind = DATA_V2, .values = 1, .levels = 2, .not_compressed = true, CONTENT("\2\1\1\0\0\0x")}}},
        "|x");
    /* two gzip members, of "\1\0\0\0" and of "x" */
    char members[128];
    size_t length = 0;
    static const char *const parts[] = {"\1\0\0\0", "x"};
    for (unsigned i = 0; i < 2; i++) {
        z_stream stream = {.next_in = (z_const Bytef *)parts[i], .avail_in = i == 0 ? 4 : 1};
        assert_int_equal(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        stream.next_out = (Bytef *)members + length;
        stream.avail_out = (uInt)(sizeof members - length);
        assert_int_equal(deflate(&stream, Z_FINISH), Z_STREAM_END);
        length += stream.total_out;
        deflateEnd(&stream);
    }
    struct given gzip = {.required = true, .codec = GZIP, .pages = {{.kind = DATA, .values = 1, .content = members}}};
    gzip.pages[0].length = length;
    gzip.pages[0].plain_size = 5 - (int)length;
    assert_rows(&gzip, "|x");
}

static void given_a_schema_that_does_not_fit_when_read_then_it_is_refused(void **state) {
    (void)state;
    static const struct refused cases[] = {
        {{.no_nodes = true}, "its schema is not a tree"},
        {{.root_children = 1}, "its schema is not a tree"},
        {{.root_children = -1}, "its schema is not a tree"},
        {{.root_children = -3}, "its schema is not a tree"},
        {{.group_children = 1}, "its schema is not a tree"},
        {{.group_children = -2}, "its schema is not a tree"},
        {{.leaf_children = 1}, "its schema is not a tree"},
        {{.leaf_children = -1}, "its schema is not a tree"},
        {{.column = "Text"}, "'a.parquet' has no column 'text'"},
        {{.column = "text "}, "has no column 'text'"},
        {{.neighbour = "text"}, "column 'text' is there twice"},
        {{.neighbour = "text", .column = "x"}, "column 'text' is nested"},
        {{.repetition = 1}, "column 'text' is repeated"},
        {{.repetition = 2}, "column 'text' is repeated"},
        {{.repetition = -2}, "column 'text' is repeated"},
        {{.type = 1}, "column 'text' is not one of strings"},
        {{.type = -5}, "column 'text' is not one of strings"},
        {{.mark = UNMARKED}, "column 'text' is not one of strings"},
        {{.mark = ENUM}, "column 'text' is not one of strings"},
    };
    ASSERT_ALL_REFUSED(cases);
}

static void given_metadata_that_contradict_themselves_when_read_then_they_are_refused(void **state) {
    (void)state;
    static const char no_rows[] = "lack the schema, the row groups or their number of rows";
    static const char other_rows[] = "the number of rows is not that of their values";
    static const char outside[] = "a column's chunk lies outside of the file";
    static const char not_complete[] = "the metadata of a column's chunk are not complete";
    static const struct refused cases[] = {
        {{.no_schema = true}, no_rows},
        {{.no_groups = true}, no_rows},
        {{.no_rows = true}, no_rows},
        {{.file_rows = -4}, no_rows},
        {{.behind_metadata = "x"}, "something follows its metadata"},
        {{.is_signed = true}, "something follows its metadata"},
        {{.file_rows = PARQUET_LIMIT - 2}, "'a.parquet' has 67108865 rows; at most 67108864 can be read"},
        {{.file_rows = INT64_MAX - 3}, "'a.parquet' has 9223372036854775807 rows"},
        {{.file_rows = 1}, "its row groups lack rows"},
        {{.no_group = true, .file_rows = 1}, "its row groups lack rows"},
        {{.file_rows = -1}, other_rows},
        {{.group_rows = 1, .file_rows = 1}, other_rows},
        {{.chunk_values = 1}, other_rows},
        {{.chunk_values = -4, .group_rows = -4}, other_rows},
        {{.group_rows = 1, .chunk_values = 1, .file_rows = 1}, "1 rows of column 'text' are missing"},
        {{.group_rows = -1, .chunk_values = -1, .file_rows = -1}, "it has more rows than its row group has left"},
        {{.columns = 1}, "a row group has not as many columns as the schema"},
        {{.columns = -1}, "a row group has not as many columns as the schema"},
        {{.columns = -2}, "a row group has not as many columns as the schema"},
        {{.path = "test"}, "its columns have another order than its schema"},
        {{.path_inside = "text"}, "its columns have another order than its schema"},
        {{.file_path = "b.parquet"}, "column 'text' lies in another file"},
        {{.encrypted = true}, "column 'text' is encrypted"},
        {{.left_out = 3}, not_complete},
        {{.left_out = 4}, not_complete},
        {{.left_out = 5}, not_complete},
        {{.left_out = 7}, not_complete},
        {{.left_out = 9}, not_complete},
        {{.chunk_begin = -1}, outside},
        {{.chunk_begin = 1}, outside},
        {{.chunk_begin = 1, .chunk_size = -1}, "page of column 'text' at byte 5"},
        {{.chunk_begin = INT64_MIN}, outside},
        {{.chunk_begin = INT64_MAX - 8}, outside},
        {{.chunk_size = 1}, outside},
        {{.chunk_size = INT64_MAX - 64}, outside},
        {{.chunk_size = INT64_MIN}, outside},
        {{.chunk_size = -1}, "it would end behind the column's chunk"},
        {{.second_group = true}, "the column's chunks overlap"},
    };
    ASSERT_ALL_REFUSED(cases);
}

static void given_pages_that_contradict_themselves_when_read_then_they_are_refused(void **state) {
    (void)state;
#define V1(...) .pages = { {.kind = DATA, .values = 3, CONTENT("\2\0\0\0" LEVELS STRINGS), __VA_ARGS__} }
#define V2(...) .pages = {{.kind = DATA_V2, .values = 3, CONTENT(LEVELS STRINGS), __VA_ARGS__}}
#define WITH_LEVELS(levels) .pages = {{.kind = DATA, .values = 3, CONTENT(levels STRINGS)}}
    static const char no_header[] = "its header is not complete";
    static const struct refused cases[] = {
        {{.pages = {{.kind = OTHER_PAGE, .values = 3, CONTENT("x")}}}, "it is of type 1, which cannot be read"},
        {{V1(.no_header = true)}, no_header},
        {{V1(.size = -1000)}, no_header},
        {{V1(.plain_size = -1000)}, no_header},
        {{V2(.levels = -1)}, no_header},
        {{V1(.size = 1)}, "it would end behind the column's chunk"},
        {{V1(.size = INT32_MAX - 64)}, "it would end behind the column's chunk"},
        {{V1(.size = -1)}, "do not give the"},
        {{V1(.plain_size = 1)}, "do not give the"},
        {{V1(.plain_size = INT32_MAX - 64)}, "at most 67108864 are read"},
        {{V1(.crc = 2)}, "its CRC is another one"},
        {{V2(.levels = 2, .rows = 1)}, "it does not have one value in each row"},
        {{V2(.levels = 2, .repetition_levels = 1)}, "it does not have one value in each row"},
        {{V2(.levels = 27)}, "its definition levels are larger than it is"},
        {{V2(.levels = 2, .plain_size = -21)}, "its definition levels are larger than it is"},
        {{.required = true, V2(.levels = 2)}, "it has definition levels, but no nulls"},
        {{V1(.level_encoding = 1)}, "the encoding of its levels is BIT_PACKED, which cannot be read"},
        {{V1(.encoding = 7)}, "the encoding of its strings is DELTA_BYTE_ARRAY, which cannot be read"},
        {{V1(.encoding = 1)}, "the encoding of its strings is one that is not known"},
        {{V1(.encoding = -1)}, "the encoding of its strings is one that is not known"},
        {{.codec = 3}, "it is compressed with LZO, which cannot be read"},
        {{.codec = 8}, "it is compressed with codec 8, which is not known"},
        {{.codec = -1}, "it is compressed with codec -1, which is not known"},
        {{.codec = 1}, "(SNAPPY) do not give the"},
        {{.codec = 2}, "(GZIP) do not give the"},
        {{.codec = 6}, "(ZSTD) do not give the"},
        /* definition levels */
        {{.pages = {{.kind = DATA, .values = 1, CONTENT("\2\0\0")}}}, "its definition levels are cut off"},
        {{WITH_LEVELS("\2\0\0\1")}, "its definition levels go beyond it"},
        {{WITH_LEVELS("\0\0\0\0")}, "its definition levels are cut off"},
        {{WITH_LEVELS("\1\0\0\0\6")}, "its definition levels are cut off"},
        {{WITH_LEVELS("\2\0\0\0\4\1")}, "its definition levels are cut off"},
        {{WITH_LEVELS("\2\0\0\0\0\1")}, "its definition levels are cut off"},
        {{WITH_LEVELS("\2\0\0\0\5\1")}, "its definition levels are cut off"},
        {{WITH_LEVELS("\3\0\0\0\6\1\0")}, "something follows its definition levels"},
        {{WITH_LEVELS("\2\0\0\0\6\2")}, "one of its definition levels is larger than 1"},
        {{WITH_LEVELS("\2\0\0\0\6\0")}, "row 0 (from 0) is null"},
        {{WITH_LEVELS("\2\0\0\0\3\5")}, "row 1 (from 0) is null"},
        {{WITH_LEVELS("\4\0\0\0\4\1\2\0")}, "row 2 (from 0) is null"},
        /* strings */
        {{.required = true, .pages = {{.kind = DATA, .values = 1, CONTENT("\1\0\0")}}}, "a string goes beyond it"},
        {{.required = true, .pages = {{.kind = DATA, .values = 1, CONTENT("\2\0\0\0x")}}}, "a string goes beyond it"},
        {{.required = true, .pages = {{.kind = DATA, .values = 1, CONTENT("\xff\xff\xff\xffx")}}},
         "a string goes beyond it"},
        {{.required = true, .pages = {{.kind = DATA, .values = 1, CONTENT("\1\0\0\0xy")}}},
         "something follows its strings"},
    };
    ASSERT_ALL_REFUSED(cases);
}

static void given_dictionaries_that_do_not_fit_when_read_then_they_are_refused(void **state) {
    (void)state;
#define INDICES(indices)                                                                                               \
    .required = true, .pages = { WORDS, {.kind = DATA, .values = 3, .encoding = DICT, CONTENT(indices)} }
#define FIRST(...)                                                                                                     \
    .required = true, .pages = {{.kind = DICTIONARY, __VA_ARGS__}, {.kind = DATA, .values = 3, CONTENT(STRINGS)}}
    static const struct refused cases[] = {
        {{FIRST(.values = 1, .encoding = 3, CONTENT("\0\0\0\0"))},
         "the encoding of its dictionary is RLE, which cannot"},
        {{FIRST(.values = 2, CONTENT("\0\0\0\0"))}, "its dictionary is larger than the page"},
        {{FIRST(.values = INT32_MAX, CONTENT("\0\0\0\0"))}, "its dictionary is larger than the page"},
        {{FIRST(.values = -1, CONTENT("\0\0\0\0"))}, "its header is not complete"},
        {{FIRST(.values = 2, CONTENT("\4\0\0\0\0\0\0\0"))}, "a string of its dictionary goes beyond the page"},
        {{FIRST(.values = 1, CONTENT("\0\0\0\0\0\0\0\0"))}, "something follows its dictionary"},
        {{.required = true, .pages = {WORDS, WORDS, {.kind = DATA, .values = 3, CONTENT(STRINGS)}}},
         "it is the chunk's second dictionary"},
        {{.required = true, .pages = {{.kind = DATA, .values = 3, .encoding = DICT, CONTENT("\2\6\0")}}},
         "its chunk has no dictionary"},
        {{INDICES("")}, "its indices have no width"},
        {{INDICES("\x21\6\0\0\0\0\0")}, "or one beyond 32 bits"},
        {{INDICES("\2")}, "its indices are cut off"},
        {{INDICES("\2\4\0")}, "its indices are cut off"},
        {{INDICES("\2\6")}, "its indices are cut off"},
        {{INDICES("\2\3\0")}, "its indices are cut off"},
        {{INDICES("\2\xff\xff\xff\xff\xff\0")}, "its indices are cut off"},
        {{INDICES("\2\6\3")}, "one of its indices is beyond the dictionary"},
        {{INDICES("\x20\6\xff\xff\xff\xff")}, "one of its indices is beyond the dictionary"},
        {{INDICES("\2\6\0\0")}, "something follows its indices"},
    };
    ASSERT_ALL_REFUSED(cases);
}

static void given_what_is_no_parquet_file_when_read_then_it_is_refused(void **state) {
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        const char *part;
    } cases[] = {
        {"", 0, "is no Parquet file"},
        {"PAR1", 4, "is no Parquet file"},
        {"PAR1\0\0\0PAR1", 11, "is no Parquet file"},
        {"PAR1\0\0\0\0PAR1", 12, "the metadata end too early"},
        {"PAR1\1\0\0\0PAR1", 12, "its metadata would have 1 bytes"},
        {"PAR1\xff\xff\xff\xffPAR1", 12, "its metadata would have 4294967295 bytes"},
        {"PAR1\0\1\0\0\0PAR1", 13, "lack the schema"},
        {"PAR2\0\1\0\0\0PAR1", 13, "is no Parquet file"},
        {"PAR1\0\1\0\0\0PAR2", 13, "is no Parquet file"},
        {"PARE\0\1\0\0\0PARE", 13, "is an encrypted Parquet file"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text rows = {0};
        struct error error;
        assert_int_equal(read_bytes(cases[i].bytes, cases[i].length, &rows, &error), STATUS_BAD_INPUT);
        if (!strstr(error.message, cases[i].part))
            fail_msg("case %zu: '%s', wanted '%s'", i, error.message, cases[i].part);
        assert_null(rows.bytes);
    }
}

/* Cut off everywhere, and every byte changed in every bit. A sanitizer sees what is read or written beyond. */
static void given_damage_anywhere_when_read_then_there_are_rows_or_an_error(void **state) {
    (void)state;
    static const struct given kinds[] = {
        {0},
        {.required = true, .pages = {WORDS, {.kind = DATA, .values = 3, .encoding = DICT, CONTENT("\2\3\x24\0")}}},
        {.codec = 1,
         .pages = {{.kind = DATA_V2, .values = 1, .levels = 2, .plain_size = -2, CONTENT("\2\1\5\x10\1\0\0\0x")}}},
    };
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        struct text file = parquet_file(&kinds[kind]), rows = {0};
        struct error error;
        for (size_t cut = 0; cut < file.length; cut++)
            assert_int_equal(read_bytes(file.bytes, cut, &rows, &error), STATUS_BAD_INPUT);
        for (size_t bit = 0; bit < 8 * file.length; bit++) {
            file.bytes[bit / 8] = (char)(file.bytes[bit / 8] ^ 1 << bit % 8);
            if (read_bytes(file.bytes, file.length, &rows, &error) != STATUS_OK)
                assert_true(error.message[0] == '\'');
            file.bytes[bit / 8] = (char)(file.bytes[bit / 8] ^ 1 << bit % 8);
        }
        text_free(&rows);
        text_free(&file);
    }
}

/* A page of a few bytes that stands for more than the limit: many times the dictionary's only string. */
static void given_strings_beyond_the_limit_when_read_then_it_stops_there(void **state) {
    (void)state;
    enum { STRING = 1 << 20, ROWS = PARQUET_LIMIT / STRING };
    char *dictionary = calloc(1, 4 + STRING);
    assert_non_null(dictionary);
    dictionary[2] = STRING >> 16;
    struct given given = {.required = true,
                          .pages = {{.kind = DICTIONARY, .values = 1, .content = dictionary},
                                    {.kind = DATA, .values = ROWS, .encoding = DICT, CONTENT("\0\x80\1")}}};
    given.pages[0].length = 4 + STRING;
    struct text rows = {0};
    struct error error;
    assert_int_equal(read_given(&given, &rows, &error), STATUS_OK);
    assert_int_equal(rows.length, ROWS * (STRING + 1));
    text_free(&rows);
    given.pages[1].values = ROWS + 1;
    given.pages[1].content = "\0\x82\1";
    assert_int_equal(read_given(&given, &rows, &error), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.message, "the strings have 68157440 bytes; at most 67108864 are read"));
    assert_int_equal(rows.length, ROWS * (STRING + 1));
    text_free(&rows);
    free(dictionary);
}

static enum status row_refuse(void *context, const char *bytes, size_t length, struct error *error) {
    (void)bytes;
    (void)length;
    return --*(int *)context > 0 ? STATUS_OK : error_set(error, STATUS_INTERRUPTED, "enough");
}

static void given_a_visitor_that_wants_no_more_when_read_then_it_ends_with_its_status(void **state) {
    (void)state;
    struct text file = parquet_file(&(struct given){0});
    struct error error;
    int left = 2;
    assert_int_equal(parquet_strings_read("a", file.bytes, file.length, "text", row_refuse, &left, &error),
                     STATUS_INTERRUPTED);
    assert_int_equal(left, 0);
    assert_string_equal(error.message, "enough");
    text_free(&file);
}

/* The numbers 0, 1, 2, ... modulo 2^width, packed by hand and as runs of one. */
static void given_numbers_of_every_width_when_read_then_they_come_back(void **state) {
    (void)state;
    enum { GROUPS = 3, COUNT = 8 * GROUPS };
    for (unsigned width = 0; width <= PARQUET_WIDTH_MOST; width++) {
        const uint32_t mask = (uint32_t)((UINT64_C(1) << width) - 1);
        struct text bytes = {0};
        put_varint(&bytes, GROUPS << 1 | 1);
        uint8_t packed[GROUPS * PARQUET_WIDTH_MOST] = {0};
        for (unsigned i = 0; i < COUNT; i++)
            for (unsigned bit = 0; bit < width; bit++)
                packed[(i * width + bit) / 8] |=
                    (uint8_t)(((i * 0x9e3779b9u & mask) >> bit & 1) << (i * width + bit) % 8);
        text_append(&bytes, packed, GROUPS * (size_t)width);
        for (unsigned i = 0; i < COUNT; i++) {
            const uint32_t number = i * 0x9e3779b9u & mask;
            put_varint(&bytes, 2 << 1);
            for (unsigned byte = 0; byte < (width + 7) / 8; byte++)
                put_byte(&bytes, number >> 8 * byte & 0xff);
        }
        uint8_t *copy = malloc(bytes.length);
        assert_non_null(copy);
        memcpy(copy, bytes.bytes, bytes.length);
        struct parquet_runs runs = {.at = copy, .end = copy + bytes.length, .width = width};
        uint32_t number;
        for (unsigned i = 0; i < 3 * COUNT; i++) {
            assert_true(parquet_runs_next(&runs, &number));
            assert_int_equal(number, (i < COUNT ? i : (i - COUNT) / 2) * 0x9e3779b9u & mask);
        }
        assert_ptr_equal(runs.at, runs.end);
        assert_false(parquet_runs_next(&runs, &number));
        free(copy);
        text_free(&bytes);
    }
}

static void given_rows_of_wikitext_when_read_then_empty_ones_are_its_blank_lines(void **state) {
    (void)state;
    struct text file = parquet_file(&(struct given){
        .required = true, .pages = {{.kind = DATA, .values = 3, CONTENT("\0\0\0\0\7\0\0\0 = A = \n\2\0\0\0 \n")}}});
    struct text raw = {0};
    struct error error;
    assert_int_equal(wikitext_from_parquet("a", file.bytes, file.length, &raw, &error), STATUS_BAD_INPUT); /* 8 bytes */
    text_free(&raw);
    text_free(&file);
    file = parquet_file(&(struct given){
        .required = true, .pages = {{.kind = DATA, .values = 3, CONTENT("\0\0\0\0\10\0\0\0 = A = \n\2\0\0\0 \n")}}});
    assert_int_equal(wikitext_from_parquet("a", file.bytes, file.length, &raw, &error), STATUS_OK);
    assert_string_equal(raw.bytes, " \n = A = \n \n");
    assert_int_equal(wikitext_2_test_check("b", raw.bytes, raw.length, &error), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.message, "'b' is not the raw test split of WikiText-2: it has 12 bytes and sha256 "));
    text_free(&raw);
    text_free(&file);
    file = parquet_file(&(struct given){.column = "words"});
    assert_int_equal(wikitext_from_parquet("a", file.bytes, file.length, &raw, &error), STATUS_BAD_INPUT);
    assert_non_null(strstr(error.message, "'a' has no column 'text'"));
    text_free(&file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_files_of_every_supported_kind_when_read_then_the_rows_come_in_order),
        cmocka_unit_test(given_no_rows_when_read_then_there_are_none),
        cmocka_unit_test(given_each_codec_when_read_then_pages_are_decompressed),
        cmocka_unit_test(given_a_schema_that_does_not_fit_when_read_then_it_is_refused),
        cmocka_unit_test(given_metadata_that_contradict_themselves_when_read_then_they_are_refused),
        cmocka_unit_test(given_pages_that_contradict_themselves_when_read_then_they_are_refused),
        cmocka_unit_test(given_dictionaries_that_do_not_fit_when_read_then_they_are_refused),
        cmocka_unit_test(given_what_is_no_parquet_file_when_read_then_it_is_refused),
        cmocka_unit_test(given_damage_anywhere_when_read_then_there_are_rows_or_an_error),
        cmocka_unit_test(given_strings_beyond_the_limit_when_read_then_it_stops_there),
        cmocka_unit_test(given_a_visitor_that_wants_no_more_when_read_then_it_ends_with_its_status),
        cmocka_unit_test(given_numbers_of_every_width_when_read_then_they_come_back),
        cmocka_unit_test(given_rows_of_wikitext_when_read_then_empty_ones_are_its_blank_lines),
    };
    return cmocka_run_group_tests_name("parquet", tests, NULL, NULL);
}
