#include "infer/cpu/product.h"

#if defined __x86_64__

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cpu/onednn.h"

/* The number of rows of x for which the layout of packed weights is chosen. */
enum { TYPICAL_ROWS = 256, TABLE_START = 64 };

enum kernel_kind { KERNEL_LAYOUT, KERNEL_PACK, KERNEL_PRODUCT };

/* What a kernel is made for; compared as bytes, so without padding. */
struct kernel_key {
    uint64_t kind;
    uint64_t m, n, k; /* KERNEL_PACK: n, k of the part; of w in m (n) and add (k) */
    uint64_t add, transposed;
    uint64_t stride; /* KERNEL_PACK: from one of the rows to the next */
};

struct kernel {
    struct kernel_key key;
    dnnl_memory_desc_t packed, x, y, scratch;
    dnnl_primitive_t primitive; /* NULL for KERNEL_LAYOUT */
};

struct products {
    dnnl_engine_t engine;
    dnnl_data_type_t type;
    size_t element;
    pthread_rwlock_t lock;
    struct kernel **kernels; /* open addressing */
    size_t capacity, count;  /* capacity is a power of two */
};

static _Thread_local dnnl_stream_t thread_stream; /* streams are not for several threads */
/* What kernels want to write to: some hundred bytes, more with AMX or where oneDNN packs at run time. */
static _Thread_local void *thread_scratch;
static _Thread_local size_t thread_scratch_size;

void product_thread_begin(void) {
    if (onednn.omp_set_num_threads)
        onednn.omp_set_num_threads(1);
}

void product_thread_end(void) {
    if (thread_stream)
        onednn.stream_destroy(thread_stream);
    thread_stream = NULL;
    free(thread_scratch);
    thread_scratch = NULL;
    thread_scratch_size = 0;
}

static bool scratch_grow(size_t size) {
    if (thread_scratch && size <= thread_scratch_size)
        return true;
    free(thread_scratch);
    thread_scratch_size = size / 4096 * 4096 + 4096;
    thread_scratch = aligned_alloc(64, thread_scratch_size);
    if (!thread_scratch)
        thread_scratch_size = 0;
    return thread_scratch != NULL;
}

static enum status failed(struct error *error, const char *what, dnnl_status_t status) {
    return error_set(error, STATUS_IO, "oneDNN: %s failed (%s)", what,
                     status == dnnl_out_of_memory   ? "out of memory"
                     : status == dnnl_unimplemented ? "this machine has no kernel for it"
                                                    : "an internal error");
}

static void isa_limit(enum cpu_level level) {
    /* fails once kernels were made: then the limit is what it was */
    if (level == CPU_AVX2)
        onednn.set_max_cpu_isa(dnnl_cpu_isa_avx2);
    else if (level == CPU_PORTABLE)
        onednn.set_max_cpu_isa(dnnl_cpu_isa_sse41);
}

bool products_have_bf16(enum cpu_level level) {
    struct error error; /* products_open says it */
    if (onednn_load(&error) != STATUS_OK)
        return false;
    isa_limit(level);
    const dnnl_cpu_isa_t isa = onednn.get_effective_cpu_isa();
    return level == CPU_AVX512 && (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
}

enum status products_describe(char name[PRODUCTS_NAME_MAX], struct error *error) {
    const enum status status = onednn_load(error);
    if (status != STATUS_OK)
        return status;
    const dnnl_version_t *version = onednn.version();
    snprintf(name, PRODUCTS_NAME_MAX, "oneDNN %d.%d.%d, %s bf16", version->major, version->minor, version->patch,
             products_have_bf16(cpu_best()) ? "with" : "without");
    return STATUS_OK;
}

enum status products_open(enum cpu_level level, bool bf16, struct products **out, struct error *error) {
    *out = NULL;
    const enum status loaded = onednn_load(error);
    if (loaded != STATUS_OK)
        return loaded;
    isa_limit(level);
    product_thread_begin();
    struct products *products = calloc(1, sizeof *products);
    *out = products;
    if (!products)
        return error_set_memory(error);
    pthread_rwlock_init(&products->lock, NULL);
    products->type = bf16 ? dnnl_bf16 : dnnl_f32;
    products->element = bf16 ? 2 : 4;
    products->capacity = TABLE_START;
    products->kernels = calloc(products->capacity, sizeof(struct kernel *));
    if (!products->kernels)
        return error_set_memory(error);
    const dnnl_status_t status = onednn.engine_create(&products->engine, dnnl_cpu, 0);
    return status == dnnl_success ? STATUS_OK : failed(error, "starting", status);
}

void products_close(struct products *products) {
    if (!products)
        return;
    for (size_t i = 0; products->kernels && i < products->capacity; i++)
        if (products->kernels[i]) {
            onednn.primitive_destroy(products->kernels[i]->primitive);
            free(products->kernels[i]);
        }
    free(products->kernels);
    product_thread_end();
    if (products->engine)
        onednn.engine_destroy(products->engine);
    pthread_rwlock_destroy(&products->lock);
    free(products);
}

/* ---- kernels ---- */

static size_t key_hash(const struct kernel_key *key) {
    const uint64_t words[] = {key->kind, key->m, key->n, key->k, key->add, key->transposed, key->stride};
    uint64_t hash = 14695981039346656037u; /* FNV-1a, by words */
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        hash = (hash ^ words[i]) * 1099511628211u;
    return (size_t)(hash ^ hash >> 32);
}

/* The kernel's place in the table, or where it would go. */
static struct kernel **kernel_place(struct kernel **kernels, size_t capacity, const struct kernel_key *key) {
    size_t i = key_hash(key) & (capacity - 1);
    while (kernels[i] && memcmp(&kernels[i]->key, key, sizeof *key) != 0)
        i = (i + 1) & (capacity - 1);
    return &kernels[i];
}

static bool table_grow(struct products *products) {
    struct kernel **kernels = calloc(products->capacity * 2, sizeof(struct kernel *));
    if (!kernels)
        return false;
    for (size_t i = 0; i < products->capacity; i++)
        if (products->kernels[i])
            *kernel_place(kernels, products->capacity * 2, &products->kernels[i]->key) = products->kernels[i];
    free(products->kernels);
    products->kernels = kernels;
    products->capacity *= 2;
    return true;
}

static dnnl_status_t matrix_describe(dnnl_memory_desc_t *matrix, uint64_t rows, uint64_t columns, dnnl_data_type_t type,
                                     size_t row_stride, size_t column_stride) {
    const dnnl_dims_t sizes = {(dnnl_dim_t)rows, (dnnl_dim_t)columns},
                      strides = {(dnnl_dim_t)row_stride, (dnnl_dim_t)column_stride};
    return onednn.memory_desc_init_by_strides(matrix, 2, sizes, type, strides);
}

/* A product; the packed layout is chosen here when `layout` is NULL. */
static dnnl_status_t product_make(struct products *products, const struct kernel_key *key,
                                  const dnnl_memory_desc_t *layout, struct kernel *kernel) {
    dnnl_memory_desc_t any;
    dnnl_status_t status = matrix_describe(&kernel->x, key->m, key->k, products->type, key->k, 1);
    if (status == dnnl_success)
        status = matrix_describe(&kernel->y, key->m, key->n, dnnl_f32, key->n, 1);
    const dnnl_dims_t sizes = {(dnnl_dim_t)key->k, (dnnl_dim_t)key->n};
    if (status == dnnl_success && !layout) {
        status = onednn.memory_desc_init_by_tag(&any, 2, sizes, products->type, dnnl_format_tag_any);
        layout = &any;
    }
    dnnl_matmul_desc_t operation;
    if (status == dnnl_success)
        status = onednn.matmul_desc_init(&operation, &kernel->x, layout, NULL, &kernel->y);
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_post_ops_t after = NULL;
    if (status == dnnl_success)
        status = onednn.primitive_attr_create(&attributes);
    /* its own scratch space belongs to the thread that makes the kernel; others run it too */
    if (status == dnnl_success)
        status = onednn.primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
    if (status == dnnl_success && key->add) {
        status = onednn.post_ops_create(&after);
        if (status == dnnl_success)
            status = onednn.post_ops_append_sum(after, 1);
        if (status == dnnl_success)
            status = onednn.primitive_attr_set_post_ops(attributes, after);
    }
    dnnl_primitive_desc_t description = NULL;
    if (status == dnnl_success)
        status = onednn.primitive_desc_create(&description, &operation, attributes, products->engine, NULL);
    if (status == dnnl_success) {
        kernel->packed = *onednn.primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        kernel->scratch = *onednn.primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
        status = onednn.primitive_create(&kernel->primitive, description);
    }
    onednn.primitive_desc_destroy(description);
    onednn.post_ops_destroy(after);
    onednn.primitive_attr_destroy(attributes);
    return status;
}

static dnnl_status_t pack_make(struct products *products, const struct kernel_key *key,
                               const dnnl_memory_desc_t *layout, struct kernel *kernel) {
    const dnnl_dims_t sizes = {(dnnl_dim_t)key->k, (dnnl_dim_t)key->n}, start = {0, 0};
    dnnl_status_t status = matrix_describe(&kernel->x, key->k, key->n, products->type,
                                           key->transposed ? key->stride : 1, key->transposed ? 1 : key->stride);
    if (status == dnnl_success)
        status = onednn.memory_desc_init_submemory(&kernel->packed, layout, sizes, start);
    dnnl_primitive_desc_t description = NULL;
    if (status == dnnl_success)
        status = onednn.reorder_primitive_desc_create(&description, &kernel->x, products->engine, &kernel->packed,
                                                      products->engine, NULL);
    if (status == dnnl_success)
        status = onednn.primitive_create(&kernel->primitive, description);
    onednn.primitive_desc_destroy(description);
    return status;
}

/* The kernel of a key, made when it is asked for first. NULL after an error. */
static const struct kernel *kernel_get(struct products *products, const struct kernel_key *key,
                                       const dnnl_memory_desc_t *layout, struct error *error) {
    pthread_rwlock_rdlock(&products->lock);
    struct kernel *kernel = *kernel_place(products->kernels, products->capacity, key);
    pthread_rwlock_unlock(&products->lock);
    if (kernel)
        return kernel;
    pthread_rwlock_wrlock(&products->lock);
    kernel = *kernel_place(products->kernels, products->capacity, key);
    if (kernel) { /* another thread was quicker */
        pthread_rwlock_unlock(&products->lock);
        return kernel;
    }
    kernel = calloc(1, sizeof *kernel);
    dnnl_status_t status = dnnl_out_of_memory;
    if (kernel && (products->count * 2 < products->capacity || table_grow(products))) {
        kernel->key = *key;
        status = key->kind == KERNEL_PACK ? pack_make(products, key, layout, kernel)
                                          : product_make(products, key, layout, kernel);
    }
    if (status == dnnl_success) {
        *kernel_place(products->kernels, products->capacity, key) = kernel;
        products->count++;
    } else {
        failed(error, key->kind == KERNEL_PACK ? "making a reordering" : "making a matrix product", status);
        if (kernel)
            onednn.primitive_destroy(kernel->primitive);
        free(kernel);
        kernel = NULL;
    }
    pthread_rwlock_unlock(&products->lock);
    return kernel;
}

/* The layout of w [n, k]: what a product of a typical size wants. */
static const dnnl_memory_desc_t *layout_get(struct products *products, uint32_t n, uint32_t k, struct error *error) {
    const struct kernel_key key = {.kind = KERNEL_LAYOUT, .m = TYPICAL_ROWS, .n = n, .k = k};
    const struct kernel *kernel = kernel_get(products, &key, NULL, error);
    return kernel ? &kernel->packed : NULL;
}

/* ---- running ---- */

struct operand {
    int argument; /* DNNL_ARG_... */
    const dnnl_memory_desc_t *layout;
    const void *bytes;
};

enum { OPERANDS_MAX = 4 };

static enum status execute(struct products *products, const struct kernel *kernel, const struct operand *operands,
                           int count, struct error *error) {
    dnnl_status_t status = dnnl_success;
    if (!thread_stream)
        status = onednn.stream_create(&thread_stream, products->engine, dnnl_stream_default_flags);
    dnnl_exec_arg_t arguments[OPERANDS_MAX] = {{0, NULL}};
    for (int i = 0; status == dnnl_success && i < count; i++) {
        arguments[i].arg = operands[i].argument;
        status = onednn.memory_create(&arguments[i].memory, operands[i].layout, products->engine,
                                      (void *)(uintptr_t)operands[i].bytes);
    }
    if (status == dnnl_success)
        status = onednn.primitive_execute(kernel->primitive, thread_stream, count, arguments);
    for (int i = 0; i < count; i++)
        onednn.memory_destroy(arguments[i].memory);
    return status == dnnl_success ? STATUS_OK : failed(error, "a kernel", status);
}

size_t product_packed_size(struct products *products, uint32_t n, uint32_t k, struct error *error) {
    const dnnl_memory_desc_t *layout = layout_get(products, n, k, error);
    return layout ? (onednn.memory_desc_get_size(layout) + 63) / 64 * 64 : 0;
}

enum status product_pack(struct products *products, const struct product_part *part, const void *rows, size_t stride,
                         void *packed, struct error *error) {
    const dnnl_memory_desc_t *layout = layout_get(products, part->n, part->k, error);
    if (!layout)
        return STATUS_IO;
    const dnnl_dims_t sizes = {part->k_part, part->n_part}, start = {part->k0, part->n0};
    dnnl_memory_desc_t place;
    const dnnl_status_t status = onednn.memory_desc_init_submemory(&place, layout, sizes, start);
    if (status != dnnl_success)
        return failed(error, "placing a part of a weight", status);
    const struct kernel_key key = {.kind = KERNEL_PACK,
                                   .m = part->n,
                                   .add = part->k,
                                   .n = part->n_part,
                                   .k = part->k_part,
                                   .transposed = part->transposed,
                                   .stride = stride};
    const struct kernel *kernel = kernel_get(products, &key, layout, error);
    if (!kernel)
        return STATUS_IO;
    const struct operand operands[] = {
        {DNNL_ARG_FROM, &kernel->x, rows},
        {DNNL_ARG_TO, &kernel->packed, (char *)packed + (size_t)place.offset0 * products->element}};
    return execute(products, kernel, operands, 2, error);
}

enum status product_run(struct products *products, const struct product *product, const void *x, const void *packed,
                        float *y, struct error *error) {
    const dnnl_memory_desc_t *layout = layout_get(products, product->n, product->k, error);
    if (!layout)
        return STATUS_IO;
    const struct kernel_key key = {
        .kind = KERNEL_PRODUCT, .m = product->m, .n = product->n, .k = product->k, .add = product->add};
    const struct kernel *kernel = kernel_get(products, &key, layout, error);
    if (!kernel)
        return STATUS_IO;
    if (!scratch_grow(onednn.memory_desc_get_size(&kernel->scratch)))
        return error_set_memory(error);
    const struct operand operands[] = {{DNNL_ARG_SRC, &kernel->x, x},
                                       {DNNL_ARG_DST, &kernel->y, y},
                                       {DNNL_ARG_WEIGHTS, &kernel->packed, packed},
                                       {DNNL_ARG_SCRATCHPAD, &kernel->scratch, thread_scratch}};
    return execute(products, kernel, operands, 4, error);
}

#endif
