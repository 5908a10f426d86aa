#include "verify/value_measure.h"

#include <math.h>

#include "common/formats.h"

enum { BLOCK = 32 };

static float fp8_decode(enum dtype dtype, uint8_t code) {
    return dtype == DTYPE_F8_E5M2 ? fp8_e5m2_decode(code) : fp8_e4m3_decode(code);
}

/* The largest finite magnitude's code. */
static uint8_t fp8_largest(enum dtype dtype) { return dtype == DTYPE_F8_E5M2 ? 0x7b : 0x7e; }

/* Whether no neighbour of `code` is nearer to x, both in units of the scale; signs are those of the code. */
static bool is_nearest(enum dtype dtype, double x, uint8_t code) {
    x = fmin(fmax(x, -0x1p20), 0x1p20); /* far beyond all codes, where float64 still tells them apart */
    uint8_t size = code & 0x7f;
    double sign = code & 0x80 ? -1 : 1, error = fabs(x - (double)fp8_decode(dtype, code));
    if (size < fp8_largest(dtype) && fabs(x - sign * (double)fp8_decode(dtype, (uint8_t)(size + 1))) < error)
        return false;
    /* below zero lies the smallest code of the other sign */
    double below =
        size > 0 ? sign * (double)fp8_decode(dtype, (uint8_t)(size - 1)) : -sign * (double)fp8_decode(dtype, 1);
    return fabs(x - below) >= error;
}

/*
 * The quotients that a code is nearest to: the exact one, that in float32, and that in the weight's BF16, in which
 * compressed-tensors divides. Bits 1 << enum quotient.
 */
static unsigned nearest_to(enum dtype dtype, double s, float scale, uint8_t code) {
    float divided = (float)s / scale, rounded = bf16_decode(bf16_encode(divided));
    unsigned bits = (unsigned)is_nearest(dtype, s / (double)scale, code) << QUOTIENT_EXACT;
    if (isfinite(divided))
        bits |= (unsigned)is_nearest(dtype, (double)divided, code) << QUOTIENT_FLOAT32;
    if (isfinite(rounded))
        bits |= (unsigned)is_nearest(dtype, (double)rounded, code) << QUOTIENT_BF16;
    return bits;
}

/* The least error of any code. */
static double least_error(enum dtype dtype, double s, double scale) {
    double x = fabs(s), least = x;
    uint8_t low = 0, high = fp8_largest(dtype);
    while (low < high) { /* the largest code not above x */
        uint8_t middle = (uint8_t)((low + high + 1) / 2);
        if ((double)fp8_decode(dtype, middle) * scale <= x)
            low = middle;
        else
            high = (uint8_t)(middle - 1);
    }
    for (unsigned code = low; code <= low + 1u && code <= fp8_largest(dtype); code++)
        least = fmin(least, fabs(x - (double)fp8_decode(dtype, (uint8_t)code) * scale));
    return least;
}

/* Looks at a code; returns the squared error that the nearest one has. */
static double code_look(const struct value_row *row, size_t i, double s, double error, float scale,
                        struct figures *figures) {
    uint8_t code = row->codes[i];
    bool zero = (code & 0x7f) == 0, differs = (code >> 7 != 0) != (signbit(s) != 0);
    uint64_t column = row->column + i;
    if (scale <= 0) { /* nothing can be said of codes under such a scale */
        if (error > 0)
            tally_add(&figures->not_nearest, 1, row->row, column);
        return error * error;
    }
    figures->saturated += fabs(s) > (double)fp8_decode(row->dtype, fp8_largest(row->dtype)) * (double)scale;
    figures->flushed += s != 0 && zero;
    if (s == 0 && signbit(s) && zero) {
        tally_add(differs ? &figures->negative_zero_dropped : &figures->negative_zero_kept, 1, row->row, column);
        return 0;
    }
    unsigned nearest = zero && differs ? 0 : nearest_to(row->dtype, s, scale, code);
    for (enum quotient q = 0; q < QUOTIENTS && nearest; q++)
        if (!(nearest >> q & 1))
            tally_add(&figures->quotient_off[q], 1, row->row, column);
    if (nearest)
        return error * error;
    tally_add(&figures->not_nearest, 1, row->row, column);
    double least = fmin(error, least_error(row->dtype, s, (double)scale));
    return least * least;
}

/* A plain number made from FP8 is that number in its own format. */
static void number_look(const struct value_row *row, size_t i, double s, double d, struct figures *figures) {
    figures->flushed += s != 0 && d == 0;
    if (row->dtype == DTYPE_BF16 ? s != d : fabs(s - d) > 0x1p-8 * fabs(s))
        tally_add(&figures->not_nearest, 1, row->row, row->column + i);
}

void value_measure(const struct value_row *row, value_scale_fn *scale, const void *context, struct sums *sums,
                   struct figures *figures, struct histogram *histogram) {
    for (size_t first = 0; first < row->columns; first += BLOCK) {
        size_t end = row->columns - first < BLOCK ? row->columns : first + BLOCK;
        struct sums block = {0};
        for (size_t i = first; i < end; i++) {
            double s = (double)bf16_decode(row->source[i]), d = (double)row->output[i];
            if (!isfinite(s) || !isfinite(d)) {
                tally_add(isfinite(s) ? &figures->output_not_finite : &figures->source_not_finite, 1, row->row,
                          row->column + i);
                continue;
            }
            double error = fabs(s - d);
            block.source_square += s * s;
            block.output_square += d * d;
            block.product += s * d;
            block.error_square += error * error;
            block.error_absolute += error;
            figures->max_absolute = fmax(figures->max_absolute, error);
            figures->largest_source = fmax(figures->largest_source, fabs(s));
            if (row->codes)
                block.best_square += code_look(row, i, s, error, scale(context, i), figures);
            else
                number_look(row, i, s, d, figures);
        }
        sums_add(sums, &block);
        figures_block(figures, row->row, row->column + first, block.error_square);
        histogram_block(histogram, block.source_square, block.error_square);
    }
}

bool fp8_scale_compare(float scale, double amax, uint64_t row, struct figures *figures) {
    if (!(amax > 0))
        return true;
    float wanted = (float)(amax / 448), rounded = bf16_decode(bf16_encode((float)amax / 448));
    const struct place place = {row, 0};
    if (rounded == 0)
        rounded = 0x1p-7f; /* compressed-tensors has BF16's epsilon in place of a scale that is zero */
    figures->fp8_scales++;
    figures->fp8_scales_bf16 += scale == rounded;
    figures->fp8_scales_f32 += scale == wanted || scale == (float)amax / 448;
    if (scale != rounded && place_before(&place, &figures->off_bf16))
        figures->off_bf16 = place;
    if (scale != wanted && scale != (float)amax / 448 && place_before(&place, &figures->off_f32))
        figures->off_f32 = place;
    return scale == rounded || scale == wanted || scale == (float)amax / 448;
}
