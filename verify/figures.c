#include "verify/figures.h"

#include <math.h>
#include <string.h>

static const char *const rule_names[KNOWN_RULES] = {"amax", "qstream", "mse"};

const char *known_rule_name(enum known_rule rule) { return rule < KNOWN_RULES ? rule_names[rule] : NULL; }

enum known_rule known_rule_parse(const char *name) {
    enum known_rule rule = 0;
    while (rule < KNOWN_RULES && strcmp(name, rule_names[rule]) != 0)
        rule++;
    return rule;
}

bool place_before(const struct place *a, const struct place *b) {
    return a->row != b->row ? a->row < b->row : a->column < b->column;
}

static const struct place nowhere = {NO_ROW, 0};

void figures_clear(struct figures *figures) {
    *figures = (struct figures){
        .source_not_finite = {0, nowhere},
        .output_not_finite = {0, nowhere},
        .not_nearest = {0, nowhere},
        .negative_zero_kept = {0, nowhere},
        .negative_zero_dropped = {0, nowhere},
        .worst_block = nowhere,
        .worst_row_ratio = -1,
        .worst_row = nowhere,
        .bad_row = nowhere,
        .odd_row = nowhere,
        .scale_least = 256,
        .off_bf16 = nowhere,
        .off_f32 = nowhere,
    };
    for (int i = 0; i < KNOWN_RULES; i++)
        figures->off_rule[i] = nowhere;
    for (int i = 0; i < TIE_RULES; i++)
        figures->tie_off[i].first = nowhere;
    for (int i = 0; i < QUOTIENTS; i++)
        figures->quotient_off[i].first = nowhere;
}

static void place_merge(struct place *into, const struct place *from) {
    if (place_before(from, into))
        *into = *from;
}

static void tally_merge(struct tally *into, const struct tally *from) {
    into->count += from->count;
    place_merge(&into->first, &from->first);
}

void tally_add(struct tally *tally, uint64_t count, uint64_t row, uint64_t column) {
    const struct place place = {row, column};
    tally->count += count;
    place_merge(&tally->first, &place);
}

/* The larger value with its place; of equals the first place. */
static void largest_merge(double *value, struct place *place, double other, const struct place *at) {
    if (other > *value || (other == *value && place_before(at, place))) {
        *value = other;
        *place = *at;
    }
}

void figures_merge(struct figures *into, const struct figures *from) {
    into->elements += from->elements;
    into->saturated += from->saturated;
    into->flushed += from->flushed;
    tally_merge(&into->source_not_finite, &from->source_not_finite);
    tally_merge(&into->output_not_finite, &from->output_not_finite);
    tally_merge(&into->not_nearest, &from->not_nearest);
    into->near_zero += from->near_zero;
    tally_merge(&into->negative_zero_kept, &from->negative_zero_kept);
    tally_merge(&into->negative_zero_dropped, &from->negative_zero_dropped);
    for (int i = 0; i < TIE_RULES; i++)
        tally_merge(&into->tie_off[i], &from->tie_off[i]);
    for (int i = 0; i < QUOTIENTS; i++)
        tally_merge(&into->quotient_off[i], &from->quotient_off[i]);
    into->max_absolute = fmax(into->max_absolute, from->max_absolute);
    into->blocks += from->blocks;
    into->zero_blocks += from->zero_blocks;
    into->at_optimum += from->at_optimum;
    for (int i = 0; i < KNOWN_RULES; i++) {
        into->of_rule[i] += from->of_rule[i];
        into->zero_of_rule[i] += from->zero_of_rule[i];
        place_merge(&into->off_rule[i], &from->off_rule[i]);
    }
    largest_merge(&into->worst_block_error, &into->worst_block, from->worst_block_error, &from->worst_block);
    largest_merge(&into->worst_row_ratio, &into->worst_row, from->worst_row_ratio, &from->worst_row);
    largest_merge(&into->bad_row_ratio, &into->bad_row, from->bad_row_ratio, &from->bad_row);
    largest_merge(&into->odd_row_ratio, &into->odd_row, from->odd_row_ratio, &from->odd_row);
    into->largest_source = fmax(into->largest_source, from->largest_source);
    into->fp8_scales += from->fp8_scales;
    into->fp8_scales_bf16 += from->fp8_scales_bf16;
    into->fp8_scales_f32 += from->fp8_scales_f32;
    place_merge(&into->off_bf16, &from->off_bf16);
    place_merge(&into->off_f32, &from->off_f32);
    if (from->scale_least < into->scale_least)
        into->scale_least = from->scale_least;
    if (from->scale_largest > into->scale_largest)
        into->scale_largest = from->scale_largest;
}

void figures_odd_row(struct figures *figures, uint64_t row, const struct sums *sums) {
    const struct place place = {row, 0};
    if (sums->source_square > 0)
        largest_merge(&figures->odd_row_ratio, &figures->odd_row, sums->error_square / sums->source_square, &place);
}

void figures_row(struct figures *figures, uint64_t row, const struct sums *sums) {
    const struct place place = {row, 0};
    if (sums->source_square > 0)
        largest_merge(&figures->worst_row_ratio, &figures->worst_row, sums->error_square / sums->source_square, &place);
    if (sums->error_square > 0)
        largest_merge(&figures->bad_row_ratio, &figures->bad_row,
                      sums->best_square > 0 ? sums->error_square / sums->best_square : HUGE_VAL, &place);
}

void histogram_merge(struct histogram *into, const struct histogram *from) {
    for (int i = 0; i < SQNR_BINS; i++)
        into->sqnr[i] += from->sqnr[i];
    for (int i = 0; i < 256; i++)
        into->scales[i] += from->scales[i];
}

double sqnr_db(const struct sums *sums) {
    return sums->error_square > 0 && sums->source_square > 0 ? 10 * log10(sums->source_square / sums->error_square)
                                                             : (double)NAN;
}

double rel_error(const struct sums *sums) {
    if (sums->source_square > 0)
        return sqrt(sums->error_square / sums->source_square);
    return sums->error_square > 0 ? (double)NAN : 0;
}

double cosine(const struct sums *sums) {
    double norms = sqrt(sums->source_square) * sqrt(sums->output_square);
    return norms > 0 ? sums->product / norms : (double)NAN;
}
