#include "infer/tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"

struct arena_block {
    struct arena_block *next;
    char bytes[];
};

char *arena_copy(struct arena *arena, const char *bytes, size_t length) {
    static const size_t usual = (size_t)1 << 18;
    if (!arena->blocks || arena->size - arena->used < length) {
        size_t size = length > usual ? length : usual;
        struct arena_block *block = malloc(sizeof *block + size);
        if (!block)
            return NULL;
        block->next = arena->blocks;
        arena->blocks = block;
        arena->size = size;
        arena->used = 0;
    }
    char *copy = arena->blocks->bytes + arena->used;
    if (length > 0)
        memcpy(copy, bytes, length);
    arena->used += length;
    return copy;
}

void arena_free(struct arena *arena) {
    while (arena->blocks) {
        struct arena_block *next = arena->blocks->next;
        free(arena->blocks);
        arena->blocks = next;
    }
    *arena = (struct arena){0};
}

enum status vocabulary_reserve(struct vocabulary *vocabulary, uint64_t size, uint64_t tokens, struct error *error) {
    static const uint64_t spare = 1 << 16;
    if (size > TOKENS_MAX || size > spare + tokens * 8)
        return error_set(error, STATUS_BAD_INPUT, "the token id %llu is too large for %llu tokens",
                         (unsigned long long)(size - 1), (unsigned long long)tokens);
    const size_t before = vocabulary->capacity;
    if (!array_reserve(vocabulary->tokens, size, &vocabulary->capacity))
        return error_set_memory(error);
    if (vocabulary->capacity > before)
        memset(vocabulary->tokens + before, 0, (vocabulary->capacity - before) * sizeof *vocabulary->tokens);
    if (size > vocabulary->size)
        vocabulary->size = (uint32_t)size;
    return STATUS_OK;
}

int32_t vocabulary_find(const struct vocabulary *vocabulary, const char *name, size_t length) {
    uint32_t id = name_table_find(&vocabulary->names, name, length);
    return id == NAME_UNKNOWN ? -1 : (int32_t)id;
}

void vocabulary_free(struct vocabulary *vocabulary) {
    arena_free(&vocabulary->arena);
    free(vocabulary->tokens);
    name_table_free(&vocabulary->names);
    name_table_free(&vocabulary->added);
    *vocabulary = (struct vocabulary){0};
}

/* The bytes that are printable stand for themselves; the others, in order, are U+0100 and on. */
static bool is_printable(uint32_t byte) {
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
}

uint32_t byte_level_character(uint8_t byte) {
    if (is_printable(byte))
        return byte;
    return 0x100u + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7fu + 0x21u : 0x43u);
}

int byte_level_byte(uint32_t point) {
    if (point < 0x100)
        return is_printable(point) ? (int)point : -1;
    uint32_t place = point - 0x100;
    if (place <= 0x20)
        return (int)place;
    return place < 0x43 ? (int)(place - 0x21 + 0x7f) : place == 0x43 ? 0xad : -1;
}
