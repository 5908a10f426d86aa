/*
 * Converting one tile: the rows of a weight are read, brought to BF16, quantized, and written to their places in
 * the output. Everything a worker needs lives in its struct tile_worker, allocated once: memory does not depend on
 * the size of tensors or of the model.
 */
#ifndef QSTREAM_QSTREAM_TILE_H
#define QSTREAM_QSTREAM_TILE_H

#include "qstream/convert.h"
#include "qstream/plan.h"

enum { TILE_SCRATCH_BYTES = 1 << 18 }; /* `source` has at least this size: free for other use between tiles */

struct tile_worker {
    const struct plan *plan;
    mxfp4_quantize_fn *quantize;
    const struct convert *convert;
    uint8_t *memory; /* one allocation; the buffers below lie in it */
    uint8_t *source; /* the tile's source bytes */
    uint8_t *scales; /* the source's scales for these rows */
    uint16_t *rows;  /* rows brought to BF16 */
    float *gamma;    /* [columns] of the norm */
    uint8_t *output[2];
    uint32_t gamma_tensor; /* what `gamma` holds, or NO_TENSOR */
    uint32_t table_tensor; /* the scale tensor that `table` was made for, or NO_TENSOR */
    uint16_t table[256];
};

/* Bytes that each worker allocates for this plan. */
size_t tile_worker_bytes(const struct plan *plan);

/* Free with tile_worker_free, also after an error. */
enum status tile_worker_init(const struct plan *plan, enum cpu_level level, struct tile_worker *worker,
                             struct error *error);
void tile_worker_free(struct tile_worker *worker);

/* What a tile became: `size[i]` bytes at `bytes[i]`, a buffer of the worker, for byte `offset[i]` of output i. */
struct tile_result {
    const uint8_t *bytes[2];
    size_t size[2];
    uint64_t offset[2];
    size_t source_size; /* bytes of worker->source that were read */
};

/*
 * Converts a tile. `amax` is the job's (JOB_FP8_TENSOR only). A value that is infinite or NaN where numbers are
 * wanted is STATUS_BAD_INPUT and named by tensor and position.
 */
enum status tile_convert(struct tile_worker *worker, const struct plan_job *job, uint32_t tile, uint16_t amax,
                         struct tile_result *result, struct error *error);

/* The largest BF16 magnitude in a tile. */
enum status tile_amax(struct tile_worker *worker, const struct plan_job *job, uint32_t tile, uint16_t *amax,
                      struct error *error);

/* Hints that a tile will be read soon. */
void tile_prefetch(const struct plan *plan, uint32_t tile);

#endif
