#include "common/array.h"

#include <stdlib.h>
#include <string.h>

bool array_reserve_bytes(void *items, size_t wanted, size_t *capacity, size_t item_bytes) {
    enum { CAPACITY_LEAST = 16 };
    if (wanted <= *capacity)
        return true;
    size_t larger = *capacity > CAPACITY_LEAST / 2 ? 2 * *capacity : CAPACITY_LEAST;
    larger = wanted > larger ? wanted : larger;
    void *before;
    memcpy(&before, items, sizeof before); /* the caller's pointer is of another type: it may be copied, not read */
    void *memory = reallocarray(before, larger, item_bytes);
    if (!memory)
        return false;
    memcpy(items, &memory, sizeof memory);
    *capacity = larger;
    /* cppcheck-suppress memleak ; it is the caller's now */
    return true;
}
