/*
 * Products of one token: x prepared, matrix-vector products in each use, and the whole recorded as a graph.
 *
 * Bounds. A sum is off by a rounding for each addition of its longest chain, some hundreds. x is a whole number of 16 bits
 * times a power of two for each block of 32 where weights are MXFP4: off by at most 2^-15 of the block's largest.
 */
#include "tests/cuda/test_plugin.h"

#include "infer/cpu/activations.h"
#include "infer/matvec.h"

#define SUM_ERROR 4e-6

/* A weight with x as it is to be multiplied: rounded, and the factor that is left. */
struct multiplied {
    struct weight host, weight; /* the second's pointers on the device */
    void *prepared;
    float *x; /* rounded */
    float factor;
    double *y, *allowed; /* [rows], with bias */
    float *y_device;
};

static struct multiplied multiplied_make(const struct weight_shape *shape, uint64_t seed) {
    struct multiplied product = {.host = weight_make(shape, seed)};
    product.weight = weight_on_device(&product.host);
    product.prepared = for_space(plugin->prepared_bytes(&product.weight));
    product.y_device = for_result(product.host.rows * sizeof(float));
    return product;
}

/* Of random sizes. */
static float *x_random(uint32_t columns, uint64_t seed) {
    float *x = host_memory(columns * sizeof *x);
    for (uint32_t i = 0; i < columns; i++)
        x[i] = (float)(uniform(&seed) * exp(uniform(&seed) * 4));
    return x;
}

static void prepare(const struct multiplied *product, const float *source, const float *norm, float epsilon) {
    const struct cuda_prepare prepare = {
        .source = source, .norm = norm, .epsilon = epsilon, .weight = &product->weight, .prepared = product->prepared};
    plugin->prepare(device, &prepare);
}

/* Rounds x as the CPU does, and finds the sums. */
static void multiplied_expect(struct multiplied *product, const float *x) {
    const struct weight *weight = &product->host;
    product->x = host_memory(weight->columns * sizeof *x);
    product->factor = activations_round(rows_of_cpu(), weight, x, product->x);
    product->y = host_memory(weight->rows * sizeof(double));
    product->allowed = host_memory(weight->rows * sizeof(double));
    for (uint32_t row = 0; row < weight->rows; row++) {
        double sum = 0, allowed = 0;
        for (uint32_t begin = 0; begin < weight->columns; begin += WEIGHT_BLOCK) {
            double most = 0, values = 0;
            for (uint32_t column = begin; column < minimum(weight->columns, begin + WEIGHT_BLOCK); column++) {
                const double value = weight_value(weight, row, column),
                             one = (double)product->x[column] * (double)product->factor;
                sum += value * one;
                allowed += fabs(value * one) * SUM_ERROR;
                most = fmax(most, fabs(one));
                values += fabs(value);
            }
            if (weight->format == WEIGHT_MXFP4)
                allowed += values * most * 0x1p-15;
        }
        product->y[row] = sum + (weight->bias ? (double)weight->bias[row] : 0);
        product->allowed[row] = allowed + ROUNDING * fabs(product->y[row]) + 1e-30;
    }
}

static void name_of(const struct multiplied *product, char what[128]) {
    const struct weight *weight = &product->host;
    snprintf(what, 128, "%s, %u x %u, scales %u x %u, activations %d, group %u%s", format_names[weight->format],
             weight->rows, weight->columns, weight->scale_rows, weight->scale_columns, (int)weight->activations,
             weight->group, weight->bias ? ", bias" : "");
}

static void matvec(const struct multiplied *products, unsigned count, enum cuda_matvec_use use, float *to) {
    struct cuda_matvec items[CUDA_MATVECS];
    for (unsigned i = 0; i < count; i++)
        items[i] = (struct cuda_matvec){
            .weight = &products[i].weight, .prepared = products[i].prepared, .y = products[i].y_device};
    plugin->matvec(device, items, count, use, to);
}

static void y_check(const struct multiplied *product) {
    const float *y = from_device(product->y_device, product->host.rows * sizeof *y);
    char what[128];
    name_of(product, what);
    for (uint32_t row = 0; row < product->host.rows; row++)
        check(what, row, (double)y[row], product->y[row], product->allowed[row]);
}

static void product_check(const struct weight_shape *shape, uint64_t seed) {
    struct multiplied product = multiplied_make(shape, seed);
    const float *x = x_random(shape->columns, seed + 5);
    multiplied_expect(&product, x);
    prepare(&product, on_device_at(x, shape->columns * sizeof *x, seed % 3 == 1 ? 4 : 0), NULL, 0);
    matvec(&product, 1, MATVEC_Y, NULL);
    y_check(&product);
}

/* ---- products ---- */

static void given_any_shape_then_each_sum_is_that_of_the_decoded_weight(void **state) {
    (void)state;
    static const uint32_t any[] = {1, 7, 15, 16, 17, 33, 64, 127, 128, 200, 511, 512, 513, 576, 1024, 1537, 3200, 4100};
    static const uint32_t blocks[] = {1, 2, 3, 4, 5, 8, 16, 17, 18, 31, 32, 33, 48, 63, 64, 65, 100, 129};
    for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++)
        for (size_t i = 0; i < sizeof any / sizeof *any; i++) {
            if (i % (18 / scaled(18, 4)) != 0)
                continue;
            for (uint32_t rows = 1; rows <= 9; rows += rows < 3 ? 1 : 3) {
                const struct weight_shape shape = {.format = format,
                                                   .rows = rows,
                                                   .columns =
                                                       format >= WEIGHT_MXFP8 ? blocks[i] * WEIGHT_BLOCK : any[i],
                                                   .scale_rows = i % 2,
                                                   .bias = (i + rows) % 3 == 0};
                product_check(&shape, rows * 1000 + i);
            }
        }
}

static void given_fp8_scales_of_any_kind_then_each_is_applied_where_it_belongs(void **state) {
    (void)state;
    static const uint32_t shapes[][4] = {
        {9, 300, 0, 0},   {9, 300, 1, 0},       {9, 512, 4, 128},     {9, 500, 4, 128},  {9, 500, 1, 64},
        {5, 97, 2, 32},   {5, 97, 2, 10},       {140, 640, 128, 128}, {3, 6000, 2, 128}, {6, 4096, 1, 2048},
        {4, 200, 3, 192}, {7, 1100, 3, 7},      {6, 2400, 2, 48},     {5, 3072, 2, 192}, {5, 576, 5, 128},
        {6, 384, 2, 16},  {130, 1000, 128, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int turn = 0; turn < 2; turn++) {
            const struct weight_shape shape = {
                .format = WEIGHT_FP8,
                .rows = shapes[i][0],
                .columns = shapes[i][1],
                .scale_rows = shapes[i][2],
                .scale_columns = shapes[i][3],
                .activations = turn ? ACTIVATIONS_FP8_GROUP : ACTIVATIONS_FLOAT,
                .group = shapes[i][3] ? shapes[i][3] : 50,
                .bias = i % 2,
            };
            product_check(&shape, i);
        }
}

static void given_widths_of_the_reference_models_then_each_sum_is_that_of_the_decoded_weight(void **state) {
    (void)state;
    static const uint32_t shapes[][2] = {{3, 12288},  {5, 28672},  {131072, 32}, {49152, 64},
                                         {1536, 576}, {576, 1536}, {512, 128}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++) {
            if (i > 1 && i < 6 && (format + i) % 3 != 0)
                continue; /* some of the large ones, to be quick */
            const struct weight_shape shape = {.format = format,
                                               .rows = scaled(shapes[i][0], 3),
                                               .columns = shapes[i][1],
                                               .scale_rows = i % 2 ? 1 : 0,
                                               .activations =
                                                   format == WEIGHT_FP8 ? ACTIVATIONS_FP8_TOKEN : ACTIVATIONS_FLOAT};
            product_check(&shape, i * 10 + format);
        }
}

/* A row for each code, in a column that is different each time; x is 1 there: the sum is the code's value exactly. */
static void given_each_code_then_its_value_is_exact(void **state) {
    (void)state;
    enum { COLUMNS = 96, ROWS = 8192 };
    const uint32_t rows = scaled(ROWS, 256);
    float x[COLUMNS];
    for (int i = 0; i < COLUMNS; i++)
        x[i] = 1;
    for (enum weight_format format = WEIGHT_F16; format <= WEIGHT_MXFP8; format++) {
        const uint32_t codes = format <= WEIGHT_BF16 ? 65536 : 256;
        const uint32_t count = minimum(codes, rows);
        const struct weight_shape shape = {.format = format, .rows = count, .columns = COLUMNS};
        for (uint32_t first = 0; first < codes; first += count) {
            if (first > 0 && count < ROWS && codes > ROWS && first % (codes / 8) != 0)
                continue; /* a share of them, when it has to be quick */
            struct weight host = weight_make(&shape, 1);
            uint8_t *bytes = memset((void *)(uintptr_t)host.codes, 0, count * weight_row_bytes(&host));
            if (host.exponents)
                memset((void *)(uintptr_t)host.exponents, 127, (size_t)count * (COLUMNS / WEIGHT_BLOCK));
            if (host.scales)
                *(float *)(uintptr_t)host.scales = 1;
            for (uint32_t i = 0; i < count; i++) {
                const uint16_t code = (uint16_t)(first + i);
                memcpy(bytes + i * weight_row_bytes(&host) + i * 5 % COLUMNS * (codes > 256 ? 2 : 1), &code,
                       codes > 256 ? 2 : 1);
            }
            struct multiplied product = {.host = host, .weight = weight_on_device(&host)};
            product.prepared = for_space(plugin->prepared_bytes(&product.weight));
            product.y_device = for_result(count * sizeof(float));
            prepare(&product, on_device(x, sizeof x), NULL, 0);
            matvec(&product, 1, MATVEC_Y, NULL);
            const float *y = from_device(product.y_device, count * sizeof *y);
            for (uint32_t i = 0; i < count; i++) {
                const double expected = weight_value(&host, i, i * 5 % COLUMNS);
                if (isfinite(expected)) /* others are refused when a checkpoint is loaded, or show in what follows */
                    check(format_names[format], first + i, (double)y[i], expected, 0);
            }
        }
    }
}

static void given_each_mxfp4_code_and_exponent_then_sums_are_exact(void **state) {
    (void)state;
    enum { CODES = 16, EXPONENTS = 255, COLUMNS = 2 * WEIGHT_BLOCK, ROWS = CODES * EXPONENTS };
    const struct weight_shape shape = {.format = WEIGHT_MXFP4, .rows = ROWS, .columns = COLUMNS};
    struct weight host = weight_make(&shape, 1);
    uint8_t *codes = memset((void *)(uintptr_t)host.codes, 0, ROWS * COLUMNS / 2);
    uint8_t *exponents = memset((void *)(uintptr_t)host.exponents, 127, ROWS * 2);
    for (uint32_t row = 0; row < ROWS; row++) {
        const uint32_t column = row * 7 % COLUMNS;
        codes[(row * COLUMNS + column) / 2] = (uint8_t)(row % CODES << column % 2 * 4);
        exponents[row * 2 + column / WEIGHT_BLOCK] = (uint8_t)(row / CODES);
    }
    struct multiplied product = {.host = host, .weight = weight_on_device(&host)};
    product.prepared = for_space(plugin->prepared_bytes(&product.weight));
    product.y_device = for_result(ROWS * sizeof(float));
    float x[COLUMNS];
    for (int i = 0; i < COLUMNS; i++)
        x[i] = 1;
    prepare(&product, on_device(x, sizeof x), NULL, 0);
    matvec(&product, 1, MATVEC_Y, NULL);
    const float *y = from_device(product.y_device, ROWS * sizeof *y);
    for (uint32_t row = 0; row < ROWS; row++) {
        const double expected = weight_value(&host, row, row * 7 % COLUMNS);
        if (fabs(expected) < 0x1p118 && fabs(expected) >= 0x1p-110) /* beyond, what is between may not be a float32 */
            check("MXFP4", row, (double)y[row], expected, 0);
        else if (fabs(expected) < 1)
            check("MXFP4", row, (double)y[row], expected, 0x1p-126);
    }
}

/* ---- rounding of x ---- */

static const struct weight_shape rounded_shapes[] = {
    {WEIGHT_FP8, 6, 300, 0, 0, ACTIVATIONS_FP8_STATIC, 0, true},
    {WEIGHT_FP8, 6, 1100, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, false},
    {WEIGHT_FP8, 6, 640, 4, 128, ACTIVATIONS_FP8_GROUP, 128, false},
    {WEIGHT_FP8, 6, 333, 2, 50, ACTIVATIONS_FP8_GROUP, 50, true},
    {WEIGHT_FP8, 6, 5000, 1, 0, ACTIVATIONS_FP8_GROUP, 7, true},
    {WEIGHT_MXFP8, 6, 352, 0, 0, ACTIVATIONS_MXFP8, 0, false},
    {WEIGHT_MXFP8, 5, 2080, 0, 0, ACTIVATIONS_MXFP8, 0, true},
    {WEIGHT_MXFP4, 6, 352, 0, 0, ACTIVATIONS_MXFP8, 0, false},
    {WEIGHT_MXFP4, 6, 2560, 0, 0, ACTIVATIONS_FP8_TOKEN, 0, true},
    {WEIGHT_MXFP4, 3, 4128, 0, 0, ACTIVATIONS_FP8_STATIC, 0, true},
    {WEIGHT_BF16, 6, 99, 0, 0, ACTIVATIONS_FP8_TOKEN, 0, false},
    {WEIGHT_F16, 6, 260, 0, 0, ACTIVATIONS_FP8_GROUP, 64, false},
    {WEIGHT_F32, 6, 77, 0, 0, ACTIVATIONS_MXFP8, 0, false},
    {WEIGHT_F32, 6, 2049, 0, 0, ACTIVATIONS_FP8_STATIC, 0, false},
    {WEIGHT_F32, 4, 1500, 0, 0, ACTIVATIONS_FLOAT, 0, false},
    {WEIGHT_MXFP4, 4, 3200, 0, 0, ACTIVATIONS_FLOAT, 0, false},
};

/*
 * The hidden values are 2 or -2, as in the tests of operands: what is rounded is the norm's weight with their sign, exactly.
 * A value of x rounded to a neighbour would show: an error of one code is 1/16 of the value.
 */
static void given_normed_values_then_they_are_rounded_as_on_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rounded_shapes / sizeof *rounded_shapes; i++)
        for (int normed = 0; normed < 2; normed++) {
            struct multiplied product = multiplied_make(&rounded_shapes[i], i);
            const uint32_t columns = product.host.columns;
            const bool whole = product.host.format != WEIGHT_MXFP4; /* blocks are rounded to their largest */
            float *x = whole ? edge_floats(columns, product.host.input_scale, i) : x_random(columns, i),
                  *hidden = host_memory(columns * sizeof *hidden), *norm = host_memory(columns * sizeof *norm);
            uint64_t random = i;
            for (uint32_t c = 0; c < columns; c++) {
                x[c] = fabsf(x[c]) > 1e20f ? 1000 : x[c];
                hidden[c] = random_next(&random) % 2 ? 2 : -2;
                norm[c] = x[c] * hidden[c] / 2;
            }
            multiplied_expect(&product, x);
            prepare(&product, on_device(normed ? hidden : x, columns * sizeof *x),
                    normed ? on_device(norm, columns * sizeof *x) : NULL, 0);
            matvec(&product, 1, MATVEC_Y, NULL);
            y_check(&product);
        }
}

/* Row c of the weight is 1 in column c: each rounded value is seen alone. */
static void given_values_on_edge_then_each_is_rounded_exactly(void **state) {
    (void)state;
    enum { COLUMNS = 256 };
    static const enum activations kinds[] = {ACTIVATIONS_FLOAT, ACTIVATIONS_FP8_STATIC, ACTIVATIONS_FP8_TOKEN,
                                             ACTIVATIONS_FP8_GROUP, ACTIVATIONS_MXFP8};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        for (int turn = 0; turn < 3; turn++) {
            struct weight host = {.format = WEIGHT_F32,
                                  .rows = COLUMNS,
                                  .columns = COLUMNS,
                                  .activations = kinds[i],
                                  .input_scale = turn == 1 ? 0.25f : 0.0137f,
                                  .group = kinds[i] == ACTIVATIONS_MXFP8 ? 32
                                           : turn                        ? 24
                                                                         : 128};
            float *codes = memset(host_memory(COLUMNS * COLUMNS * 4), 0, COLUMNS * COLUMNS * 4);
            for (int c = 0; c < COLUMNS; c++)
                codes[c * COLUMNS + c] = 1;
            host.codes = codes;
            struct multiplied product = {.host = host, .weight = weight_on_device(&host)};
            product.prepared = for_space(plugin->prepared_bytes(&product.weight));
            product.y_device = for_result(COLUMNS * sizeof(float));
            float *x = edge_floats(COLUMNS, turn == 2 ? 0.0137f : 0.25f, i * 3 + (uint64_t)turn),
                  *rounded = host_memory(COLUMNS * sizeof *x);
            if (turn == 1)
                memset(x, 0, 64 * sizeof *x); /* groups of nothing */
            const float factor = activations_round(rows_of_cpu(), &host, x, rounded);
            prepare(&product, on_device(x, COLUMNS * sizeof *x), NULL, 0);
            matvec(&product, 1, MATVEC_Y, NULL);
            const float *y = from_device(product.y_device, COLUMNS * sizeof *y);
            for (size_t c = 0; c < COLUMNS; c++)
                check("rounded", c, (double)y[c], (double)(rounded[c] * factor), 0);
        }
}

static void given_hidden_states_then_products_are_of_their_norm(void **state) {
    (void)state;
    static const uint32_t widths[] = {1, 33, 128, 576, 5000, 12288};
    static const float epsilon = 1e-5f;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int turn = 0; turn < 2; turn++) {
            const uint32_t columns = widths[w];
            const struct weight_shape shape = {.format = WEIGHT_F32, .rows = 4, .columns = columns};
            struct multiplied product = multiplied_make(&shape, w);
            float *hidden = random_floats(columns, turn ? 0.01 : 50, w), *norm = random_floats(columns, 2, w + 1),
                  *x = host_memory(columns * sizeof *x);
            double squares = 0;
            for (uint32_t i = 0; i < columns; i++)
                squares += (double)hidden[i] * (double)hidden[i];
            for (uint32_t i = 0; i < columns; i++)
                x[i] = (float)((double)hidden[i] / sqrt(squares / columns + (double)epsilon) * (double)norm[i]);
            multiplied_expect(&product, x);
            prepare(&product, on_device(hidden, columns * sizeof *x), on_device(norm, columns * sizeof *x), epsilon);
            matvec(&product, 1, MATVEC_Y, NULL);
            y_check(&product);
        }
}

static void given_values_that_are_not_finite_then_the_layer_is_told(void **state) {
    (void)state;
    static const float values[] = {NAN, INFINITY, -INFINITY, 1};
    static const uint32_t widths[] = {1, 96, 576, 5000};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int normed = 0; normed < 2; normed++)
            for (size_t i = 0; i < 4; i++) {
                const uint32_t columns = widths[w];
                const struct weight_shape shape = {.format =
                                                       (w + i) % 2 && columns % 32 == 0 ? WEIGHT_MXFP4 : WEIGHT_FP8,
                                                   .rows = 3,
                                                   .columns = columns,
                                                   .activations = (enum activations)(i % 3)};
                struct multiplied product = multiplied_make(&shape, i);
                float *x = x_random(columns, i), *norm = random_floats(columns, 1, 3);
                x[(i * 1237 + 4999) % columns] = values[i];
                struct cuda_prepare prepare = {.source = on_device(x, columns * sizeof *x),
                                               .norm = normed ? on_device(norm, columns * sizeof *norm) : NULL,
                                               .epsilon = 1e-5f,
                                               .weight = &product.weight,
                                               .prepared = product.prepared};
                uint32_t before[] = {UINT32_MAX, 5, 20};
                for (size_t j = 0; j < 3; j++) {
                    prepare.bad = on_device(&before[j], sizeof *before);
                    prepare.layer = 7;
                    plugin->prepare(device, &prepare);
                    const uint32_t bad = *(uint32_t *)from_device(prepare.bad, sizeof bad);
                    assert_int_equal(bad, i < 3 ? minimum(before[j], 7) : before[j]);
                }
            }
}

/* ---- uses ---- */

static void given_three_weights_then_each_product_is_its_own(void **state) {
    (void)state;
    static const struct weight_shape triples[][3] = {
        {{WEIGHT_FP8, 96, 256, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, true},
         {WEIGHT_FP8, 32, 256, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, false},
         {WEIGHT_FP8, 33, 256, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, true}},
        {{WEIGHT_MXFP4, 9, 576, 0, 0, ACTIVATIONS_FLOAT, 0, false},
         {WEIGHT_MXFP4, 3, 576, 0, 0, ACTIVATIONS_FLOAT, 0, false},
         {WEIGHT_MXFP4, 100, 576, 0, 0, ACTIVATIONS_FLOAT, 0, true}},
        {{WEIGHT_BF16, 1, 65, 0, 0, ACTIVATIONS_FLOAT, 0, true},
         {WEIGHT_F32, 17, 65, 0, 0, ACTIVATIONS_FLOAT, 0, false},
         {WEIGHT_FP8, 5, 65, 0, 0, ACTIVATIONS_FP8_STATIC, 0, false}},
        {{WEIGHT_MXFP8, 8, 96, 0, 0, ACTIVATIONS_MXFP8, 0, false},
         {WEIGHT_MXFP4, 7, 96, 0, 0, ACTIVATIONS_FLOAT, 0, false},
         {WEIGHT_F16, 6, 96, 0, 0, ACTIVATIONS_FLOAT, 0, false}},
    };
    for (size_t i = 0; i < sizeof triples / sizeof *triples; i++)
        for (unsigned count = 1; count <= 3; count++) {
            struct multiplied products[3];
            const uint32_t columns = triples[i][0].columns;
            const float *x = x_random(columns, i);
            const float *source = on_device(x, columns * sizeof *x);
            for (unsigned j = 0; j < count; j++) {
                products[j] = multiplied_make(&triples[i][j], i * 3 + j);
                multiplied_expect(&products[j], x);
                prepare(&products[j], source, NULL, 0);
            }
            matvec(products, count, MATVEC_Y, NULL);
            for (unsigned j = 0; j < count; j++)
                y_check(&products[j]);
        }
}

static void given_products_to_add_or_to_gate_then_they_are(void **state) {
    (void)state;
    static const struct weight_shape shapes[] = {
        {WEIGHT_F32, 5, 33, 0, 0, ACTIVATIONS_FLOAT, 0, true},
        {WEIGHT_F16, 40, 128, 0, 0, ACTIVATIONS_FLOAT, 0, false},
        {WEIGHT_BF16, 64, 576, 0, 0, ACTIVATIONS_FLOAT, 0, true},
        {WEIGHT_FP8, 33, 300, 0, 0, ACTIVATIONS_FP8_STATIC, 0, true},
        {WEIGHT_FP8, 130, 256, 128, 128, ACTIVATIONS_FP8_GROUP, 128, false},
        {WEIGHT_FP8, 1, 2000, 1, 0, ACTIVATIONS_FP8_TOKEN, 0, true},
        {WEIGHT_MXFP8, 35, 320, 0, 0, ACTIVATIONS_MXFP8, 0, false},
        {WEIGHT_MXFP4, 66, 1536, 0, 0, ACTIVATIONS_FLOAT, 0, true},
        {WEIGHT_MXFP4, 28, 96, 0, 0, ACTIVATIONS_MXFP8, 0, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const uint32_t rows = shapes[i].rows, columns = shapes[i].columns;
        float *x = x_random(columns, i), *before = random_floats(rows, 50, i);
        for (uint32_t c = 0; c < columns; c++)
            x[c] *= 0.1f; /* products of moderate size, where swiglu has its bend */
        struct multiplied products[2] = {multiplied_make(&shapes[i], i), multiplied_make(&shapes[i], i + 50)};
        for (int j = 0; j < 2; j++) {
            multiplied_expect(&products[j], x);
            prepare(&products[j], on_device(x, columns * sizeof *x), NULL, 0);
        }
        float *to = on_device(before, rows * sizeof *before);
        matvec(products, 1, MATVEC_ADD, to);
        to = from_device(to, rows * sizeof *to);
        for (uint32_t row = 0; row < rows; row++) {
            const double expected = (double)before[row] + products[0].y[row];
            check("added", row, (double)to[row], expected, products[0].allowed[row] + ROUNDING * fabs(expected));
        }
        to = for_result(rows * sizeof *to);
        matvec(products, 2, MATVEC_SWIGLU, to);
        to = from_device(to, rows * sizeof *to);
        for (uint32_t row = 0; row < rows; row++) {
            const double g = products[0].y[row], u = products[1].y[row], silu = g / (1 + exp(-g));
            check("gated", row, (double)to[row], silu * u,
                  1.1 * products[0].allowed[row] * fabs(u) + products[1].allowed[row] * fabs(silu) +
                      ROUNDING * (32 + 4 * fabs(g)) * fabs(silu * u) + 1e-36);
        }
    }
}

/* Both round x alike; each is off by less than the bound of a sum. */
static void given_weights_of_each_format_then_products_are_those_of_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rounded_shapes / sizeof *rounded_shapes; i++) {
        struct multiplied product = multiplied_make(&rounded_shapes[i], i + 7);
        const struct weight *host = &product.host;
        const float *x = x_random(host->columns, i);
        multiplied_expect(&product, x);
        const struct matvec_kernel *kernel = matvec_kernel(cpu_best(), host->format);
        void *prepared = aligned_alloc(64, (kernel->space(host) + 63) / 64 * 64);
        float *expected = host_memory(host->rows * sizeof *expected);
        kernel->prepare(host, product.x, prepared);
        kernel->rows(host, prepared, expected, 0, host->rows);
        free(prepared);
        prepare(&product, on_device(x, host->columns * sizeof *x), NULL, 0);
        matvec(&product, 1, MATVEC_Y, NULL);
        const float *y = from_device(product.y_device, host->rows * sizeof *y);
        for (uint32_t row = 0; row < host->rows; row++)
            check("product of the CPU", row, (double)y[row],
                  (double)expected[row] * (double)product.factor + (host->bias ? (double)host->bias[row] : 0),
                  2 * product.allowed[row]);
    }
}

/* ---- recorded ---- */

enum {
    G_HIDDEN = 96,
    G_HEADS = 4,
    G_KV_HEADS = 2,
    G_HEAD_DIM = 16,
    G_POSITIONS = 40,
    G_STEPS = 24,
    G_MIDDLE = 64,
    G_WEIGHTS = 7
};

/* A small layer of one token, all on the device. */
struct layer {
    struct multiplied weights[G_WEIGHTS];
    float *hidden, *attended, *middle, *norm;
    struct cuda_step_attention attention;
    uint32_t *position, *bad;
};

static struct layer layer_make(void) {
    enum { QUERY = G_HEADS * G_HEAD_DIM, KEY = G_KV_HEADS * G_HEAD_DIM, CACHE = KEY * G_POSITIONS * 2 };
    static const uint32_t shapes[G_WEIGHTS][2] = {{QUERY, G_HIDDEN},   {KEY, G_HIDDEN},      {KEY, G_HIDDEN},
                                                  {G_HIDDEN, QUERY},   {G_MIDDLE, G_HIDDEN}, {G_MIDDLE, G_HIDDEN},
                                                  {G_HIDDEN, G_MIDDLE}};
    struct layer layer;
    for (unsigned i = 0; i < G_WEIGHTS; i++) {
        const struct weight_shape shape = {.format = i < 4 ? WEIGHT_FP8 : WEIGHT_MXFP4,
                                           .rows = shapes[i][0],
                                           .columns = shapes[i][1],
                                           .activations = i < 4 ? ACTIVATIONS_FP8_TOKEN : ACTIVATIONS_FLOAT};
        layer.weights[i] = multiplied_make(&shape, i);
    }
    const float *hidden = random_floats(G_HIDDEN, 2, 1), *norm = random_floats(G_HIDDEN, 1, 2),
                *angles = random_floats((size_t)G_POSITIONS * G_HEAD_DIM / 2, 1, 3),
                *factors = random_floats(G_POSITIONS, 0.2, 4);
    const uint32_t zero = 0, none = UINT32_MAX;
    layer.hidden = on_device(hidden, G_HIDDEN * sizeof *hidden);
    layer.norm = on_device(norm, G_HIDDEN * sizeof *norm);
    layer.attended = for_result(QUERY * sizeof(float));
    layer.middle = for_result(G_MIDDLE * sizeof(float));
    layer.position = on_device(&zero, sizeof zero);
    layer.bad = on_device(&none, sizeof none);
    layer.attention = (struct cuda_step_attention){.heads = G_HEADS,
                                                   .kv_heads = G_KV_HEADS,
                                                   .head_dim = G_HEAD_DIM,
                                                   .sliding = 20,
                                                   .positions = G_POSITIONS,
                                                   .position = layer.position,
                                                   .cosines = on_device(angles, G_POSITIONS * G_HEAD_DIM * 2),
                                                   .sines = on_device(angles, G_POSITIONS * G_HEAD_DIM * 2),
                                                   .query_factors = on_device(factors, G_POSITIONS * sizeof(float)),
                                                   .queries = layer.weights[0].y_device,
                                                   .keys = layer.weights[1].y_device,
                                                   .values = layer.weights[2].y_device,
                                                   .cache = CUDA_BF16,
                                                   .cache_keys = for_result(CACHE),
                                                   .cache_values = for_result(CACHE),
                                                   .out = layer.attended};
    layer.attention.space = for_space(plugin->step_attention_bytes(&layer.attention));
    return layer;
}

static void layer_prepare(const struct layer *layer, unsigned weight, const float *source, const float *norm) {
    const struct cuda_prepare prepare = {.source = source,
                                         .norm = norm,
                                         .epsilon = 1e-5f,
                                         .weight = &layer->weights[weight].weight,
                                         .prepared = layer->weights[weight].prepared,
                                         .bad = layer->bad,
                                         .layer = 3};
    plugin->prepare(device, &prepare);
}

static void layer_run_once(const struct layer *layer) {
    for (unsigned i = 0; i < 3; i++)
        layer_prepare(layer, i, layer->hidden, layer->norm);
    matvec(layer->weights, 3, MATVEC_Y, NULL);
    plugin->step_attention(device, &layer->attention);
    layer_prepare(layer, 3, layer->attended, NULL);
    matvec(&layer->weights[3], 1, MATVEC_ADD, layer->hidden);
    for (unsigned i = 4; i < 6; i++)
        layer_prepare(layer, i, layer->hidden, layer->norm);
    matvec(&layer->weights[4], 2, MATVEC_SWIGLU, layer->middle);
    layer_prepare(layer, 6, layer->middle, NULL);
    matvec(&layer->weights[6], 1, MATVEC_ADD, layer->hidden);
}

static void given_a_recorded_token_then_replays_are_the_same_as_calls(void **state) {
    (void)state;
    const struct layer called = layer_make(), recorded = layer_make();
    const float *before = from_device(recorded.hidden, G_HIDDEN * sizeof *before);
    plugin->graph_begin(device);
    layer_run_once(&recorded);
    struct cuda_graph *graph = plugin->graph_end(device);
    assert_non_null(graph);
    assert_memory_equal(from_device(recorded.hidden, G_HIDDEN * sizeof *before), before, G_HIDDEN * sizeof *before);
    for (uint32_t position = 0; position < scaled(G_STEPS, 3); position++) {
        to_device(called.position, &position, sizeof position);
        to_device(recorded.position, &position, sizeof position);
        layer_run_once(&called);
        plugin->graph_run(device, graph);
        const float *expected = from_device(called.hidden, G_HIDDEN * sizeof *expected);
        const float *hidden = from_device(recorded.hidden, G_HIDDEN * sizeof *hidden);
        assert_memory_equal(hidden, expected, G_HIDDEN * sizeof *hidden);
        for (int i = 0; i < G_HIDDEN; i++)
            assert_true(isfinite(hidden[i]));
    }
    const size_t bytes = (size_t)G_KV_HEADS * G_HEAD_DIM * G_POSITIONS * 2;
    assert_memory_equal(from_device(recorded.attention.cache_keys, bytes),
                        from_device(called.attention.cache_keys, bytes), bytes);
    assert_int_equal(*(uint32_t *)from_device(recorded.bad, 4), UINT32_MAX);
    plugin->graph_free(graph);
    /* and again: two graphs, run in turns */
    struct cuda_graph *graphs[2];
    const struct layer *layers[2] = {&called, &recorded};
    for (int i = 0; i < 2; i++) {
        plugin->graph_begin(device);
        layer_run_once(layers[i]);
        graphs[i] = plugin->graph_end(device);
        assert_non_null(graphs[i]);
    }
    for (int i = 0; i < 4; i++)
        plugin->graph_run(device, graphs[i % 2]);
    assert_memory_equal(from_device(recorded.hidden, G_HIDDEN * 4), from_device(called.hidden, G_HIDDEN * 4),
                        G_HIDDEN * 4);
    for (int i = 0; i < 2; i++)
        plugin->graph_free(graphs[i]);
}

static void given_memory_then_the_rate_of_reading_it_is_told(void **state) {
    (void)state;
    static const uint32_t sizes[] = {1000, 1 << 20};
    for (size_t i = 0; i < (brief() ? 1 : 2); i++) {
        const uint32_t bytes = sizes[i];
        void *memory = memset(host_memory(bytes), 1, bytes);
        const double rate = plugin->read_rate(device, on_device(memory, bytes), bytes);
        assert_true(rate > 0 && isfinite(rate));
    }
}

const struct CMUnitTest step_tests[] = {
    cmocka_unit_test(given_any_shape_then_each_sum_is_that_of_the_decoded_weight),
    cmocka_unit_test(given_fp8_scales_of_any_kind_then_each_is_applied_where_it_belongs),
    cmocka_unit_test(given_widths_of_the_reference_models_then_each_sum_is_that_of_the_decoded_weight),
    cmocka_unit_test(given_each_code_then_its_value_is_exact),
    cmocka_unit_test(given_each_mxfp4_code_and_exponent_then_sums_are_exact),
    cmocka_unit_test(given_normed_values_then_they_are_rounded_as_on_the_cpu),
    cmocka_unit_test(given_values_on_edge_then_each_is_rounded_exactly),
    cmocka_unit_test(given_hidden_states_then_products_are_of_their_norm),
    cmocka_unit_test(given_values_that_are_not_finite_then_the_layer_is_told),
    cmocka_unit_test(given_three_weights_then_each_product_is_its_own),
    cmocka_unit_test(given_products_to_add_or_to_gate_then_they_are),
    cmocka_unit_test(given_weights_of_each_format_then_products_are_those_of_the_cpu),
    cmocka_unit_test(given_a_recorded_token_then_replays_are_the_same_as_calls),
    cmocka_unit_test(given_memory_then_the_rate_of_reading_it_is_told),
};
const size_t step_test_count = sizeof step_tests / sizeof *step_tests;
