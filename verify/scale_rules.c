#include "verify/scale_rules.h"

#include <float.h>
#include <math.h>

#include "common/formats.h"

static double nearest_magnitude(double x) {
    double best = 0;
    for (unsigned code = 1; code < 8; code++) {
        double magnitude = (double)e2m1_decode((uint8_t)code);
        if (fabs(x - magnitude) < fabs(x - best))
            best = magnitude;
    }
    return best;
}

double scale_error(const float values[RULE_BLOCK], int exponent, const double *weights) {
    double sum = 0;
    for (int i = 0; i < RULE_BLOCK; i++) {
        double magnitude = fabs((double)values[i]);
        double error = ldexp(nearest_magnitude(ldexp(magnitude, -exponent)), exponent) - magnitude;
        sum += error * error * (weights ? weights[i] : 1);
    }
    return sum;
}

int amax_exponent(float amax) {
    if (amax == 0)
        return EXPONENT_LEAST;
    int exponent;
    float fraction = frexpf(amax, &exponent); /* amax = fraction * 2^exponent, fraction in [.5, 1) */
    exponent -= fraction >= 0.875f ? 2 : 3;   /* rounded up to a power of two from 1.75 on; then two below */
    return exponent < EXPONENT_LEAST ? EXPONENT_LEAST : exponent;
}

/* floor(log2(x)), exact. */
static int log2_floor(double x) {
    int exponent;
    frexp(x, &exponent);
    return exponent - 1;
}

static double original_error(const float values[RULE_BLOCK], int exponent, const double *weights) {
    double error = scale_error(values, exponent, weights);
    return error > (double)FLT_MAX ? HUGE_VAL : error; /* float32 sums are infinite there */
}

/* The original's repair: an exponent that cuts off the largest value by more than half is raised. */
static int repaired(int exponent, double largest) {
    if (!(ldexp(largest, -exponent) > 6))
        return exponent;
    int safe = (int)ceil(log2(fmax(largest, 1e-12) / 6));
    return exponent < safe - 1 ? safe : exponent;
}

static int clamped(int exponent) { return exponent < EXPONENT_LEAST ? EXPONENT_LEAST : exponent; }

static bool anchor_accepts(const float values[RULE_BLOCK], const double *weights, int anchor, double largest,
                           int exponent) {
    double errors[3], least = HUGE_VAL;
    for (int i = 0; i < 3; i++) {
        errors[i] = original_error(values, anchor - 1 + i, weights);
        least = fmin(least, errors[i]);
    }
    if (isinf(least))
        return clamped(repaired(anchor - 1, largest)) == exponent;
    for (int i = 0; i < 3; i++)
        if (errors[i] <= least * (1 + 1e-6) && clamped(repaired(anchor - 1 + i, largest)) == exponent)
            return true;
    return false;
}

bool qstream_accepts(const float values[RULE_BLOCK], const double *weights, int exponent, bool *near_zero) {
    double largest = 0, second = 0; /* the two largest magnitudes: positions 31 and 30 of 0..31 */
    for (int i = 0; i < RULE_BLOCK; i++) {
        double magnitude = fabs((double)values[i]);
        if (magnitude > largest) {
            second = largest;
            largest = magnitude;
        } else if (magnitude > second) {
            second = magnitude;
        }
    }
    const double position = 0.995 * (RULE_BLOCK - 1), slack = 4e-7, zero_below = 1e-6;
    double percentile = second + (position - (RULE_BLOCK - 2)) * (largest - second);
    double low = percentile * (1 - slack), high = percentile * (1 + slack);
    *near_zero = low < zero_below;
    if (high < zero_below)
        return exponent == -24; /* zeros, under the first of three equal candidates, floor(log2(1e-6 / 6)) - 1 */
    int anchor = log2_floor(low / 6), other = log2_floor(high / 6);
    return (*near_zero && exponent == -24) || anchor_accepts(values, weights, anchor, largest, exponent) ||
           (other != anchor && anchor_accepts(values, weights, other, largest, exponent));
}
