/*
 * What the tests of the CUDA plug-in share: the plug-in that was opened, memory on its device, checks, and weights of all
 * formats. Everything goes through the plug-in's table, so that the same program tests the emulated plug-in on any machine
 * and the real one on a GPU.
 *
 * Memory belongs to the test that took it: it is released when the test ends, and then the bytes before and behind each
 * piece on the device have to be what they were.
 */
#ifndef QSTREAM_TESTS_CUDA_TEST_PLUGIN_H
#define QSTREAM_TESTS_CUDA_TEST_PLUGIN_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/cpu/rows.h"
#include "infer/cuda/plugin.h"
#include "tests/unit/weight_values.h"

extern const struct cuda_plugin *plugin;
extern struct cuda_device *device;
extern struct cuda_info info;

/* The tests of each file. */
extern const struct CMUnitTest device_tests[], values_tests[], product_tests[], attention_tests[], head_tests[],
    step_tests[];
extern const size_t device_test_count, values_test_count, product_test_count, attention_test_count, head_test_count,
    step_test_count;

/* ---- memory ---- */

/* Host memory until the test ends. */
void *host_memory(size_t bytes);
/* `bytes` of the device, aligned to 256, a copy of `from`. */
void *on_device(const void *from, size_t bytes);
/* The same, `offset` bytes behind such an address. */
void *on_device_at(const void *from, size_t bytes, size_t offset);
/* To be written: filled with bytes 0xff, which is NaN in every type. */
void *for_result(size_t bytes);
/* Whatever is there. */
void *for_space(uint64_t bytes);
/* What the device has, after all operations; counts as a result in the digest. */
void *from_device(const void *memory, size_t bytes);
/* The same in two parts, where not all bytes are results. */
void *device_bytes(const void *memory, size_t bytes);
void digest_add(const void *bytes, size_t n);
void to_device(void *memory, const void *from, size_t bytes);
/* After each test: no failure, nothing written where it must not be. */
int test_end(void **state);

/* `count` times QSTREAM_TEST_SCALE (1 by default), at least `least`. */
uint32_t scaled(uint32_t count, uint32_t least);
/* Whether QSTREAM_TEST_SCALE asks for much less: then some of what is tried is left out. */
bool brief(void);
/* More than the second and third dimension of a grid may have; fewer under emulation, where a block each takes minutes. */
uint32_t very_many(void);
uint32_t minimum(uint32_t a, uint32_t b);

/* ---- numbers ---- */

#define ROUNDING 0x1p-24 /* of float32, relative */

/* [-most, most], what BF16 holds exactly. */
float *random_floats(size_t n, double most, uint64_t seed);
/* Random values of all sizes, and those where rounding to E4M3 with this scale is on edge: ties, subnormals, the largest. */
float *edge_floats(size_t n, float scale, uint64_t seed);

size_t type_size(enum cuda_type type);
/* Floats in a type (E4M3: saturated), and the value of one. */
void *typed(enum cuda_type type, const float *x, size_t n);
double typed_value(enum cuda_type type, const void *x, size_t i);
/* As a type holds it. */
double rounded_to(enum cuda_type type, double value);

/* |value - expected| <= allowed, NaN for NaN. */
void check(const char *what, size_t at, double value, double expected, double allowed);
/* A value of a type is what a number within `allowed` of the expected one is rounded to. */
void check_typed(const char *what, enum cuda_type type, const void *x, size_t at, double expected, double allowed);
/* The same codes, but for NaN, which may be any. */
void check_same(const char *what, enum cuda_type type, const void *x, const void *expected, size_t n);

const struct row_kernels *rows_of_cpu(void);

/* ---- weights ---- */

struct weight_shape {
    enum weight_format format;
    uint32_t rows, columns;
    uint32_t scale_rows, scale_columns; /* of FP8; 0: all */
    enum activations activations;
    uint32_t group;
    bool bias;
};
/* Finite codes of moderate size, in host memory. */
struct weight weight_make(const struct weight_shape *shape, uint64_t seed);
/* Its copy, pointers on the device. */
struct weight weight_on_device(const struct weight *host);
/* Scales that unpack leaves to the product: one for all, or one per row. */
bool scale_is_left(const struct weight *weight);
float scale_left(const struct weight *weight, uint32_t row);

#endif
