#include "common/utf8.h"

#include <string.h>

#include "common/text.h"

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
    return fine ? point : (uint32_t)UTF8_REPLACEMENT;
}

size_t utf8_encode(uint32_t point, char out[UTF8_LENGTH_MAX]) {
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

bool utf8_is_valid(const char *bytes, size_t length) {
    return utf8_valid_length(bytes, length) == length && !memchr(bytes, '\0', length);
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
