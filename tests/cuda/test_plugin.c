/*
 * Tests of every operation of the CUDA plug-in against plain sums in double, the decoders of common/formats.h and the
 * CPU's kernels.
 *
 *     test_plugin [--digest FILE] [--only PATTERN] [PLUGIN]
 *
 * PLUGIN is build/cuda-model/libqstream_cuda.so by default, the plug-in under the execution model. FILE gets a line per test
 * with a digest of all results: they must not depend on the order in which the device runs blocks and threads.
 */
#include "tests/cuda/test_plugin.h"

#include <dlfcn.h>

static const char *const usual_plugin = "build/cuda-model/libqstream_cuda.so";

enum { TESTS_MOST = 128, GUARD = 256, FILLED = 0xff, GUARD_BYTE = 0xa5 };

const struct cuda_plugin *plugin;
struct cuda_device *device;
struct cuda_info info;

/* ---- memory ---- */

struct piece {
    struct piece *next;
    unsigned char *base; /* on the device: GUARD bytes, `offset`, the piece, GUARD bytes; NULL: host memory follows */
    size_t bytes;        /* with the offset */
};

static struct piece *pieces;
static uint64_t digest;
static FILE *digest_file;

static void *allocated(size_t bytes) {
    void *memory = malloc(bytes > 0 ? bytes : 1);
    assert_non_null(memory);
    return memory;
}

void *host_memory(size_t bytes) {
    struct piece *piece = allocated((sizeof *piece + 63) / 64 * 64 + bytes);
    *piece = (struct piece){.next = pieces};
    pieces = piece;
    return (unsigned char *)piece + (sizeof *piece + 63) / 64 * 64;
}

void to_device(void *memory, const void *from, size_t bytes) {
    plugin->copy_in(device, CUDA_COMPUTE, memory, from, bytes);
    plugin->synchronize(device, CUDA_COMPUTE);
}

static unsigned char *piece_take(size_t bytes, size_t offset) {
    struct piece *piece = allocated(sizeof *piece);
    *piece = (struct piece){.next = pieces, .bytes = bytes + offset};
    piece->base = plugin->allocate(device, bytes + offset + (size_t)2 * GUARD);
    pieces = piece;
    if (!piece->base)
        fail_msg("%s", plugin->failure(device));
    assert_int_equal((uintptr_t)piece->base % 256, 0);
    unsigned char guard[GUARD];
    memset(guard, GUARD_BYTE, sizeof guard);
    to_device(piece->base, guard, GUARD);
    to_device(piece->base + GUARD + piece->bytes, guard, GUARD);
    return piece->base + GUARD + offset;
}

void *on_device_at(const void *from, size_t bytes, size_t offset) {
    unsigned char *memory = piece_take(bytes, offset);
    to_device(memory, from, bytes);
    return memory;
}

void *on_device(const void *from, size_t bytes) { return on_device_at(from, bytes, 0); }

void *for_result(size_t bytes) {
    void *filled = memset(allocated(bytes), FILLED, bytes), *memory = on_device(filled, bytes);
    free(filled);
    return memory;
}

void *for_space(uint64_t bytes) { return piece_take((size_t)bytes, 0); }

void digest_add(const void *bytes, size_t n) { /* FNV-1a */
    const unsigned char *at = bytes;
    for (size_t i = 0; i < n; i++)
        digest = (digest ^ at[i]) * 0x100000001b3u;
}

void *device_bytes(const void *memory, size_t bytes) {
    void *copy = host_memory(bytes);
    plugin->copy_out(device, CUDA_COMPUTE, copy, memory, bytes);
    if (!plugin->synchronize(device, CUDA_COMPUTE))
        fail_msg("%s", plugin->failure(device));
    return copy;
}

void *from_device(const void *memory, size_t bytes) {
    void *copy = device_bytes(memory, bytes);
    digest_add(copy, bytes);
    return copy;
}

/* Whether the bytes around a piece are what they were. */
static bool piece_intact(const struct piece *piece) {
    unsigned char guards[2 * GUARD];
    plugin->copy_out(device, CUDA_COMPUTE, guards, piece->base, GUARD);
    plugin->copy_out(device, CUDA_COMPUTE, guards + GUARD, piece->base + GUARD + piece->bytes, GUARD);
    if (!plugin->synchronize(device, CUDA_COMPUTE))
        return true; /* that is told as the failure */
    for (size_t i = 0; i < sizeof guards; i++)
        if (guards[i] != GUARD_BYTE)
            return false;
    return true;
}

static const char *test_name;

static int test_begin(void **state) {
    test_name = *state;
    digest = 0xcbf29ce484222325u;
    return 0;
}

int test_end(void **state) {
    (void)state;
    size_t written = 0;
    while (pieces) {
        struct piece *piece = pieces;
        pieces = piece->next;
        if (piece->base) {
            written += !piece_intact(piece);
            plugin->release(device, piece->base);
        }
        free(piece);
    }
    const char *failure = plugin->failure(device);
    if (failure)
        print_error("the device failed: %s\n", failure);
    if (written > 0)
        print_error("%zu pieces of device memory were written out of bounds\n", written);
    if (digest_file)
        fprintf(digest_file, "%016llx %s\n", (unsigned long long)digest, test_name);
    return failure || written > 0 ? -1 : 0;
}

uint32_t minimum(uint32_t a, uint32_t b) { return a < b ? a : b; }

uint32_t scaled(uint32_t count, uint32_t least) {
    const char *factor = getenv("QSTREAM_TEST_SCALE");
    const double wanted = factor ? (double)count * atof(factor) : (double)count;
    return wanted < (double)least ? minimum(least, count) : (uint32_t)wanted;
}

bool brief(void) { return scaled(2, 1) < 2; }

uint32_t very_many(void) { return strncmp(info.name, "Model", 5) == 0 ? 100 : 70001; }

/* ---- numbers ---- */

float *random_floats(size_t n, double most, uint64_t seed) {
    float *x = host_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = bf16_decode(bf16_encode((float)(uniform(&seed) * most)));
    return x;
}

float *edge_floats(size_t n, float scale, uint64_t seed) {
    static const float edges[] = {
        0,          -0.0f,      448,         449,         463.99997f, 464,        464.00003f,
        480,        1e30f,      0x1p-6f,     0x1p-7f,     0x1p-9f,    0x1p-10f,   0x1.000002p-10f,
        0x1.8p-9f,  0x1.4p-8f,  0x1.cp-8f,   0x1.ep-7f,   0x1.fp-7f,  0x1.ffp-7f, 1.0625f,
        1.0625001f, 1.1875f,    1.875f,      1.9375f,     1.96875f,   17,         19,
        240,        248,        447.99997f,  432,         416.00003f, 0x1p-126f,  0x1p-140f,
        0x1p-12f,   0.0078125f, 0.00976563f, 0.01367188f, 0.01269532f};
    enum { EDGES = sizeof edges / sizeof *edges };
    float *x = host_memory(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        const uint64_t choice = random_next(&seed);
        if (choice % 4 == 0)
            x[i] = edges[choice / 8 % EDGES] * scale * (choice & 4 ? -1.0f : 1.0f);
        else if (choice % 4 == 1) /* halfway between two codes */
            x[i] = (fp8_e4m3_decode((uint8_t)(choice / 8 % 126)) + fp8_e4m3_decode((uint8_t)(choice / 8 % 126 + 1))) /
                   2 * scale * (choice & 4 ? -1.0f : 1.0f);
        else
            x[i] = (float)(uniform(&seed) * exp(uniform(&seed) * 6)) * scale;
    }
    return x;
}

size_t type_size(enum cuda_type type) { return type == CUDA_F32 ? 4 : type == CUDA_BF16 ? 2 : 1; }

void *typed(enum cuda_type type, const float *x, size_t n) {
    unsigned char *out = host_memory(n * type_size(type));
    for (size_t i = 0; i < n; i++) {
        const uint16_t half = bf16_encode(x[i]);
        if (type == CUDA_F32)
            memcpy(out + 4 * i, x + i, 4);
        else if (type == CUDA_BF16)
            memcpy(out + 2 * i, &half, 2);
        else
            out[i] = fp8_e4m3_encode(x[i]);
    }
    return out;
}

double typed_value(enum cuda_type type, const void *x, size_t i) {
    float value;
    uint16_t half;
    switch (type) {
    case CUDA_F32:
        memcpy(&value, (const unsigned char *)x + 4 * i, 4);
        return (double)value;
    case CUDA_BF16:
        memcpy(&half, (const unsigned char *)x + 2 * i, 2);
        return (double)bf16_decode(half);
    default:
        return (double)fp8_e4m3_decode(((const unsigned char *)x)[i]);
    }
}

double rounded_to(enum cuda_type type, double value) {
    return type == CUDA_F32    ? value
           : type == CUDA_BF16 ? (double)bf16_decode(bf16_encode((float)value))
                               : (double)fp8_e4m3_decode(fp8_e4m3_encode((float)value));
}

void check(const char *what, size_t at, double value, double expected, double allowed) {
    if (isnan(expected) ? !isnan(value) : !(fabs(value - expected) <= allowed))
        fail_msg("%s, number %zu: %.9g instead of %.9g, allowed %.2g", what, at, value, expected, allowed);
}

void check_typed(const char *what, enum cuda_type type, const void *x, size_t at, double expected, double allowed) {
    const double value = typed_value(type, x, at);
    if (isnan(expected)
            ? !isnan(value)
            : !(value >= rounded_to(type, expected - allowed) && value <= rounded_to(type, expected + allowed)))
        fail_msg("%s, number %zu: %.9g instead of %.9g, allowed %.2g before rounding", what, at, value, expected,
                 allowed);
}

void check_same(const char *what, enum cuda_type type, const void *x, const void *expected, size_t n) {
    const size_t size = type_size(type);
    if (memcmp(x, expected, n * size) == 0)
        return;
    for (size_t i = 0; i < n; i++) {
        const double value = typed_value(type, x, i), wanted = typed_value(type, expected, i);
        if (isnan(wanted)
                ? !isnan(value)
                : memcmp((const unsigned char *)x + i * size, (const unsigned char *)expected + i * size, size))
            fail_msg("%s, number %zu of %zu: %.9g instead of %.9g", what, i, n, value, wanted);
    }
}

const struct row_kernels *rows_of_cpu(void) { return row_kernels_of(cpu_best()); }

/* ---- weights ---- */

static size_t scale_count(const struct weight *weight) {
    return ((size_t)weight->rows + weight->scale_rows - 1) / weight->scale_rows *
           (((size_t)weight->columns + weight->scale_columns - 1) / weight->scale_columns);
}

static void codes_make(const struct weight *weight, unsigned char *codes, uint64_t *random) {
    const size_t bytes = weight->rows * weight_row_bytes(weight);
    const size_t size = weight->format == WEIGHT_F32 ? 4 : weight->format <= WEIGHT_BF16 ? 2 : 1;
    for (size_t i = 0; i < bytes / size; i++) {
        const float value = (float)uniform(random) * 3;
        const uint16_t half = weight->format == WEIGHT_F16 ? f16_encode(value) : bf16_encode(value);
        if (size == 4)
            memcpy(codes + i * 4, &value, 4);
        else if (size == 2)
            memcpy(codes + i * 2, &half, 2);
        else
            codes[i] = (unsigned char)random_next(random);
        if ((weight->format == WEIGHT_FP8 || weight->format == WEIGHT_MXFP8) && (codes[i] & 0x7f) == 0x7f)
            codes[i] = 0x38;
    }
}

struct weight weight_make(const struct weight_shape *shape, uint64_t seed) {
    uint64_t random = seed;
    struct weight weight = {.format = shape->format,
                            .rows = shape->rows,
                            .columns = shape->columns,
                            .scale_rows = shape->scale_rows ? shape->scale_rows : shape->rows,
                            .scale_columns = shape->scale_columns ? shape->scale_columns : UINT32_MAX,
                            .activations = shape->activations,
                            .input_scale = 0.0137f,
                            .group = shape->activations == ACTIVATIONS_MXFP8 ? WEIGHT_BLOCK : shape->group};
    unsigned char *codes = host_memory(weight.rows * weight_row_bytes(&weight));
    codes_make(&weight, codes, &random);
    weight.codes = codes;
    if (weight.format >= WEIGHT_MXFP8) {
        const size_t blocks = (size_t)weight.rows * (weight.columns / WEIGHT_BLOCK);
        uint8_t *exponents = host_memory(blocks);
        for (size_t i = 0; i < blocks; i++)
            exponents[i] = (uint8_t)(117 + random_next(&random) % 12);
        weight.exponents = exponents;
    }
    if (weight.format == WEIGHT_FP8) {
        const size_t count = scale_count(&weight);
        float *scales = host_memory(count * sizeof *scales);
        for (size_t i = 0; i < count; i++)
            scales[i] = 0.02f + (float)fabs(uniform(&random));
        weight.scales = scales;
    }
    if (shape->bias)
        weight.bias = random_floats(weight.rows, 3, seed + 1);
    return weight;
}

struct weight weight_on_device(const struct weight *host) {
    struct weight weight = *host;
    weight.codes = on_device_at(host->codes, host->rows * weight_row_bytes(host), 64);
    if (host->exponents)
        weight.exponents = on_device_at(host->exponents, (size_t)host->rows * (host->columns / WEIGHT_BLOCK), 64);
    if (host->scales)
        weight.scales = on_device_at(host->scales, scale_count(host) * sizeof(float), 64);
    if (host->bias)
        weight.bias = on_device_at(host->bias, host->rows * sizeof(float), 64);
    return weight;
}

bool scale_is_left(const struct weight *weight) {
    return weight->format == WEIGHT_FP8 && weight->scale_columns >= weight->columns &&
           (weight->scale_rows >= weight->rows || weight->scale_rows == 1);
}

float scale_left(const struct weight *weight, uint32_t row) {
    return scale_is_left(weight) ? weight->scales[weight->scale_rows >= weight->rows ? 0 : row] : 1;
}

/* ---- all of them ---- */

static void plugin_open(const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, CUDA_PLUGIN_SYMBOL) : NULL;
    if (!symbol) {
        printf("Bail out! %s\n", dlerror());
        exit(1);
    }
    cuda_plugin_function *function;
    memcpy(&function, &symbol, sizeof function);
    plugin = function();
    char message[CUDA_MESSAGE_MAX] = "";
    if (plugin->version != CUDA_PLUGIN_VERSION || plugin->size != sizeof *plugin)
        snprintf(message, sizeof message, "the plug-in is of another version");
    else
        device = plugin->open(0, &info, message);
    if (!device) {
        printf("Bail out! %s\n", message);
        exit(1);
    }
    print_message("# %s, %u.%u, %u multiprocessors, CUDA %s\n", info.name, info.major, info.minor, info.multiprocessors,
                  plugin->toolkit);
}

int main(int argc, char **argv) {
    const char *path = usual_plugin;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--digest") == 0 && i + 1 < argc)
            digest_file = fopen(argv[++i], "w");
        else if (strcmp(argv[i], "--only") == 0 && i + 1 < argc)
            cmocka_set_test_filter(argv[++i]);
        else
            path = argv[i];
    }
    plugin_open(path);
    static struct CMUnitTest tests[TESTS_MOST];
    size_t count = 0;
    const struct {
        const struct CMUnitTest *tests;
        size_t count;
    } files[] = {{device_tests, device_test_count},   {values_tests, values_test_count},
                 {product_tests, product_test_count}, {attention_tests, attention_test_count},
                 {head_tests, head_test_count},       {step_tests, step_test_count}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (size_t j = 0; j < files[i].count && count < TESTS_MOST; j++) {
            tests[count] = files[i].tests[j];
            tests[count].initial_state = (void *)(uintptr_t)tests[count].name;
            tests[count].setup_func = test_begin;
            tests[count++].teardown_func = test_end;
        }
    /* an array of any length, where the macro wants one that it can measure */
    const int failed = _cmocka_run_group_tests("plugin", tests, count, NULL, NULL);
    plugin->close(device);
    if (digest_file)
        fclose(digest_file);
    return failed;
}
