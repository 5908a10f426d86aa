#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "infer/report/ppl_report.h"

enum {
    WINDOWS_SHOWN = 40, /* with more of them the first and the last ones are shown */
    WINDOWS_AT_END = 10,
    HASH_SHOWN = 12
};

/* "303,415" */
static void count_put(struct text *out, uint64_t number) {
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRIu64, number);
    for (int i = 0; i < length; i++) {
        text_append_string(out, i > 0 && (length - i) % 3 == 0 ? "," : "");
        text_append(out, &digits[i], 1);
    }
}

static void size_put(struct text *out, uint64_t bytes) {
    char size[TEXT_SIZE_MAX];
    text_append_string(out, text_size(bytes, size));
}

/* "1 window", "5 windows" */
static void plural_put(struct text *out, uint64_t number, const char *noun) {
    count_put(out, number);
    text_printf(out, " %s%s", noun, text_plural(number));
}

enum { PPL_TEXT = 32 };

/* "18.009"; of random models also "4.93e+06". Returns `out`. */
static const char *ppl_text(double ppl, int digits, char out[PPL_TEXT]) {
    if (ppl < 1e6)
        snprintf(out, PPL_TEXT, "%.*f", digits, ppl);
    else
        snprintf(out, PPL_TEXT, "%.3g", ppl);
    return out;
}

static double percent_change(double to, double from) { return 100 * (to - from) / from; }

/* ---- windows and layers ---- */

static void window_put(const struct ppl_result *result, size_t number, struct text *out) {
    const struct ppl_window *window = &result->windows[number];
    char ppl[PPL_TEXT];
    text_printf(out, "%-8zu  %10zu  %7u  %7u  %9.5f  %9s", number, window->first, window->tokens, window->scored,
                window->nll, ppl_text(exp(window->nll), 3, ppl));
    if (result->has_baseline)
        text_printf(out, "  %9.5f  %+9.5f  %9.5f", window->baseline_nll, window->nll - window->baseline_nll,
                    window->kl);
    text_append_string(out, "\n");
}

static void windows_put(const struct ppl_result *result, struct text *out) {
    text_printf(out, "%-8s  %10s  %7s  %7s  %9s  %9s%s\n", "window", "first", "tokens", "scored", "NLL", "PPL",
                result->has_baseline ? "   baseline  difference       KL" : "");
    const bool all = result->window_count <= WINDOWS_SHOWN;
    for (size_t i = 0; i < result->window_count; i++) {
        if (!all && i == WINDOWS_AT_END) {
            i = result->window_count - WINDOWS_AT_END;
            text_append_string(out, "...\n");
        }
        window_put(result, i, out);
    }
}

static void layers_put(const struct ppl_result *result, struct text *out) {
    size_t steepest = 0;
    double rise = 0;
    text_printf(out, "\n%-9s  %9s  %9s\n", "behind", "rel.error", "cosine");
    for (size_t i = 0; i < result->layer_count; i++) {
        char name[32] = "embedding";
        if (i > 0)
            snprintf(name, sizeof name, "layer %zu", i - 1);
        text_printf(out, "%-9s  %9.5f  %9.6f\n", name, result->layers[i].rel_error, result->layers[i].cosine);
        if (i > 0 && result->layers[i].rel_error - result->layers[i - 1].rel_error > rise) {
            rise = result->layers[i].rel_error - result->layers[i - 1].rel_error;
            steepest = i;
        }
    }
    if (steepest > 0)
        text_printf(out, "the error of the hidden states rises most in layer %zu, by %.5f\n", steepest - 1, rise);
}

/* ---- lines ---- */

static void label_put(struct text *out, const char *label) { text_printf(out, "%-14s  ", label); }

static void text_line(const struct ppl_report *report, struct text *out) {
    label_put(out, report->text_is_tokens ? "tokens" : "text");
    if (strcmp(report->text, "-") == 0)
        text_append_string(out, "standard input");
    else
        text_append_escaped(out, report->text);
    text_append_string(out, ", ");
    plural_put(out, report->token_count, "token");
    text_printf(out, ", SHA-256 %.*s...%s%s\n", HASH_SHOWN, report->tokens_hash,
                report->settings->variants.bos && !report->text_is_tokens ? ", with BOS" : "",
                report->settings->variants.text_join == TEXT_JOIN_HF && !report->text_is_tokens
                    ? ", rows joined by blank lines"
                    : "");
}

static void protocol_line(const struct ppl_report *report, struct text *out) {
    const struct ppl_result *result = report->result;
    label_put(out, "protocol");
    text_printf(out, "window %u, stride %u, ", report->settings->protocol.window, report->settings->protocol.stride);
    plural_put(out, result->window_count, "window");
    text_append_string(out, "; ");
    plural_put(out, result->tokens_scored, "token");
    text_append_string(out, " scored, ");
    count_put(out, result->tokens_run);
    text_append_string(out, " run\n");
}

static void compute_line(const struct ppl_report *report, struct text *out) {
    const struct ppl_variants *variants = &report->settings->variants;
    if (report->server) {
        label_put(out, "server");
        text_append_escaped(out, report->server);
        text_append_string(out, "\n");
        return;
    }
    label_put(out, "compute");
    text_printf(out, "%s, activations %s%s", compute_name(report->result->compute),
                variants->activations_float ? "float" : "as served",
                variants->fused_scales ? " with fused scales" : "");
    if (variants->kv_cache != KV_CACHE_AUTO)
        text_printf(out, ", KV cache %s", kv_cache_name(variants->kv_cache));
    text_append_string(out, variants->rope_bf16 ? ", rotary frequencies bf16\n" : "\n");
}

static void size_line(struct text *out, const char *label, uint64_t bytes, const char *rest) {
    char size[TEXT_SIZE_MAX];
    label_put(out, label);
    text_printf(out, "%10s%s\n", text_size(bytes, size), rest);
}

static void device_lines(const struct device_budget *device, struct text *out) {
    char limit[TEXT_SIZE_MAX], rest[TEXT_SIZE_MAX + 32];
    label_put(out, "device");
    text_append_escaped(out, device->name);
    text_append_string(out, device->unified ? ", its memory is the machine's\n" : "\n");
    snprintf(rest, sizeof rest, " of %s that it may use", text_size(device->memory, limit));
    size_line(out, "device memory", device->total, rest);
    size_line(out, "  weights", device->weights, device->resident ? ", all" : ", streamed");
    size_line(out, "  hidden states", device->states, "");
    size_line(out, "  all else", device->work, "");
}

static void budget_lines(const struct ppl_report *report, struct text *out) {
    const struct ppl_budget *budget = &report->result->budget;
    char limit[TEXT_SIZE_MAX], rest[TEXT_SIZE_MAX + 32];
    snprintf(rest, sizeof rest, " of %s that it may use", text_size(report->memory, limit));
    label_put(out, "groups");
    text_printf(out, "%10" PRIu32 " of up to ", budget->groups);
    plural_put(out, budget->group, "window");
    text_append_string(out, "\n");
    size_line(out, "weights read", budget->read, "");
    size_line(out, "memory", budget->total, rest);
    size_line(out, "  weights", budget->weights, "");
    size_line(out, "  hidden states", budget->hidden_memory, "");
    size_line(out, "  all else", budget->work, "");
    size_line(out, "spilled", budget->hidden > budget->hidden_memory ? budget->hidden - budget->hidden_memory : 0,
              " of hidden states in a file");
    if (budget->device.used)
        device_lines(&budget->device, out);
}

static void speed_lines(const struct ppl_report *report, struct text *out) {
    const struct ppl_result *result = report->result;
    const struct ppl_budget *budget = &result->budget;
    label_put(out, "speed");
    text_printf(out, "%.3g s, ", result->seconds);
    count_put(out, (uint64_t)fmax(0, round(result->tokens_per_second)));
    text_append_string(out, " tokens/s\n");
    if (report->server)
        return;
    label_put(out, "memory");
    size_put(out, budget->total);
    text_append_string(out, " held, ");
    size_put(out, budget->read);
    text_append_string(out, " of weights read");
    if (budget->hidden > budget->hidden_memory) {
        text_append_string(out, ", ");
        size_put(out, budget->hidden - budget->hidden_memory);
        text_append_string(out, " of hidden states in a file");
    }
    if (budget->device.used) {
        text_append_string(out, "; ");
        size_put(out, budget->device.total);
        text_append_string(out, " on ");
        text_append_escaped(out, budget->device.name);
    }
    text_append_string(out, "\n");
}

static void figures_lines(const struct ppl_result *result, struct text *out) {
    char ppl[PPL_TEXT];
    if (result->has_baseline) {
        label_put(out, "KL divergence");
        text_printf(out, "mean %.5f, median %.5f, p99 %.4f, max %.3f\n", result->kl_mean, result->kl_median,
                    result->kl_p99, result->kl_max);
        label_put(out, "same top token");
        text_printf(out, "%.2f %%\n", 100 * result->top1_agreement);
        label_put(out, "baseline");
        text_printf(out, "NLL %.5f, PPL %s\n", result->baseline_nll, ppl_text(result->baseline_ppl, 4, ppl));
    }
    label_put(out, result->has_baseline ? "model" : "perplexity");
    text_printf(out, "NLL %.5f, PPL %s", result->nll, ppl_text(result->ppl, 4, ppl));
    if (result->has_baseline)
        text_printf(out, " (%+.2f %%)", percent_change(result->ppl, result->baseline_ppl));
    text_printf(out, "; standard error of the NLL %.5f\n", result->standard_error);
}

void ppl_report_verdicts(const struct ppl_report *report, bool failed_only, struct text *out) {
    const struct expectation *expectation = report->expectation;
    size_t failed = 0, measured = 0;
    for (size_t i = 0; i < expectation->count; i++) {
        const struct ppl_check *check = &expectation->checks[i];
        const bool passed = check_passed(check);
        failed += !passed;
        measured += check->measured;
        if (passed && failed_only)
            continue;
        text_append_string(out, !check->measured ? "skipped: " : passed ? "pass: " : "FAIL: ");
        check_describe(check, out);
        if (check->status != FIGURE_GIVEN)
            text_printf(out, " (%s)", figure_status_name(check->status));
        text_append_string(out, "\n");
    }
    text_append_string(out, failed ? "FAIL: " : "PASS: ");
    if (expectation->file) {
        text_append_escaped(out, expectation->file);
        text_append_string(out, expectation->test ? ", case " : "");
        text_append_escaped(out, expectation->test ? expectation->test : "");
        text_append_string(out, ": ");
    }
    text_printf(out, "%zu of ", failed);
    plural_put(out, measured, "figure");
    text_append_string(out, " moved further than allowed\n");
}

enum status ppl_report_table(const struct ppl_report *report, struct text *out, struct error *error) {
    const struct ppl_result *result = report->result;
    if (!report->planned) {
        windows_put(result, out);
        if (result->layer_count > 0)
            layers_put(result, out);
        text_append_string(out, "\n");
    }
    text_line(report, out);
    protocol_line(report, out);
    compute_line(report, out);
    if (report->planned && !report->server)
        budget_lines(report, out);
    if (!report->planned) {
        speed_lines(report, out);
        figures_lines(result, out);
        if (report->expectation)
            ppl_report_verdicts(report, false, out);
    }
    return out->failed ? error_set_memory(error) : STATUS_OK;
}
