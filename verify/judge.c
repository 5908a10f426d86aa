/* From figures to findings: what of a weight's loss is an error. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify/value_measure.h"
#include "verify/verification.h"

/*
 * A weight whose squared error is larger than this many times the least was not made by rounding, if its relative error
 * also is as large as this: where outliers dominate, rounding at random can miss the least by more.
 */
static const double corrupt_ratio = 4, corrupt_error = 0.3;
/* The same for a single row, whose values are fewer, if its relative error also is as large as this. */
static const double corrupt_row_ratio = 16, corrupt_row_error = 0.4;
/*
 * Calibrated rounding gives up nearness for outputs, as far as its inputs ask for: what is farther from its source than
 * zeros would be, or a whole weight half as far, was not made by it.
 */
static const double calibrated_error = 0.5, calibrated_row_error = 1;
/*
 * FP8 rounds to 2^-4 at worst (E5M2 to 2^-3): a smaller error needs no explanation, one larger than 2^-3 has none that is
 * honest, nor has a row of that error under a scale of its own that is not its largest value / 448. Plain numbers lose at most BF16's 2^-9.
 */
static const double fp8_rounding = 0.0625, fp8_corrupt_error = 0.15, plain_rounding = 0x1p-8;
/* Signs of -0.0, or ties, against all others that are so few that they are damage; and the share that ties may be. */
enum { FEW_ODD = 4, ODD_SHARE = 16 };
/* Share of the blocks of most weights that have a rule's scale when the rule made them. */
static const double rule_share = 0.99;

static bool is_read(const struct comparison *comparison) {
    return comparison->kind == COMPARE_VALUES && comparison->tiles_read > 0;
}

uint64_t not_nearest_of(const struct verification *verification, const struct figures *figures) {
    return figures->not_nearest.count - (verification->rule == KNOWN_QSTREAM ? figures->near_zero : 0);
}

/* ---- the rule ---- */

/*
 * Without an option or a manifest, the rule that all but few blocks of most weights follow. The share of every weight
 * counts, not that of all blocks: a weight that is damaged has no say over the others.
 */
static void rule_find(struct verification *verification) {
    uint64_t weights = 0, follow[KNOWN_RULES] = {0}, blocks[KNOWN_RULES] = {0}, odd[KNOWN_RULES] = {0};
    for (size_t i = 0; i < verification->pairing.count; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (!is_read(comparison) || comparison->to.format != STORED_MXFP4)
            continue;
        const struct figures *figures = comparison->figures;
        uint64_t telling = figures->blocks - figures->zero_blocks;
        for (enum known_rule rule = 0; rule < KNOWN_RULES; rule++) /* codes that the rule would not have given */
            odd[rule] += figures->not_nearest.count - (rule == KNOWN_QSTREAM ? figures->near_zero : 0) +
                         (rule == KNOWN_MSE ? figures->negative_zero_dropped : figures->negative_zero_kept).count;
        if (telling == 0)
            continue;
        weights++;
        for (enum known_rule rule = 0; rule < KNOWN_RULES; rule++) {
            uint64_t of_rule = figures->of_rule[rule] - figures->zero_of_rule[rule];
            follow[rule] += (double)of_rule >= rule_share * (double)telling;
            blocks[rule] += of_rule;
        }
    }
    enum known_rule best = KNOWN_NONE;
    for (enum known_rule rule = 0; rule < KNOWN_RULES; rule++)
        if (2 * follow[rule] > weights && (best == KNOWN_NONE || blocks[rule] > blocks[best] ||
                                           (blocks[rule] == blocks[best] && odd[rule] <= odd[best])))
            best = rule;
    verification->rule = best;
    verification->rule_from = best == KNOWN_NONE ? FROM_DEFAULT : FROM_SCALES;
}

/* ---- findings about a weight ---- */

static enum status place_find(struct verification *verification, const struct comparison *comparison,
                              enum verify_severity severity, const char *id, const struct place *place,
                              const char *what, struct error *error) {
    struct block_view view;
    enum status status = block_view_read(comparison, place, &view, error);
    if (status != STATUS_OK)
        return status;
    unsigned i = (unsigned)(place->column % MATRIX_BLOCK);
    i = i < view.count ? i : 0;
    char code[24] = "";
    if (view.codes[i] >= 0)
        snprintf(code, sizeof code, "code %d, ", view.codes[i]);
    return verify_find(&verification->findings, severity, id, comparison->module, error,
                       "%s; the first at row %" PRIu64 ", column %" PRIu64 ": %.9g in the source, %s%.9g in the output "
                       "(scale %.9g)",
                       what, place->row, place->column, (double)view.source[i], code, view.output[i], view.scale);
}

static enum status finite_check(struct verification *verification, const struct comparison *comparison,
                                struct error *error) {
    const struct figures *figures = comparison->figures;
    char what[96];
    enum status status = STATUS_OK;
    if (figures->source_not_finite.count > 0) {
        snprintf(what, sizeof what, "the source holds %" PRIu64 " values that are NaN or infinite",
                 figures->source_not_finite.count);
        status = place_find(verification, comparison, VERIFY_ERROR, "source-not-finite",
                            &figures->source_not_finite.first, what, error);
    }
    if (status == STATUS_OK && figures->output_not_finite.count > 0) {
        snprintf(what, sizeof what, "%" PRIu64 " values of the output are NaN or infinite",
                 figures->output_not_finite.count);
        status = place_find(verification, comparison, VERIFY_ERROR, "output-not-finite",
                            &figures->output_not_finite.first, what, error);
    }
    return status;
}

static enum status nearest_check(struct verification *verification, const struct comparison *comparison,
                                 struct error *error) {
    uint64_t count = not_nearest_of(verification, comparison->figures);
    char what[96];
    if (!verification->nearest || count == 0)
        return STATUS_OK;
    snprintf(what, sizeof what,
             count == 1 ? "a code is not the nearest to its source value"
                        : "%" PRIu64 " codes are not the nearest to their source values",
             count);
    return place_find(verification, comparison, VERIFY_ERROR, "not-nearest", &comparison->figures->not_nearest.first,
                      what, error);
}

static enum verify_severity deviation_severity(const struct verification *verification) {
    return verification->rule_from != FROM_SCALES || verification->nearest ? VERIFY_ERROR : VERIFY_WARNING;
}

static enum status scales_check(struct verification *verification, const struct comparison *comparison,
                                struct error *error) {
    const struct figures *figures = comparison->figures;
    enum known_rule rule = verification->rule;
    if (rule == KNOWN_NONE || comparison->to.format != STORED_MXFP4 || figures->of_rule[rule] == figures->blocks)
        return STATUS_OK;
    /* where the rule was only told from others, a weight that mostly has other scales was made otherwise */
    if (verification->rule_from == FROM_SCALES && 2 * figures->of_rule[rule] < figures->blocks)
        return STATUS_OK;
    char what[128];
    snprintf(what, sizeof what, "%" PRIu64 " of %" PRIu64 " blocks do not have the scale that the rule %s gives",
             figures->blocks - figures->of_rule[rule], figures->blocks, known_rule_name(rule));
    return place_find(verification, comparison, deviation_severity(verification), "scale-not-of-rule",
                      &figures->off_rule[rule], what, error);
}

/* FP8 scales that were computed from the weight: most follow one of two formulas, those that do not are named. */
static enum status fp8_scales_check(struct verification *verification, const struct comparison *comparison,
                                    struct error *error) {
    struct figures figures = *comparison->figures;
    const struct matrix *to = &comparison->to;
    if (comparison->from.format != STORED_PLAIN ||
        (to->format != STORED_FP8_CHANNEL && to->format != STORED_FP8_TENSOR))
        return STATUS_OK;
    if (to->format == STORED_FP8_TENSOR && comparison->tiles_read == comparison->tile_count) {
        uint8_t bytes[8];
        const struct tensor *scale = &to->checkpoint->tensors[to->scale];
        if (scale->info.size > sizeof bytes)
            return STATUS_OK;
        enum status status = checkpoint_read(to->checkpoint, scale, 0, bytes, (size_t)scale->info.size, error);
        if (status != STATUS_OK)
            return status;
        fp8_scale_compare(number_decode(scale->info.dtype, bytes, 0), figures.largest_source, 0, &figures);
    }
    bool bf16 = figures.fp8_scales_bf16 >= figures.fp8_scales_f32;
    uint64_t same = bf16 ? figures.fp8_scales_bf16 : figures.fp8_scales_f32;
    bool known = verification->rule_from == FROM_MANIFEST; /* our own quantizer computes them so */
    if (same == figures.fp8_scales || (!known && 2 * same <= figures.fp8_scales))
        return STATUS_OK; /* made some other way */
    char what[128];
    snprintf(what, sizeof what,
             "%" PRIu64 " of %" PRIu64 " scales are not the largest value of their row divided by 448",
             figures.fp8_scales - same, figures.fp8_scales);
    return place_find(verification, comparison, known || verification->nearest ? VERIFY_ERROR : VERIFY_WARNING,
                      "scale-not-of-rule", bf16 ? &figures.off_bf16 : &figures.off_f32, what, error);
}

/* Whether a weight is exactly what its rule gives: then it is no corruption, whatever was lost. */
static bool conforms(const struct verification *verification, const struct figures *figures) {
    return verification->rule != KNOWN_NONE && figures->of_rule[verification->rule] == figures->blocks &&
           not_nearest_of(verification, figures) == 0;
}

static bool is_corrupt(const struct verification *verification, const struct comparison *comparison) {
    const struct sums *sums = &comparison->sums;
    const struct figures *figures = comparison->figures;
    if (comparison->to.format == STORED_PLAIN)
        return sums->error_square > plain_rounding * plain_rounding * sums->source_square;
    bool mxfp4 = comparison->to.format == STORED_MXFP4;
    if (mxfp4 && conforms(verification, figures))
        return false;
    if (mxfp4 && verification->calibrated)
        return sums->error_square > calibrated_error * calibrated_error * sums->source_square ||
               figures->worst_row_ratio > calibrated_row_error * calibrated_row_error;
    double fp8_limit = fp8_corrupt_error * fp8_corrupt_error;
    if (!mxfp4 && (sums->error_square > fp8_limit * sums->source_square || figures->odd_row_ratio > fp8_limit))
        return true;
    double least_error = mxfp4 ? corrupt_error : fp8_rounding;
    if (sums->error_square > corrupt_ratio * sums->best_square &&
        sums->error_square > least_error * least_error * sums->source_square)
        return true;
    return figures->bad_row_ratio > corrupt_row_ratio &&
           figures->worst_row_ratio > corrupt_row_error * corrupt_row_error;
}

static enum status corrupt_check(struct verification *verification, const struct comparison *comparison,
                                 struct error *error) {
    if (!is_corrupt(verification, comparison))
        return STATUS_OK;
    const struct sums *sums = &comparison->sums;
    const struct figures *figures = comparison->figures;
    double whole = rel_error(sums);
    bool mxfp4 = comparison->to.format == STORED_MXFP4;
    if (!mxfp4 && comparison->to.format != STORED_PLAIN && !(whole > fp8_corrupt_error) &&
        figures->odd_row_ratio > fp8_corrupt_error * fp8_corrupt_error)
        return verify_find(&verification->findings, VERIFY_ERROR, "corrupt", comparison->module, error,
                           "row %" PRIu64 " is no image of its source: its relative error is %.3g",
                           figures->odd_row.row, sqrt(figures->odd_row_ratio));
    if (!mxfp4 && comparison->to.format != STORED_PLAIN && whole > fp8_corrupt_error)
        return verify_find(&verification->findings, VERIFY_ERROR, "corrupt", comparison->module, error,
                           "is no image of its source: its relative error is %.3g", whole);
    if (mxfp4 && verification->calibrated && whole > calibrated_error)
        return verify_find(&verification->findings, VERIFY_ERROR, "corrupt", comparison->module, error,
                           "is no image of its source, calibrated or not: its relative error is %.3g", whole);
    if (mxfp4 && verification->calibrated)
        return verify_find(&verification->findings, VERIFY_ERROR, "corrupt", comparison->module, error,
                           "row %" PRIu64 " is no image of its source, calibrated or not: its relative error is %.3g",
                           figures->worst_row.row, sqrt(figures->worst_row_ratio));
    double ratio = sums->best_square > 0 ? sums->error_square / sums->best_square : HUGE_VAL;
    if (comparison->to.format == STORED_PLAIN || ratio > corrupt_ratio)
        return verify_find(&verification->findings, VERIFY_ERROR, "corrupt", comparison->module, error,
                           "is no image of its source: its squared error is %.3g times the least that %s can have "
                           "(SQNR %.2f dB)",
                           ratio, stored_format_name(comparison->to.format), sqnr_db(sums));
    return verify_find(&verification->findings, VERIFY_ERROR, "corrupt", comparison->module, error,
                       "row %" PRIu64 " is no image of its source: its squared error is %.3g times the least",
                       figures->bad_row.row, figures->bad_row_ratio);
}

static enum status limits_check(struct verification *verification, const struct comparison *comparison,
                                struct error *error) {
    struct limits limits;
    if (!verification->options->thresholds)
        return STATUS_OK;
    enum status status =
        thresholds_for(verification->options->thresholds, comparison->module, comparison->role, &limits, error);
    double sqnr = sqnr_db(&comparison->sums), rel = rel_error(&comparison->sums);
    bool lost = comparison->sums.error_square > 0;
    if (status == STATUS_OK && lost && !isnan(limits.min_sqnr_db) && !(sqnr >= limits.min_sqnr_db))
        status =
            verify_find(&verification->findings, VERIFY_ERROR, "below-threshold", comparison->module, error,
                        "has an SQNR of %.2f dB, less than the %.2f dB that are asked for", sqnr, limits.min_sqnr_db);
    if (status == STATUS_OK && lost && !isnan(limits.max_rel_error) && !(rel <= limits.max_rel_error))
        status =
            verify_find(&verification->findings, VERIFY_ERROR, "below-threshold", comparison->module, error,
                        "has a relative error of %.5g, more than the %.5g that are allowed", rel, limits.max_rel_error);
    return status;
}

/* ---- the sign of -0.0 ---- */

/*
 * mse keeps the sign of a source of -0.0, amax and qstream do not; other tools may do either, but always the same. So
 * those that do otherwise than the rule, or than most, were changed.
 */
static enum status signs_check(struct verification *verification, bool mxfp4, struct error *error) {
    uint64_t kept = 0, dropped = 0;
    for (size_t i = 0; i < verification->pairing.count; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (!is_read(comparison) || (comparison->to.format == STORED_MXFP4) != mxfp4)
            continue;
        kept += comparison->figures->negative_zero_kept.count;
        dropped += comparison->figures->negative_zero_dropped.count;
    }
    bool keeps = verification->rule == KNOWN_MSE, known = mxfp4 && verification->rule != KNOWN_NONE;
    /* others may follow the rule's scales with signs of their own: then most are against it */
    if (known && verification->rule_from != FROM_MANIFEST)
        known = (keeps ? dropped : kept) <= (keeps ? kept : dropped) + FEW_ODD;
    if (!known)
        keeps = kept >= dropped;
    if (!verification->nearest || (keeps ? dropped : kept) == 0 || (!known && (kept == 0 || dropped == 0)))
        return STATUS_OK;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < verification->pairing.count && status == STATUS_OK; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (!is_read(comparison) || (comparison->to.format == STORED_MXFP4) != mxfp4)
            continue;
        const struct tally *odd =
            keeps ? &comparison->figures->negative_zero_dropped : &comparison->figures->negative_zero_kept;
        char what[128];
        snprintf(what, sizeof what, "%" PRIu64 " zeros do not have the sign that all others have for a source of -0.0",
                 odd->count);
        if (odd->count > 0)
            status = place_find(verification, comparison, VERIFY_ERROR, "not-nearest", &odd->first, what, error);
    }
    return status;
}

/* ---- ties ---- */

/*
 * A value midway between two codes may have either, but one tool takes always the same: mse and amax the even one,
 * qstream the smaller. Those that are otherwise than the rule, or than nearly all, were changed.
 */
static enum status ties_check(struct verification *verification, struct error *error) {
    uint64_t off[TIE_RULES] = {0}, most = 0;
    for (size_t i = 0; i < verification->pairing.count; i++)
        for (enum tie_rule rule = 0; rule < TIE_RULES && is_read(&verification->pairing.comparisons[i]); rule++)
            off[rule] += verification->pairing.comparisons[i].figures->tie_off[rule].count;
    enum tie_rule taken = TIE_EVEN;
    for (enum tie_rule rule = 0; rule < TIE_RULES; rule++) {
        taken = off[rule] < off[taken] ? rule : taken;
        most = off[rule] > most ? off[rule] : most;
    }
    if (verification->rule_from == FROM_MANIFEST && verification->rule != KNOWN_NONE)
        taken = verification->rule == KNOWN_QSTREAM ? TIE_TOWARD_ZERO : TIE_EVEN;
    else if (off[taken] > most / ODD_SHARE + FEW_ODD)
        return STATUS_OK; /* taken as it comes */
    enum status status = STATUS_OK;
    for (size_t i = 0; i < verification->pairing.count && status == STATUS_OK && verification->nearest; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        const struct tally *odd = is_read(comparison) ? &comparison->figures->tie_off[taken] : NULL;
        char what[128];
        if (!odd || odd->count == 0)
            continue;
        snprintf(what, sizeof what, "%" PRIu64 " values midway between two codes have not the one that all others have",
                 odd->count);
        status = place_find(verification, comparison, VERIFY_ERROR, "not-nearest", &odd->first, what, error);
    }
    return status;
}

/* ---- quotients of FP8 ---- */

/* What a code was rounded from is the same for all codes: our quantizer, as compressed-tensors, divides in BF16. */
static enum status quotients_check(struct verification *verification, struct error *error) {
    uint64_t off[QUOTIENTS] = {0}, most = 0;
    for (size_t i = 0; i < verification->pairing.count; i++)
        for (enum quotient q = 0; q < QUOTIENTS && is_read(&verification->pairing.comparisons[i]); q++)
            off[q] += verification->pairing.comparisons[i].figures->quotient_off[q].count;
    enum quotient taken = QUOTIENT_BF16;
    for (enum quotient q = 0; q < QUOTIENTS; q++) {
        taken = off[q] < off[taken] ? q : taken;
        most = off[q] > most ? off[q] : most;
    }
    if (verification->rule_from == FROM_MANIFEST)
        taken = QUOTIENT_BF16;
    else if (off[taken] > most / ODD_SHARE + FEW_ODD)
        return STATUS_OK;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < verification->pairing.count && status == STATUS_OK && verification->nearest; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        const struct tally *odd = is_read(comparison) ? &comparison->figures->quotient_off[taken] : NULL;
        char what[128];
        if (!odd || odd->count == 0)
            continue;
        snprintf(what, sizeof what, "%" PRIu64 " codes are rounded from another quotient than all others", odd->count);
        status = place_find(verification, comparison, VERIFY_ERROR, "not-nearest", &odd->first, what, error);
    }
    return status;
}

/* ---- copies ---- */

static enum status copy_check(struct verification *verification, const struct comparison *comparison,
                              struct error *error) {
    if (comparison->different == 0)
        return STATUS_OK;
    const struct tensor_info *info = &verification->output.tensors[comparison->output].info;
    const char *source = verification->source.tensors[comparison->source].info.name;
    uint64_t columns = info->rank > 1 && info->shape[info->rank - 1] ? info->shape[info->rank - 1] : 0, elements = 1;
    uint64_t first = comparison->first_different;
    char place[64];
    shape_elements(info->shape, info->rank, &elements);
    if (columns > 0)
        snprintf(place, sizeof place, "row %" PRIu64 ", column %" PRIu64, first / columns, first % columns);
    else
        snprintf(place, sizeof place, "element %" PRIu64, first);
    return verify_find(&verification->findings, VERIFY_ERROR, comparison->finding, info->name, error,
                       "differs from the source's '%s' in %" PRIu64 " of %" PRIu64 " elements, the first at %s", source,
                       comparison->different, elements, place);
}

enum status verification_judge(struct verification *verification, struct error *error) {
    enum status status = STATUS_OK;
    if (verification->rule == KNOWN_NONE)
        rule_find(verification);
    for (size_t i = 0; i < verification->pairing.count && status == STATUS_OK; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (comparison->kind != COMPARE_VALUES) {
            status = copy_check(verification, comparison, error);
            continue;
        }
        if (!is_read(comparison))
            continue;
        status = finite_check(verification, comparison, error);
        if (status == STATUS_OK)
            status = corrupt_check(verification, comparison, error);
        if (status == STATUS_OK)
            status = scales_check(verification, comparison, error);
        if (status == STATUS_OK)
            status = fp8_scales_check(verification, comparison, error);
        if (status == STATUS_OK)
            status = nearest_check(verification, comparison, error);
        if (status == STATUS_OK)
            status = limits_check(verification, comparison, error);
    }
    if (status == STATUS_OK)
        status = signs_check(verification, true, error);
    if (status == STATUS_OK)
        status = signs_check(verification, false, error);
    if (status == STATUS_OK)
        status = ties_check(verification, error);
    return status == STATUS_OK ? quotients_check(verification, error) : status;
}
