#include "infer/tokenizer/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/utf8.h"

enum {
    SHORT_WORD = 96,  /* bytes up to which looking at all pairs again beats a heap */
    CACHED_WORD = 32, /* bytes */
    CACHED_IDS = 7,
    CACHE_LEAST = 1 << 6,
    CACHE_MOST = 1 << 15 /* places: 2 MiB */
};

/* A word as it was encoded before; a place holds the last word that fell on it. Fills a cache line. */
struct cached {
    uint8_t length, count; /* length 0: free */
    int32_t ids[CACHED_IDS];
    char word[CACHED_WORD];
};

/* A part of a long word, in a list. */
struct symbol {
    uint32_t id; /* REMOVED: merged into the one before it */
    uint32_t previous, next;
};
enum { REMOVED = UINT32_MAX, NONE = UINT32_MAX };

struct bpe_scratch {
    struct cached *cache;
    size_t cache_mask;
    char *name; /* a word in the byte-level alphabet: at most two bytes each */
    struct symbol *symbols;
    size_t symbol_capacity;
    uint64_t *heap; /* rank and place of merges, the lowest first */
    size_t heap_count, heap_capacity;
};

enum status bpe_scratch_open(const struct bpe *bpe, size_t length, struct bpe_scratch **scratch, struct error *error) {
    struct bpe_scratch *made = calloc(1, sizeof *made);
    size_t places = CACHE_LEAST;
    while (places < CACHE_MOST && places < length / 4)
        places *= 2;
    *scratch = made;
    if (made) {
        made->cache = calloc(places, sizeof *made->cache);
        made->name = malloc(2 * bpe->name_max + 4); /* a text says nothing of its words: NFC makes them longer */
    }
    if (!made || !made->cache || !made->name) {
        bpe_scratch_close(made);
        *scratch = NULL;
        return error_set_memory(error);
    }
    made->cache_mask = places - 1;
    return STATUS_OK;
}

void bpe_scratch_close(struct bpe_scratch *scratch) {
    if (!scratch)
        return;
    free(scratch->cache);
    free(scratch->name);
    free(scratch->symbols);
    free(scratch->heap);
    free(scratch);
}

/* ---- short words ---- */

static enum status short_encode(const struct bpe *bpe, const char *word, size_t length, struct token_ids *ids,
                                struct error *error) {
    uint32_t parts[SHORT_WORD];
    const struct pair_merge *merges[SHORT_WORD]; /* of each part with the next */
    size_t count = 0;
    for (size_t i = 0; i < length; i++) {
        int32_t id = bpe->bytes[(unsigned char)word[i]];
        if (id >= 0)
            parts[count++] = (uint32_t)id;
    }
    for (size_t i = 0; i + 1 < count; i++)
        merges[i] = pair_table_find(&bpe->pairs, parts[i], parts[i + 1]);
    while (count > 1) {
        size_t best = count;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < count; i++)
            if (merges[i] && merges[i]->rank < rank) {
                rank = merges[i]->rank;
                best = i;
            }
        if (best == count)
            break;
        parts[best] = merges[best]->id;
        count--;
        memmove(parts + best + 1, parts + best + 2, (count - best - 1) * sizeof *parts);
        if (best + 1 < count) {
            for (size_t i = best + 1; i + 1 < count; i++)
                merges[i] = merges[i + 1];
            merges[best] = pair_table_find(&bpe->pairs, parts[best], parts[best + 1]);
        }
        if (best > 0)
            merges[best - 1] = pair_table_find(&bpe->pairs, parts[best - 1], parts[best]);
    }
    for (size_t i = 0; i < count; i++) {
        enum status status = token_ids_append(ids, (int32_t)parts[i], error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---- long words ---- */

static bool heap_push(struct bpe_scratch *scratch, uint64_t item) {
    if (!array_reserve(scratch->heap, scratch->heap_count + 1, &scratch->heap_capacity))
        return false;
    size_t at = scratch->heap_count++;
    for (; at > 0 && scratch->heap[(at - 1) / 2] > item; at = (at - 1) / 2)
        scratch->heap[at] = scratch->heap[(at - 1) / 2];
    scratch->heap[at] = item;
    return true;
}

static uint64_t heap_pop(struct bpe_scratch *scratch) {
    uint64_t *heap = scratch->heap, top = heap[0], last = heap[--scratch->heap_count];
    size_t at = 0, count = scratch->heap_count;
    for (size_t child = 1; child < count; child = 2 * at + 1) {
        child += child + 1 < count && heap[child + 1] < heap[child];
        if (heap[child] >= last)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

/* Remembers that the symbol at `left` may merge with the next one. */
static bool merge_push(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t left) {
    uint32_t right = scratch->symbols[left].next;
    if (right == NONE)
        return true;
    const struct pair_merge *merge =
        pair_table_find(&bpe->pairs, scratch->symbols[left].id, scratch->symbols[right].id);
    return !merge || heap_push(scratch, (uint64_t)merge->rank << 32 | left);
}

static enum status symbols_fill(const struct bpe *bpe, struct bpe_scratch *scratch, const char *word, size_t length,
                                uint32_t *count, struct error *error) {
    if (!array_reserve(scratch->symbols, length, &scratch->symbol_capacity))
        return error_set_memory(error);
    *count = 0;
    for (size_t i = 0; i < length; i++) {
        int32_t id = bpe->bytes[(unsigned char)word[i]];
        if (id < 0)
            continue;
        scratch->symbols[*count] = (struct symbol){(uint32_t)id, *count ? *count - 1 : (uint32_t)NONE, *count + 1};
        ++*count;
    }
    if (*count > 0)
        scratch->symbols[*count - 1].next = NONE;
    return STATUS_OK;
}

static enum status long_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *word, size_t length,
                               struct token_ids *ids, struct error *error) {
    if (length >= NONE)
        return error_set(error, STATUS_BAD_INPUT, "the text has a word of 4 GiB: cut it into parts");
    uint32_t count;
    enum status status = symbols_fill(bpe, scratch, word, length, &count, error);
    if (status != STATUS_OK)
        return status;
    struct symbol *symbols = scratch->symbols;
    scratch->heap_count = 0;
    bool good = true;
    for (uint32_t i = 0; i < count && good; i++)
        good = merge_push(bpe, scratch, i);
    while (good && scratch->heap_count > 0) {
        uint64_t top = heap_pop(scratch);
        uint32_t left = (uint32_t)top, right = symbols[left].next;
        if (symbols[left].id == REMOVED || right == NONE)
            continue;
        const struct pair_merge *merge = pair_table_find(&bpe->pairs, symbols[left].id, symbols[right].id);
        if (!merge || merge->rank != top >> 32)
            continue; /* one of the two has changed since */
        symbols[left].id = merge->id;
        symbols[left].next = symbols[right].next;
        symbols[right].id = REMOVED;
        if (symbols[left].next != NONE)
            symbols[symbols[left].next].previous = left;
        good = merge_push(bpe, scratch, left) &&
               (symbols[left].previous == NONE || merge_push(bpe, scratch, symbols[left].previous));
    }
    if (!good)
        return error_set_memory(error);
    for (uint32_t i = 0; i < count; i = symbols[i].next) {
        status = token_ids_append(ids, (int32_t)symbols[i].id, error);
        if (status != STATUS_OK)
            return status;
    }
    return STATUS_OK;
}

/* ---- words ---- */

/* The token that the word is; -1 when it is none. */
static int32_t whole_find(const struct bpe *bpe, struct bpe_scratch *scratch, const char *word, size_t length) {
    if (length > bpe->name_max)
        return -1;
    if (!bpe->byte_level)
        return vocabulary_find(bpe->vocabulary, word, length);
    size_t size = 0;
    for (size_t i = 0; i < length; i++)
        size += utf8_encode(byte_level_character((uint8_t)word[i]), scratch->name + size);
    return vocabulary_find(bpe->vocabulary, scratch->name, size);
}

static enum status word_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *word, size_t length,
                               struct token_ids *ids, struct error *error) {
    int32_t whole = bpe->whole_words ? whole_find(bpe, scratch, word, length) : -1;
    if (whole >= 0)
        return token_ids_append(ids, whole, error);
    return length <= SHORT_WORD ? short_encode(bpe, word, length, ids, error)
                                : long_encode(bpe, scratch, word, length, ids, error);
}

static uint64_t word_hash(const char *word, size_t length) {
    uint64_t hash = length;
    while (length > 0) {
        uint64_t part = 0;
        size_t step = length < sizeof part ? length : sizeof part;
        memcpy(&part, word, step);
        hash = (hash ^ part) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 29;
        word += step;
        length -= step;
    }
    return hash ^ hash >> 32;
}

enum status bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *word, size_t length,
                       struct token_ids *ids, struct error *error) {
    if (length == 0)
        return STATUS_OK;
    if (length > CACHED_WORD)
        return word_encode(bpe, scratch, word, length, ids, error);
    struct cached *cached = &scratch->cache[word_hash(word, length) & scratch->cache_mask];
    if (cached->length == length && memcmp(cached->word, word, length) == 0) {
        for (size_t i = 0; i < cached->count; i++) {
            enum status status = token_ids_append(ids, cached->ids[i], error);
            if (status != STATUS_OK)
                return status;
        }
        return STATUS_OK;
    }
    size_t before = ids->count;
    enum status status = word_encode(bpe, scratch, word, length, ids, error);
    size_t count = ids->count - before;
    if (status == STATUS_OK && count <= CACHED_IDS) {
        cached->length = (uint8_t)length;
        cached->count = (uint8_t)count;
        memcpy(cached->word, word, length);
        if (count > 0)
            memcpy(cached->ids, ids->ids + before, count * sizeof *cached->ids);
    }
    return status;
}
