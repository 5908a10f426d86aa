/*
 * Stacked experts: a tensor [experts, rows, columns] of the source that the output has as one module per expert and
 * projection, P.experts.N.gate_proj and up_proj (the halves of gate_up_proj) and down_proj.
 */
#ifndef QSTREAM_VERIFY_EXPERT_SLICE_H
#define QSTREAM_VERIFY_EXPERT_SLICE_H

#include "common/modules.h"
#include "common/name_table.h"

/* One expert's projection in its stacked tensor. */
struct expert_slice {
    uint64_t expert;
    uint64_t first_row; /* of the flattened tensor; transposed: the first column */
    bool transposed;    /* stored [experts, columns, stored_columns] */
    uint64_t stored_columns;
};

/*
 * Finds the stacked module that holds `output` by its name, and where; *found is false when there is none. A shape that
 * does not fit is not found either. `names` gives the numbers of `modules` by name.
 */
enum status expert_slice_find(const struct checkpoint *source, const struct modules *modules,
                              const struct name_table *names, const struct module *output, struct expert_slice *slice,
                              const struct module **stacked, bool *found, struct error *error);

/* Matrices that a stacked module holds: experts times projections; 0 when its name is none of stacked experts. */
uint64_t expert_slice_count(const struct module *module);

#endif
