#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/version.h"
#include "verify/verification.h"

static void member_number(struct text *out, const char *name, uint64_t number) {
    text_printf(out, ",\"%s\":%" PRIu64, name, number);
}

static void member_real(struct text *out, const char *name, double number) {
    text_printf(out, ",\"%s\":", name);
    text_append_json_real(out, number);
}

static void member_string(struct text *out, const char *name, const char *value) {
    text_printf(out, ",\"%s\":", name);
    if (value)
        text_append_json_ascii(out, value);
    else
        text_append_string(out, "null");
}

static double share(uint64_t count, uint64_t of) { return of ? (double)count / (double)of : (double)NAN; }

static void blocks_put(const struct verification *verification, const struct total *total, struct text *out) {
    const struct figures *figures = &total->figures;
    struct sums best = total->sums;
    best.error_square = best.best_square;
    text_printf(out, ",\"blocks\":{\"count\":%" PRIu64, figures->blocks);
    member_number(out, "zero", figures->zero_blocks);
    member_real(out, "at_optimum", share(figures->at_optimum, figures->blocks));
    member_real(out, "best_sqnr_db", sqnr_db(&best));
    double excess = (total->sums.error_square - total->sums.best_square) / total->sums.error_square;
    member_real(out, "excess", total->sums.error_square > 0 ? fmax(excess, 0) : 0);
    member_real(out, "scale_of_rule",
                verification->rule == KNOWN_NONE ? (double)NAN
                                                 : share(figures->of_rule[verification->rule], figures->blocks));
    text_append_string(out, "}");
}

static void figures_put(const struct verification *verification, const struct total *total, struct text *out) {
    const struct figures *figures = &total->figures;
    const struct sums *sums = &total->sums;
    uint64_t compared = figures->elements - figures->source_not_finite.count - figures->output_not_finite.count;
    member_number(out, "elements", figures->elements);
    text_printf(out, ",\"exact\":%s",
                compared == 0 || sums->error_square > 0 || figures->output_not_finite.count > 0 ? "false" : "true");
    member_real(out, "sqnr_db", sqnr_db(sums));
    member_real(out, "rel_error", compared ? rel_error(sums) : (double)NAN);
    member_real(out, "cosine", cosine(sums));
    member_real(out, "max_abs_error", compared ? figures->max_absolute : (double)NAN);
    member_real(out, "mean_abs_error", compared ? sums->error_absolute / (double)compared : (double)NAN);
    member_real(out, "saturated", share(figures->saturated, compared));
    member_real(out, "flushed", share(figures->flushed, compared));
    member_number(out, "source_not_finite", figures->source_not_finite.count);
    member_number(out, "output_not_finite", figures->output_not_finite.count);
    member_number(out, "not_nearest", not_nearest_of(verification, figures));
    if (total->mxfp4)
        blocks_put(verification, total, out);
    else
        text_append_string(out, ",\"blocks\":null");
}

static void finding_put(const struct verify_finding *finding, struct text *out) {
    text_printf(out, "{\"id\":\"%s\",\"severity\":\"%s\"", finding->id, verify_severity_name(finding->severity));
    member_string(out, "subject", finding->subject);
    member_string(out, "message", finding->message);
    text_append_string(out, "}");
}

static void settings_put(const struct verification *verification, struct text *out) {
    const struct verify_options *options = verification->options;
    text_printf(out, ",\"settings\":{\"rounding\":\"%s\"",
                verification->nearest      ? "nearest"
                : verification->calibrated ? "calibrated"
                                           : "any");
    member_string(out, "rounding_from", setting_from_name(verification->rounding_from));
    member_string(out, "rule", known_rule_name(verification->rule));
    member_string(out, "rule_from",
                  verification->rule == KNOWN_NONE ? NULL : setting_from_name(verification->rule_from));
    member_string(out, "gamma", verification->gamma);
    member_string(out, "recipe", verification->wanted ? verification->wanted->name : NULL);
    member_string(out, "thresholds", options->thresholds ? options->thresholds->name : NULL);
    member_real(out, "sample", options->sample < 1 ? options->sample : (double)NAN);
    if (options->parts > 0)
        text_printf(out, ",\"part\":\"%u/%u\"", options->part, options->parts);
    else
        text_append_string(out, ",\"part\":null");
    text_printf(out, ",\"hash\":%s}", options->hash ? "true" : "false");
}

static uint64_t weights_unread(const struct verification *verification) {
    uint64_t unread = 0;
    for (size_t i = 0; i < verification->pairing.count; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        unread += comparison->kind == COMPARE_VALUES && comparison->tiles_read == 0 && comparison->tile_count > 0;
    }
    return unread;
}

static void head_put(const struct verification *verification, struct text *out) {
    const struct accounting *accounting = &verification->pairing.accounting;
    const struct compare_result *compared = &verification->compared;
    const size_t *counts = verification->findings.by_severity;
    text_append_string(out, "{\"schema\":\"qstream.verify/1\",\"qstream\":\"" QSTREAM_VERSION "\"");
    member_string(out, "verdict", verification_passed(verification) ? "pass" : "fail");
    member_string(out, "source", verification->options->source);
    member_string(out, "folder", verification->options->folder);
    char hex[SHA256_HEX];
    member_string(out, "manifest", verification->has_manifest ? sha256_hex(verification->manifest.sha256, hex) : NULL);
    member_string(out, "state", verification->unfinished ? "unfinished" : "complete");
    settings_put(verification, out);
    text_printf(out, ",\"counts\":{\"error\":%zu,\"warning\":%zu,\"note\":%zu},\"findings\":[", counts[VERIFY_ERROR],
                counts[VERIFY_WARNING], counts[VERIFY_NOTE]);
    for (size_t i = 0; i < verification->findings.count; i++) {
        text_append_string(out, i ? "," : "");
        finding_put(&verification->findings.items[i], out);
    }
    text_printf(out,
                "],\"accounting\":{\"source_tensors\":%" PRIu64 ",\"quantized\":%" PRIu64 ",\"kept\":%" PRIu64
                ",\"consumed\":%" PRIu64 ",\"missing\":%" PRIu64 ",\"output_tensors\":%" PRIu64 ",\"extra\":%" PRIu64
                ",\"not_yet\":%" PRIu64 "}",
                accounting->source_tensors, accounting->quantized, accounting->kept, accounting->consumed,
                accounting->missing, accounting->output_tensors, accounting->extra, accounting->not_yet);
    text_printf(out,
                ",\"read\":{\"tiles\":%" PRIu64 ",\"tiles_total\":%" PRIu64 ",\"bytes\":%" PRIu64
                ",\"bytes_total\":%" PRIu64 ",\"tensors_unread\":%" PRIu64 "}",
                compared->tiles, compared->tiles_total, compared->bytes, compared->bytes_total,
                weights_unread(verification));
}

static void roles_put(const struct verification *verification, struct text *out) {
    text_append_string(out, ",\"roles\":[");
    for (uint32_t g = 0; g < verification->pairing.group_count; g++) {
        const struct pairing_group *group = &verification->pairing.groups[g];
        const struct total total = total_of(verification, g, 0);
        text_printf(out, "%s{\"role\":\"%s\",\"format\":\"%s\",\"tensors\":%" PRIu64, g ? "," : "",
                    role_name(group->role), stored_format_name(group->format), total.tensors);
        figures_put(verification, &total, out);
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
}

static enum status layers_put(const struct verification *verification, struct text *out, struct error *error) {
    size_t count;
    int *layers = verification_layers(verification, &count);
    if (!layers)
        return error_set_memory(error);
    text_append_string(out, ",\"layers\":[");
    for (size_t i = 0; i < count; i++) {
        const struct total total = total_of(verification, UINT32_MAX, layers[i]);
        text_printf(out, "%s{\"layer\":%d,\"tensors\":%" PRIu64, i ? "," : "", layers[i], total.tensors);
        figures_put(verification, &total, out);
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
    free(layers);
    return STATUS_OK;
}

static enum status block_put(const struct comparison *comparison, struct text *out, struct error *error) {
    const struct figures *figures = comparison->figures;
    if (figures->worst_block.row == NO_ROW) {
        text_append_string(out, ",\"worst_block\":null");
        return STATUS_OK;
    }
    struct block_view view;
    enum status status = block_view_read(comparison, &figures->worst_block, &view, error);
    if (status != STATUS_OK)
        return status;
    text_printf(out, ",\"worst_block\":{\"row\":%" PRIu64 ",\"column\":%" PRIu64, figures->worst_block.row,
                figures->worst_block.column);
    member_real(out, "squared_error", figures->worst_block_error);
    member_real(out, "scale", view.scale);
    if (view.scale_code >= 0)
        member_number(out, "scale_code", (uint64_t)view.scale_code);
    else
        text_append_string(out, ",\"scale_code\":null");
    text_append_string(out, ",\"source\":[");
    for (unsigned i = 0; i < view.count; i++) {
        text_append_string(out, i ? "," : "");
        text_append_json_real(out, (double)view.source[i]);
    }
    text_append_string(out, "],\"codes\":");
    for (unsigned i = 0; i < view.count && view.codes[0] >= 0; i++)
        text_printf(out, "%s%d", i ? "," : "[", view.codes[i]);
    text_append_string(out, view.codes[0] >= 0 ? "],\"values\":[" : "null,\"values\":[");
    for (unsigned i = 0; i < view.count; i++) {
        text_append_string(out, i ? "," : "");
        text_append_json_real(out, view.output[i]);
    }
    text_append_string(out, "]}");
    return STATUS_OK;
}

/* What was read of a weight, by its elements. */
static double read_share(const struct comparison *comparison) {
    double elements = (double)comparison->to.rows * (double)comparison->to.columns;
    return elements > 0 ? (double)comparison->figures->elements / elements : 1;
}

static enum status tensor_put(const struct verification *verification, const struct comparison *comparison,
                              struct text *out, struct error *error) {
    const struct figures *figures = comparison->figures;
    const char *leaf = strrchr(comparison->module, '.'), *module = comparison->module;
    struct total total = {0};
    total_add(&total, comparison);
    char *name = text_format("%s.weight", module);
    if (!name)
        return error_set_memory(error);
    text_append_string(out, "{\"name\":");
    text_append_json_ascii(out, name);
    free(name);
    member_string(out, "module", module);
    member_string(out, "role", role_name(comparison->role));
    if (comparison->layer >= 0)
        member_number(out, "layer", (uint64_t)comparison->layer);
    else
        text_append_string(out, ",\"layer\":null");
    member_string(out, "projection", leaf ? leaf + 1 : module);
    member_string(out, "format", stored_format_name(comparison->to.format));
    member_string(out, "source_format", stored_format_name(comparison->from.format));
    text_printf(out, ",\"shape\":[%" PRIu64 ",%" PRIu64 "]", comparison->to.rows, comparison->to.columns);
    member_real(out, "read", read_share(comparison));
    figures_put(verification, &total, out);
    if (figures->worst_row.row == NO_ROW) {
        text_append_string(out, ",\"worst_row\":null");
    } else {
        text_printf(out, ",\"worst_row\":{\"row\":%" PRIu64, figures->worst_row.row);
        member_real(out, "rel_error", sqrt(figures->worst_row_ratio));
        member_real(out, "sqnr_db", figures->worst_row_ratio > 0 ? -10 * log10(figures->worst_row_ratio) : (double)NAN);
        text_append_string(out, "}");
    }
    enum status status = block_put(comparison, out, error);
    text_append_string(out, "}");
    return status;
}

static enum status tensors_put(const struct verification *verification, struct text *out, struct error *error) {
    enum status status = STATUS_OK;
    const char *separator = "";
    text_append_string(out, ",\"tensors\":[");
    for (size_t i = 0; i < verification->pairing.count && status == STATUS_OK; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (comparison->kind != COMPARE_VALUES ||
            (comparison->tiles_read == 0 && verification->options->parts > 1 &&
             !compare_is_chosen(&verification->pairing, i, verification->options->part, verification->options->parts)))
            continue;
        text_append_string(out, separator);
        separator = ",";
        status = tensor_put(verification, comparison, out, error);
    }
    text_append_string(out, "]");
    return status;
}

/* Copies, by role and format. */
static void kept_put(const struct verification *verification, struct text *out) {
    struct {
        uint64_t tensors, bytes, different;
    } kept[ROLES * STORED_FORMATS] = {0};
    const struct modules *modules = &verification->output_modules;
    for (size_t i = 0; i < verification->pairing.count; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (comparison->kind == COMPARE_VALUES)
            continue;
        enum stored_format format = modules->items[modules->of_tensor[comparison->output]].format;
        size_t at = comparison->role * STORED_FORMATS + format;
        kept[at].tensors++;
        kept[at].bytes += verification->output.tensors[comparison->output].info.size;
        kept[at].different += comparison->different > 0;
    }
    const char *separator = "";
    text_append_string(out, ",\"kept\":[");
    for (size_t i = 0; i < ROLES * STORED_FORMATS; i++) {
        if (kept[i].tensors == 0)
            continue;
        text_printf(out, "%s{\"role\":\"%s\",\"format\":\"%s\"", separator, role_name((enum role)(i / STORED_FORMATS)),
                    stored_format_name((enum stored_format)(i % STORED_FORMATS)));
        member_number(out, "tensors", kept[i].tensors);
        member_number(out, "bytes", kept[i].bytes);
        member_number(out, "different", kept[i].different);
        text_append_string(out, "}");
        separator = ",";
    }
    text_append_string(out, "]");
}

static void histograms_put(const struct verification *verification, struct text *out) {
    const double step = 10 * log10(2) / 2;
    text_append_string(out, ",\"histograms\":[");
    for (size_t g = 0; g < verification->pairing.group_count && verification->compared.histograms; g++) {
        const struct pairing_group *group = &verification->pairing.groups[g];
        const struct histogram *histogram = &verification->compared.histograms[g];
        text_printf(out, "%s{\"role\":\"%s\",\"format\":\"%s\",\"block_sqnr\":{\"first_db\":", g ? "," : "",
                    role_name(group->role), stored_format_name(group->format));
        text_append_json_real(out, SQNR_FIRST * step);
        member_real(out, "step_db", step);
        text_append_string(out, ",\"counts\":[");
        for (int i = 0; i < SQNR_BINS; i++)
            text_printf(out, "%s%" PRIu64, i ? "," : "", histogram->sqnr[i]);
        text_append_string(out, "]}");
        int first = 0, end = 256;
        while (first < 256 && histogram->scales[first] == 0)
            first++;
        while (end > first && histogram->scales[end - 1] == 0)
            end--;
        if (first < end) {
            text_printf(out, ",\"scales\":{\"first\":%d,\"counts\":[", first);
            for (int i = first; i < end; i++)
                text_printf(out, "%s%" PRIu64, i > first ? "," : "", histogram->scales[i]);
            text_append_string(out, "]}");
        }
        text_append_string(out, "}");
    }
    text_append_string(out, "]");
}

static void outputs_put(const struct verification *verification, struct text *out) {
    if (verification->output_tokens == 0) {
        text_append_string(out, ",\"outputs\":null");
        return;
    }
    text_printf(out, ",\"outputs\":{\"tokens\":%" PRIu64 ",\"weights\":[", verification->output_tokens);
    for (size_t i = 0; i < verification->output_count; i++) {
        const struct output_figure *figure = &verification->outputs[i];
        text_printf(out, "%s{\"layer\":%u", i ? "," : "", figure->layer);
        member_string(out, "name", figure->module);
        member_real(out, "rel_error", figure->rel_error);
        text_append_string(out, "}");
    }
    text_append_string(out, "]}");
}

enum status verification_json(const struct verification *verification, struct text *out, struct error *error) {
    head_put(verification, out);
    roles_put(verification, out);
    enum status status = layers_put(verification, out, error);
    if (status == STATUS_OK)
        status = tensors_put(verification, out, error);
    kept_put(verification, out);
    histograms_put(verification, out);
    outputs_put(verification, out);
    text_append_string(out, "}");
    return status == STATUS_OK && out->failed ? error_set_memory(error) : status;
}
