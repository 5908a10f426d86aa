/*
 * Hidden states of all windows: as many slots as fit in memory, the others in a file without a name, which is gone when
 * the process is. A slot holds float32 values of a group of windows of one model.
 */
#ifndef QSTREAM_INFER_HIDDEN_H
#define QSTREAM_INFER_HIDDEN_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"

struct hidden {
    size_t slots, in_memory;
    uint64_t slot_bytes;
    float *memory;
    float *work[2]; /* of slots in the file that are looked at */
    int file;       /* -1: none */
    const char *folder;
};

/*
 * `works`: how many slots of the file are looked at at once, 1 or 2. The file's space is taken now: STATUS_IO when
 * `folder` has too little. Free with hidden_close, also after an error.
 */
enum status hidden_open(struct hidden *hidden, size_t slots, size_t in_memory, uint64_t slot_bytes, unsigned works,
                        const char *folder, struct error *error);
void hidden_close(struct hidden *hidden);

/*
 * The values of a slot: in memory, or read from the file into work[work] (`fresh`: not read, all is to be written).
 * What was changed is kept by hidden_put with the same arguments.
 */
enum status hidden_get(struct hidden *hidden, size_t slot, unsigned work, int fresh, float **values,
                       struct error *error);
enum status hidden_put(struct hidden *hidden, size_t slot, unsigned work, struct error *error);

#endif
