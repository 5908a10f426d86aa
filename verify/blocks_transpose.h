/*
 * Eight blocks, one behind the other, to element after element: the order that the measuring kernels read. For x86-64,
 * whose every processor has SSE2.
 */
#ifndef QSTREAM_VERIFY_BLOCKS_TRANSPOSE_H
#define QSTREAM_VERIFY_BLOCKS_TRANSPOSE_H

#include <emmintrin.h>
#include <stddef.h>
#include <stdint.h>

static inline __m128i bytes_load(const void *from) { return _mm_loadu_si128((const __m128i *)from); }

/* out[i * stride + b] = in[b * 32 + i]: 8 blocks of 32 numbers of 16 bits. */
static inline void blocks_transpose_16(const uint16_t *in, uint16_t *out, size_t stride) {
    for (size_t i = 0; i < 32; i += 8) {
        __m128i row[8], pair[8], quad[8];
        for (size_t b = 0; b < 8; b++)
            row[b] = bytes_load(in + b * 32 + i);
        for (size_t b = 0; b < 8; b += 2) {
            pair[b] = _mm_unpacklo_epi16(row[b], row[b + 1]);
            pair[b + 1] = _mm_unpackhi_epi16(row[b], row[b + 1]);
        }
        for (size_t b = 0; b < 8; b += 4)
            for (size_t half = 0; half < 2; half++) {
                quad[b + 2 * half] = _mm_unpacklo_epi32(pair[b + half], pair[b + 2 + half]);
                quad[b + 2 * half + 1] = _mm_unpackhi_epi32(pair[b + half], pair[b + 2 + half]);
            }
        for (size_t q = 0; q < 4; q++) {
            _mm_storeu_si128((__m128i *)(void *)(out + (i + 2 * q) * stride), _mm_unpacklo_epi64(quad[q], quad[q + 4]));
            _mm_storeu_si128((__m128i *)(void *)(out + (i + 2 * q + 1) * stride),
                             _mm_unpackhi_epi64(quad[q], quad[q + 4]));
        }
    }
}

/* out[i * stride + b] = in[b * 16 + i]: 8 blocks of 16 bytes. */
static inline void blocks_transpose_8(const uint8_t *in, uint8_t *out, size_t stride) {
    __m128i row[8], pair[8], quad[8];
    for (size_t b = 0; b < 8; b++)
        row[b] = bytes_load(in + b * 16);
    for (size_t b = 0; b < 8; b += 2) { /* the first and the last 8 bytes of two blocks */
        pair[b] = _mm_unpacklo_epi8(row[b], row[b + 1]);
        pair[b + 1] = _mm_unpackhi_epi8(row[b], row[b + 1]);
    }
    for (size_t b = 0; b < 8; b += 4)
        for (size_t half = 0; half < 2; half++) { /* four bytes each of four blocks */
            quad[b + 2 * half] = _mm_unpacklo_epi16(pair[b + half], pair[b + 2 + half]);
            quad[b + 2 * half + 1] = _mm_unpackhi_epi16(pair[b + half], pair[b + 2 + half]);
        }
    for (size_t q = 0; q < 4; q++) {
        __m128i low = _mm_unpacklo_epi32(quad[q], quad[q + 4]), high = _mm_unpackhi_epi32(quad[q], quad[q + 4]);
        _mm_storel_epi64((__m128i *)(void *)(out + 4 * q * stride), low);
        _mm_storel_epi64((__m128i *)(void *)(out + (4 * q + 1) * stride), _mm_unpackhi_epi64(low, low));
        _mm_storel_epi64((__m128i *)(void *)(out + (4 * q + 2) * stride), high);
        _mm_storel_epi64((__m128i *)(void *)(out + (4 * q + 3) * stride), _mm_unpackhi_epi64(high, high));
    }
}

#endif
