/*
 * Which device computes, and what memory of it a run takes.
 */
#ifndef QSTREAM_INFER_DEVICE_H
#define QSTREAM_INFER_DEVICE_H

#include <stdbool.h>
#include <stdint.h>

enum device_kind { DEVICE_CPU, DEVICE_CUDA, DEVICE_AUTO }; /* AUTO: CUDA where there is a device, else the CPU */

struct device_choice {
    enum device_kind kind;
    int number;      /* of the CUDA device */
    uint64_t memory; /* at most so much of the device's, bytes; 0: what is free */
    bool unified;    /* for plans: the memory is the host's too */
};

/* What is stated before anything is computed, of a device with memory of its own. Bytes. */
struct device_budget {
    bool used; /* else nothing here counts */
    char name[64];
    bool unified;     /* its memory is the host's: totals of both have to fit into it */
    uint64_t memory;  /* that may be used */
    uint64_t weights; /* stored weights: all of them, or buffers for two steps */
    uint64_t states;  /* hidden states; of a decoder keys and values */
    uint64_t work;    /* the rest */
    uint64_t total;
    bool resident; /* all weights stay */
};

#endif
