/*
 * Matrix-vector products against reading: weights of 8192 columns and some 400 MB in each format, by all threads, and a
 * plain sum over as many bytes, in turns. Links the objects that make has built. Prints, for each round,
 *   read <tab> LEVEL <tab> bytes per second
 *   FORMAT <tab> LEVEL <tab> bytes of the weight per second <tab> its share of what reading reached in this round
 *
 *   matvec [REPEATS [THREADS]]
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/formats.h"
#include "common/progress.h"
#include "common/thread_team.h"
#include "infer/cpu/workers.h"
#include "infer/matvec.h"

enum { COLUMNS = 8192, BYTES = 400 << 20, TASK_BYTES = 256 << 10, HUGE_PAGE = 2 << 20, PASSES = 3 };

static const char *const names[WEIGHT_FORMATS] = {"f32", "f16", "bf16", "fp8", "mxfp8", "mxfp4"};

struct job {
    const struct matvec_kernel *kernel;
    memory_read_function *read;
    struct weight weight;
    const void *x;
    float *y;
    uint32_t task_rows;
};

static volatile uint64_t sink;

static void read_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct job *job = context;
    sink += job->read((const unsigned char *)job->weight.codes + task * TASK_BYTES, TASK_BYTES);
}

static void product_task(void *context, size_t task, unsigned thread) {
    (void)thread;
    const struct job *job = context;
    const uint32_t begin = (uint32_t)task * job->task_rows, rest = job->weight.rows - begin;
    job->kernel->rows(&job->weight, job->x, job->y, begin, begin + (rest < job->task_rows ? rest : job->task_rows));
}

static double seconds_of(struct workers *workers, size_t tasks, task_function *function, struct job *job) {
    double best = INFINITY;
    for (int pass = 0; pass < PASSES; pass++) {
        const double start = seconds_now();
        workers_run(workers, tasks, function, job);
        const double seconds = seconds_now() - start;
        best = seconds < best ? seconds : best;
    }
    return best;
}

static void *memory(size_t bytes) {
    void *place = aligned_alloc(HUGE_PAGE, (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE);
    if (!place) {
        fputs("matvec: out of memory\n", stderr);
        exit(4);
    }
    madvise(place, bytes, MADV_HUGEPAGE);
    return place;
}

int main(int argc, char **argv) {
    const int repeats = argc > 1 ? atoi(argv[1]) : 3;
    const unsigned threads = argc > 2 ? (unsigned)atoi(argv[2]) : processor_count();
    struct error error;
    struct workers *workers;
    if (workers_start(threads, &workers, &error) != STATUS_OK) {
        fprintf(stderr, "matvec: %s\n", error.message);
        return 4;
    }
    unsigned char *codes = memory(BYTES), *exponents = memory(BYTES / 16);
    float *x = memory(COLUMNS * sizeof *x), *y = memory(BYTES / (COLUMNS / 2) * sizeof *y),
          *scales = memory(BYTES / (COLUMNS / 2) * sizeof *scales), *prepared = memory(COLUMNS * 8);
    for (size_t i = 0; i < BYTES; i += 2) { /* small numbers in every format */
        codes[i] = (unsigned char)(i * 2654435761u >> 16 & 0x3f);
        codes[i + 1] = (unsigned char)(0x38 | (i * 40503u >> 8 & 0x81));
    }
    memset(exponents, 120, BYTES / 16);
    for (int i = 0; i < COLUMNS; i++)
        x[i] = sinf((float)i);
    for (uint32_t i = 0; i < BYTES / (COLUMNS / 2); i++)
        scales[i] = 0.01f;
    for (int round = 0; round < repeats; round++)
        for (enum cpu_level level = 0; level < CPU_LEVELS; level++) {
            if (!cpu_has(level) || level == CPU_NEON)
                continue;
            struct job job = {.read = memory_read_kernel(level), .x = prepared, .y = y};
            job.weight = (struct weight){.codes = codes,
                                         .exponents = exponents,
                                         .scales = scales,
                                         .scale_rows = 1,
                                         .scale_columns = COLUMNS,
                                         .columns = COLUMNS};
            const double rate = BYTES / seconds_of(workers, BYTES / TASK_BYTES, read_task, &job);
            printf("read\t%s\t%.4g\n", cpu_level_name(level), rate);
            for (enum weight_format format = 0; format < WEIGHT_FORMATS; format++) {
                job.weight.format = format;
                const size_t row = weight_row_bytes(&job.weight);
                job.weight.rows = (uint32_t)(BYTES / row);
                job.task_rows = (uint32_t)(TASK_BYTES / row) / 4 * 4;
                job.kernel = matvec_kernel(level, format);
                job.kernel->prepare(&job.weight, x, prepared);
                const size_t tasks = (job.weight.rows + job.task_rows - 1) / job.task_rows;
                const double seconds = seconds_of(workers, tasks, product_task, &job);
                const double bytes =
                    (double)job.weight.rows * ((double)row + (format >= WEIGHT_MXFP8 ? COLUMNS / 32 : 0));
                printf("%s\t%s\t%.4g\t%.3f\n", names[format], cpu_level_name(level), bytes / seconds,
                       bytes / seconds / rate);
            }
            fflush(stdout);
        }
    workers_stop(workers);
    return 0;
}
