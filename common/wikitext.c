#include "common/wikitext.h"

#include <string.h>

#include "common/parquet.h"
#include "common/sha256.h"

static enum status line_append(void *context, const char *bytes, size_t length, struct error *error) {
    static const char blank_line[] = " \n";
    struct text *raw = context;
    if (length > 0)
        text_append(raw, bytes, length);
    else
        text_append_string(raw, blank_line);
    return raw->failed ? error_set_memory(error) : STATUS_OK;
}

enum status wikitext_from_parquet(const char *name, const void *bytes, size_t length, struct text *raw,
                                  struct error *error) {
    return parquet_strings_read(name, bytes, length, "text", line_append, raw, error);
}

enum status wikitext_2_test_check(const char *name, const void *bytes, size_t length, struct error *error) {
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX];
    const enum status status = sha256_of(bytes, length, digest, error);
    if (status != STATUS_OK)
        return status;
    if (length != WIKITEXT_2_TEST_BYTES || strcmp(sha256_hex(digest, hex), WIKITEXT_2_TEST_SHA256) != 0)
        return error_set(
            error, STATUS_BAD_INPUT,
            "'%s' is not the raw test split of WikiText-2: it has %zu bytes and sha256 %s, which has %d and %s", name,
            length, sha256_hex(digest, hex), WIKITEXT_2_TEST_BYTES, WIKITEXT_2_TEST_SHA256);
    return STATUS_OK;
}
