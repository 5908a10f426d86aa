#include "infer/report/ppl_curves.h"

#include <math.h>
#include <string.h>

size_t ppl_positions(const struct ppl_result *result, struct position_bin bins[POSITION_BINS]) {
    uint32_t longest = 0;
    for (size_t i = 0; i < result->window_count; i++)
        longest = result->windows[i].tokens > longest ? result->windows[i].tokens : longest;
    if (longest == 0 || !result->tokens)
        return 0;
    const uint32_t width = (longest + POSITION_BINS - 1) / POSITION_BINS;
    const size_t count = (longest + width - 1) / width;
    for (size_t i = 0; i < count; i++) {
        const uint32_t first = (uint32_t)i * width;
        bins[i] = (struct position_bin){.first = first, .end = first + width < longest ? first + width : longest};
    }
    const struct ppl_token *token = result->tokens;
    for (size_t i = 0; i < result->window_count; i++) {
        const struct ppl_window *window = &result->windows[i];
        for (uint32_t j = 0; j < window->scored; j++, token++) {
            struct position_bin *bin = &bins[(window->tokens - window->scored + j) / width];
            bin->tokens++;
            bin->nll += (double)token->nll;
            bin->baseline_nll += (double)token->baseline_nll;
            bin->kl += (double)token->kl;
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (bins[i].tokens == 0)
            continue;
        bins[i].nll /= (double)bins[i].tokens;
        bins[i].baseline_nll /= (double)bins[i].tokens;
        bins[i].kl /= (double)bins[i].tokens;
    }
    return count;
}

void ppl_kl_histogram(const struct ppl_result *result, size_t counts[KL_BINS]) {
    memset(counts, 0, KL_BINS * sizeof *counts);
    for (size_t i = 0; result->tokens && i < result->tokens_scored; i++) {
        const double kl = (double)result->tokens[i].kl;
        double bin = kl > 0 ? ceil((log10(kl) - KL_FIRST_POWER) * KL_BINS_PER_POWER) : 0; /* rounding: may be below 0 */
        if (isnan(kl))
            continue;
        bin = fmin(fmax(bin, 0), KL_BINS - 1);
        counts[(size_t)bin]++;
    }
}
