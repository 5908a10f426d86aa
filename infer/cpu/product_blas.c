#include "infer/cpu/product.h"

#if !defined __x86_64__

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct products {
    bool open;
};

void product_thread_begin(void) { openblas_set_num_threads(1); }

void product_thread_end(void) {}

bool products_have_bf16(enum cpu_level level) {
    (void)level;
    return false;
}

enum status products_describe(char name[PRODUCTS_NAME_MAX], struct error *error) {
    (void)error;
    snprintf(name, PRODUCTS_NAME_MAX, "%s, without bf16", openblas_get_config()); /* it begins with name and version */
    return STATUS_OK;
}

enum status products_open(enum cpu_level level, bool bf16, struct products **products, struct error *error) {
    (void)level;
    *products = calloc(1, sizeof **products);
    if (!*products)
        return error_set_memory(error);
    product_thread_begin();
    return bf16 ? error_set(error, STATUS_USAGE, "this machine has no bf16 products") : STATUS_OK;
}

void products_close(struct products *products) { free(products); }

size_t product_packed_size(struct products *products, uint32_t n, uint32_t k, struct error *error) {
    (void)products;
    (void)error;
    return ((size_t)n * k * sizeof(float) + 63) / 64 * 64;
}

/* Packed is plain: OpenBLAS packs for itself. */
enum status product_pack(struct products *products, const struct product_part *part, const void *rows, size_t stride,
                         void *packed, struct error *error) {
    (void)products;
    (void)error;
    const float *from = rows;
    for (uint32_t r = 0; r < part->n_part; r++) {
        float *to = (float *)packed + (size_t)(part->n0 + r) * part->k + part->k0;
        if (!part->transposed)
            memcpy(to, from + r * stride, part->k_part * sizeof *to);
        else
            for (uint32_t c = 0; c < part->k_part; c++)
                to[c] = from[c * stride + r];
    }
    return STATUS_OK;
}

enum status product_run(struct products *products, const struct product *product, const void *x, const void *packed,
                        float *y, struct error *error) {
    (void)products;
    (void)error;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)product->m, (int)product->n, (int)product->k, 1, x,
                (int)product->k, packed, (int)product->k, product->add ? 1 : 0, y, (int)product->n);
    return STATUS_OK;
}

#endif
