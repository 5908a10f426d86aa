/*
 * A table from names to numbers (open addressing). Keys are not copied: they must outlive the table.
 */
#ifndef QSTREAM_COMMON_NAME_TABLE_H
#define QSTREAM_COMMON_NAME_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct name_entry {
    const char *name; /* NULL: free */
    size_t length;
    uint32_t hash;
    uint32_t value;
};

struct name_table {
    struct name_entry *entries;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
    uint64_t seed; /* of the hash: names come from strangers */
};

enum { NAME_UNKNOWN = UINT32_MAX };

/*
 * The value of a name; when it is new it gets `value`. *added (may be NULL) tells which. NULL when out of memory.
 * The pointer is good until the next call.
 */
uint32_t *name_table_add(struct name_table *table, const char *name, size_t length, uint32_t value, bool *added);

/* The value of a name, NAME_UNKNOWN when it is not there. */
uint32_t name_table_find(const struct name_table *table, const char *name, size_t length);

void name_table_free(struct name_table *table);

#endif
