#include "infer/tokenizer/unicode.h"

#include "common/utf8.h"

struct stand_in {
    uint32_t first, last, replacement;
};
#include "infer/tokenizer/stand_ins.inc"

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
