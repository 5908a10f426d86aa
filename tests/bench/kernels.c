/*
 * The kernels alone, on one core and on data that stays in its L2 cache: quantizing by every rule and level, the
 * conversions around it, SHA-256. Links the objects that make has built. Prints, for each round,
 *   NAME <tab> LEVEL <tab> elements (for sha256: bytes) per second
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/formats.h"
#include "common/sha256.h"
#include "qstream/convert.h"
#include "qstream/mxfp4.h"

enum { ELEMENTS = 1 << 15, BLOCKS = ELEMENTS / MXFP4_BLOCK, CHUNK = 1 << 18 };
static const double round_seconds = 0.1;

static uint16_t bf16[ELEMENTS], half[ELEMENTS], back[ELEMENTS];
static float wide[ELEMENTS], gamma_weights[ELEMENTS];
static uint8_t fp8[ELEMENTS], packed[ELEMENTS / 2], scales[BLOCKS], chunk[CHUNK];
static uint16_t table[256];
static volatile unsigned sink;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Values as weights have them: near to a normal distribution of standard deviation 0.02. */
static void data_make(void) {
    uint32_t state = 12345;
    for (int i = 0; i < ELEMENTS; i++) {
        float sum = -6;
        for (int k = 0; k < 12; k++) {
            state = state * 1664525 + 1013904223;
            sum += (float)(state >> 8) * 0x1p-24f;
        }
        wide[i] = sum * 0.02f;
        bf16[i] = bf16_encode(wide[i]);
        half[i] = f16_encode(wide[i]);
        fp8[i] = fp8_e4m3_encode(wide[i] * 4000);
        gamma_weights[i] = 1 + sum * 0.05f;
    }
    for (int i = 0; i < CHUNK; i++)
        chunk[i] = (uint8_t)(i * 31 + (i >> 8));
    fp8_table_fill(0.00025f, table);
}

enum kernel { AMAX, MSE, QSTREAM, QSTREAM_GAMMA, FP8_BY_TABLE, FP8_BY_SCALE, F32, F16, TO_FP8, BF16_AMAX, KERNELS };
static const char *const names[KERNELS] = {"quantize amax",
                                           "quantize mse",
                                           "quantize qstream",
                                           "quantize qstream, gamma",
                                           "fp8 to bf16, per tensor",
                                           "fp8 to bf16, per block",
                                           "f32 to bf16",
                                           "f16 to bf16",
                                           "bf16 to fp8",
                                           "bf16 amax"};

static void kernel_run(enum kernel kernel, mxfp4_quantize_fn *quantize, const struct convert *convert) {
    static const enum scale_rule rules[] = {SCALE_RULE_AMAX, SCALE_RULE_MSE, SCALE_RULE_QSTREAM, SCALE_RULE_QSTREAM};
    switch (kernel) {
    case FP8_BY_TABLE:
        convert->fp8_e4m3_to_bf16_by_table(fp8, ELEMENTS, table, back);
        break;
    case FP8_BY_SCALE:
        for (int i = 0; i < ELEMENTS; i += 128) /* a scale for each block of 128 columns */
            convert->fp8_e4m3_to_bf16(fp8 + i, 128, 0.00025f, back + i);
        break;
    case F32:
        convert->f32_to_bf16(wide, ELEMENTS, back);
        break;
    case F16:
        convert->f16_to_bf16(half, ELEMENTS, back);
        break;
    case TO_FP8:
        convert->bf16_to_fp8_e4m3(bf16, ELEMENTS, bf16_encode(0.0002f), fp8);
        break;
    case BF16_AMAX:
        sink += convert->bf16_amax(bf16, ELEMENTS);
        break;
    default:
        sink += quantize(bf16, BLOCKS, rules[kernel], kernel == QSTREAM_GAMMA ? gamma_weights : NULL, packed, scales);
    }
}

static void kernel_time(enum kernel kernel, const char *level, mxfp4_quantize_fn *quantize,
                        const struct convert *convert, unsigned rounds) {
    for (unsigned round = 0; round <= rounds; round++) { /* the first warms up */
        double start = now(), seconds;
        unsigned runs = 0;
        do {
            for (int i = 0; i < 8; i++, runs++)
                kernel_run(kernel, quantize, convert);
            seconds = now() - start;
        } while (seconds < round_seconds);
        if (round > 0)
            printf("%s\t%s\t%.0f\n", names[kernel], level, (double)runs * ELEMENTS / seconds);
    }
}

static int sha256_time(unsigned rounds) {
    struct error error;
    uint8_t digest[SHA256_SIZE];
    for (unsigned round = 0; round <= rounds; round++) {
        double start = now(), seconds;
        unsigned runs = 0;
        do {
            if (sha256_of(chunk, CHUNK, digest, &error) != STATUS_OK)
                return 4;
            runs++;
            seconds = now() - start;
        } while (seconds < round_seconds);
        if (round > 0)
            printf("sha256\t-\t%.0f\n", (double)runs * CHUNK / seconds);
    }
    return 0;
}

int main(int argc, char **argv) {
    unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 3;
    data_make();
    for (enum kernel kernel = 0; kernel < KERNELS; kernel++) {
        if (kernel <= QSTREAM_GAMMA)
            kernel_time(kernel, "scalar", mxfp4_quantize_scalar, convert_for(CPU_PORTABLE), rounds);
        for (enum cpu_level level = 0; level < CPU_LEVELS; level++)
            if (cpu_has(level) && mxfp4_quantize_for(level))
                kernel_time(kernel, cpu_level_name(level), mxfp4_quantize_for(level), convert_for(level), rounds);
    }
    return sha256_time(rounds);
}
