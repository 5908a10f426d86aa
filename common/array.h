/*
 * Arrays that grow.
 */
#ifndef QSTREAM_COMMON_ARRAY_H
#define QSTREAM_COMMON_ARRAY_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Makes room for `wanted` items in all and notes in *capacity how many there is room for: at least twice as many as
 * before, so that items can be added one by one. `items` is the pointer itself (NULL while *capacity is 0), the caller's
 * to free; it may move. False when there is no memory, and then items and *capacity are as they were.
 */
#define array_reserve(items, wanted, capacity) array_reserve_bytes(&(items), (wanted), (capacity), sizeof *(items))

bool array_reserve_bytes(void *items, size_t wanted, size_t *capacity, size_t item_bytes);

#endif
