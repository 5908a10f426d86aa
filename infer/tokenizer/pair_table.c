#include "infer/tokenizer/pair_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Where the pair is, or the free place where it belongs. */
static struct pair_merge *place_find(const struct pair_table *table, uint32_t left, uint32_t right) {
    for (size_t at = pair_place(table, left, right);; at++) {
        struct pair_merge *merge = &table->merges[at & (table->capacity - 1)];
        if (merge->left == PAIR_FREE || (merge->left == left && merge->right == right))
            return merge;
    }
}

enum status pair_table_reserve(struct pair_table *table, size_t count, struct error *error) {
    if (table->capacity > 0 && count <= table->capacity / 2)
        return STATUS_OK;
    struct pair_table larger = {.capacity = 64, .count = table->count, .shift = 58, .seed = table->seed};
    while (larger.capacity / 2 < count) {
        larger.capacity *= 2;
        larger.shift--;
    }
    if (!table->capacity && getrandom(&larger.seed, sizeof larger.seed, GRND_NONBLOCK) != sizeof larger.seed)
        larger.seed = (uint64_t)(uintptr_t)table * 0x9e3779b97f4a7c15u;
    larger.seed |= 1;
    larger.merges = malloc(larger.capacity * sizeof *larger.merges);
    if (!larger.merges)
        return error_set_memory(error);
    memset(larger.merges, 0xff, larger.capacity * sizeof *larger.merges);
    for (size_t i = 0; i < table->capacity; i++)
        if (table->merges[i].left != PAIR_FREE)
            *place_find(&larger, table->merges[i].left, table->merges[i].right) = table->merges[i];
    free(table->merges);
    *table = larger;
    return STATUS_OK;
}

enum status pair_table_set(struct pair_table *table, struct pair_merge merge, struct error *error) {
    enum status status = pair_table_reserve(table, table->count + 1, error);
    if (status != STATUS_OK)
        return status;
    struct pair_merge *place = place_find(table, merge.left, merge.right);
    table->count += place->left == PAIR_FREE;
    *place = merge;
    return STATUS_OK;
}

void pair_table_free(struct pair_table *table) {
    free(table->merges);
    *table = (struct pair_table){0};
}
