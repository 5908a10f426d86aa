/* A layer and the head on a device that only looks at where operations write: groups of any size stay within the space. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "infer/cuda/forward.h"

static const struct cuda_space *space; /* laid out behind BASE */
static unsigned operations;

static unsigned char *const BASE = (unsigned char *)0x10000;

static void within(const void *at, uint64_t bytes) {
    const unsigned char *const tiles[] = {space->tiles[0], space->tiles[1]};
    const unsigned char *const ys[] = {(unsigned char *)space->y[0], (unsigned char *)space->y[1]};
    const unsigned char *const place = at;
    operations++;
    for (unsigned i = 0; i < 2; i++)
        if (place == tiles[i] || place == ys[i]) {
            assert_true(bytes <= (place == tiles[i] ? space->tile_bytes : space->y_bytes));
            return;
        }
    assert_true(place >= BASE && bytes <= space->size - (uint64_t)(place - BASE));
}

static uint64_t element(enum cuda_type type) { return type == CUDA_F32 ? 4 : type == CUDA_BF16 ? 2 : 1; }

static void operand(struct cuda_device *device, const struct cuda_operand *o) {
    (void)device;
    within(o->out, (uint64_t)o->tokens * o->columns * element(o->type));
}

static void unpack(struct cuda_device *device, const struct weight *weight, uint32_t first, uint32_t rows,
                   enum cuda_type type, void *out) {
    (void)device;
    assert_true(first + rows <= weight->rows);
    within(out, (uint64_t)rows * weight->columns * element(type));
}

static void product(struct cuda_device *device, const struct cuda_product *p) {
    (void)device;
    within(p->y, (uint64_t)p->tokens * p->rows * sizeof(float));
}

static void finish_residual(struct cuda_device *device, const struct cuda_result *result, float *hidden,
                            uint32_t columns) {
    (void)device, (void)result, (void)hidden, (void)columns;
}

static void finish_swiglu(struct cuda_device *device, const struct cuda_result results[2], enum cuda_type act,
                          void *out, uint32_t columns) {
    (void)device;
    within(out, (uint64_t)results->tokens * columns * element(act));
}

static void finish_heads(struct cuda_device *device, const struct cuda_result *result, const struct cuda_heads *heads) {
    (void)device;
    assert_true(result->first % heads->head_dim == 0 && result->rows % heads->head_dim == 0);
    within(heads->out, (uint64_t)result->tokens * heads->heads * heads->head_dim * element(heads->act));
}

static void attention(struct cuda_device *device, const struct cuda_attention *a) { (void)device, (void)a; }

static void head_update(struct cuda_device *device, const struct cuda_result *results, unsigned sides,
                        uint32_t vocabulary_row, struct head_token *tokens) {
    (void)device, (void)results, (void)sides, (void)vocabulary_row, (void)tokens;
}

static const struct cuda_plugin plugin = {.operand = operand,
                                          .unpack = unpack,
                                          .product = product,
                                          .finish_residual = finish_residual,
                                          .finish_swiglu = finish_swiglu,
                                          .finish_heads = finish_heads,
                                          .attention = attention,
                                          .head_update = head_update};

enum { HIDDEN = 12288, MIDDLE = 28672, HEADS = 96, KV_HEADS = 8, HEAD_DIM = 128, VOCABULARY = 131072 };

static struct weight weight_of(uint32_t rows, uint32_t columns, enum weight_format format) {
    return (struct weight){.codes = BASE,
                           .format = format,
                           .rows = rows,
                           .columns = columns,
                           .scale_rows = rows,
                           .scale_columns = columns,
                           .activations = format == WEIGHT_BF16 ? ACTIVATIONS_FLOAT : ACTIVATIONS_FP8_TOKEN};
}

static void groups_fit(enum weight_format format, enum cuda_type act) {
    const uint32_t query = HEADS * HEAD_DIM, key = KV_HEADS * HEAD_DIM;
    struct layer_place planned = {0};
    struct layer layer = {0};
    const uint32_t shapes[LAYER_WEIGHTS][2] = {
        [WEIGHT_Q] = {query, HIDDEN},    [WEIGHT_K] = {key, HIDDEN},       [WEIGHT_V] = {key, HIDDEN},
        [WEIGHT_O] = {HIDDEN, query},    [WEIGHT_GATE] = {MIDDLE, HIDDEN}, [WEIGHT_UP] = {MIDDLE, HIDDEN},
        [WEIGHT_DOWN] = {HIDDEN, MIDDLE}};
    for (enum layer_weight i = 0; i < LAYER_WEIGHTS; i++) {
        layer.weights[i] = weight_of(shapes[i][0], shapes[i][1], format);
        planned.weights[i].weight = layer.weights[i];
    }
    const struct weight head_weight = weight_of(VOCABULARY, HIDDEN, WEIGHT_BF16);
    const struct model model = {.hidden = HIDDEN,
                                .intermediate = MIDDLE,
                                .heads = HEADS,
                                .kv_heads = KV_HEADS,
                                .head_dim = HEAD_DIM,
                                .vocabulary = VOCABULARY,
                                .layer_count = 1,
                                .layers = &planned,
                                .head = {.weight = head_weight}};
    const struct cuda cuda = {.plugin = &plugin, .info = {.fp8 = format == WEIGHT_FP8}};
    static const uint32_t largest[] = {2, 4096, 30000, 33000, 65536};
    for (size_t i = 0; i < sizeof largest / sizeof *largest; i++) {
        const struct cuda_shape shape = {.tokens = largest[i], .scored = largest[i] - 1};
        struct cuda_space laid;
        cuda_space_lay(&model, 1, act, &shape, BASE, &laid);
        space = &laid;
        const struct cuda_rope rope = {0};
        const struct cuda_forward forward = {.cuda = &cuda, .model = &model, .act = act, .rope = &rope, .space = space};
        for (uint32_t tokens = largest[i]; tokens >= 2; tokens = tokens * 9 / 10) {
            const struct cuda_window window = {0, tokens};
            const struct cuda_group group = {
                .tokens = tokens, .window_count = 1, .longest = tokens, .windows = &window};
            cuda_layer_run(&forward, &layer, &group, (float *)(void *)BASE);
            const struct cuda_head head = {.weights = {&head_weight}, .models = {&model}, .scored = tokens - 1};
            cuda_head_run(&forward, &head);
        }
    }
}

static void test_groups(void **state) {
    (void)state;
    groups_fit(WEIGHT_BF16, CUDA_BF16);
    groups_fit(WEIGHT_BF16, CUDA_F32);
    groups_fit(WEIGHT_FP8, CUDA_BF16);
    groups_fit(WEIGHT_FP8, CUDA_F32);
    assert_true(operations > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_groups)};
    return cmocka_run_group_tests_name("groups on a device", tests, NULL, NULL);
}
