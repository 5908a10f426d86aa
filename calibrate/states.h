/*
 * The hidden states of all calibration tokens between two layers, in a file: [windows][tokens][hidden] float32. A file that
 * has its name is complete and durable.
 */
#ifndef QSTREAM_CALIBRATE_STATES_H
#define QSTREAM_CALIBRATE_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/sha256.h"
#include "common/status.h"

struct states {
    const char *folder, *name;     /* of the files, without the layer; the caller's */
    uint8_t identity[SHA256_SIZE]; /* of the run: files of another one are not taken */
    uint32_t windows, tokens, hidden;
    int in, out; /* files, -1: none; `in` is read, `out` has no name yet */
};

/* Opens the states in front of layer `layer` as `in`; *found is false when there are none of this run. */
enum status states_open(struct states *states, uint32_t layer, bool *found, struct error *error);

/* Begins the states behind a layer, `out`; its space is taken now. */
enum status states_begin(struct states *states, struct error *error);

/* A window's, [tokens][hidden]. */
enum status states_read(const struct states *states, int file, uint32_t window, float *values, struct error *error);
enum status states_write(const struct states *states, uint32_t window, const float *values, struct error *error);

/* `out` becomes the states in front of layer `layer`, durable, and is `in` from now on. */
enum status states_commit(struct states *states, uint32_t layer, struct error *error);

/* `out` goes. */
void states_drop(struct states *states);

/* Removes the file of a layer, if there is one. */
void states_forget(const struct states *states, uint32_t layer);

void states_close(struct states *states);

#endif
