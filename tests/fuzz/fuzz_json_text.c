/*
 * The JSON scanner and the splice of quantization_config on any bytes. What the check accepts must stay JSON after
 * the splice, hold the new value, and differ in nothing else; a JSON library is asked where it can read the text.
 */
#include <jansson.h>

#include "common/json_text.h"
#include "tests/fuzz/fuzz.h"

static const char key[] = "quantization_config", nested_name[] = "text_config";
static const char value[] = "{\"quant_method\": \"fuzz\"}";

/* Levels of objects and arrays. */
static int depth_of(json_t *root) {
    int deepest = 0;
    const char *name;
    json_t *inner;
    size_t index;
    if (json_is_object(root))
        json_object_foreach(root, name, inner) {
            int depth = depth_of(inner);
            deepest = depth > deepest ? depth : deepest;
        }
    else if (json_is_array(root))
        json_array_foreach(root, index, inner) {
            int depth = depth_of(inner);
            deepest = depth > deepest ? depth : deepest;
        }
    else
        return 0;
    return deepest + 1;
}

static bool span_equals(const char *json, struct json_span span, const char *text, size_t length) {
    return span.end - span.begin == length && memcmp(json + span.begin, text, length) == 0;
}

/* Members that the splice has no business with keep their bytes. */
static void require_untouched(const char *before, size_t before_length, const struct text *after, const char *name) {
    struct json_member old, new;
    bool had = json_text_member(before, json_text_object(before, before_length), name, &old);
    bool has = json_text_member(after->bytes, json_text_object(after->bytes, after->length), name, &new);
    REQUIRE(had == has);
    if (had)
        REQUIRE(span_equals(after->bytes, new.value, before + old.value.begin, old.value.end - old.value.begin));
}

/* Both texts say the same but for the members that were replaced and removed. */
static void require_same_meaning(json_t *before, const struct text *after, bool nested) {
    json_t *read = json_loadb(after->bytes, after->length, 0, NULL), *expected = json_loads(value, 0, NULL);
    REQUIRE(read && expected);
    REQUIRE(json_equal(json_object_get(read, key), expected));
    json_t *was = json_deep_copy(before);
    json_object_del(was, key);
    json_object_del(read, key);
    if (nested) {
        json_object_del(json_object_get(was, nested_name), key);
        REQUIRE(!json_object_get(json_object_get(read, nested_name), key));
    }
    REQUIRE(json_equal(was, read));
    json_decref(was);
    json_decref(read);
    json_decref(expected);
}

static void splice_check(const char *json, size_t length, json_t *parsed, bool nested) {
    struct text out = {0};
    struct error error;
    struct json_member member, inner;
    json_text_splice(&out, json, length, key, value, nested ? nested_name : NULL);
    REQUIRE(!out.failed);
    REQUIRE(json_text_check("spliced", out.bytes, out.length, &error) == STATUS_OK);
    struct json_span top = json_text_object(out.bytes, out.length);
    REQUIRE(json_text_member(out.bytes, top, key, &member));
    REQUIRE(span_equals(out.bytes, member.value, value, strlen(value)));
    require_untouched(json, length, &out, "architectures");
    if (!nested)
        require_untouched(json, length, &out, nested_name);
    else if (json_text_member(out.bytes, top, nested_name, &member) && out.bytes[member.value.begin] == '{')
        REQUIRE(!json_text_member(out.bytes, member.value, key, &inner));
    if (parsed && !memchr(json, '\\', length)) /* a key may hide behind escapes; the header says so */
        require_same_meaning(parsed, &out, nested);
    text_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *json = (const char *)data;
    enum { DEPTH = 128 };
    struct error error;
    enum status status = json_text_check("fuzz", json, size, &error);
    json_t *parsed = json_loadb(json, size, JSON_DECODE_ANY, NULL);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
    if (parsed && !memchr(json, '\0', size)) /* jansson passes over NUL bytes between tokens */
        REQUIRE((status == STATUS_OK) == (json_is_object(parsed) && depth_of(parsed) <= DEPTH));
    if (status == STATUS_OK) {
        struct json_span top = json_text_object(json, size);
        REQUIRE(json[top.begin] == '{' && json[top.end - 1] == '}');
        splice_check(json, size, parsed, false);
        splice_check(json, size, parsed, true);
    }
    json_decref(parsed);
    return 0;
}
