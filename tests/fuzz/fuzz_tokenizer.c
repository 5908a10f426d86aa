/*
 * Tokenizer files and texts of any bytes. The input has the file's bytes, then behind a line "@@text" a text; a file
 * that begins with {"config is a tekken.json. To keep files short, the # of "vocab":{# and "vocab":[# stands for the 256
 * bytes as tokens. What opens has to encode in time, give ids that it knows, and the same ids again.
 */
#include "infer/tokenizer/tokenizer_parts.h"

#include "tests/fuzz/fuzz.h"

static const char base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The file with the bytes' tokens where it asks for them. */
static void file_expand(const uint8_t *data, size_t size, bool tekken, struct text *file) {
    const char *wanted = tekken ? "\"vocab\":[#" : "\"vocab\":{#";
    const uint8_t *mark = size ? memmem(data, size, wanted, strlen(wanted)) : NULL;
    if (!mark) {
        text_append(file, data, size);
        return;
    }
    mark += strlen(wanted) - 1;
    text_append(file, data, (size_t)(mark - data));
    for (unsigned byte = 0; byte < 256; byte++) {
        if (tekken)
            text_printf(file, "%s{\"rank\":%u,\"token_bytes\":\"%c%c==\"}", byte ? "," : "", byte, base64[byte >> 2],
                        base64[(byte & 3) << 4]);
        else
            text_printf(file, "%s\"\\u%04x\":%u", byte ? "," : "", (unsigned)byte_level_character((uint8_t)byte), byte);
    }
    text_append(file, mark + 1, (size_t)(data + size - mark) - 1);
}

static void encode_check(const struct tokenizer *tokenizer, const char *text, size_t length) {
    struct token_ids ids = {0}, again = {0};
    struct text decoded = {0};
    struct error error = {{0}};
    enum status status = tokenizer_encode(tokenizer, text, length, &ids, &error);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0]));
    if (status == STATUS_OK) {
        REQUIRE(tokenizer_encode(tokenizer, text, length, &again, &error) == STATUS_OK);
        REQUIRE(again.count == ids.count);
        for (size_t i = 0; i < ids.count; i++)
            REQUIRE(ids.ids[i] == again.ids[i] && ids.ids[i] >= 0 && (uint32_t)ids.ids[i] < tokenizer_size(tokenizer));
        REQUIRE(tokenizer_decode(tokenizer, ids.ids, ids.count, true, &decoded, &error) == STATUS_OK);
    }
    text_free(&decoded);
    token_ids_free(&again);
    token_ids_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char mark[] = "\n@@text\n", tekken_begin[] = "{\"config";
    const uint8_t *text = size ? memmem(data, size, mark, sizeof mark - 1) : NULL;
    size_t file_size = text ? (size_t)(text - data) : size;
    size_t length = text ? size - file_size - (sizeof mark - 1) : 0;
    bool tekken = size >= sizeof tekken_begin && memcmp(data, tekken_begin, sizeof tekken_begin - 1) == 0;

    struct text file = {0};
    file_expand(data, file_size, tekken, &file);
    folder_clear();
    folder_write(tekken ? "tekken.json" : "tokenizer.json", file.bytes ? file.bytes : "", file.length, 0);
    text_free(&file);

    struct folder *folder;
    struct tokenizer *tokenizer;
    struct error error = {{0}};
    REQUIRE(folder_open(fuzz_folder(), &folder, &error) == STATUS_OK);
    enum status status = tokenizer_open(folder, &tokenizer, &error);
    folder_close(folder);
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error.message[0] && !tokenizer));
    if (status == STATUS_OK) {
        char *copy = malloc(length + (length == 0)); /* without a NUL: a read behind its end is seen */
        REQUIRE(copy);
        if (length > 0)
            memcpy(copy, text + sizeof mark - 1, length);
        encode_check(tokenizer, copy, length);
        free(copy);
        tokenizer_close(tokenizer);
    }
    return 0;
}
