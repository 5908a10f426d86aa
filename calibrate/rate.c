#include <stdlib.h>
#include <string.h>

#include "calibrate/calibrate.h"
#include "calibrate/gram.h"
#include "common/progress.h"

enum { ROWS = 256, COLUMNS = 256, DEPTH = 512 };
static const double seconds_most = 0.5;

struct trial {
    struct engine *engine;
    const unsigned char *x, *packed;
    float *y; /* of each thread */
    double begun;
    size_t *products; /* of each thread */
};

/* Task: products until the time is over. */
static void trial_task(void *context, size_t task, unsigned thread) {
    static const struct product product = {.m = ROWS, .n = COLUMNS, .k = DEPTH};
    const struct trial *trial = context;
    (void)task;
    while (seconds_now() - trial->begun < seconds_most) {
        struct error error;
        if (product_run(trial->engine->products, &product, trial->x, trial->packed,
                        trial->y + (size_t)thread * ROWS * COLUMNS, &error) != STATUS_OK) {
            engine_fail(trial->engine, STATUS_IO, &error);
            return;
        }
        trial->products[thread]++;
    }
}

enum status calibrate_rate(const struct calibrate_options *options, double *rate, struct error *error) {
    struct engine engine = {0};
    const struct engine_options opened = {.jobs = options->jobs, .cpu = options->cpu, .bf16 = options->bf16};
    enum status status = engine_open(&opened, &engine, error);
    const size_t packed = status == STATUS_OK ? product_packed_size(engine.products, COLUMNS, DEPTH, error) : 0;
    if (status == STATUS_OK && packed == 0)
        status = STATUS_IO;
    if (status == STATUS_OK) {
        const size_t x_bytes = (size_t)ROWS * DEPTH * engine.element, y_bytes = sizeof(float) * ROWS * COLUMNS;
        unsigned char *x = aligned_alloc(64, x_bytes), *w = aligned_alloc(64, packed);
        struct trial trial = {.engine = &engine,
                              .x = x,
                              .packed = w,
                              .y = aligned_alloc(64, y_bytes * options->jobs),
                              .products = calloc(options->jobs, sizeof *trial.products),
                              .begun = seconds_now()};
        if (x && w && trial.y && trial.products) {
            memset(x, 0, x_bytes);
            memset(w, 0, packed);
            workers_run(engine.workers, options->jobs, trial_task, &trial);
            status = engine_status(&engine, error);
            double products = 0;
            for (unsigned i = 0; i < options->jobs; i++)
                products += (double)trial.products[i];
            *rate = 2.0 * ROWS * COLUMNS * DEPTH * products / (seconds_now() - trial.begun);
        } else {
            status = error_set_memory(error);
        }
        free(x);
        free(w);
        free(trial.y);
        free(trial.products);
    }
    engine_close(&engine);
    return status;
}
