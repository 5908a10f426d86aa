#include "infer/perplexity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "infer/ppl_pass.h"
#include "infer/ppl_setup.h"

enum status ppl_windows(const struct ppl_protocol *protocol, size_t count, struct ppl_window **windows,
                        size_t *window_count, struct error *error) {
    const uint32_t window = protocol->window, stride = protocol->stride;
    *windows = NULL;
    *window_count = 0;
    if (window < 2 || stride < 1 || stride > window)
        return error_set(error, STATUS_USAGE,
                         "a window has at least 2 tokens and a stride from 1 to the window's; not window %u, stride %u",
                         window, stride);
    if (count < 2)
        return error_set(error, STATUS_BAD_INPUT, "the text has %zu tokens; it takes 2 to score one", count);
    size_t possible = count <= window ? 1 : 1 + (count - window + stride - 1) / stride;
    if (count - (possible - 1) * stride < 2) /* a last token alone has nothing before it */
        possible--;
    size_t wanted = protocol->windows ? protocol->windows : possible;
    if (wanted > possible)
        return error_set(error, STATUS_BAD_INPUT,
                         "the text has %zu tokens, enough for %zu windows of %u tokens each %u; %zu were asked for",
                         count, possible, window, stride, wanted);
    struct ppl_window *list = calloc(wanted, sizeof *list);
    if (!list)
        return error_set_memory(error);
    size_t scored_to = 0;
    for (size_t i = 0; i < wanted; i++) {
        size_t first = i * (size_t)stride, end = count - first < window ? count : first + window;
        if (scored_to == first) /* where the stride is the window */
            scored_to++;
        list[i] = (struct ppl_window){
            .first = first, .tokens = (uint32_t)(end - first), .scored = (uint32_t)(end - scored_to)};
        scored_to = end;
    }
    *windows = list;
    *window_count = wanted;
    return STATUS_OK;
}

static int compare_floats(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Of sorted values, between neighbours linearly, as numpy.quantile. */
static double quantile(const float *sorted, size_t count, double q) {
    double place = q * (double)(count - 1);
    size_t below = (size_t)place;
    double rest = place - (double)below;
    return below + 1 < count ? (double)sorted[below] + rest * ((double)sorted[below + 1] - (double)sorted[below])
                             : (double)sorted[below];
}

enum status ppl_summarize(struct ppl_result *result, struct error *error) {
    const struct ppl_token *token = result->tokens;
    double nll = 0, baseline = 0, kl = 0, agree = 0;
    size_t count = 0;
    for (size_t i = 0; i < result->window_count; i++) {
        struct ppl_window *window = &result->windows[i];
        double window_nll = 0, window_baseline = 0, window_kl = 0;
        for (uint32_t j = 0; j < window->scored; j++, token++) {
            window_nll += (double)token->nll;
            window_baseline += (double)token->baseline_nll;
            window_kl += (double)token->kl;
            agree += token->agrees ? 1 : 0;
        }
        const double scored = window->scored;
        window->nll = window_nll / scored;
        window->baseline_nll = window_baseline / scored;
        window->kl = window_kl / scored;
        nll += window_nll;
        baseline += window_baseline;
        kl += window_kl;
        count += window->scored;
    }
    const double scored = (double)count;
    result->tokens_scored = count;
    result->nll = nll / scored;
    result->ppl = exp(result->nll);
    double squares = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = (double)result->tokens[i].nll - result->nll;
        squares += difference * difference;
    }
    result->standard_error = count > 1 ? sqrt(squares / (scored - 1) / scored) : 0;
    if (!result->has_baseline || count == 0)
        return STATUS_OK;
    result->baseline_nll = baseline / scored;
    result->baseline_ppl = exp(result->baseline_nll);
    result->kl_mean = kl / scored;
    result->top1_agreement = agree / scored;
    float *sorted = malloc(count * sizeof *sorted);
    if (!sorted)
        return error_set_memory(error);
    for (size_t i = 0; i < count; i++)
        sorted[i] = result->tokens[i].kl;
    qsort(sorted, count, sizeof *sorted, compare_floats);
    result->kl_median = quantile(sorted, count, 0.5);
    result->kl_p99 = quantile(sorted, count, 0.99);
    result->kl_max = (double)sorted[count - 1];
    free(sorted);
    return STATUS_OK;
}

void ppl_result_free(struct ppl_result *result) {
    free(result->windows);
    free(result->tokens);
    free(result->layers);
    *result = (struct ppl_result){0};
}

/* ---- the engine ---- */

enum status ppl_plan(const struct ppl_options *options, const int32_t *ids, size_t count, struct ppl_result *result,
                     struct error *error) {
    struct ppl_setup setup;
    *result = (struct ppl_result){0};
    const enum status status = ppl_setup_open(options, true, ids, count, &setup, error);
    if (status == STATUS_OK)
        ppl_setup_result(&setup, result);
    ppl_setup_close(&setup);
    return status;
}

enum status ppl_run(const struct ppl_options *options, const int32_t *ids, size_t count, struct ppl_result *result,
                    struct error *error) {
    struct ppl_setup setup;
    *result = (struct ppl_result){0};
    enum status status = ppl_setup_open(options, false, ids, count, &setup, error);
    if (status == STATUS_OK)
        status = ppl_pass_run(&setup, ids, result, error);
    if (status == STATUS_OK) {
        ppl_setup_result(&setup, result);
        status = ppl_summarize(result, error);
    }
    ppl_setup_close(&setup);
    return status;
}
