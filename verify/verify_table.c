#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/verification.h"

enum { WORST = 10 };

/* "18.93", "exact", "-". */
static const char *sqnr_text(const struct sums *sums, bool read, char out[24]) {
    double db = sqnr_db(sums);
    if (!read || (isnan(db) && sums->error_square > 0))
        snprintf(out, 24, "-");
    else if (isnan(db))
        snprintf(out, 24, "exact");
    else
        snprintf(out, 24, "%.2f", db);
    return out;
}

static void real_put(struct text *out, int width, const char *format, double value) {
    char text[32];
    snprintf(text, sizeof text, format, value);
    text_printf(out, "  %*s", width, isnan(value) ? "-" : text);
}

static double percent(uint64_t count, uint64_t of) { return of ? 100 * (double)count / (double)of : (double)NAN; }

static void figures_put(const struct verification *verification, const struct total *total, struct text *out) {
    const struct figures *figures = &total->figures;
    bool read = figures->elements > 0;
    char text[24];
    text_printf(out, "  %7s", sqnr_text(&total->sums, read, text));
    real_put(out, 9, "%.5f", read ? rel_error(&total->sums) : (double)NAN);
    real_put(out, 9, "%.3g", read ? figures->max_absolute : (double)NAN);
    real_put(out, 9, "%.2f %%", total->mxfp4 ? percent(figures->at_optimum, figures->blocks) : (double)NAN);
    double excess = total->sums.error_square > 0
                        ? 100 * fmax(total->sums.error_square - total->sums.best_square, 0) / total->sums.error_square
                        : 0;
    real_put(out, 8, "%.2f %%", total->mxfp4 && read ? excess : (double)NAN);
    real_put(out, 12, "%.3g %%",
             read ? percent(not_nearest_of(verification, figures), figures->elements) : (double)NAN);
    text_append_string(out, "\n");
}

static const char heads[] = "     SQNR  rel.error  max.error  optimal    excess   not nearest\n";

static void roles_put(const struct verification *verification, struct text *out) {
    if (verification->pairing.group_count == 0) {
        text_append_string(out, "no weight is stored otherwise than in the source\n");
        return;
    }
    text_printf(out, "%-10s  %-11s  %7s%s", "role", "format", "weights", heads);
    for (uint32_t g = 0; g < verification->pairing.group_count; g++) {
        const struct pairing_group *group = &verification->pairing.groups[g];
        const struct total total = total_of(verification, g, 0);
        text_printf(out, "%-10s  %-11s  %7" PRIu64, role_name(group->role), stored_format_name(group->format),
                    total.tensors);
        figures_put(verification, &total, out);
    }
}

static enum status layers_put(const struct verification *verification, struct text *out, struct error *error) {
    size_t count;
    int *layers = verification_layers(verification, &count);
    if (!layers)
        return error_set_memory(error);
    if (count > 0)
        text_printf(out, "\n%-10s  %-11s  %7s%s", "layer", "", "weights", heads);
    for (size_t i = 0; i < count; i++) {
        const struct total total = total_of(verification, UINT32_MAX, layers[i]);
        text_printf(out, "%-10d  %-11s  %7" PRIu64, layers[i], "", total.tensors);
        figures_put(verification, &total, out);
    }
    free(layers);
    return STATUS_OK;
}

static enum status worst_put(const struct verification *verification, struct text *out, struct error *error) {
    size_t count;
    const struct comparison **worst = verification_worst(verification, &count);
    if (!worst)
        return error_set_memory(error);
    count = count < WORST ? count : WORST;
    if (count > 0)
        text_append_string(out, "\nworst weights\n     SQNR  worst row      worst block        weight\n");
    for (size_t i = 0; i < count; i++) {
        const struct figures *figures = worst[i]->figures;
        char text[24], block[48] = "-", row[48] = "-";
        if (figures->worst_block.row != NO_ROW)
            snprintf(block, sizeof block, "%" PRIu64 ", %" PRIu64, figures->worst_block.row,
                     figures->worst_block.column);
        if (figures->worst_row.row != NO_ROW && figures->worst_row_ratio > 0)
            snprintf(row, sizeof row, "%" PRIu64 " (%.1f)", figures->worst_row.row,
                     -10 * log10(figures->worst_row_ratio));
        text_printf(out, "  %7s  %-13s  %-17s  ", sqnr_text(&worst[i]->sums, true, text), row, block);
        text_append_escaped(out, worst[i]->module);
        text_append_string(out, "\n");
    }
    free(worst);
    return STATUS_OK;
}

/* Errors first, some of each id. */
static void findings_put(const struct verification *verification, struct text *out) {
    enum { SHOWN = 10 };
    const struct verify_findings *findings = &verification->findings;
    for (int severity = VERIFY_ERROR; severity >= VERIFY_NOTE; severity--) {
        for (size_t i = 0; i < findings->count; i++) {
            const struct verify_finding *finding = &findings->items[i];
            if ((int)finding->severity != severity)
                continue;
            size_t before = 0, behind = 0;
            for (size_t k = 0; k < findings->count; k++)
                if (strcmp(findings->items[k].id, finding->id) == 0 && (int)findings->items[k].severity == severity)
                    *(k < i ? &before : &behind) += 1;
            if (before >= SHOWN)
                continue;
            text_printf(out, "\n%s: %s: ", verify_severity_name(finding->severity), finding->id);
            text_append_escaped(out, finding->subject);
            text_append_string(out, "\n    ");
            text_append_escaped(out, finding->message);
            if (before == SHOWN - 1 && behind > 1)
                text_printf(out, "\n    and %zu more of this kind (--json has them)", behind - 1);
        }
    }
    if (findings->count > 0)
        text_append_string(out, "\n");
}

static bool holds_mxfp4(const struct verification *verification) {
    for (size_t g = 0; g < verification->pairing.group_count; g++)
        if (verification->pairing.groups[g].format == STORED_MXFP4)
            return true;
    return false;
}

static void settings_put(const struct verification *verification, struct text *out) {
    const struct compare_result *compared = &verification->compared;
    const char *rule = known_rule_name(verification->rule);
    text_printf(out, "\nrounding: %s (%s)",
                verification->nearest      ? "nearest"
                : verification->calibrated ? "calibrated"
                                           : "any",
                setting_from_name(verification->rounding_from));
    if (rule)
        text_printf(out, ", scales: %s (%s)", rule,
                    verification->rule_from == FROM_SCALES ? "told from the scales"
                                                           : setting_from_name(verification->rule_from));
    else if (holds_mxfp4(verification))
        text_append_string(out, ", scales: of no rule that is known here");
    if (verification->wanted && verification->wanted->name) {
        text_append_string(out, ", recipe: ");
        text_append_escaped(out, verification->wanted->name);
    }
    text_append_string(out, "\n");
    if (verification->options->sample < 1)
        text_printf(out,
                    "not all was read: %" PRIu64 " of %" PRIu64 " tiles, %.2f %% of the bytes, by --sample; nothing is "
                    "known of the rest\n",
                    compared->tiles, compared->tiles_total, percent(compared->bytes, compared->bytes_total));
    if (verification->options->parts > 1)
        text_printf(out, "only the values of part %u/%u were read\n", verification->options->part,
                    verification->options->parts);
}

static void verdict_put(const struct verification *verification, struct text *out) {
    const struct accounting *accounting = &verification->pairing.accounting;
    const size_t *counts = verification->findings.by_severity;
    text_printf(out,
                "%" PRIu64 " tensors of the source: %" PRIu64 " quantized, %" PRIu64 " kept, %" PRIu64
                " used up, %" PRIu64 " missing",
                accounting->source_tensors, accounting->quantized, accounting->kept, accounting->consumed,
                accounting->missing);
    if (verification->unfinished)
        text_printf(out, ", %" PRIu64 " not yet there", accounting->not_yet);
    text_printf(out, "; %" PRIu64 " too many in the output\n", accounting->extra);
    text_printf(out, "%s: ", verification_passed(verification) ? "PASS" : "FAIL");
    text_append_escaped(out, verification->options->folder);
    text_printf(out, ": %zu error%s, %zu warning%s\n", counts[VERIFY_ERROR], text_plural(counts[VERIFY_ERROR]),
                counts[VERIFY_WARNING], text_plural(counts[VERIFY_WARNING]));
}

/* By layer, a column for each weight, named by the last word of its name. */
static void outputs_put(const struct verification *verification, struct text *out) {
    const struct output_figure *figures = verification->outputs;
    const size_t count = verification->output_count;
    if (verification->output_tokens == 0)
        return;
    text_printf(out, "\nrelative error of outputs, on %" PRIu64 " tokens\n", verification->output_tokens);
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(figures[i].module, '.');
        if (i == 0 || figures[i].layer != figures[i - 1].layer)
            text_printf(out, "%slayer %-4u", i ? "\n" : "", figures[i].layer);
        text_append_string(out, "  ");
        text_append_escaped(out, dot ? dot + 1 : figures[i].module);
        text_printf(out, " %.4f", figures[i].rel_error);
    }
    text_append_string(out, count ? "\n" : "no weight of a layer has another format than in the source\n");
}

enum status verification_table(const struct verification *verification, struct text *out, struct error *error) {
    roles_put(verification, out);
    enum status status = layers_put(verification, out, error);
    if (status == STATUS_OK)
        status = worst_put(verification, out, error);
    outputs_put(verification, out);
    findings_put(verification, out);
    settings_put(verification, out);
    verdict_put(verification, out);
    return status == STATUS_OK && out->failed ? error_set_memory(error) : status;
}
