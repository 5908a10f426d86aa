#include "common/parquet_encoding.h"

const char *parquet_encoding_name(int32_t encoding) {
    static const char *const names[] = {
        [0] = "PLAIN",
        [2] = "PLAIN_DICTIONARY",
        [3] = "RLE",
        [4] = "BIT_PACKED",
        [5] = "DELTA_BINARY_PACKED",
        [6] = "DELTA_LENGTH_BYTE_ARRAY",
        [7] = "DELTA_BYTE_ARRAY",
        [8] = "RLE_DICTIONARY",
        [9] = "BYTE_STREAM_SPLIT",
    };
    const bool known = encoding >= 0 && (size_t)encoding < sizeof names / sizeof *names && names[encoding];
    return known ? names[encoding] : "one that is not known";
}

bool parquet_strings_next(struct parquet_strings *strings, const char **bytes, size_t *length) {
    enum { LENGTH = 4 };
    const size_t left = (size_t)(strings->end - strings->at);
    if (left < LENGTH || parquet_u32(strings->at) > left - LENGTH)
        return false;
    *length = parquet_u32(strings->at);
    *bytes = (const char *)strings->at + LENGTH;
    strings->at += LENGTH + *length;
    return true;
}

/* A run's header: how many, and in its lowest bit of which kind. In groups of seven bits, the lowest first. */
static bool read_header(struct parquet_runs *runs, uint32_t *header) {
    *header = 0;
    for (unsigned shift = 0;; shift += 7) {
        if (runs->at == runs->end)
            return false;
        const uint8_t group = *runs->at++;
        if (shift == 28 && group > 0x0f) /* beyond 32 bits */
            return false;
        *header |= (uint32_t)(group & 0x7f) << shift;
        if (!(group & 0x80))
            return true;
    }
}

static bool begin_run(struct parquet_runs *runs) {
    uint32_t header;
    if (!read_header(runs, &header) || header >> 1 == 0)
        return false;
    const uint64_t count = header >> 1;
    const bool packed = header & 1;
    const uint64_t size = packed ? count * runs->width : (runs->width + 7) / 8;
    if (size > (uint64_t)(runs->end - runs->at))
        return false;
    runs->packed = packed ? runs->at : NULL;
    runs->bit = 0;
    runs->left = packed ? count * 8 : count;
    runs->number = 0;
    if (!packed)
        for (unsigned i = 0; i < size; i++)
            runs->number |= (uint32_t)runs->at[i] << 8 * i;
    runs->at += size;
    return true;
}

bool parquet_runs_next(struct parquet_runs *runs, uint32_t *number) {
    if (runs->left == 0 && !begin_run(runs))
        return false;
    runs->left--;
    *number = runs->number;
    if (runs->packed) {
        const uint8_t *first = runs->packed + runs->bit / 8;
        const unsigned shift = runs->bit % 8;
        uint64_t bits = 0;
        for (unsigned i = 0; i * 8 < shift + runs->width; i++)
            bits |= (uint64_t)first[i] << 8 * i;
        *number = (uint32_t)(bits >> shift & ((UINT64_C(1) << runs->width) - 1));
        runs->bit += runs->width;
    }
    return true;
}
