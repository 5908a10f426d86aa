/*
 * Which two tokens make one, and which pair goes first.
 */
#ifndef QSTREAM_INFER_TOKENIZER_PAIR_TABLE_H
#define QSTREAM_INFER_TOKENIZER_PAIR_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct pair_merge {
    uint32_t left, right; /* ids; left is PAIR_FREE in a free place */
    uint32_t rank;        /* the lowest is merged first */
    uint32_t id;          /* what they become */
};

enum { PAIR_FREE = UINT32_MAX };

/* Open addressing. Zero-initialize. */
struct pair_table {
    struct pair_merge *merges;
    size_t capacity; /* a power of two, or 0 */
    size_t count;
    unsigned shift;
    uint64_t seed; /* odd; of the hash: the pairs come from strangers */
};

/* Makes room for `count` pairs in all. */
enum status pair_table_reserve(struct pair_table *table, size_t count, struct error *error);

/* Adds a pair, or changes what it becomes. */
enum status pair_table_set(struct pair_table *table, struct pair_merge merge, struct error *error);

void pair_table_free(struct pair_table *table);

static inline size_t pair_place(const struct pair_table *table, uint32_t left, uint32_t right) {
    uint64_t pair = (uint64_t)left << 32 | right;
    pair ^= table->seed;
    pair *= 0x9e3779b97f4a7c15u;
    pair ^= pair >> 32;
    return (size_t)(pair * table->seed >> table->shift);
}

/* The merge of two tokens; NULL when they do not merge. */
static inline const struct pair_merge *pair_table_find(const struct pair_table *table, uint32_t left, uint32_t right) {
    if (table->count == 0)
        return NULL;
    for (size_t at = pair_place(table, left, right);; at++) {
        const struct pair_merge *merge = &table->merges[at & (table->capacity - 1)];
        if (merge->left == left && merge->right == right)
            return merge;
        if (merge->left == PAIR_FREE)
            return NULL;
    }
}

#endif
