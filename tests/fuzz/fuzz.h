/*
 * What the fuzz targets share. A property that does not hold ends the process with abort(), which libFuzzer
 * reports together with the input.
 */
#ifndef QSTREAM_TESTS_FUZZ_H
#define QSTREAM_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);                             \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/*
 * The end of the data that a safetensors header speaks of: the largest second number of its data_offsets, found
 * without parsing, so that mutated headers still get a file of the size they ask for. 0 when there is none.
 */
uint64_t header_data_size(const uint8_t *header, size_t size);

/* A folder in memory for this process, removed at its end. Files in it go with folder_clear. */
const char *fuzz_folder(void);
void folder_clear(void);

/* Writes a file of that folder: the bytes, then a hole up to `size` (ignored when smaller). */
void folder_write(const char *name, const void *bytes, size_t length, uint64_t size);

/* What a folder's sections tell besides its files. */
struct folder_input {
    const char *recipe; /* set to the section's text when there is one */
    size_t recipe_length;
};

/*
 * Makes the folder from text in sections, each behind a line of its own:
 *   @@config   @@index   @@recipe   @@shard NAME (the JSON header; the file gets the size that it asks for)
 *   @@file NAME (as it is)
 */
void folder_from_sections(const uint8_t *data, size_t size, struct folder_input *input);

#endif
