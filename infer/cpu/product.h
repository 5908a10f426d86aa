/*
 * Products of many rows: y[m, n] = x[m, k] * w[n, k]^T, or added to y, in float32, one thread each. x and w are float32
 * or bf16 (bf16 values, float32 sums). w is packed first, into the layout that the kernels of this machine want.
 *
 * On x86-64 by oneDNN, which chooses its kernels at run time (AMX, AVX-512 with and without bf16, AVX2); elsewhere by
 * OpenBLAS, in float32. The result of an element depends on k and the machine, not on the threads.
 */
#ifndef QSTREAM_INFER_CPU_PRODUCT_H
#define QSTREAM_INFER_CPU_PRODUCT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/cpu.h"
#include "common/status.h"

struct products; /* kernels of all shapes that were asked for; for several threads at once */

/* Whether this machine multiplies bf16 faster than float32. */
bool products_have_bf16(enum cpu_level level);

/* What multiplies here: "oneDNN 2.6.3, with bf16". STATUS_IO when it is not there. */
enum { PRODUCTS_NAME_MAX = 128 };
enum status products_describe(char name[PRODUCTS_NAME_MAX], struct error *error);

/* `bf16`: the type of x and w. `level` bounds the instruction set. Free with products_close. */
enum status products_open(enum cpu_level level, bool bf16, struct products **products, struct error *error);
void products_close(struct products *products); /* NULL is fine */

/* To be called in every thread that uses products, before and after. */
void product_thread_begin(void);
void product_thread_end(void);

/* Bytes of w [n, k] packed, a multiple of 64; 0 after an error. */
size_t product_packed_size(struct products *products, uint32_t n, uint32_t k, struct error *error);

/*
 * Packs the part [n0, n0 + n_part) x [k0, k0 + k_part) of w [n, k]; `rows` points at its first element, rows are
 * `stride` elements apart. n0 is a multiple of PRODUCT_ROWS, k0 of PRODUCT_COLUMNS, a part ends at one too or at the
 * end of w. `packed` is aligned to 64. With `transposed` rows[c * stride + r] is the element of row r, column c.
 */
enum { PRODUCT_ROWS = 64, PRODUCT_COLUMNS = 512 };
struct product_part {
    uint32_t n, k, n0, n_part, k0, k_part;
    bool transposed;
};
enum status product_pack(struct products *products, const struct product_part *part, const void *rows, size_t stride,
                         void *packed, struct error *error);

/*
 * Rows of x and of y lie one after another: where they lie apart, oneDNN's kernels give way to its reference, at a
 * hundredth of the speed. `add`: y += instead of y =.
 */
struct product {
    uint32_t m, n, k;
    bool add;
};
enum status product_run(struct products *products, const struct product *product, const void *x, const void *packed,
                        float *y, struct error *error);

#endif
