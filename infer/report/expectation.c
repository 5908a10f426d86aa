#include "infer/report/expectation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- words ---- */

static const char *const compute_names[] = {[COMPUTE_AUTO] = "auto", [COMPUTE_BF16] = "bf16", [COMPUTE_F32] = "f32"};
static const char *const kv_cache_names[] = {
    [KV_CACHE_AUTO] = "auto", [KV_CACHE_BF16] = "bf16", [KV_CACHE_FP8] = "fp8"};

const char *compute_name(enum compute compute) { return compute_names[compute]; }

const char *kv_cache_name(enum kv_cache kv_cache) { return kv_cache_names[kv_cache]; }

const char *activations_name(bool activations_float) { return activations_float ? "float" : "as-served"; }

bool compute_parse(const char *word, enum compute *compute) {
    for (*compute = COMPUTE_AUTO; *compute <= COMPUTE_F32; ++*compute)
        if (strcmp(word, compute_names[*compute]) == 0)
            return true;
    return false;
}

bool kv_cache_parse(const char *word, enum kv_cache *kv_cache) {
    for (*kv_cache = KV_CACHE_AUTO; *kv_cache <= KV_CACHE_FP8; ++*kv_cache)
        if (strcmp(word, kv_cache_names[*kv_cache]) == 0)
            return true;
    return false;
}

bool text_join_parse(const char *word, enum text_join *join) {
    *join = strcmp(word, "hf") == 0 ? TEXT_JOIN_HF : TEXT_JOIN_RAW;
    return strcmp(word, text_join_name(*join)) == 0;
}

bool activations_parse(const char *word, bool *activations_float) {
    *activations_float = strcmp(word, "float") == 0;
    return strcmp(word, activations_name(*activations_float)) == 0;
}

const char *rope_frequencies_name(bool rope_bf16) { return rope_bf16 ? "bf16" : "f32"; }

bool rope_frequencies_parse(const char *word, bool *rope_bf16) {
    *rope_bf16 = strcmp(word, "bf16") == 0;
    return strcmp(word, rope_frequencies_name(*rope_bf16)) == 0;
}

const char *figure_status_name(enum figure_status status) {
    static const char *const names[] = {
        [FIGURE_GIVEN] = "given", [FIGURE_REPRODUCED] = "reproduced", [FIGURE_PUBLISHED_ONLY] = "published-only"};
    return names[status];
}

bool tolerance_parse(const char *text, struct tolerance *tolerance) {
    const size_t digits = strspn(text, "0123456789.eE+-"); /* no spaces, hexadecimal or words */
    char *end;
    if (digits == 0)
        return false;
    tolerance->amount = strtod(text, &end);
    tolerance->relative = *end == '%';
    if (tolerance->relative)
        tolerance->amount /= 100;
    return end == text + digits && end[tolerance->relative] == '\0' && tolerance->amount >= 0 &&
           isfinite(tolerance->amount);
}

/* ---- settling ---- */

static const char *number_text(uint32_t number, char out[16]) {
    snprintf(out, 16, "%u", number);
    return out;
}

/* What the file settles and the command line says, too, has to be the same. */
static enum status contradictions_find(const struct expectation *expectation, const struct ppl_settings *said,
                                       struct error *error) {
    const struct ppl_settings *file = &expectation->settings;
    const struct ppl_variants *a = &file->variants, *b = &said->variants;
    char window[16], stride[16], windows[16];
    const struct {
        bool both, same;
        const char *option, *value;
    } rows[] = {
        {file->has_window && said->has_window, file->protocol.window == said->protocol.window, "--window",
         number_text(file->protocol.window, window)},
        {file->has_stride && said->has_stride, file->protocol.stride == said->protocol.stride, "--stride",
         number_text(file->protocol.stride, stride)},
        {file->has_windows && said->has_windows, file->protocol.windows == said->protocol.windows, "--windows",
         file->protocol.windows ? number_text(file->protocol.windows, windows) : "all"},
        {file->has_compute && said->has_compute, file->compute == said->compute, "--compute",
         compute_name(file->compute)},
        {file->has_bos && said->has_bos, a->bos == b->bos, "measuring without", "--bos"},
        {file->has_text_join && said->has_text_join, a->text_join == b->text_join, "--text-join",
         text_join_name(a->text_join)},
        {file->has_kv_cache && said->has_kv_cache, a->kv_cache == b->kv_cache, "--kv-cache",
         kv_cache_name(a->kv_cache)},
        {file->has_activations && said->has_activations, a->activations_float == b->activations_float, "--activations",
         activations_name(a->activations_float)},
        {file->has_fused_scales && said->has_fused_scales, a->fused_scales == b->fused_scales, "measuring without",
         "--fused-scales"},
        {file->has_rope && said->has_rope, a->rope_bf16 == b->rope_bf16, "--rope-frequencies",
         rope_frequencies_name(a->rope_bf16)},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].both && !rows[i].same)
            return error_set(error, STATUS_USAGE,
                             "the figures in '%s' are for %s %s, the command line says something else",
                             expectation->file, rows[i].option, rows[i].value);
    return STATUS_OK;
}

enum status expectation_settle(const struct expectation *expectation, struct ppl_settings *settings,
                               struct error *error) {
    const struct ppl_settings *file = &expectation->settings;
    enum status status = contradictions_find(expectation, settings, error);
    if (status != STATUS_OK)
        return status;
    if (file->has_window)
        settings->protocol.window = file->protocol.window;
    if (file->has_stride)
        settings->protocol.stride = file->protocol.stride;
    if (file->has_windows)
        settings->protocol.windows = file->protocol.windows;
    settings->has_stride = settings->has_stride || file->has_stride;
    if (file->has_compute)
        settings->compute = file->compute;
    if (file->has_bos)
        settings->variants.bos = file->variants.bos;
    if (file->has_text_join)
        settings->variants.text_join = file->variants.text_join;
    if (file->has_kv_cache)
        settings->variants.kv_cache = file->variants.kv_cache;
    if (file->has_activations)
        settings->variants.activations_float = file->variants.activations_float;
    if (file->has_fused_scales)
        settings->variants.fused_scales = file->variants.fused_scales;
    if (file->has_rope)
        settings->variants.rope_bf16 = file->variants.rope_bf16;
    return STATUS_OK;
}

enum status expectation_check_tokens(const struct expectation *expectation, const char *hash, struct error *error) {
    if (!expectation->tokens_hash[0] || strcmp(expectation->tokens_hash, hash) == 0)
        return STATUS_OK;
    return error_set(
        error, STATUS_BAD_INPUT,
        "these are not the tokens that '%s' has figures for: their SHA-256 is %s, there it is %s; give the "
        "same text and tokenizer, or write new figures with --update",
        expectation->file, hash, expectation->tokens_hash);
}

/* ---- judging ---- */

static void measure(struct ppl_check *check, const struct ppl_result *result) {
    const char *name = check->name;
    check->measured = true;
    if (strcmp(name, "ppl") == 0) {
        check->value = result->ppl;
    } else if (strcmp(name, "nll") == 0) {
        check->value = result->nll;
    } else if (strcmp(name, "tokens_scored") == 0) {
        check->value = (double)result->tokens_scored;
    } else if (strcmp(name, "kl_mean") == 0) {
        check->measured = result->has_baseline;
        check->value = result->kl_mean;
    } else if (strcmp(name, "top1_agreement") == 0) {
        check->measured = result->has_baseline;
        check->value = result->top1_agreement;
    } else { /* window_nll[N]; one that there is not fails */
        size_t number = strtoul(strchr(name, '[') + 1, NULL, 10);
        check->value = number < result->window_count ? result->windows[number].nll : (double)NAN;
    }
}

void expectation_judge(struct expectation *expectation, const struct ppl_result *result) {
    for (size_t i = 0; i < expectation->count; i++)
        measure(&expectation->checks[i], result);
}

double check_allowed(const struct ppl_check *check) {
    return check->tolerance.relative ? check->tolerance.amount * fabs(check->expected) : check->tolerance.amount;
}

/* Values in files are rounded to the digits that they have: a difference is not held against the last bits of its own. */
static const double rounding = 1e-12;

bool check_passed(const struct ppl_check *check) {
    return !check->measured ||
           fabs(check->value - check->expected) <= check_allowed(check) + rounding * fabs(check->expected);
}

bool expectation_passed(const struct expectation *expectation) {
    for (size_t i = 0; i < expectation->count; i++)
        if (!check_passed(&expectation->checks[i]))
            return false;
    return true;
}

static void tolerance_put(const struct tolerance *tolerance, struct text *out) {
    if (tolerance->relative)
        text_printf(out, "%.6g %%", 100 * tolerance->amount);
    else
        text_printf(out, "%.6g", tolerance->amount);
}

void check_describe(const struct ppl_check *check, struct text *out) {
    if (!check->measured) {
        text_printf(out, "%s was not measured: it needs --baseline; expected is %.7g", check->name, check->expected);
        return;
    }
    const double moved = check->value - check->expected;
    text_printf(out, "%s %.7g is ", check->name, check->value);
    if (!isfinite(check->value)) {
        text_printf(out, "not the expected %.7g", check->expected);
    } else if (moved == 0) {
        text_printf(out, "the expected one");
    } else {
        text_printf(out, "%.3g ", fabs(moved));
        if (check->expected > 0)
            text_printf(out, "(%.3g %%) ", 100 * fabs(moved) / check->expected);
        text_printf(out, "%s the expected %.7g", moved > 0 ? "above" : "below", check->expected);
    }
    text_append_string(out, "; ");
    tolerance_put(&check->tolerance, out);
    text_append_string(out, check->tolerance.amount > 0 ? " is allowed" : " difference is allowed");
}
