#include "infer/tokenizer/unicode.h"

#include <string.h>

struct stand_in {
    uint32_t first, last, replacement;
};
#include "infer/tokenizer/stand_ins.inc"

uint32_t utf8_decode(const char *bytes, size_t length, size_t *step, bool *good) {
    const unsigned char *c = (const unsigned char *)bytes;
    bool fine = true;
    uint32_t point = c[0];
    *step = 1;
    if (c[0] >= 0x80) {
        /* The range of the second byte excludes overlong forms, surrogates and what lies above U+10FFFF. */
        size_t whole = c[0] < 0xe0 ? 2 : c[0] < 0xf0 ? 3 : 4;
        unsigned least = c[0] == 0xe0 ? 0xa0 : c[0] == 0xf0 ? 0x90 : 0x80;
        unsigned most = c[0] == 0xed ? 0x9f : c[0] == 0xf4 ? 0x8f : 0xbf;
        fine = c[0] >= 0xc2 && c[0] <= 0xf4;
        point = c[0] & (0x7fu >> whole);
        while (fine && *step < whole) {
            fine = *step < length && c[*step] >= least && c[*step] <= most;
            if (fine)
                point = point << 6 | (c[(*step)++] & 0x3fu);
            least = 0x80;
            most = 0xbf;
        }
    }
    if (good)
        *good = fine;
    return fine ? point : (uint32_t)UNICODE_REPLACEMENT;
}

size_t utf8_encode(uint32_t point, char out[4]) {
    static const uint32_t leads[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    out[0] = (char)(leads[length] | point);
    return length;
}

size_t ascii_length(const char *bytes, size_t length) {
    static const uint64_t high_bits = 0x8080808080808080u;
    size_t at = 0;
    for (uint64_t word; length - at >= sizeof word; at += sizeof word) {
        memcpy(&word, bytes + at, sizeof word);
        if (word & high_bits)
            break;
    }
    while (at < length && (unsigned char)bytes[at] < 0x80)
        at++;
    return at;
}

size_t utf8_valid_length(const char *bytes, size_t length) {
    for (size_t at = 0;;) {
        at += ascii_length(bytes + at, length - at);
        if (at == length)
            return at;
        size_t step;
        bool good;
        utf8_decode(bytes + at, length - at, &step, &good);
        if (!good)
            return at;
        at += step;
    }
}

void utf8_repair(const char *bytes, size_t length, struct text *out) {
    for (size_t at = 0; at < length;) {
        size_t good = utf8_valid_length(bytes + at, length - at), step;
        text_append(out, bytes + at, good);
        at += good;
        if (at == length)
            return;
        utf8_decode(bytes + at, length - at, &step, NULL);
        text_append(out, "\xef\xbf\xbd", 3);
        at += step;
    }
}

bool unicode_is_space(uint32_t point) {
    return (point >= 0x9 && point <= 0xd) || point == 0x20 || point == 0x85 || point == 0xa0 || point == 0x1680 ||
           (point >= 0x2000 && point <= 0x200a) || point == 0x2028 || point == 0x2029 || point == 0x202f ||
           point == 0x205f || point == 0x3000;
}

/* The character that stands in for a new one; 0 when it is none. */
static uint32_t stand_in_find(uint32_t point) {
    size_t low = 0, high = sizeof stand_ins / sizeof *stand_ins;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (stand_ins[middle].last < point)
            low = middle + 1;
        else
            high = middle;
    }
    bool found = low < sizeof stand_ins / sizeof *stand_ins && stand_ins[low].first <= point;
    return found ? stand_ins[low].replacement : 0;
}

bool unicode_stand_in(const char *bytes, size_t length, struct text *out) {
    size_t copied = 0;
    bool any = false;
    for (size_t at = 0;;) {
        at += ascii_length(bytes + at, length - at);
        if (at >= length)
            break;
        size_t step;
        uint32_t point = utf8_decode(bytes + at, length - at, &step, NULL);
        uint32_t other = point < stand_ins[0].first ? 0 : stand_in_find(point);
        if (other) {
            char character[4];
            text_append(out, bytes + copied, at - copied);
            text_append(out, character, utf8_encode(other, character));
            copied = at + step;
            any = true;
        }
        at += step;
    }
    if (any)
        text_append(out, bytes + copied, length - copied);
    return any;
}

bool unicode_range_is_whole(uint32_t first, uint32_t last) {
    for (size_t i = 0; i < sizeof stand_ins / sizeof *stand_ins; i++) {
        const struct stand_in *newer = &stand_ins[i];
        bool seen = newer->replacement >= first && newer->replacement <= last;
        bool all = newer->first >= first && newer->last <= last;
        bool none = newer->last < first || newer->first > last;
        if (seen ? !all : !none)
            return false;
    }
    return true;
}
