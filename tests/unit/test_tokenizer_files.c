/*
 * Tokenizer files that are damaged, hostile, or ask for what is not supported: each is refused with a message that says
 * what is wrong, and takes neither much memory nor much time.
 */
#include "tests/unit/tokenizer_files.h"

#define TOKEN(text, id) ADDED(text, id, "")

static void refused(struct tokenizer_test *test, const char *part) {
    tokenizer_forget(test);
    assert_refused(tokenizer_of_files(test), STATUS_BAD_INPUT, test->error, part);
    assert_null(test->tokenizer);
    assert_contains(test->error.message, test->fixture->path);
    assert_null(strchr(test->error.message, '\n'));
}

static void json_refused(struct tokenizer_test *test, struct tokenizer_parts_json parts, const char *part) {
    tokenizer_json_write(test, parts);
    refused(test, part);
}

static void file_refused(struct tokenizer_test *test, const char *file, const char *json, const char *part) {
    fixture_clear(test->fixture);
    fixture_file(test->fixture, file, json);
    refused(test, part);
}

/* ---- tokenizer.json ---- */

static void given_no_tokenizer_then_both_names_are_told(void **state) {
    struct tokenizer_test *test = *state;
    refused(test, "neither tokenizer.json nor tekken.json");
}

static void given_text_that_is_no_tokenizer_json_then_it_is_refused(void **state) {
    static const struct {
        const char *json, *part;
    } examples[] = {
        {"", "an object was expected"},
        {"[]", "an object was expected"},
        {"{", "line 1"},
        {"{\"model\": {}", "',' or '}' was expected"},
        {"{} {}", "something follows the object"},
        {"{\"version\": \"2.0\"}", "version is not 1.0"},
        {"{\"normaliz\\u0065r\": null}", "a key with an escape"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL
         ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"ignore\\u005fmerges\": true}}",
         "a key with an escape"},
        {"{}", "without the pre-tokenizer ByteLevel"},
        {"{\"pre_tokenizer\": null}", "without the pre-tokenizer ByteLevel"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL "}", "without the decoder ByteLevel"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}}", "has no 'model'"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {}}", "no 'vocab'"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": {\"vocab\": {}}}",
         "no 'merges'"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": 1}",
         "an object was expected"},
        {"{\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
         "{\"vocab\": [], \"merges\": []}}",
         "an object was expected"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        file_refused(test, "tokenizer.json", examples[i].json, examples[i].part);
}

static void given_what_is_not_supported_then_it_is_named(void **state) {
    static const struct {
        struct tokenizer_parts_json parts;
        const char *part;
    } examples[] = {
        {{.model = "\"type\": \"Unigram\","}, "the model type \"Unigram\" is not supported"},
        {{.model = "\"dropout\": 0.1,"}, "'dropout'"},
        {{.model = "\"continuing_subword_prefix\": \"##\","}, "'continuing_subword_prefix'"},
        {{.model = "\"end_of_word_suffix\": \"</w>\","}, "'end_of_word_suffix'"},
        {{.model = "\"dropout\": false,"}, "'dropout'"},
        {{.model = "\"dropout\": \"\","}, "'dropout'"},
        {{.model = "\"continuing_subword_prefix\": 0,"}, "'continuing_subword_prefix'"},
        {{.model = "\"end_of_word_suffix\": false,"}, "'end_of_word_suffix'"},
        {{.model = "\"ignore_merges\": 1,"}, "'ignore_merges': 1 is not"},
        {{.model = "\"ignore_merges\": \"true\","}, "'ignore_merges'"},
        {{.model = "\"ignore_merges\": [],"}, "'ignore_merges'"},
        {{.model = "\"byte_fallback\": 0,"}, "'byte_fallback'"},
        {{.model = "\"fuse_unk\": \"\","}, "'fuse_unk'"},
        {{.model = "\"unk_token\": 0,"}, "unk_token has to be a string"},
        {{.normalizer = "{\"type\": \"NFKC\"}"}, "the normalizer 'NFKC'"},
        {{.normalizer = "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFC\"}, {\"type\": \"Lowercase\"}]}"},
         "the normalizer 'Lowercase'"},
        {{.normalizer = "{}"}, "without a type"},
        {{.normalizer = "5"}, "its normalizer cannot be read"},
        {{.pre_tokenizer = "{\"type\": \"Metaspace\"}"}, "the pre-tokenizer 'Metaspace'"},
        {{.pre_tokenizer = "{\"type\": \"BertPreTokenizer\\n\"}"}, "BertPreTokenizer"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("String", "a", "Isolated", "false"))}, "without the pre-tokenizer ByteLevel"},
        {{.pre_tokenizer = SEQUENCE(BYTE_LEVEL "," BYTE_LEVEL)}, "behind ByteLevel"},
        {{.pre_tokenizer = "{\"type\": \"ByteLevel\"}"}, "'add_prefix_space' of 'ByteLevel'"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("Text", "a", "Isolated", "false") "," BYTE_LEVEL)}, "a Regex or a String"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("Regex", "a", "Doubled", "false") "," BYTE_LEVEL)}, "the behavior 'Doubled'"},
        {{.pre_tokenizer = SEQUENCE(SPLIT("Regex", "a", "Isolated", "0") "," BYTE_LEVEL)}, "'invert' of 'Split'"},
        {{.pre_tokenizer = SEQUENCE("{\"type\": \"Digits\"}," BYTE_LEVEL)}, "'individual_digits'"},
        {{.decoder = "{\"type\": \"WordPiece\"}"}, "the decoder 'WordPiece'"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        json_refused(test, examples[i].parts, examples[i].part);
}

static void given_more_steps_than_any_tokenizer_has_then_they_are_refused(void **state) {
    struct tokenizer_test *test = *state;
    struct text steps = {0};
    text_append_string(&steps, "{\"type\": \"Sequence\", \"pretokenizers\": [");
    for (int i = 0; i < 17; i++)
        text_append_string(&steps, SPLIT("String", "a", "Isolated", "false") ",");
    text_append_string(&steps, BYTE_LEVEL "]}");
    json_refused(test, (struct tokenizer_parts_json){.pre_tokenizer = steps.bytes}, "more than 16");
    text_free(&steps);
}

static void given_a_vocabulary_that_contradicts_itself_then_it_is_refused(void **state) {
    static const struct {
        const char *vocab, *part;
    } examples[] = {
        {"\"ab\": 300, \"ab\": 301", "the token 'ab' occurs twice"},
        {"\"ab\": 97", "two tokens have the id 97"},
        {"\"ab\": -1", "line 1"},
        {"\"ab\": 1.5", "line 1"},
        {"\"ab\": \"5\"", "line 1"},
        {"\"ab\": 99999999999999999999999", "line 1"},
        {"\"ab\": 2147483648", "ids are below"},
        {"\"ab\": 16777216", "ids are below"},
        {"\"ab\": 9000000", "the token id 9000000 is too large for 257 tokens"},
        {"\"\\ud800\": 256", "line 1"},
        {"\"\\u0000\": 256", "line 1"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        json_refused(test, (struct tokenizer_parts_json){.vocab = examples[i].vocab}, examples[i].part);
}

static void given_merges_of_what_is_no_token_then_they_are_refused(void **state) {
    static const struct {
        const char *merges, *part;
    } examples[] = {
        {"\"a b\"", "merge 0: 'ab' is not in the vocabulary"},
        {"\"aa a\"", "merge 0: 'aa' is not in the vocabulary"},
        {"\"a aa\"", "merge 0: 'aa' is not in the vocabulary"},
        {"\"a c\", [\"x\", \"y\"]", "merge 1: 'xy'"},
        {"\"ab\"", "two tokens with a space between"},
        {"\"a b c\"", "two tokens with a space between"},
        {"[\"a\"]", "has to be two tokens"},
        {"[\"a\", \"b\", \"c\"]", "has to be two tokens"},
        {"5", "line 1"},
        {"[\"a\", 5]", "line 1"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        json_refused(test, (struct tokenizer_parts_json){.vocab = "\"ac\": 256", .merges = examples[i].merges},
                     examples[i].part);
}

/* A file with a few of the bytes only. */
static void given_bytes_without_tokens_then_they_are_left_out_of_texts_or_refused(void **state) {
    struct tokenizer_test *test = *state;
    static const char file[] = "{\"pre_tokenizer\": " BYTE_LEVEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"model\": "
                               "{%s \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2}, \"merges\": [\"a b\"]}}";
    char json[512];
    snprintf(json, sizeof json, file, "");
    fixture_file(test->fixture, "tokenizer.json", json);
    tokenizer_given_files(test);
    assert_encodes(test, "axb\nba", 2, 1, 0);
    snprintf(json, sizeof json, file, "\"unk_token\": \"a\",");
    file_refused(test, "tokenizer.json", json, "unk_token is not supported");
    snprintf(json, sizeof json, file, "\"byte_fallback\": true,");
    file_refused(test, "tokenizer.json", json, "byte_fallback is not supported");
}

static void given_added_tokens_that_are_none_then_they_are_refused(void **state) {
    static const struct {
        const char *added, *part;
    } examples[] = {
        {"{}", "lacks its 'id', its 'content' or a flag"},
        {"{\"id\": 256}", "lacks its 'id', its 'content' or a flag"},
        {"{\"id\": \"256\", \"content\": \"<s>\"}", "lacks its 'id', its 'content' or a flag"},
        {ADDED("<s>", 256, ", \"lstrip\": 1"), "lacks its 'id', its 'content' or a flag"},
        {"{\"id\": 256, \"content\": \"<s>\"}", "a flag"},
        {"{\"id\": 256, \"content\": \"<s>\", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
         "\"special\": false}",
         "a flag"},
        {ADDED("<s>", 256, ", \"special\": null"), "lacks its 'id', its 'content' or a flag"},
        {TOKEN("<s>", 257), "has the id 257 where the tokenizers library would give it 256"},
        {TOKEN("a", 256), "has the id 256 where the tokenizers library would give it 97"},
        {TOKEN("<s>", -1), "has the id -1"},
        {TOKEN("<s>", 256) "," TOKEN("<t>", 256), "has the id 256"},
        {"5", "lacks its 'id', its 'content' or a flag"},
        {TOKEN("<s>", 256) ",", "line 1"},
    };
    struct tokenizer_test *test = *state;
    struct text added = {0};
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        json_refused(test, (struct tokenizer_parts_json){.added = examples[i].added}, examples[i].part);
    json_refused(test, (struct tokenizer_parts_json){.vocab = "\"ab\": 257", .added = TOKEN("<s>", 257)},
                 "two tokens have the id 257");
    json_refused(test,
                 (struct tokenizer_parts_json){
                     .normalizer = "{\"type\": \"NFC\"}",
                     .added = ADDED("xe\\u0301", 256, NORMALIZED) "," ADDED("x\\u00e9", 257, NORMALIZED)},
                 "occurs twice");
    text_printf(&added, ADDED("%01100d", 256, ""), 0);
    json_refused(test, (struct tokenizer_parts_json){.added = added.bytes}, "is too long");
    text_free(&added);
}

static void given_deep_nesting_then_it_is_refused(void **state) {
    struct tokenizer_test *test = *state;
    static const char *const parts[] = {"{\"x\": ", "{\"pre_tokenizer\": ", "{\"added_tokens\": "};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct text json = {0};
        text_append_string(&json, parts[i]);
        for (int depth = 0; depth < 200000; depth++)
            text_append_string(&json, "[");
        file_refused(test, "tokenizer.json", json.bytes, "nested");
        text_free(&json);
    }
}

/* ---- patterns ---- */

static void given_a_pattern_that_dialects_read_differently_then_it_is_refused(void **state) {
    static const struct {
        const char *pattern, *part;
    } examples[] = {
        {"", "a pattern of 0 bytes"},
        {"a*", "may match nothing"},
        {"(?:)", "may match nothing"},
        {"a(", "without its ')'"},
        {"a)", "without its '('"},
        {"[a", "a class without an end"},
        {"[]", "an empty class"},
        {"[z-a]", "a range without an end"},
        {"[\\\\d-z]", "a range that begins with a class"},
        {"[[:alpha:]]", "a '[' inside a class"},
        {"[a&&b]", "an intersection"},
        {"a**", "a quantifier behind another"},
        {"*a", "a quantifier with nothing before it"},
        {"a{1}{2}", "a quantifier behind braces"},
        {"a{1000}", "braces"},
        {"a{", "braces"},
        {"(?:ab)+", "a repeated group"},
        {"(?:a|b)*", "a repeated group"},
        {"^a", "an anchor"},
        {"a$", "an anchor"},
        {"\\\\bx", "the escape \\b"},
        {"(a)\\\\1", "the escape \\1"},
        {"(?R)", "a group of an unknown kind"},
        {"(?<n>a)", "a group of an unknown kind"},
        {"(?i)a", "a group of an unknown kind"},
        {"\\\\p{Greek}", "general categories"},
        {"\\\\pL", "general categories"},
        {"\\\\x{110000}", "hexadecimal"},
        {"\\\\xq", "hexadecimal"},
        {"\\\\", "ends in a backslash"},
        {"(?i:\u00e9)", "not ASCII inside (?i:"},
        {"(?i:fi)", "fold differently"},
        {"(?i:s{1}s)", "fold differently"},
        {"(?i:s{2})", "fold differently"},
        {"(?i:s?s)", "fold differently"},
        {"(?i:(?:s)(?:s))", "fold differently"},
        {"(?i:[s-s]s)", "fold differently"},
        {"(?i:[ss]s)", "fold differently"},
        {"(?i:[s]s)", "fold differently"},
        {"(?i:s)(?i:t)", "fold differently"},
        {"(?i:\\\\x{df})", "not ASCII inside (?i:"},
        {"(?i:[\\\\x{df}])", "not ASCII inside (?i:"},
        {"(?i:[a-\\\\x{df}])", "not ASCII inside (?i:"},
        {"(?i:[\\\\S])", "not ASCII in a class inside (?i:"},
        {"(?i:[\\\\D])", "not ASCII in a class inside (?i:"},
        {"(?i:\\\\p{Lu})", "a property inside (?i:"},
        {"(?i:[^\\\\p{Lu}])", "a property inside (?i:"},
        {"\\\\xe9", "hexadecimal"},
        {"[\\\\xc3]", "hexadecimal"},
        {"\\\\u{41}", "hexadecimal"},
        {"(?<=a+)b", "not supported"},
        {"[\\\\x{1F300}-\\\\x{1FAFF}]|\\\\p{L}", "newer than Unicode 14"},
        {"\\\\d\U0001fae8", "newer than Unicode 14"},
        {"[\U00010000-\U0001007f\\\\p{L}]", "newer than Unicode 14"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        struct text step = {0};
        text_printf(&step, SEQUENCE(SPLIT("Regex", "%s", "Isolated", "false") "," BYTE_LEVEL), examples[i].pattern);
        json_refused(test, (struct tokenizer_parts_json){.pre_tokenizer = step.bytes}, examples[i].part);
        text_free(&step);
    }
}

static void given_a_pattern_that_is_too_long_or_deep_then_it_is_refused(void **state) {
    struct tokenizer_test *test = *state;
    struct text step = {0};
    text_printf(&step, SEQUENCE(SPLIT("Regex", "%0*d", "Isolated", "false") "," BYTE_LEVEL), 20000, 0);
    json_refused(test, (struct tokenizer_parts_json){.pre_tokenizer = step.bytes}, "a pattern of 20000 bytes");
    static const char *const much[] = {
        SEQUENCE(SPLIT("Regex", "%0*d", "Isolated", "false") "," BYTE_LEVEL),
        SEQUENCE(SPLIT("Regex", "[%0*d]", "Isolated", "false") "," BYTE_LEVEL),
        SEQUENCE(SPLIT("String", "%0*d", "Isolated", "false") "," BYTE_LEVEL),
        SEQUENCE(SPLIT("Regex", "%0*d|[^a]{25}|a{8}", "Isolated", "false") "," BYTE_LEVEL),
    };
    for (size_t i = 0; i < sizeof much / sizeof *much; i++) {
        step.length = 0;
        text_printf(&step, much[i], i < 3 ? 1025 : 992, 0);
        json_refused(test, (struct tokenizer_parts_json){.pre_tokenizer = step.bytes}, "more than 1024 characters");
        step.length = 0;
        text_printf(&step, much[i], i < 3 ? 1024 : 991, 0);
        tokenizer_given(test, (struct tokenizer_parts_json){.pre_tokenizer = step.bytes});
    }
    char deep[101];
    memset(deep, '(', 100);
    deep[100] = '\0';
    step.length = 0;
    text_printf(&step, SEQUENCE(SPLIT("Regex", "%s", "Isolated", "false") "," BYTE_LEVEL), deep);
    json_refused(test, (struct tokenizer_parts_json){.pre_tokenizer = step.bytes}, "nested too deeply");
    text_free(&step);
}

/* Letters and a digit: patterns that try everything come to an end, with an error or without. */
static void given_a_pattern_that_goes_back_without_end_then_it_is_stopped(void **state) {
    static const char *const patterns[] = {
        "(?=a*a*a*b)a",
        "a(?!.*+b)|x.*y",
        "b.*b|a.*b|a",
        "x?\\\\p{L}*\\\\p{L}*\\\\d\\\\d",
        ("(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)"
         "(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)(?:a|aa)\\\\d\\\\d"),
        "a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?a?\\\\d\\\\d",
        "(?<!b)a+?\\\\d\\\\d",
        "a{1,999}a{1,999}a{1,999}\\\\d\\\\d",
        "a*(?:b|c|d|e|f|g|h|i|j|k|l|m|n|o|p|q|r|s|t|u|v|w|x|y|z)a",
    };
    struct tokenizer_test *test = *state;
    enum { LENGTH = 1 << 15 };
    char *text = malloc(LENGTH);
    assert_non_null(text);
    memset(text, 'a', LENGTH);
    text[LENGTH - 1] = '1';
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct text step = {0};
        text_printf(&step, SEQUENCE(SPLIT("Regex", "%s", "Isolated", "false") "," BYTE_LEVEL), patterns[i]);
        tokenizer_given(test, (struct tokenizer_parts_json){.pre_tokenizer = step.bytes});
        text_free(&step);
        assert_refused(tokenizer_encode(test->tokenizer, text, LENGTH, &test->ids, &test->error), STATUS_BAD_INPUT,
                       test->error, "takes too many steps");
        assert_encodes(test, "aa1", 'a', 'a', '1');
    }
    free(text);
}

/* ---- tekken.json ---- */

static void given_text_that_is_no_tekken_json_then_it_is_refused(void **state) {
#define CONFIG(all, special, version)                                                                                  \
    "\"config\": {\"pattern\": \".\", \"default_vocab_size\": " all ", \"default_num_special_tokens\": " special       \
    ", \"version\": \"" version "\"}"
    static const struct {
        const char *json, *part;
    } examples[] = {
        {"", "an object was expected"},
        {"{} x", "something follows the object"},
        {"{}", "its vocab is missing"},
        {"{\"vocab\": []}", "its 'config' is missing"},
        {"{\"special\\u005ftokens\": []}", "a key with an escape"},
        {"{\"vocab\": [{\"r\\u0061nk\": 0}], " CONFIG("276", "20", "v3") "}", "a key with an escape"},
        {"{\"vocab\": [], \"config\": 5}", "cannot be read"},
        {"{\"vocab\": [], \"config\": {}}", "default_vocab_size"},
        {"{\"vocab\": [], \"config\": {\"default_vocab_size\": 300, \"default_num_special_tokens\": 20}}",
         "no pattern"},
        {"{\"vocab\": [], " CONFIG("300", "-1", "v3") "}", "no size"},
        {"{\"vocab\": [], " CONFIG("1e9", "20", "v3") "}", "no size"},
        {"{\"vocab\": [], " CONFIG("17000000", "20", "v3") "}", "no size"},
        {"{\"vocab\": [], " CONFIG("275", "20", "v3") "}", "no size"},
        {"{\"vocab\": [], " CONFIG("16000000", "20", "v3") "}", "is too large"},
        {"{\"vocab\": [], " CONFIG("276", "20", "v11") "}", "its special_tokens are missing"},
        {"{\"vocab\": [], " CONFIG("275", "19", "v3") "}", "its special_tokens are missing"},
        {"{\"vocab\": [], " CONFIG("276", "20", "v3") "}", "its config speaks of 256 tokens, its vocab has 0"},
        {"{\"vocab\": {}, " CONFIG("276", "20", "v3") "}", "an array was expected"},
        {"{\"vocab\": [5], " CONFIG("276", "20", "v3") "}", "an object was expected"},
        {"{\"vocab\": [{}], " CONFIG("276", "20", "v3") "}", "token 0 has another rank, or none"},
        {"{\"vocab\": [{\"rank\": 1}], " CONFIG("276", "20", "v3") "}", "token 0 has another rank, or none"},
        {"{\"vocab\": [{\"rank\": 0}], " CONFIG("276", "20", "v3") "}", "the token_bytes of token 0"},
        {"{\"vocab\": [{\"rank\": 0, \"token_bytes\": 5}], " CONFIG("276", "20", "v3") "}",
         "the token_bytes of token 0"},
        {"{\"vocab\": [{\"rank\": 0, \"token_bytes\": \"A\"}], " CONFIG("276", "20", "v3") "}",
         "the token_bytes of token 0"},
        {"{\"vocab\": [{\"rank\": 0, \"token_bytes\": \"A-==\"}], " CONFIG("276", "20", "v3") "}",
         "the token_bytes of token 0"},
        {"{\"vocab\": [{\"rank\": 0, \"token_bytes\": \"\"}], " CONFIG("276", "20", "v3") "}",
         "the token_bytes of token 0"},
        {"{\"vocab\": [{\"rank\": 0, \"token_bytes\": \"AQ==\"}], " CONFIG("276", "20", "v3") "}",
         "token 0 is not the byte 0"},
        {"{\"vocab\": [{\"rank\": 0, \"token_bytes\": \"AAA\"}], " CONFIG("276", "20", "v3") "}",
         "the token_bytes of token 0"},
        {"{\"vocab\": [], \"special_tokens\": [{\"rank\": 0, \"token_str\": \"a\"}, {\"rank\": 1, \"token_str\": "
         "\"b\"}], "
         "" CONFIG("257", "1", "v3") "}",
         "more than its config says"},
        {"{\"vocab\": [], \"special_tokens\": {}, " CONFIG("276", "20", "v3") "}", "special_tokens are no list"},
        {"{\"vocab\": [], \"special_tokens\": [{\"rank\": 1, \"token_str\": \"a\"}], " CONFIG("276", "20", "v3") "}",
         "special token 0 has no text or another rank"},
        {"{\"vocab\": [], \"special_tokens\": [{\"rank\": 0}], " CONFIG("276", "20", "v3") "}",
         "special token 0 has no text or another rank"},
        {"{\"vocab\": [], \"special_tokens\": [{\"rank\": 0, \"token_str\": \"<SPECIAL_1>\"}], "
         "" CONFIG("276", "20", "v3") "}",
         "the special token '<SPECIAL_1>' occurs twice"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++)
        file_refused(test, "tekken.json", examples[i].json, examples[i].part);
#undef CONFIG
}

static void given_tekken_tokens_that_contradict_each_other_then_they_are_refused(void **state) {
    struct tokenizer_test *test = *state;
    tekken_json_write(test, ".", "", 20, 2,
                      "{\"rank\": 256, \"token_bytes\": \"YWI=\"}, {\"rank\": 257, \"token_bytes\": \"YWI=\"}");
    refused(test, "token 257 occurs twice");
    tekken_json_write(test, ".", "", 20, 1, "{\"rank\": 257, \"token_bytes\": \"YWI=\"}");
    refused(test, "token 256 has another rank");
    tekken_json_write(test, ".*", "", 20, 0, "");
    refused(test, "may match nothing");
}

static void given_a_tekken_pattern_that_rust_reads_differently_then_it_is_refused(void **state) {
    static const struct {
        const char *pattern, *part;
    } examples[] = {
        {"[a-z--b]", "a difference of classes"}, {"[+--]", "a difference of classes"},
        {"[--a]", "a difference of classes"},    {"[a~~b]", "a difference of classes"},
        {"[a-z&&b]", "an intersection"},         {"\\\\<a", "the edge of a word"},
        {"a\\\\>", "the edge of a word"},
    };
    struct tokenizer_test *test = *state;
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) {
        tekken_json_write(test, examples[i].pattern, "", 20, 0, "");
        refused(test, examples[i].part);
    }
    tekken_json_write(test, "[a-]-|[~]~|[\\\\-~]", "", 20, 0, "");
    tokenizer_given_files(test);
    assert_encodes(test, "--a~~", 20 + '-', 20 + '-', 20 + '~', 20 + '~');
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TOKENIZER_TEST(given_no_tokenizer_then_both_names_are_told),
        TOKENIZER_TEST(given_text_that_is_no_tokenizer_json_then_it_is_refused),
        TOKENIZER_TEST(given_what_is_not_supported_then_it_is_named),
        TOKENIZER_TEST(given_more_steps_than_any_tokenizer_has_then_they_are_refused),
        TOKENIZER_TEST(given_a_vocabulary_that_contradicts_itself_then_it_is_refused),
        TOKENIZER_TEST(given_merges_of_what_is_no_token_then_they_are_refused),
        TOKENIZER_TEST(given_bytes_without_tokens_then_they_are_left_out_of_texts_or_refused),
        TOKENIZER_TEST(given_added_tokens_that_are_none_then_they_are_refused),
        TOKENIZER_TEST(given_deep_nesting_then_it_is_refused),
        TOKENIZER_TEST(given_a_pattern_that_dialects_read_differently_then_it_is_refused),
        TOKENIZER_TEST(given_a_pattern_that_is_too_long_or_deep_then_it_is_refused),
        TOKENIZER_TEST(given_a_pattern_that_goes_back_without_end_then_it_is_stopped),
        TOKENIZER_TEST(given_text_that_is_no_tekken_json_then_it_is_refused),
        TOKENIZER_TEST(given_a_tekken_pattern_that_rust_reads_differently_then_it_is_refused),
        TOKENIZER_TEST(given_tekken_tokens_that_contradict_each_other_then_they_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
