#include "inspect/statistics_report.h"

#include <inttypes.h>
#include <math.h>

#include "inspect/statistics.h"

enum { E8M0_BIAS = 127, E8M0_NAN = 255 };

/* ---- what a line or an object is made of ---- */

/* A weight's statistics and those of its companions; each may be missing. */
struct subject {
    const struct module *module; /* NULL: the tensor is no module's weight */
    const struct tensor_statistics *own, *scale, *global, *input;
};

static const struct tensor_statistics *part_statistics(const struct inspection *inspection, const struct module *module,
                                                       enum part part) {
    return module->parts[part] == MODULE_NO_TENSOR ? NULL : inspection->statistics[module->parts[part]];
}

static bool subject_find(const struct inspection *inspection, uint32_t tensor, struct subject *subject) {
    const struct checkpoint *checkpoint = &inspection->checkpoint;
    const struct module *module = &inspection->modules.items[inspection->modules.of_tensor[tensor]];
    *subject = (struct subject){.own = inspection->statistics ? inspection->statistics[tensor] : NULL};
    if (!subject->own || module_weight(checkpoint, module) != &checkpoint->tensors[tensor])
        return subject->own != NULL;
    subject->module = module;
    subject->scale = part_statistics(inspection, module, PART_SCALE);
    if (!subject->scale)
        subject->scale = part_statistics(inspection, module, PART_SCALE_INV);
    subject->global = part_statistics(inspection, module, PART_GLOBAL_SCALE);
    if (!subject->global)
        subject->global = part_statistics(inspection, module, PART_SCALE_2);
    subject->input = part_statistics(inspection, module, PART_INPUT_SCALE);
    return true;
}

static const char *kind_name(const struct subject *subject) {
    switch (subject->own->kind) {
    case STATISTICS_FP8:
        return "fp8";
    case STATISTICS_FP4:
        return subject->module &&
                       (subject->module->format == STORED_NVFP4 || subject->module->format == STORED_MODELOPT_NVFP4)
                   ? "nvfp4"
                   : "mxfp4";
    case STATISTICS_E8M0:
        return "e8m0";
    case STATISTICS_INT8:
        return "int8";
    default:
        return "float";
    }
}

static double share(uint64_t part, uint64_t whole) { return whole == 0 ? NAN : (double)part / (double)whole; }

/* The largest magnitude of the finite values; NaN when there is none. */
static double magnitude_max(const struct tensor_statistics *statistics) {
    return fmax(fabs(statistics->min), fabs(statistics->max));
}

/* The codes of scales that are numbers. False when there is none. */
struct code_range {
    unsigned least, most, median;
};
static bool code_range_of(const struct code_counts *codes, struct code_range *range) {
    uint64_t total = 0, before = 0;
    for (unsigned i = 0; i < codes->count; i++)
        if (codes->first + i != E8M0_NAN)
            total += codes->counts[i];
    bool started = false;
    for (unsigned i = 0; i < codes->count; i++) {
        unsigned code = codes->first + i;
        if (code == E8M0_NAN || codes->counts[i] == 0)
            continue;
        if (!started)
            range->least = code;
        started = true;
        range->most = code;
        if (before < (total + 1) / 2 && before + codes->counts[i] >= (total + 1) / 2)
            range->median = code;
        before += codes->counts[i];
    }
    return started;
}

/* ---- a line ---- */

static void append_percent(struct text *out, const char *what, double value) {
    if (!isfinite(value))
        return;
    if (value > 0 && value < 0.0005)
        text_printf(out, ", %s %.1e", what, value);
    else
        text_printf(out, ", %s %.1f %%", what, 100 * value);
}

static void append_range(struct text *out, const struct tensor_statistics *values) {
    if (isnan(values->min))
        text_append_string(out, values->elements == 0 ? "empty" : "none finite");
    else if (values->min < values->max)
        text_printf(out, "%.4g..%.4g", values->min, values->max);
    else
        text_printf(out, "%.4g", values->min);
    if (values->nan > 0)
        text_printf(out, " (%" PRIu64 " NaN)", values->nan);
    if (values->infinite > 0)
        text_printf(out, " (%" PRIu64 " Inf)", values->infinite);
}

static void append_exponents(struct text *out, const struct tensor_statistics *scales) {
    struct code_range range;
    if (!code_range_of(&scales->codes, &range))
        text_append_string(out, "none finite");
    else
        text_printf(out, "2^%d..2^%d, median 2^%d", (int)range.least - E8M0_BIAS, (int)range.most - E8M0_BIAS,
                    (int)range.median - E8M0_BIAS);
    if (scales->nan > 0)
        text_printf(out, " (%" PRIu64 " NaN)", scales->nan);
}

static void append_scales(struct text *out, const struct subject *subject) {
    if (subject->scale) {
        text_append_string(out, "scale ");
        if (subject->scale->kind == STATISTICS_E8M0)
            append_exponents(out, subject->scale);
        else
            append_range(out, subject->scale);
    } else {
        text_append_string(out, "no scale");
    }
    if (subject->global) {
        text_append_string(out, ", global ");
        append_range(out, subject->global);
    }
    if (subject->input) {
        text_append_string(out, ", input ");
        append_range(out, subject->input);
    }
}

void statistics_append_line(const struct inspection *inspection, uint32_t tensor, struct text *out) {
    struct subject subject;
    if (!subject_find(inspection, tensor, &subject))
        return;
    const struct tensor_statistics *own = subject.own;
    switch (own->kind) {
    case STATISTICS_E8M0:
        append_exponents(out, own);
        return;
    case STATISTICS_FLOAT:
        append_range(out, own);
        if (own->zero > 0)
            append_percent(out, "zero", share(own->zero, own->elements));
        return;
    default:
        if (!subject.module) { /* scales stored as FP8 */
            append_range(out, own);
            return;
        }
    }
    append_scales(out, &subject);
    append_percent(out, "zero", share(own->zero, own->elements));
    if (own->kind == STATISTICS_FP4) {
        append_percent(out, "at +-6", share(own->saturated, own->elements));
        text_printf(out, ", entropy %.2f bits", code_entropy(own->fp4, 16));
    } else if (own->kind == STATISTICS_FP8) {
        text_printf(out, ", amax %.4g", magnitude_max(own));
        append_percent(out, "at +-448", share(own->saturated, own->elements));
        text_printf(out, ", NaN %" PRIu64, own->nan);
    } else {
        text_printf(out, ", codes %.0f..%.0f", own->min, own->max);
    }
}

/* ---- JSON ---- */

static void append_real(struct text *out, const char *key, double number) {
    text_append_string(out, ",\"");
    text_append_string(out, key);
    text_append_string(out, "\":");
    text_append_json_real(out, number);
}

static void append_count(struct text *out, const char *key, uint64_t number) {
    text_append_string(out, ",\"");
    text_append_string(out, key);
    text_append_string(out, "\":");
    text_append_number(out, number);
}

static void append_code_counts(struct text *out, const struct code_counts *codes) {
    text_append_string(out, "\"histogram\":[");
    bool started = false;
    for (unsigned i = 0; i < codes->count; i++) {
        if (codes->counts[i] == 0)
            continue;
        text_append_string(out, started ? ",[" : "[");
        started = true;
        text_append_number(out, codes->first + i);
        text_append_string(out, ",");
        text_append_number(out, codes->counts[i]);
        text_append_string(out, "]");
    }
    text_append_string(out, "]");
}

static void append_scale_codes(struct text *out, const struct tensor_statistics *scales) {
    struct code_range range;
    if (code_range_of(&scales->codes, &range))
        text_printf(out, ",\"scale_codes\":{\"min\":%u,\"max\":%u", range.least, range.most);
    else
        text_append_string(out, ",\"scale_codes\":{\"min\":null,\"max\":null");
    append_count(out, "nan", scales->nan);
    text_append_string(out, ",");
    append_code_counts(out, &scales->codes);
    text_append_string(out, "}");
}

static void append_scale(struct text *out, const struct tensor_statistics *scales) {
    text_append_string(out, ",\"weight_scale\":{\"count\":");
    text_append_number(out, scales->elements);
    append_real(out, "min", scales->min);
    append_real(out, "max", scales->max);
    append_count(out, "nan", scales->nan);
    append_count(out, "inf", scales->infinite);
    text_append_string(out, "}");
}

static void append_companions_json(struct text *out, const struct subject *subject) {
    if (subject->scale && subject->scale->kind == STATISTICS_E8M0)
        append_scale_codes(out, subject->scale);
    else if (subject->scale)
        append_scale(out, subject->scale);
    if (subject->global)
        append_real(out, "global_scale", subject->global->max);
    append_real(out, "input_scale", subject->input ? subject->input->max : NAN);
}

static void append_fp4_codes(struct text *out, const struct tensor_statistics *own) {
    text_append_string(out, ",\"codes\":{\"histogram\":[");
    for (int code = 0; code < 16; code++) {
        text_append_string(out, code ? "," : "");
        text_append_number(out, own->fp4[code]);
    }
    text_append_string(out, "]");
    append_real(out, "zero_share", share(own->zero, own->elements));
    append_real(out, "saturated_share", share(own->saturated, own->elements));
    append_real(out, "entropy_bits", own->elements > 0 ? code_entropy(own->fp4, 16) : NAN);
    text_append_string(out, "}");
}

bool statistics_append_json(const struct inspection *inspection, uint32_t tensor, struct text *out) {
    struct subject subject;
    if (!subject_find(inspection, tensor, &subject))
        return false;
    const struct tensor_statistics *own = subject.own;
    text_append_string(out, "{\"kind\":\"");
    text_append_string(out, kind_name(&subject));
    text_append_string(out, "\"");
    if (subject.module && own->kind != STATISTICS_FLOAT)
        append_companions_json(out, &subject);
    switch (own->kind) {
    case STATISTICS_E8M0:
        append_scale_codes(out, own);
        break;
    case STATISTICS_FP4:
        append_fp4_codes(out, own);
        break;
    case STATISTICS_FP8:
        append_real(out, "amax", magnitude_max(own));
        append_real(out, "saturated_share", share(own->saturated, own->elements));
        append_real(out, "zero_share", share(own->zero, own->elements));
        append_count(out, "nan", own->nan);
        text_append_string(out, ",\"exponents\":{");
        append_code_counts(out, &own->codes);
        text_append_string(out, "}");
        break;
    default:
        append_real(out, "min", own->min);
        append_real(out, "max", own->max);
        if (own->kind == STATISTICS_FLOAT) {
            append_count(out, "nan", own->nan);
            append_count(out, "inf", own->infinite);
        }
        append_real(out, "zero_share", share(own->zero, own->elements));
    }
    text_append_string(out, "}");
    return true;
}
