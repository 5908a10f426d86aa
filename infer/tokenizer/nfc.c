#include "infer/tokenizer/nfc.h"

#include <stdlib.h>
#include <string.h>

struct nfc_range {
    uint32_t first, last, combining_class;
};
struct nfc_pair {
    uint32_t composed, first, second;
};
#include "infer/tokenizer/nfc_tables.inc"

#include "common/utf8.h"

enum {
    RANGES = sizeof nfc_ranges / sizeof *nfc_ranges,
    PAIRS = sizeof nfc_pairs / sizeof *nfc_pairs,
    COMPOSITIONS = sizeof nfc_compositions / sizeof *nfc_compositions
};

/* Hangul syllables follow from arithmetic (Unicode, section 3.12). */
enum {
    HANGUL_S = 0xac00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11a7,
    HANGUL_LS = 19,
    HANGUL_VS = 21,
    HANGUL_TS = 28,
    HANGUL_SYLLABLES = HANGUL_LS * HANGUL_VS * HANGUL_TS
};

struct character {
    uint32_t point, combining_class;
};

/* A part of the text from one character that nothing joins to the next such character. */
struct segment {
    struct character *characters, *sorted;
    size_t count, capacity;
};

/* The range that the character is in: it may change or join to what is before it. NULL: it does neither. */
static const struct nfc_range *range_find(uint32_t point) {
    size_t low = 0, high = RANGES;
    if (point < nfc_ranges[0].first)
        return NULL;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (nfc_ranges[middle].last < point)
            low = middle + 1;
        else
            high = middle;
    }
    return low < RANGES && nfc_ranges[low].first <= point ? &nfc_ranges[low] : NULL;
}

static bool segment_add(struct segment *segment, uint32_t point) {
    if (segment->count == segment->capacity) {
        size_t capacity = segment->capacity ? segment->capacity * 2 : 64;
        struct character *larger = realloc(segment->characters, capacity * sizeof *larger);
        if (!larger)
            return false;
        segment->characters = larger;
        free(segment->sorted);
        segment->sorted = malloc(capacity * sizeof *larger);
        segment->capacity = segment->sorted ? capacity : 0;
        if (!segment->sorted)
            return false;
    }
    const struct nfc_range *range = range_find(point);
    segment->characters[segment->count++] = (struct character){point, range ? range->combining_class : 0};
    return true;
}

static bool segment_decompose(struct segment *segment, uint32_t point) {
    if (point >= HANGUL_S && point < HANGUL_S + HANGUL_SYLLABLES) {
        uint32_t index = point - HANGUL_S;
        uint32_t tail = index % HANGUL_TS;
        return segment_add(segment, HANGUL_L + index / (HANGUL_VS * HANGUL_TS)) &&
               segment_add(segment, HANGUL_V + index / HANGUL_TS % HANGUL_VS) &&
               (tail == 0 || segment_add(segment, HANGUL_T + tail));
    }
    uint32_t seconds[8]; /* the longest chain of decompositions has three steps */
    size_t depth = 0;
    for (;;) {
        size_t low = 0, high = PAIRS;
        while (low < high) {
            size_t middle = (low + high) / 2;
            if (nfc_pairs[middle].composed < point)
                low = middle + 1;
            else
                high = middle;
        }
        if (low == PAIRS || nfc_pairs[low].composed != point || depth == sizeof seconds / sizeof *seconds)
            break;
        point = nfc_pairs[low].first;
        if (nfc_pairs[low].second)
            seconds[depth++] = nfc_pairs[low].second; /* marks: they do not decompose into more than marks */
    }
    if (!segment_add(segment, point))
        return false;
    while (depth > 0)
        if (!segment_decompose(segment, seconds[--depth])) // NOLINT(misc-no-recursion): bounded as above
            return false;
    return true;
}

/* Orders each run of marks by class, marks of one class as they stand. Counting keeps a long run linear. */
static void segment_order(struct segment *segment) {
    struct character *all = segment->characters;
    for (size_t begin = 0; begin < segment->count;) {
        if (all[begin].combining_class == 0) {
            begin++;
            continue;
        }
        size_t end = begin, places[256] = {0};
        bool ordered = true;
        for (; end < segment->count && all[end].combining_class != 0; end++) {
            ordered = ordered && (end == begin || all[end - 1].combining_class <= all[end].combining_class);
            places[all[end].combining_class]++;
        }
        if (!ordered) {
            size_t place = 0;
            for (size_t i = 0; i < 256; i++) {
                size_t count = places[i];
                places[i] = place;
                place += count;
            }
            for (size_t i = begin; i < end; i++)
                segment->sorted[places[all[i].combining_class]++] = all[i];
            memcpy(all + begin, segment->sorted, (end - begin) * sizeof *all);
        }
        begin = end;
    }
}

/* The character that two make; 0 when they make none. */
static uint32_t pair_compose(uint32_t first, uint32_t second) {
    if (first >= HANGUL_L && first < HANGUL_L + HANGUL_LS && second >= HANGUL_V && second < HANGUL_V + HANGUL_VS)
        return HANGUL_S + ((first - HANGUL_L) * HANGUL_VS + second - HANGUL_V) * HANGUL_TS;
    if (first >= HANGUL_S && first < HANGUL_S + HANGUL_SYLLABLES && (first - HANGUL_S) % HANGUL_TS == 0 &&
        second > HANGUL_T && second < HANGUL_T + HANGUL_TS)
        return first + second - HANGUL_T;
    size_t low = 0, high = COMPOSITIONS;
    while (low < high) {
        size_t middle = (low + high) / 2;
        const struct nfc_pair *pair = &nfc_pairs[nfc_compositions[middle]];
        if (pair->first < first || (pair->first == first && pair->second < second))
            low = middle + 1;
        else
            high = middle;
    }
    if (low == COMPOSITIONS)
        return 0;
    const struct nfc_pair *pair = &nfc_pairs[nfc_compositions[low]];
    return pair->first == first && pair->second == second ? pair->composed : 0;
}

/* Joins to each starter the marks and starters that nothing blocks (Unicode, D117). */
static void segment_compose(struct segment *segment) {
    struct character *all = segment->characters;
    size_t kept = 0, starter = SIZE_MAX;
    for (size_t i = 0; i < segment->count; i++) {
        bool blocked =
            starter == SIZE_MAX || (kept > starter + 1 && (all[kept - 1].combining_class == 0 ||
                                                           all[kept - 1].combining_class >= all[i].combining_class));
        uint32_t composed = blocked ? 0 : pair_compose(all[starter].point, all[i].point);
        if (composed) {
            all[starter].point = composed;
            continue;
        }
        if (all[i].combining_class == 0)
            starter = kept;
        all[kept++] = all[i];
    }
    segment->count = kept;
}

static void segment_append(const struct segment *segment, struct text *out) {
    for (size_t i = 0; i < segment->count; i++) {
        char character[4];
        text_append(out, character, utf8_encode(segment->characters[i].point, character));
    }
}

/*
 * The end of the characters, from `at`, that no later character changes: *held gets the beginning of the last of them,
 * to which the next one may join.
 */
static size_t stable_end(const char *text, size_t length, size_t at, size_t *held) {
    *held = at;
    while (at < length) {
        size_t step = ascii_length(text + at, length - at);
        if (step > 0) {
            at += step;
            *held = at - 1;
            continue;
        }
        uint32_t point = utf8_decode(text + at, length - at, &step, NULL);
        if (range_find(point))
            return at;
        *held = at;
        at += step;
    }
    return at;
}

enum status nfc_normalize(const char *text, size_t length, struct text *out, bool *changed, struct error *error) {
    struct segment segment = {0};
    size_t held, at = stable_end(text, length, 0, &held);
    bool good = true;
    *changed = at < length;
    size_t copied = 0;
    while (good && at < length) {
        text_append(out, text + copied, held - copied);
        segment.count = 0;
        at = held;
        do {
            size_t step;
            uint32_t point = utf8_decode(text + at, length - at, &step, NULL);
            at += step;
            good = segment_decompose(&segment, point);
            if (at == length)
                break;
            if (!range_find(utf8_decode(text + at, length - at, &step, NULL)))
                break;
        } while (good);
        if (good) {
            segment_order(&segment);
            segment_compose(&segment);
            segment_append(&segment, out);
        }
        copied = at;
        at = stable_end(text, length, at, &held);
    }
    if (*changed)
        text_append(out, text + copied, length - copied);
    free(segment.characters);
    free(segment.sorted);
    return good && !out->failed ? STATUS_OK : error_set_memory(error);
}
