/*
 * Single values of a checkpoint, decoded: a row of a tensor or one block of it, with its codes and scales.
 */
#ifndef QSTREAM_INSPECT_SHOW_H
#define QSTREAM_INSPECT_SHOW_H

#include "common/text.h"
#include "inspect/inspection.h"

/* Values that share a scale; or, where a scale covers more or there is none, 32 at a time. */
struct shown_block {
    uint64_t number;       /* in the row, from 0 */
    uint64_t first_column; /* its first value */
    size_t count;
    bool scaled;
    uint64_t scale_index;  /* element of the scale tensor */
    uint32_t scale_code;   /* its bits */
    double scale;          /* its value */
    double factor;         /* what codes are multiplied with: the scale, and the global one where there is one */
    const uint64_t *codes; /* bits as stored */
    const double *decoded; /* the codes' own values */
    const double *values;  /* decoded x factor */
};

struct shown {
    const struct tensor *tensor, *scale, *global; /* the last two may be NULL */
    const char *format;                           /* stored_format_name, or "plain" for all but weights */
    const char *dtype;                            /* of a code: "E2M1", "INT4", or the tensor's own */
    unsigned code_bits, scale_bits;
    bool is_expert;   /* the dimensions before the matrix are experts */
    uint64_t leading; /* matrices: the product of the dimensions before the last two */
    uint64_t rows, columns, block_columns, block_count; /* blocks in a row */
    uint64_t matrix, row;
    double global_value;
    struct shown_block *blocks; /* those that were asked for, up to the limit */
    size_t count;
    uint64_t left_out; /* values behind the limit */
    uint64_t *codes;
    double *numbers;
};

/* How many values a row shows in a table and in JSON. */
enum { SHOW_TABLE_VALUES = 64, SHOW_JSON_VALUES = 1 << 20 };

/*
 * `request` is NAME, NAME[row], NAME[row, block], and with one index more in front for each dimension before the last
 * two, as experts have one. NAME is a module or a tensor; without indices it is block 0 of row 0. STATUS_USAGE when
 * there is no such name or index, STATUS_BAD_INPUT when the format is not decoded. Of a whole row the blocks up to `limit` values
 * are read, at least one. Free with shown_free, also after an error.
 */
enum status show_read(const struct inspection *inspection, const char *request, uint64_t limit, struct shown *shown,
                      struct error *error);
void shown_free(struct shown *shown);

void show_table(const struct shown *shown, struct text *out);
void show_json(const struct shown *shown, struct text *out); /* no newline at the end */

#endif
