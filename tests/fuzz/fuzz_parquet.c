/*
 * The Parquet reader on any bytes: the strings of the column "text". It ends with all rows or with an error that names
 * the file, and gives no more than it promises; a second reading is as the first.
 */
#include "common/parquet.h"
#include "tests/fuzz/fuzz.h"

enum { ROWS_MOST = 1 << 16 }; /* so that an input of many rows takes no seconds */

struct rows {
    uint64_t count, bytes, sum;
};

static enum status row_add(void *context, const char *bytes, size_t length, struct error *error) {
    struct rows *rows = context;
    rows->count++;
    rows->bytes += length;
    for (size_t i = 0; i < length; i++)
        rows->sum = rows->sum * 31 + (uint8_t)bytes[i];
    return rows->count < ROWS_MOST ? STATUS_OK : error_set(error, STATUS_CHECK_FAILED, "enough");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct rows first = {0}, second = {0};
    struct error error = {0}, again = {0};
    enum status status = parquet_strings_read("fuzz", data, size, "text", row_add, &first, &error);
    REQUIRE(status == STATUS_OK || status == STATUS_CHECK_FAILED || status == STATUS_BAD_INPUT);
    REQUIRE(status != STATUS_BAD_INPUT || strncmp(error.message, "'fuzz'", 6) == 0);
    REQUIRE(first.bytes <= PARQUET_LIMIT);
    REQUIRE(parquet_strings_read("fuzz", data, size, "text", row_add, &second, &again) == status);
    REQUIRE(memcmp(&first, &second, sizeof first) == 0 && strcmp(error.message, again.message) == 0);
    return 0;
}
