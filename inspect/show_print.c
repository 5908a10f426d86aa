#include <inttypes.h>
#include <math.h>

#include "inspect/show.h"

enum { VALUES_PER_LINE = 8 };

static unsigned code_digits(unsigned bits) { return (bits + 3) / 4; }

/* ---- for people ---- */

static void append_place(const struct shown *shown, struct text *out) {
    text_append_escaped(out, shown->tensor->info.name);
    char shape[SHAPE_TEXT_MAX];
    text_printf(out, "  %s  %s %s", shown->format, dtype_name(shown->tensor->info.dtype),
                shape_text(shown->tensor->info.shape, shown->tensor->info.rank, shape));
    if (shown->leading > 1)
        text_printf(out, ", %s %" PRIu64 " of %" PRIu64, shown->is_expert ? "expert" : "matrix", shown->matrix,
                    shown->leading);
    text_printf(out, ", row %" PRIu64 " of %" PRIu64 ", %" PRIu64 " columns in %" PRIu64 " block%s\n", shown->row,
                shown->rows, shown->columns, shown->block_count, text_plural(shown->block_count));
    if (shown->global) {
        text_append_escaped(out, shown->global->info.name);
        text_printf(out, "  %.9g\n", shown->global_value);
    }
}

static void append_scale(const struct shown *shown, const struct shown_block *block, struct text *out) {
    if (!block->scaled)
        return;
    text_printf(out, "  scale 0x%0*" PRIx32, (int)code_digits(shown->scale_bits), block->scale_code);
    int exponent;
    double mantissa = frexp(block->scale, &exponent);
    if (mantissa == 0.5) /* a power of two says more than its digits */
        text_printf(out, " = 2^%d", exponent - 1);
    text_printf(out, " = %.9g", block->scale);
    if (shown->global)
        text_printf(out, ", with the global scale %.9g", block->factor);
}

static void append_line(const struct shown *shown, const struct shown_block *block, size_t first, struct text *out) {
    size_t end = first + VALUES_PER_LINE < block->count ? first + VALUES_PER_LINE : block->count;
    int digits = (int)code_digits(shown->code_bits), width = digits + 2 > 12 ? digits + 2 : 12;
    text_append_string(out, "  code   ");
    for (size_t i = first; i < end; i++)
        text_printf(out, " %*s0x%0*" PRIx64, width - digits - 2, "", digits, block->codes[i]);
    if (shown->code_bits <= 16 || block->scaled) {
        text_printf(out, "\n  %-7s", shown->dtype);
        for (size_t i = first; i < end; i++)
            text_printf(out, " %*.6g", width, block->decoded[i]);
    }
    if (block->scaled || shown->code_bits > 16) {
        text_append_string(out, "\n  value  ");
        for (size_t i = first; i < end; i++)
            text_printf(out, " %*.6g", width, block->values[i]);
    }
    text_append_string(out, "\n");
}

void show_table(const struct shown *shown, struct text *out) {
    append_place(shown, out);
    for (size_t i = 0; i < shown->count; i++) {
        const struct shown_block *block = &shown->blocks[i];
        text_printf(out, "block %" PRIu64 ", columns %" PRIu64 "..%" PRIu64, block->number, block->first_column,
                    block->first_column + block->count - 1);
        append_scale(shown, block, out);
        text_append_string(out, "\n");
        for (size_t first = 0; first < block->count; first += VALUES_PER_LINE)
            append_line(shown, block, first, out);
    }
    if (shown->left_out > 0)
        text_printf(out, "%" PRIu64 " more values in this row: name a block, or use --json\n", shown->left_out);
    if (shown->count == 0)
        text_append_string(out, "no values\n");
}

/* ---- JSON ---- */

static void append_reals(struct text *out, const char *key, const double *numbers, size_t count) {
    text_append_string(out, key);
    for (size_t i = 0; i < count; i++) {
        text_append_string(out, i ? "," : "");
        text_append_json_real(out, numbers[i]);
    }
    text_append_string(out, "]");
}

static void append_name(struct text *out, const char *key, const struct tensor *tensor) {
    text_append_string(out, key);
    if (tensor)
        text_append_json_ascii(out, tensor->info.name);
    else
        text_append_string(out, "null");
}

void show_json(const struct shown *shown, struct text *out) {
    append_name(out, "{\"schema\":\"qstream.show/1\",\"tensor\":", shown->tensor);
    text_printf(out, ",\"format\":\"%s\",\"dtype\":\"%s\",\"code\":\"%s\"", shown->format,
                dtype_name(shown->tensor->info.dtype), shown->dtype);
    append_name(out, ",\"scale\":", shown->scale);
    append_name(out, ",\"global_scale\":", shown->global);
    if (shown->global) {
        text_append_string(out, ",\"global_value\":");
        text_append_json_real(out, shown->global_value);
    }
    text_printf(out,
                ",\"matrix\":%" PRIu64 ",\"row\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"columns\":%" PRIu64
                ",\"block_columns\":%" PRIu64 ",\"left_out\":%" PRIu64 ",\"blocks\":[",
                shown->matrix, shown->row, shown->rows, shown->columns, shown->block_columns, shown->left_out);
    for (size_t i = 0; i < shown->count; i++) {
        const struct shown_block *block = &shown->blocks[i];
        text_printf(out, "%s{\"block\":%" PRIu64 ",\"first_column\":%" PRIu64, i ? ",\n" : "\n", block->number,
                    block->first_column);
        if (block->scaled) {
            text_printf(out, ",\"scale_index\":%" PRIu64 ",\"scale_code\":%" PRIu32 ",\"scale\":", block->scale_index,
                        block->scale_code);
            text_append_json_real(out, block->scale);
        }
        text_append_string(out, ",\"codes\":[");
        for (size_t k = 0; k < block->count; k++) {
            text_append_string(out, k ? "," : "");
            text_append_number(out, block->codes[k]);
        }
        append_reals(out, "],\"decoded\":[", block->decoded, block->count);
        append_reals(out, ",\"values\":[", block->values, block->count);
        text_append_string(out, "}");
    }
    text_append_string(out, "]}");
}
