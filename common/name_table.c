#include "common/name_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Eight bytes a step, mixed by multiplication; the seed keeps chosen names from falling into one place. */
static uint32_t name_hash(uint64_t seed, const char *name, size_t length) {
    uint64_t hash = seed ^ (length * 0x9e3779b97f4a7c15u);
    while (length > 0) {
        uint64_t word = 0;
        size_t step = length < sizeof word ? length : sizeof word;
        memcpy(&word, name, step);
        unsigned __int128 product = (unsigned __int128)(hash ^ word) * 0xd6e8feb86659fd93u;
        hash = (uint64_t)product ^ (uint64_t)(product >> 64) ^ seed;
        name += step;
        length -= step;
    }
    hash ^= hash >> 32;
    return (uint32_t)(hash * 0x9e3779b97f4a7c15u >> 32);
}

/* The entry of the name, or the free one where it belongs. */
static struct name_entry *entry_find(const struct name_table *table, const char *name, size_t length, uint32_t hash) {
    for (size_t at = hash;; at++) {
        struct name_entry *entry = &table->entries[at & (table->capacity - 1)];
        if (!entry->name || (entry->hash == hash && entry->length == length && memcmp(entry->name, name, length) == 0))
            return entry;
    }
}

static bool table_grow(struct name_table *table) {
    struct name_table larger = {
        .capacity = table->capacity ? table->capacity * 2 : 64, .count = table->count, .seed = table->seed};
    if (!table->capacity && getrandom(&larger.seed, sizeof larger.seed, GRND_NONBLOCK) != sizeof larger.seed)
        larger.seed = (uint64_t)(uintptr_t)table;
    larger.entries = calloc(larger.capacity, sizeof *larger.entries);
    if (!larger.entries)
        return false;
    for (size_t i = 0; i < table->capacity; i++) {
        const struct name_entry *entry = &table->entries[i];
        if (entry->name)
            *entry_find(&larger, entry->name, entry->length, entry->hash) = *entry;
    }
    free(table->entries);
    *table = larger;
    return true;
}

uint32_t *name_table_add(struct name_table *table, const char *name, size_t length, uint32_t value, bool *added) {
    if (table->count * 2 >= table->capacity && !table_grow(table))
        return NULL;
    uint32_t hash = name_hash(table->seed, name, length);
    struct name_entry *entry = entry_find(table, name, length, hash);
    if (added)
        *added = !entry->name;
    if (!entry->name) {
        *entry = (struct name_entry){name, length, hash, value};
        table->count++;
    }
    return &entry->value;
}

uint32_t name_table_find(const struct name_table *table, const char *name, size_t length) {
    if (!table->count)
        return NAME_UNKNOWN;
    const struct name_entry *entry = entry_find(table, name, length, name_hash(table->seed, name, length));
    return entry->name ? entry->value : (uint32_t)NAME_UNKNOWN;
}

void name_table_free(struct name_table *table) {
    free(table->entries);
    *table = (struct name_table){0};
}
