/*
 * How long oneDNN alone takes for the matrix products of a perplexity run, threads and blocks of its own choosing:
 * the bound that 'qstream ppl' is measured against.
 *
 *   products bf16|f32 THREADS HIDDEN MLP HEADS KV_HEADS HEAD_DIM VOCABULARY LAYERS WINDOW STRIDE WINDOWS
 *
 * Each shape of a layer is run on a window's tokens with weights in the layout that oneDNN prefers, until 0.2 s have
 * passed, three times; the best counts. Of attention only what is below the diagonal, in the shape of one head. One
 * JSON object: GFLOP/s of each shape, seconds of the run and their sum's tokens per second.
 */
#include <dnnl.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static dnnl_engine_t engine;
static dnnl_stream_t stream;
static dnnl_data_type_t type;

static void check(dnnl_status_t status, const char *what) {
    if (status != dnnl_success) {
        fprintf(stderr, "products: %s: oneDNN says %d\n", what, (int)status);
        exit(1);
    }
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static dnnl_memory_t memory_make(const dnnl_memory_desc_t *layout) {
    const size_t size = dnnl_memory_desc_get_size(layout);
    void *bytes = aligned_alloc(64, (size + 63) / 64 * 64);
    if (!bytes) {
        fprintf(stderr, "products: out of memory\n");
        exit(1);
    }
    memset(bytes, 0, size); /* zeros are multiplied as fast as anything */
    dnnl_memory_t memory;
    check(dnnl_memory_create(&memory, layout, engine, bytes), "memory");
    return memory;
}

static void memory_drop(dnnl_memory_t memory) {
    void *bytes = NULL;
    dnnl_memory_get_data_handle(memory, &bytes);
    dnnl_memory_destroy(memory);
    free(bytes);
}

/* Seconds of y[m, n] = x[m, k] * w[k, n], the best of three. */
static double product_seconds(dnnl_dim_t m, dnnl_dim_t n, dnnl_dim_t k) {
    dnnl_memory_desc_t x, w, y;
    check(dnnl_memory_desc_init_by_tag(&x, 2, (dnnl_dims_t){m, k}, type, dnnl_ab), "layout");
    check(dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){k, n}, type, dnnl_format_tag_any), "layout");
    check(dnnl_memory_desc_init_by_tag(&y, 2, (dnnl_dims_t){m, n}, dnnl_f32, dnnl_ab), "layout");
    dnnl_matmul_desc_t operation;
    check(dnnl_matmul_desc_init(&operation, &x, &w, NULL, &y), "product");
    dnnl_primitive_desc_t description;
    check(dnnl_primitive_desc_create(&description, &operation, NULL, engine, NULL), "product");
    dnnl_primitive_t primitive;
    check(dnnl_primitive_create(&primitive, description), "product");
    const dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, memory_make(&x)},
        {DNNL_ARG_WEIGHTS, memory_make(dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0))},
        {DNNL_ARG_DST, memory_make(&y)}};
    double best = 0;
    for (int try = 0; try < 4; try++) { /* the first warms up */
        const double begin = now();
        int runs = 0;
        double seconds;
        do {
            check(dnnl_primitive_execute(primitive, stream, 3, arguments), "running a product");
            dnnl_stream_wait(stream);
            runs++;
        } while ((seconds = now() - begin) < 0.2);
        if (try == 1 || (try > 1 && seconds / runs < best))
            best = seconds / runs;
    }
    for (int i = 0; i < 3; i++)
        memory_drop(arguments[i].memory);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(description);
    return best;
}

int main(int argc, char **argv) {
    if (argc != 13) {
        fprintf(stderr, "products: wrong number of arguments; see products.c\n");
        return 2;
    }
    type = strcmp(argv[1], "bf16") == 0 ? dnnl_bf16 : dnnl_f32;
    omp_set_num_threads(atoi(argv[2]));
    long values[10];
    for (int i = 0; i < 10; i++)
        values[i] = atol(argv[3 + i]);
    const long hidden = values[0], mlp = values[1], heads = values[2], kv_heads = values[3], head_dim = values[4],
               vocabulary = values[5], layers = values[6], window = values[7], stride = values[8], windows = values[9];
    check(dnnl_engine_create(&engine, dnnl_cpu, 0), "engine");
    check(dnnl_stream_create(&stream, engine, dnnl_stream_default_flags), "stream");
    const struct {
        const char *name;
        long m, n, k;
        double runs; /* in the whole run */
    } shapes[] = {
        {"q", window, heads * head_dim, hidden, (double)(layers * windows)},
        {"k, v", window, kv_heads * head_dim, hidden, (double)(2 * layers * windows)},
        {"o", window, hidden, heads * head_dim, (double)(layers * windows)},
        {"gate, up", window, mlp, hidden, (double)(2 * layers * windows)},
        {"down", window, hidden, mlp, (double)(layers * windows)},
        {"scores", window, window, head_dim, (double)(layers * windows * heads) / 2},
        {"values", window, head_dim, window, (double)(layers * windows * heads) / 2},
        {"head", stride, vocabulary, hidden, (double)(window + stride * (windows - 1)) / (double)stride},
    };
    double total = 0;
    printf("{\"shapes\": [");
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const double seconds = product_seconds(shapes[i].m, shapes[i].n, shapes[i].k);
        total += seconds * shapes[i].runs;
        printf("%s{\"name\": \"%s\", \"m\": %ld, \"n\": %ld, \"k\": %ld, \"gflops\": %.1f, \"seconds\": %.4f}",
               i ? ", " : "", shapes[i].name, shapes[i].m, shapes[i].n, shapes[i].k,
               2e-9 * (double)shapes[i].m * (double)shapes[i].n * (double)shapes[i].k / seconds,
               seconds * shapes[i].runs);
    }
    printf("], \"seconds\": %.4f, \"tokens_per_second\": %.1f}\n", total, (double)(window * windows) / total);
    return 0;
}
