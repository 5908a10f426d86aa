/*
 * The safetensors format: what is accepted is understood exactly, what strangers make up is refused and named.
 */
#include "tests/unit/fixtures.h"

/* Headers that must be refused, the bytes of data behind each, and what the message has to say. */
static const struct {
    const char *json;
    uint64_t data;
    const char *part;
} hostile[] = {
    {"", 0, "does not start with '{'"},
    {" {}", 0, "does not start with '{'"},
    {"[]", 0, "does not start with '{'"},
    {"\xef\xbb\xbf{}", 0, "does not start with '{'"},
    {"{", 0, "not valid JSON"},
    {"{}}", 0, "not valid JSON"},
    {"{\"a\"}", 0, "not valid JSON"},
    {"{\"\xff\": 1}", 0, "not valid JSON"},
    {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "not valid JSON"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],"
     "\"data_offsets\":[1,2]}}",
     2, "not valid JSON: duplicate object key"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "duplicate object key"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[18446744073709551617],\"data_offsets\":[0,1]}}", 1, "not a list of sizes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":NaN}}", 1, "not valid JSON"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"x\":\"\xc3\"}}", 1, "not UTF-8"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],}}", 1, "not valid JSON"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,],\"data_offsets\":[0,1]}}", 1, "not valid JSON"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[01],\"data_offsets\":[0,1]}}", 1, "not valid JSON"},
    {"{\"\\ud800\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "surrogate"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},}", 1, "not valid JSON"},
    {"{\"a\":1}", 0, "'a' is not {dtype, shape, data_offsets[2]}"},
    {"{\"a\":null}", 0, "'a' is not {dtype"},
    {"{\"a\":{}}", 0, "'a' is not {dtype"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":1,\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":{\"0\":0,\"1\":1}}}", 1, "'a' is not {dtype"},
    {"{\"a\":{\"dtype\":\"U9\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "unknown dtype 'U9'"},
    {"{\"a\":{\"dtype\":\"bf16\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, "unknown dtype 'bf16'"},
    {"{\"a\":{\"dtype\":\"\\u001b[2J\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2, "unknown dtype '\\x1b[2J'"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1, "has 9 dimensions"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}", 1, "not a list of sizes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1, "not a list of sizes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]}}", 1, "not a list of sizes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[null],\"data_offsets\":[0,1]}}", 1, "not a list of sizes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,0]}}", 1, "not an ordered pair"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}", 1, "not an ordered pair"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0.0,1.0]}}", 1, "not an ordered pair"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[\"0\",\"1\"]}}", 1, "not an ordered pair"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
     "shape [4294967296, 4294967296] and dtype U8 has no size"},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0, "has no size"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,0],\"data_offsets\":[0,0]}}", 0, "has no size"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "has no size"},
    {"{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "has no size"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,7]}}", 7,
     "takes 8 bytes by its shape and dtype, but 7"},
    {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, "takes 8 bytes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,0]}}", 0, "takes 1 bytes"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 3, "the file is truncated"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1000000000000000000],\"data_offsets\":[0,1000000000000000000]}}", 3,
     "the file is truncated"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 5, "but the file has"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 1, "but the file has"},
    {"{}", 1, "but the file has"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[1,5]}}", 5, "leave a hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9223372036854775806,9223372036854775807]}}", 5,
     "leave a hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
     "\"data_offsets\":[3,5]}}",
     5, "'b' starts at byte"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
     "\"data_offsets\":[1,3]}}",
     3, "the tensors overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],"
     "\"data_offsets\":[0,2]}}",
     2, "the tensors overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"e\":{\"dtype\":\"U8\",\"shape\":[0],"
     "\"data_offsets\":[2,2]}}",
     4, "the tensors overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"e\":{\"dtype\":\"U8\",\"shape\":[0],"
     "\"data_offsets\":[9,9]}}",
     4, "leave a hole"},
    {"{\"__metadata__\":[]}", 0, "__metadata__ is not an object"},
    {"{\"__metadata__\":\"pt\"}", 0, "__metadata__ is not an object"},
    {"{\"__metadata__\":{\"format\":1}}", 0, "__metadata__ entry 'format' is not a string"},
    {"{\"__metadata__\":{\"a\":{\"b\":\"c\"}}}", 0, "__metadata__ entry 'a' is not a string"},
};

static enum status parse(const char *json, uint64_t data, struct safetensors *file, struct error *error) {
    size_t length = strlen(json);
    char *exact = malloc(length ? length : 1); /* of exactly this size: a byte read behind the end is seen */
    assert_non_null(exact);
    memcpy(exact, json, length);
    enum status status = safetensors_parse("x.safetensors", exact, length, 8 + length + data, file, error);
    free(exact);
    return status;
}

static void given_a_hostile_header_then_it_is_refused_and_the_message_says_why(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        struct safetensors file;
        struct error error;
        enum status status = parse(hostile[i].json, hostile[i].data, &file, &error);
        safetensors_free(&file);
        if (status == STATUS_OK)
            fail_msg("accepted: %s", hostile[i].json);
        assert_refused(status, STATUS_BAD_INPUT, error, hostile[i].part);
        assert_contains(error.message, "'x.safetensors'");
    }
}

static void given_deeply_nested_json_then_it_is_refused_without_a_crash(void **state) {
    (void)state;
    struct text json = {0};
    text_append_string(&json, "{\"a\":");
    for (int i = 0; i < 100000; i++)
        text_append_string(&json, "[");
    struct safetensors file;
    struct error error;
    enum status status = parse(json.bytes, 0, &file, &error);
    safetensors_free(&file);
    text_free(&json);
    assert_refused(status, STATUS_BAD_INPUT, error, "not valid JSON");
}

static void given_a_valid_header_in_any_order_then_tensors_come_in_the_order_of_their_data(void **state) {
    (void)state;
    static const char json[] =
        "{\"z\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
        "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
        "\"empty\":{\"dtype\":\"F8_E4M3\",\"shape\":[0,7],\"data_offsets\":[16,16]},"
        "\"__metadata__\":{\"format\":\"pt\",\"note\":\"\"},"
        "\"\\u00e9 \\\"q\\\"\":{\"dtype\":\"F4\",\"shape\":[4],\"data_offsets\":[16,18],\"extra\":true},"
        "\"last\":{\"dtype\":\"I64\",\"shape\":[1,1,1,1,1,1,1,1],\"data_offsets\":[18,26]}}   ";
    static const char *const names[] = {"scalar", "z", "empty", "\xc3\xa9 \"q\"", "last"};
    static const uint64_t offsets[] = {0, 4, 16, 16, 18, 26};
    struct safetensors file;
    struct error error;
    assert_ok(parse(json, 26, &file, &error), error);
    assert_int_equal(file.count, 5);
    assert_int_equal(file.data_offset, 8 + strlen(json));
    for (size_t i = 0; i < file.count; i++) {
        assert_string_equal(file.tensors[i].name, names[i]);
        assert_int_equal(file.tensors[i].offset, file.data_offset + offsets[i]);
        if (i + 1 < file.count)
            assert_int_equal(file.tensors[i].size, offsets[i + 1] - offsets[i]);
    }
    assert_int_equal(file.tensors[0].rank, 0);
    assert_int_equal(file.tensors[1].dtype, DTYPE_BF16);
    assert_int_equal(file.tensors[1].rank, 2);
    assert_int_equal(file.tensors[1].shape[1], 3);
    assert_int_equal(file.tensors[2].shape[0], 0);
    assert_int_equal(file.tensors[3].dtype, DTYPE_F4);
    assert_int_equal(file.tensors[4].rank, TENSOR_MAX_RANK);
    safetensors_free(&file);
}

static void given_headers_with_little_in_them_then_they_are_accepted(void **state) {
    (void)state;
    static const struct {
        const char *json;
        uint64_t data;
        size_t count;
    } cases[] = {
        {"{}", 0, 0},
        {"{}      ", 0, 0},
        {"{\"__metadata__\":{}}", 0, 0},
        {"{\"__metadata__\":null}", 0, 0},
        {"{\"\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, 1},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[5,0],\"data_offsets\":[0,0]}}",
         0, 2},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, 1},
        {"{\"a\":{\"dtype\":\"F6_E3M2\",\"shape\":[4],\"data_offsets\":[0,3]}}", 3, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors file;
        struct error error;
        if (parse(cases[i].json, cases[i].data, &file, &error) != STATUS_OK)
            fail_msg("%s: %s", cases[i].json, error.message);
        assert_int_equal(file.count, cases[i].count);
        safetensors_free(&file);
    }
}

static void given_every_dtype_then_its_name_size_and_entry_agree(void **state) {
    (void)state;
    static const struct {
        const char *name;
        unsigned bits;
    } dtypes[] = {{"BOOL", 8},        {"U8", 8},          {"I8", 8},      {"I16", 16},    {"U16", 16},    {"F16", 16},
                  {"BF16", 16},       {"I32", 32},        {"U32", 32},    {"F32", 32},    {"F64", 64},    {"I64", 64},
                  {"U64", 64},        {"C64", 64},        {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F4", 4},
                  {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}};
    assert_int_equal(sizeof dtypes / sizeof *dtypes, DTYPES);
    for (size_t i = 0; i < DTYPES; i++) {
        char json[200];
        struct safetensors file;
        struct error error;
        snprintf(json, sizeof json, "{\"a\":{\"dtype\":\"%s\",\"shape\":[8],\"data_offsets\":[0,%u]}}", dtypes[i].name,
                 dtypes[i].bits);
        assert_ok(parse(json, dtypes[i].bits, &file, &error), error);
        assert_string_equal(dtype_name(file.tensors[0].dtype), dtypes[i].name);
        assert_int_equal(dtype_bits(file.tensors[0].dtype), dtypes[i].bits);
        safetensors_free(&file);
    }
}

static void given_shapes_then_products_are_exact_or_refused(void **state) {
    (void)state;
    static const struct {
        enum dtype dtype;
        unsigned rank;
        uint64_t shape[4];
        bool fits;
        uint64_t bytes;
    } cases[] = {
        {DTYPE_U8, 0, {0}, true, 1},
        {DTYPE_F32, 2, {28672, 12288}, true, 1409286144},
        {DTYPE_F4, 2, {3, 2}, true, 3},
        {DTYPE_F4, 1, {1}, false, 0},
        {DTYPE_F6_E2M3, 1, {12}, true, 9},
        {DTYPE_U8, 1, {UINT64_MAX}, true, UINT64_MAX},
        {DTYPE_U8, 2, {UINT64_MAX / 2 + 1, 2}, false, 0},
        {DTYPE_F64, 1, {UINT64_MAX / 8}, true, UINT64_MAX / 8 * 8},
        {DTYPE_F64, 1, {UINT64_MAX / 8 + 1}, false, 0},
        {DTYPE_F4, 1, {UINT64_MAX / 4 + 1}, false, 0},
        {DTYPE_U8, 3, {1u << 31, 1u << 31, 8}, false, 0},
        {DTYPE_U8, 4, {0, UINT64_MAX, UINT64_MAX, 2}, true, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t bytes = 0;
        assert_int_equal(tensor_bytes(cases[i].dtype, cases[i].shape, cases[i].rank, &bytes), cases[i].fits);
        if (cases[i].fits)
            assert_int_equal(bytes, cases[i].bytes);
    }
    char text[SHAPE_TEXT_MAX];
    const uint64_t largest[TENSOR_MAX_RANK] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
                                               UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};
    assert_string_equal(shape_text((const uint64_t[]){28672, 12288}, 2, text), "[28672, 12288]");
    assert_string_equal(shape_text(NULL, 0, text), "[]");
    assert_int_equal(strlen(shape_text(largest, TENSOR_MAX_RANK, text)), 2 + 8 * 20 + 7 * 2);
}

static void given_tensors_when_a_header_is_written_then_it_reads_back_and_data_starts_aligned(void **state) {
    (void)state;
    char *const names[] = {"b", "a.weight", "q\"\\\n", "\xc3\xa9", "empty", "scalar"};
    static const enum dtype dtypes[] = {DTYPE_F64, DTYPE_BF16, DTYPE_U8, DTYPE_F8_E4M3, DTYPE_F32, DTYPE_U8};
    struct tensor_info infos[6];
    for (size_t count = 0; count <= 6; count++)
        for (size_t longer = 0; longer < 9; longer++) { /* every rest of the header's length */
            uint64_t data = 0;
            char name[32] = "xxxxxxxxxxxxxxxx";
            name[longer + 1] = '\0';
            for (size_t i = 0; i < count; i++) {
                infos[i] = (struct tensor_info){.name = i ? names[i] : name,
                                                .dtype = dtypes[i],
                                                .rank = 2,
                                                .shape = {i == 4 ? 0 : 3, longer},
                                                .offset = 12345};
                if (i == 5)
                    infos[i].rank = 0;
                assert_true(tensor_bytes(infos[i].dtype, infos[i].shape, infos[i].rank, &infos[i].size));
                data += infos[i].size;
            }
            struct text out = {0};
            text_append_string(&out, "before"); /* it appends */
            safetensors_header_append(&out, infos, count);
            const char *start = out.bytes + 6;
            uint64_t length = 0;
            for (int i = 7; i >= 0; i--)
                length = length << 8 | (unsigned char)start[i];
            assert_int_equal(out.length, 6 + 8 + length);
            assert_int_equal(length % 8, 0);
            assert_contains(start + 8, "\"__metadata__\":{\"format\":\"pt\"}");
            struct safetensors file;
            struct error error;
            assert_ok(safetensors_parse("x", start + 8, length, 8 + length + data, &file, &error), error);
            assert_int_equal(file.count, count);
            uint64_t offset = 8 + length;
            for (size_t i = 0; i < count; i++) {
                const struct tensor_info *read = NULL;
                for (size_t k = 0; k < count; k++)
                    if (strcmp(file.tensors[k].name, infos[i].name) == 0)
                        read = &file.tensors[k];
                assert_non_null(read);
                assert_int_equal(read->dtype, infos[i].dtype);
                assert_int_equal(read->rank, infos[i].rank);
                assert_memory_equal(read->shape, infos[i].shape, read->rank * sizeof *read->shape);
                assert_int_equal(read->size, infos[i].size);
                assert_int_equal(read->offset, offset);
                offset += read->size;
            }
            safetensors_free(&file);
            text_free(&out);
        }
}

static enum status read_bytes(struct fixture *fixture, const void *bytes, size_t length, uint64_t resized,
                              struct safetensors *file) {
    char path[256];
    struct byte_source *source;
    fixture_bytes(fixture, "x.safetensors", bytes, length);
    assert_int_equal(truncate(fixture_path(fixture, "x.safetensors", path), (off_t)resized), 0);
    assert_ok(byte_source_open_file(path, &source, &fixture->error), fixture->error);
    enum status status = safetensors_read(source, file, &fixture->error);
    byte_source_close(source);
    return status;
}

static void given_a_file_of_any_wrong_size_then_it_is_refused(void **state) {
    struct fixture *fixture = *state;
    static const char bytes[] =
        "\x37\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[0,5]}}  12345";
    enum { LENGTH = sizeof bytes - 1 };
    struct safetensors file;
    for (uint64_t size = 0; size <= LENGTH + 2; size++) {
        enum status status = read_bytes(fixture, bytes, LENGTH, size, &file);
        assert_int_equal(status, size == LENGTH ? STATUS_OK : STATUS_BAD_INPUT);
        if (size < 8)
            assert_contains(fixture->error.message, "too short for a safetensors file");
        else if (size < LENGTH)
            assert_contains(fixture->error.message, "the file is truncated");
        else if (size > LENGTH)
            assert_contains(fixture->error.message, "but the file has");
        safetensors_free(&file);
    }
}

static void given_a_header_length_beyond_the_limit_or_the_file_then_nothing_is_allocated_for_it(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char bytes[9];
        uint64_t size;
        const char *part;
    } cases[] = {
        {"\xff\xff\xff\xff\xff\xff\xff\xff", 64, "the format allows 100,000,000"},
        {"\x01\xe1\xf5\x05\0\0\0\0", 200000000, "the format allows 100,000,000"}, /* 100,000,001 */
        {"\x00\xe1\xf5\x05\0\0\0\0", 64, "does not fit in a file of 64 bytes"},
        {"\x39\0\0\0\0\0\0\0", 64, "does not fit in a file of 64 bytes"},
        {"\x38\0\0\0\0\0\0\0", 64, "does not start with '{'"},
        {"\0\0\0\0\0\0\0\0", 8, "does not start with '{'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct safetensors file;
        enum status status = read_bytes(fixture, cases[i].bytes, 8, cases[i].size, &file);
        safetensors_free(&file);
        assert_refused(status, STATUS_BAD_INPUT, fixture->error, cases[i].part);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_a_hostile_header_then_it_is_refused_and_the_message_says_why),
        cmocka_unit_test(given_deeply_nested_json_then_it_is_refused_without_a_crash),
        cmocka_unit_test(given_a_valid_header_in_any_order_then_tensors_come_in_the_order_of_their_data),
        cmocka_unit_test(given_headers_with_little_in_them_then_they_are_accepted),
        cmocka_unit_test(given_every_dtype_then_its_name_size_and_entry_agree),
        cmocka_unit_test(given_shapes_then_products_are_exact_or_refused),
        cmocka_unit_test(given_tensors_when_a_header_is_written_then_it_reads_back_and_data_starts_aligned),
        TEST(given_a_file_of_any_wrong_size_then_it_is_refused),
        TEST(given_a_header_length_beyond_the_limit_or_the_file_then_nothing_is_allocated_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
