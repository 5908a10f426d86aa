/*
 * What the Parquet reader gives, for comparison with other readers:
 *   rows FILE COLUMN           prints each row as its length (4 bytes, little endian) and its bytes
 *   rows --wikitext FILE       prints the text that wikitext_from_parquet makes, if it is WikiText-2's test split
 *   rows --damage FILE COLUMN  reads the file cut off at every byte, and with every byte changed in ten ways; prints
 *                              "N read, N refused, N other rows"
 * An error goes to stderr; its status is the exit code, 1 when a damaged file is not taken as it should be.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/parquet.h"
#include "common/source.h"
#include "common/wikitext.h"

static enum status row_add(void *context, const char *bytes, size_t length, struct error *error) {
    const uint8_t head[] = {(uint8_t)length, (uint8_t)(length >> 8), (uint8_t)(length >> 16), (uint8_t)(length >> 24)};
    text_append(context, head, sizeof head);
    text_append(context, bytes, length);
    return ((struct text *)context)->failed ? error_set_memory(error) : STATUS_OK;
}

/* Readings of damaged files. */
struct damage {
    const char *name, *column;
    struct text right; /* what the whole file gives */
    unsigned long read, refused, other;
};

/* One reading, of a copy that ends where the memory ends. */
static enum status damaged_read(struct damage *damage, const char *bytes, size_t length, struct error *error) {
    struct text rows = {0};
    char *copy = malloc(length ? length : 1);
    if (!copy)
        return error_set_memory(error);
    memcpy(copy, bytes, length);
    error->message[0] = '\0';
    const enum status status = parquet_strings_read(damage->name, copy, length, damage->column, row_add, &rows, error);
    damage->read++;
    damage->refused += status != STATUS_OK;
    damage->other +=
        status == STATUS_OK && (rows.length != damage->right.length ||
                                (rows.length > 0 && memcmp(rows.bytes, damage->right.bytes, rows.length) != 0));
    free(copy);
    text_free(&rows);
    return status;
}

static enum status damage_all(struct damage *damage, char *bytes, size_t length, struct error *error) {
    for (size_t cut = 0; cut < length; cut++)
        if (damaged_read(damage, bytes, cut, error) != STATUS_BAD_INPUT)
            return error_set(error, STATUS_CHECK_FAILED, "its first %zu bytes are not refused", cut);
    for (size_t at = 0; at < length; at++) {
        const char right = bytes[at];
        for (unsigned way = 0; way < 10; way++) {
            bytes[at] = (char)(way < 8 ? right ^ 1 << way : way == 8 ? 0 : 0xff);
            const enum status status = damaged_read(damage, bytes, length, error);
            if (status != STATUS_OK && (status != STATUS_BAD_INPUT || error->message[0] != '\''))
                return error_set(error, STATUS_CHECK_FAILED, "byte %zu as %d: status %d, message '%s'", at, bytes[at],
                                 (int)status, error->message);
        }
        bytes[at] = right;
    }
    printf("%lu read, %lu refused, %lu other rows\n", damage->read, damage->refused, damage->other);
    return STATUS_OK;
}

int main(int argc, char **argv) {
    const bool wikitext = argc == 3 && strcmp(argv[1], "--wikitext") == 0;
    const bool damage = argc == 4 && strcmp(argv[1], "--damage") == 0;
    if (argc != 3 && !damage) {
        fprintf(stderr, "usage: rows FILE COLUMN | rows --wikitext FILE | rows --damage FILE COLUMN\n");
        return STATUS_USAGE;
    }
    const char *name = argv[wikitext || damage ? 2 : 1], *column = argv[argc - 1];
    char *bytes = NULL;
    size_t length = 0;
    struct text out = {0};
    struct error error;
    enum status status = file_read(name, SIZE_MAX / 2, &bytes, &length, &error);
    if (status == STATUS_OK && wikitext)
        status = wikitext_from_parquet(name, bytes, length, &out, &error);
    else if (status == STATUS_OK)
        status = parquet_strings_read(name, bytes, length, column, row_add, &out, &error);
    if (status == STATUS_OK && wikitext)
        status = wikitext_2_test_check(name, out.bytes, out.length, &error);
    if (damage)
        status = damage_all(&(struct damage){.name = name, .column = column, .right = out}, bytes, length, &error);
    else if (status == STATUS_OK && out.length > 0)
        fwrite(out.bytes, 1, out.length, stdout);
    if (status != STATUS_OK)
        fprintf(stderr, "%s\n", error.message);
    text_free(&out);
    free(bytes);
    return fflush(stdout) == 0 ? (int)status : STATUS_IO;
}
