#include <inttypes.h>
#include <math.h>

#include "common/version.h"
#include "infer/report/ppl_curves.h"
#include "infer/report/ppl_report.h"

static void member_string(struct text *out, const char *key, const char *value) {
    text_printf(out, ",\"%s\":", key);
    if (value)
        text_append_json_ascii(out, value);
    else
        text_append_string(out, "null");
}

/* null when it is not finite. */
static void member_real(struct text *out, const char *key, double value) {
    text_printf(out, ",\"%s\":", key);
    text_append_json_real(out, value);
}

static void member_number(struct text *out, const char *key, uint64_t value) {
    text_printf(out, ",\"%s\":%" PRIu64, key, value);
}

static void member_flag(struct text *out, const char *key, bool value) {
    text_printf(out, ",\"%s\":%s", key, value ? "true" : "false");
}

/* What was not measured, or needs a baseline, is null. */
static double measured(const struct ppl_report *report, double value) { return report->planned ? (double)NAN : value; }

static double compared(const struct ppl_report *report, double value) {
    return report->planned || !report->result->has_baseline ? (double)NAN : value;
}

/* ---- head ---- */

static void text_put(const struct ppl_report *report, struct text *out) {
    text_printf(out, ",\"text\":{\"kind\":\"%s\"", report->text_is_tokens ? "tokens" : "text");
    member_string(out, "file", report->text);
    member_number(out, "tokens", report->token_count);
    member_string(out, "sha256", report->tokens_hash);
    text_append_string(out, "}");
}

static void settings_put(const struct ppl_report *report, struct text *out) {
    const struct ppl_settings *settings = report->settings;
    const struct ppl_variants *variants = &settings->variants;
    text_printf(out, ",\"protocol\":{\"window\":%u,\"stride\":%u", settings->protocol.window,
                settings->protocol.stride);
    if (settings->protocol.windows)
        member_number(out, "windows", settings->protocol.windows);
    else
        text_append_string(out, ",\"windows\":null");
    text_append_string(out, "}");
    member_string(out, "compute", report->server ? NULL : compute_name(report->result->compute));
    text_append_string(out, ",\"variants\":{\"bos\":");
    text_append_string(out, variants->bos ? "true" : "false");
    member_string(out, "text_join", text_join_name(variants->text_join));
    member_string(out, "kv_cache", report->server ? NULL : kv_cache_name(variants->kv_cache));
    member_string(out, "activations", report->server ? NULL : activations_name(variants->activations_float));
    member_flag(out, "fused_scales", variants->fused_scales);
    member_string(out, "rope_frequencies", report->server ? NULL : rope_frequencies_name(variants->rope_bf16));
    text_append_string(out, "}");
}

static void figures_put(const struct ppl_report *report, struct text *out) {
    const struct ppl_result *result = report->result;
    member_real(out, "nll", measured(report, result->nll));
    member_real(out, "ppl", measured(report, result->ppl));
    member_real(out, "standard_error", measured(report, result->standard_error));
    member_number(out, "tokens_scored", result->tokens_scored);
    member_number(out, "tokens_run", result->tokens_run);
    member_real(out, "seconds", measured(report, result->seconds));
    member_real(out, "tokens_per_second", measured(report, result->tokens_per_second));
}

/* ---- curves ---- */

static void windows_put(const struct ppl_report *report, struct text *out) {
    const struct ppl_result *result = report->result;
    text_append_string(out, ",\"windows\":[");
    for (size_t i = 0; i < result->window_count; i++) {
        const struct ppl_window *window = &result->windows[i];
        text_printf(out, "%s{\"first\":%zu,\"tokens\":%u,\"scored\":%u", i ? "," : "", window->first, window->tokens,
                    window->scored);
        member_real(out, "nll", measured(report, window->nll));
        member_real(out, "baseline_nll", compared(report, window->baseline_nll));
        member_real(out, "kl", compared(report, window->kl));
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
}

static void positions_put(const struct ppl_report *report, struct text *out) {
    struct position_bin bins[POSITION_BINS];
    const size_t count = report->planned ? 0 : ppl_positions(report->result, bins);
    text_append_string(out, ",\"positions\":[");
    for (size_t i = 0; i < count; i++) {
        const bool any = bins[i].tokens > 0;
        text_printf(out, "%s{\"first\":%u,\"end\":%u,\"tokens\":%zu", i ? "," : "", bins[i].first, bins[i].end,
                    bins[i].tokens);
        member_real(out, "nll", any ? bins[i].nll : (double)NAN);
        member_real(out, "baseline_nll", any ? compared(report, bins[i].baseline_nll) : (double)NAN);
        member_real(out, "kl", any ? compared(report, bins[i].kl) : (double)NAN);
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
}

static void baseline_put(const struct ppl_report *report, struct text *out) {
    const struct ppl_result *result = report->result;
    if (!report->baseline) {
        text_append_string(out, ",\"baseline\":null,\"kl\":null,\"top1_agreement\":null,\"kl_histogram\":null");
        return;
    }
    text_append_string(out, ",\"baseline\":{\"model\":");
    text_append_json_ascii(out, report->baseline);
    member_real(out, "nll", compared(report, result->baseline_nll));
    member_real(out, "ppl", compared(report, result->baseline_ppl));
    text_append_string(out, "},\"kl\":{\"mean\":");
    text_append_json_real(out, compared(report, result->kl_mean));
    member_real(out, "median", compared(report, result->kl_median));
    member_real(out, "p99", compared(report, result->kl_p99));
    member_real(out, "max", compared(report, result->kl_max));
    text_append_string(out, "}");
    member_real(out, "top1_agreement", compared(report, result->top1_agreement));
    if (report->planned) {
        text_append_string(out, ",\"kl_histogram\":null");
        return;
    }
    size_t counts[KL_BINS];
    ppl_kl_histogram(result, counts);
    text_printf(out, ",\"kl_histogram\":{\"first_power\":%d,\"bins_per_power\":%d,\"counts\":[", KL_FIRST_POWER,
                KL_BINS_PER_POWER);
    for (size_t i = 0; i < KL_BINS; i++)
        text_printf(out, "%s%zu", i ? "," : "", counts[i]);
    text_append_string(out, "]}");
}

/* Layer null is the embedding. */
static void layers_put(const struct ppl_report *report, struct text *out) {
    text_append_string(out, ",\"layers\":[");
    for (size_t i = 0; i < report->result->layer_count; i++) {
        const struct ppl_layer *layer = &report->result->layers[i];
        if (i > 0)
            text_printf(out, ",{\"layer\":%zu", i - 1);
        else
            text_append_string(out, "{\"layer\":null");
        member_real(out, "rel_error", layer->rel_error);
        member_real(out, "cosine", layer->cosine);
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
}

/* ---- budget and expectation ---- */

static void budget_put(const struct ppl_report *report, struct text *out) {
    const struct ppl_budget *budget = &report->result->budget;
    if (report->server) {
        text_append_string(out, ",\"budget\":null");
        return;
    }
    text_printf(out, ",\"budget\":{\"memory\":%" PRIu64, report->memory);
    member_number(out, "total", budget->total);
    member_number(out, "weights", budget->weights);
    member_number(out, "work", budget->work);
    member_number(out, "hidden", budget->hidden);
    member_number(out, "hidden_memory", budget->hidden_memory);
    member_number(out, "read", budget->read);
    member_number(out, "tokens", budget->tokens);
    member_number(out, "group", budget->group);
    member_number(out, "groups", budget->groups);
    if (!budget->device.used) {
        text_append_string(out, ",\"device\":null}");
        return;
    }
    text_append_string(out, ",\"device\":{\"name\":");
    text_append_json_ascii(out, budget->device.name);
    member_number(out, "memory", budget->device.memory);
    member_number(out, "total", budget->device.total);
    member_number(out, "weights", budget->device.weights);
    member_number(out, "hidden", budget->device.states);
    member_number(out, "work", budget->device.work);
    text_append_string(out, budget->device.unified ? ",\"unified\":true}}" : ",\"unified\":false}}");
}

static void check_put(const struct ppl_check *check, bool planned, struct text *out) {
    const bool there = check->measured && !planned;
    text_append_string(out, "{\"figure\":");
    text_append_json_ascii(out, check->name);
    member_string(out, "status", figure_status_name(check->status));
    member_real(out, "expected", check->expected);
    member_real(out, "allowed", check_allowed(check));
    member_real(out, "measured", there ? check->value : (double)NAN);
    member_string(out, "verdict", !there ? "not-measured" : check_passed(check) ? "pass" : "fail");
    struct text described = {0};
    if (there)
        check_describe(check, &described);
    member_string(out, "message", described.bytes);
    out->failed = out->failed || described.failed;
    text_free(&described);
    text_append_string(out, "}");
}

static void expectation_put(const struct ppl_report *report, struct text *out) {
    const struct expectation *expectation = report->expectation;
    if (!expectation) {
        text_append_string(out, ",\"expectation\":null");
        return;
    }
    text_append_string(out, ",\"expectation\":{\"verdict\":");
    text_append_string(out, report->planned ? "null" : expectation_passed(expectation) ? "\"pass\"" : "\"fail\"");
    member_string(out, "file", expectation->file);
    member_string(out, "name", expectation->name);
    member_string(out, "case", expectation->test);
    member_string(out, "model", expectation->model);
    text_append_string(out, ",\"checks\":[");
    for (size_t i = 0; i < expectation->count; i++) {
        text_append_string(out, i ? "," : "");
        check_put(&expectation->checks[i], report->planned, out);
    }
    text_append_string(out, "]}");
}

enum status ppl_report_json(const struct ppl_report *report, struct text *out, struct error *error) {
    text_append_string(out, "{\"schema\":\"qstream.ppl/1\",\"qstream\":\"" QSTREAM_VERSION "\"");
    member_string(out, "state", report->planned ? "planned" : "measured");
    member_string(out, "model", report->model);
    member_string(out, "server", report->server);
    text_put(report, out);
    settings_put(report, out);
    figures_put(report, out);
    windows_put(report, out);
    baseline_put(report, out);
    layers_put(report, out);
    positions_put(report, out);
    budget_put(report, out);
    expectation_put(report, out);
    text_append_string(out, "}");
    return out->failed ? error_set_memory(error) : STATUS_OK;
}
