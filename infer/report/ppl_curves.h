/*
 * Scored tokens gathered for a curve: by their place in the window, and by their divergence from the baseline.
 */
#ifndef QSTREAM_INFER_REPORT_PPL_CURVES_H
#define QSTREAM_INFER_REPORT_PPL_CURVES_H

#include "infer/perplexity.h"

/* Tokens at places [first, end) of their windows, which is how many tokens they had before them. */
struct position_bin {
    uint32_t first, end;
    size_t tokens;
    double nll, baseline_nll, kl; /* means */
};

enum {
    POSITION_BINS = 32,
    KL_BINS = 24,        /* four for each power of ten; the first and the last are open */
    KL_FIRST_POWER = -5, /* the first one ends here */
    KL_BINS_PER_POWER = 4
};

/* At most POSITION_BINS bins of equal width that cover the longest window; the count of bins. Empty ones have 0 tokens. */
size_t ppl_positions(const struct ppl_result *result, struct position_bin bins[POSITION_BINS]);

/* How many tokens have a divergence in each bin; bin i ends at 10^(KL_FIRST_POWER + i / KL_BINS_PER_POWER). */
void ppl_kl_histogram(const struct ppl_result *result, size_t counts[KL_BINS]);

#endif
