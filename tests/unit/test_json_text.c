/*
 * JSON as text: the scanner takes what Python's json takes, and a splice changes nothing but the value it is for.
 */
#include "tests/unit/fixtures.h"

#include "common/json_text.h"

static enum status check(const char *json, struct error *error) {
    return json_text_check("config.json", json, strlen(json), error);
}

static void given_what_python_writes_and_reads_then_it_is_accepted(void **state) {
    (void)state;
    static const char *const texts[] = {
        "{}",
        " \t\r\n{ }\n",
        "{\"a\": NaN, \"b\": Infinity, \"c\": -Infinity}",
        "{\"max_length\": 1000000000000000019884624838656}",
        "{\"eps\": 1e-05, \"b\": 1E+5, \"c\": -0.0, \"d\": 0, \"e\": -1.5e300, \"f\": 0e0}",
        "{\"\": \"\", \"\\u00e9\\n\\\"\\\\\\/\": \"\xc3\xa9\xf0\x9f\x98\x80\\ud83d\\ude00\"}",
        "{\"a\": [], \"b\": [1, [2, {\"c\": [null, true, false]}]], \"d\": {}}",
        "{\"a\":1,\"a\":2}",
        "{\"a\": \"\x7f\"}",
        "{\"a\": \"}{][,:\"}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error error;
        if (check(texts[i], &error) != STATUS_OK)
            fail_msg("%s: %s", texts[i], error.message);
    }
}

static void given_bad_text_then_it_is_refused_with_its_line(void **state) {
    (void)state;
    static const struct {
        const char *json, *part;
    } cases[] = {
        {"", "(line 1, byte 0)"},
        {"  ", "an object was expected (line 1"},
        {"[]", "an object was expected (line 1"},
        {"\"a\"", "an object was expected"},
        {"\xef\xbb\xbf{}", "an object was expected"}, /* Python refuses a byte order mark, too */
        {"{", "a string was expected (line 1, byte 1)"},
        {"{\"a\": 1", "',' or '}' was expected (line 1"},
        {"{\"a\": 1,\n}", "a string was expected (line 2"},
        {"{\"a\": 1\n\"b\": 2}", "',' or '}' was expected (line 2"},
        {"{\n\n\"a\"\n1}", "':' was expected (line 4"},
        {"{\"a\":\n\n}", "not a JSON value (line 3"},
        {"{\"a\":", "the text ends too early"},
        {"{'a': 1}", "a string was expected"},
        {"{a: 1}", "a string was expected"},
        {"{\"a\": 01}", "not a JSON value"},
        {"{\"a\": -}", "not a JSON value"},
        {"{\"a\": +1}", "not a JSON value"},
        {"{\"a\": .5}", "not a JSON value"},
        {"{\"a\": 1.}", "digits behind its point"},
        {"{\"a\": 1e}", "digits in its exponent"},
        {"{\"a\": 1e+}", "digits in its exponent"},
        {"{\"a\": 0x10}", "',' or '}' was expected"},
        {"{\"a\": -NaN}", "not a JSON value"},
        {"{\"a\": nan}", "not a JSON value"},
        {"{\"a\": True}", "not a JSON value"},
        {"{\"a\": tru}", "not a JSON value"},
        {"{\"a\": trueish}", "',' or '}' was expected"},
        {"{\"a\": \"b\n\"}", "a control character in a string (line 1"},
        {"{\"a\": \"b}", "a string without an end"},
        {"{\"a\": \"b\\\"}", "a string without an end"},
        {"{\"a\": \"\\", "a string without an end"},
        {"{\"a\": [1 2]}", "',' or ']' was expected"},
        {"{\"a\": [1,]}", "not a JSON value"},
        {"{\"a\": [1}", "',' or ']' was expected"},
        {"{\"a\": {\"b\": 1]}", "',' or '}' was expected"},
        {"{} {}", "something follows the object (line 1"},
        {"{}\n\n,", "something follows the object (line 3"},
        {"{\"a\": 1} // comment", "something follows the object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error error;
        assert_refused(check(cases[i].json, &error), STATUS_BAD_INPUT, error, cases[i].part);
        assert_contains(error.message, "'config.json'");
    }
}

static void given_a_nul_byte_or_a_cut_text_then_nothing_behind_its_length_is_read(void **state) {
    (void)state;
    struct error error;
    static const char whole[] = "{\"a\": [1, -2.5e-3, {\"b\": \"x\\n\"}], \"c\": NaN, \"d\": -Infinity, \"e\": true}";
    for (size_t length = 0; length < sizeof whole - 1; length++) {
        char *cut = malloc(length ? length : 1); /* of exactly this size */
        assert_non_null(cut);
        memcpy(cut, whole, length);
        assert_int_equal(json_text_check("cut", cut, length, &error), STATUS_BAD_INPUT);
        free(cut);
    }
    assert_int_equal(json_text_check("nul", "{}\0", 3, &error), STATUS_BAD_INPUT);
    assert_int_equal(json_text_check("nul", "{\"a\0b\": 1}", 10, &error), STATUS_BAD_INPUT);
    assert_int_equal(json_text_check("nul", "{\0}", 3, &error), STATUS_BAD_INPUT);
}

static void given_an_escape_that_json_does_not_know_then_it_is_refused(void **state) {
    (void)state;
    static const char *const texts[] = {"{\"a\": \"\\q\"}", "{\"a\": \"\\u12g4\"}", "{\"a\": \"\\u12\"}",
                                        "{\"\\x41\": 1}", "{\"a\": \"\\\n\"}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error error;
        if (check(texts[i], &error) != STATUS_BAD_INPUT)
            fail_msg("accepted: %s", texts[i]);
    }
}

/* `depth` nested containers in all, a number in the innermost. */
static char *nested(int depth, bool arrays) {
    struct text text = {0};
    for (int i = 0; i < depth; i++)
        text_append_string(&text, arrays && i > 0 ? "[" : "{\"a\":");
    text_append_string(&text, "1");
    for (int i = depth; i-- > 0;)
        text_append_string(&text, arrays && i > 0 ? "]" : "}");
    assert_false(text.failed);
    return text.bytes;
}

static void given_deep_nesting_then_128_levels_pass_and_more_are_refused_without_a_crash(void **state) {
    (void)state;
    static const struct {
        int depth;
        enum status status;
    } cases[] = {{1, STATUS_OK}, {128, STATUS_OK}, {129, STATUS_BAD_INPUT}, {1000000, STATUS_BAD_INPUT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int arrays = 0; arrays < 2; arrays++) {
            struct error error;
            char *json = nested(cases[i].depth, arrays);
            assert_int_equal(check(json, &error), cases[i].status);
            if (cases[i].status != STATUS_OK)
                assert_contains(error.message, "nested too deeply");
            free(json);
        }
}

static void given_an_object_then_a_member_is_found_by_its_own_key_only(void **state) {
    (void)state;
    static const char json[] = "\n{ \"not\": \"\\\"q\\\": 1\", \"in\": {\"q\": 2}, \"list\": [{\"q\": 3}], \"qq\": 4,"
                               " \"q\" :  [5, {\"q\": 6}] , \"v\": \"q\" }\n";
    struct json_span top = json_text_object(json, strlen(json));
    assert_int_equal(json[top.begin], '{');
    assert_int_equal(json[top.end - 1], '}');
    assert_int_equal(top.end, strlen(json) - 1);
    struct json_member member, inner;
    assert_true(json_text_member(json, top, "q", &member));
    assert_int_equal(member.value.end - member.value.begin, strlen("[5, {\"q\": 6}]"));
    assert_memory_equal(json + member.value.begin, "[5, {\"q\": 6}]", member.value.end - member.value.begin);
    assert_memory_equal(json + member.key.begin, "\"q\"", 3);
    assert_int_equal(member.key.end - member.key.begin, 3);
    assert_true(json_text_member(json, top, "in", &member));
    assert_true(json_text_member(json, member.value, "q", &inner));
    assert_int_equal(json[inner.value.begin], '2');
    assert_false(json_text_member(json, member.value, "in", &inner));
    assert_false(json_text_member(json, top, "nothing", &inner));
    assert_false(json_text_member(json, top, "", &inner));
    assert_false(json_text_member("{}", (struct json_span){0, 2}, "q", &inner));
}

static void given_duplicate_keys_then_the_last_one_counts(void **state) {
    (void)state;
    static const char json[] = "{\"q\": 1, \"x\": {\"q\": 2}, \"q\": 3, \"y\": 4}";
    struct json_member member;
    assert_true(json_text_member(json, json_text_object(json, strlen(json)), "q", &member));
    assert_int_equal(json[member.value.begin], '3');
}

static void given_one_member_when_spliced_then_all_other_bytes_stay(void **state) {
    (void)state;
    static const struct {
        const char *json, *nested, *wanted;
    } cases[] = {
        /* replaced where it stands */
        {"{\"q\":1}", NULL, "{\"q\":[V]}"},
        {"{\"q\":{\"a\":1},\"b\":2}", NULL, "{\"q\":[V],\"b\":2}"},
        {"{\"a\":1,\"q\":\"x\",\"b\":2}", NULL, "{\"a\":1,\"q\":[V],\"b\":2}"},
        {"{\"a\":1,\"q\":null}", NULL, "{\"a\":1,\"q\":[V]}"},
        {"\n{\n  \"a\": 1e-05,\n  \"q\": {\n    \"x\": []\n  },\n  \"b\": NaN\n}\n", NULL,
         "\n{\n  \"a\": 1e-05,\n  \"q\": [V],\n  \"b\": NaN\n}\n"},
        {"{\r\n\t\"q\" :\t1 ,\r\n\t\"b\": 2\r\n}", NULL, "{\r\n\t\"q\" :\t[V] ,\r\n\t\"b\": 2\r\n}"},
        {"{\"a\":\"\\\"q\\\":1\",\"b\":{\"q\":2},\"c\":[{\"q\":3}],\"q\":4}", NULL,
         "{\"a\":\"\\\"q\\\":1\",\"b\":{\"q\":2},\"c\":[{\"q\":3}],\"q\":[V]}"},
        {"{\"q\":1,\"a\":2,\"q\":3,\"b\":4}", NULL, "{\"q\":1,\"a\":2,\"q\":[V],\"b\":4}"},
        {"{\"a\":12345678901234567890123,\"q\":0}", NULL, "{\"a\":12345678901234567890123,\"q\":[V]}"},
        /* added as the last member */
        {"{}", NULL, "{\n  \"q\": [V]}"},
        {"{ }", NULL, "{\n  \"q\": [V] }"},
        {"{\n}\n", NULL, "{\n  \"q\": [V]\n}\n"},
        {"{\"a\":1}", NULL, "{\"a\":1,\n  \"q\": [V]}"},
        {"{\n  \"a\": {}\n}\n", NULL, "{\n  \"a\": {},\n  \"q\": [V]\n}\n"},
        {"{\"a\": \"}\"}", NULL, "{\"a\": \"}\",\n  \"q\": [V]}"},
        {"{\"a\":{\"q\":1}}", NULL, "{\"a\":{\"q\":1},\n  \"q\": [V]}"},
        /* and removed inside another object */
        {"{\"t\":{\"q\":1},\"q\":2}", "t", "{\"t\":{},\"q\":[V]}"},
        {"{\"q\":2,\"t\":{\"q\":1}}", "t", "{\"q\":[V],\"t\":{}}"},
        {"{\"t\":{\"q\":1,\"a\":2}}", "t", "{\"t\":{\"a\":2},\n  \"q\": [V]}"},
        {"{\"t\":{\"a\":2,\"q\":1}}", "t", "{\"t\":{\"a\":2},\n  \"q\": [V]}"},
        {"{\"t\":{\"a\":2,\"q\":1,\"b\":3}}", "t", "{\"t\":{\"a\":2,\"b\":3},\n  \"q\": [V]}"},
        {"{\"t\":{\"q\":{\"q\":[1,2]},\"b\":3},\"z\":0}", "t", "{\"t\":{\"b\":3},\"z\":0,\n  \"q\": [V]}"},
        {"{\"t\": {\n    \"a\": 1,\n    \"q\": {\"x\": 1},\n    \"b\": 2\n  },\n  \"q\": 5\n}", "t",
         "{\"t\": {\n    \"a\": 1,\n    \"b\": 2\n  },\n  \"q\": [V]\n}"},
        {"{\"q\":5,\"t\":{\"a\":{\"q\":1}}}", "t", "{\"q\":[V],\"t\":{\"a\":{\"q\":1}}}"},
        /* nothing to remove */
        {"{\"t\":{\"a\":1},\"q\":2}", "t", "{\"t\":{\"a\":1},\"q\":[V]}"},
        {"{\"t\":[{\"q\":1}],\"q\":2}", "t", "{\"t\":[{\"q\":1}],\"q\":[V]}"},
        {"{\"t\":null,\"q\":2}", "t", "{\"t\":null,\"q\":[V]}"},
        {"{\"q\":2}", "t", "{\"q\":[V]}"},
        {"{\"x\":{\"t\":{\"q\":1}},\"q\":2}", "t", "{\"x\":{\"t\":{\"q\":1}},\"q\":[V]}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text out = {0};
        struct error error;
        assert_ok(check(cases[i].json, &error), error);
        json_text_splice(&out, cases[i].json, strlen(cases[i].json), "q", "[V]", cases[i].nested);
        assert_false(out.failed);
        assert_string_equal(out.bytes, cases[i].wanted);
        text_free(&out);
    }
}

static void given_a_nested_member_that_occurs_twice_when_spliced_then_none_is_left(void **state) {
    (void)state;
    static const char json[] = "{\"t\": {\"q\": 1, \"a\": 2, \"q\": 3}, \"q\": 4}";
    struct text out = {0};
    json_text_splice(&out, json, strlen(json), "q", "5", "t");
    json_t *read = json_loads(out.bytes, 0, NULL);
    text_free(&out);
    assert_non_null(read);
    json_t *left = json_object_get(json_object_get(read, "t"), "q");
    bool gone = left == NULL;
    json_decref(read);
    assert_true(gone);
}

/* A text in one of several hands: members separated by `between`, after `open` and before `close`. */
struct hand {
    const char *open, *between, *close, *colon;
};

static void object_write(struct text *out, const struct hand *hand, const char *const *members, size_t count) {
    text_printf(out, "{%s", count ? hand->open : "");
    for (size_t i = 0; i < count; i++) {
        const char *colon = strchr(members[i], ':');
        text_printf(out, "%s%.*s%s%s", i ? hand->between : "", (int)(colon - members[i]), members[i], hand->colon,
                    colon + 1);
    }
    text_printf(out, "%s}", count ? hand->close : "");
}

static void given_every_placement_and_hand_when_spliced_then_only_the_two_members_differ(void **state) {
    (void)state;
    static const struct hand hands[] = {
        {"", ",", "", ":"},
        {" ", ", ", " ", ": "},
        {"\n    ", ",\n    ", "\n  ", ": "},
        {"\r\n\t", "\r\n\t,", "\r\n", " :\t"},
    };
    enum { HANDS = sizeof hands / sizeof *hands, OTHERS = 2 };
    static const char *const others[OTHERS] = {"\"q1\":[\"q\",{\"q\":1}]", "\"s\":\"\\\"q\\\":2,\\\\\""};
    int made = 0;
    for (size_t h = 0; h < HANDS * HANDS; h++)
        for (int count = 0; count <= OTHERS; count++)
            for (int key = -1; key <= count; key++)                  /* where q stands at the top; -1: nowhere */
                for (int object = -1; object <= count + 1; object++) /* where t stands */
                    for (int inner = -1; inner <= count; inner++) {  /* where q stands inside t */
                        struct text json = {0}, t = {0}, out = {0};
                        const char *members[OTHERS + 2], *inside[OTHERS + 1];
                        size_t n = 0, m = 0;
                        for (int i = 0; i <= count; i++) {
                            if (i == inner)
                                inside[m++] = "\"q\":{\"old\":[1]}";
                            if (i < count)
                                inside[m++] = others[i];
                        }
                        text_append_string(&t, "\"t\":");
                        object_write(&t, &hands[h % HANDS], inside, m);
                        for (int i = 0, top = 0; i <= count + 1; i++) {
                            if (i == object)
                                members[n++] = t.bytes;
                            if (top == key && i <= count)
                                members[n++] = "\"q\":{\"q\":\"old\"}";
                            if (top < count)
                                members[n++] = others[top];
                            top++;
                        }
                        object_write(&json, &hands[h / HANDS], members, n);
                        struct error error;
                        assert_ok(check(json.bytes, &error), error);
                        json_text_splice(&out, json.bytes, json.length, "q", "{\"new\": 1}", "t");
                        assert_ok(check(out.bytes, &error), error);
                        json_t *before = json_loads(json.bytes, 0, NULL), *after = json_loads(out.bytes, 0, NULL);
                        assert_non_null(before);
                        assert_non_null(after);
                        json_object_set_new(before, "q", json_pack("{s:i}", "new", 1));
                        json_object_del(json_object_get(before, "t"), "q");
                        if (!json_equal(before, after))
                            fail_msg("%s\nbecame\n%s", json.bytes, out.bytes);
                        for (int i = 0; i < count; i++)
                            assert_contains(out.bytes, strchr(others[i], ':') + 1);
                        /* no other text is touched: the order stays, too */
                        void *a = json_object_iter(before), *b = json_object_iter(after);
                        for (; a && b; a = json_object_iter_next(before, a), b = json_object_iter_next(after, b))
                            assert_string_equal(json_object_iter_key(a), json_object_iter_key(b));
                        json_decref(before);
                        json_decref(after);
                        text_free(&json);
                        text_free(&t);
                        text_free(&out);
                        made++;
                    }
    assert_true(made > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given_what_python_writes_and_reads_then_it_is_accepted),
        cmocka_unit_test(given_bad_text_then_it_is_refused_with_its_line),
        cmocka_unit_test(given_a_nul_byte_or_a_cut_text_then_nothing_behind_its_length_is_read),
        cmocka_unit_test(given_an_escape_that_json_does_not_know_then_it_is_refused),
        cmocka_unit_test(given_deep_nesting_then_128_levels_pass_and_more_are_refused_without_a_crash),
        cmocka_unit_test(given_an_object_then_a_member_is_found_by_its_own_key_only),
        cmocka_unit_test(given_duplicate_keys_then_the_last_one_counts),
        cmocka_unit_test(given_one_member_when_spliced_then_all_other_bytes_stay),
        cmocka_unit_test(given_a_nested_member_that_occurs_twice_when_spliced_then_none_is_left),
        cmocka_unit_test(given_every_placement_and_hand_when_spliced_then_only_the_two_members_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
