/*
 * A CUDA device: the plug-in that drives it, opened at run time, and memory on it.
 */
#ifndef QSTREAM_INFER_CUDA_CUDA_H
#define QSTREAM_INFER_CUDA_CUDA_H

#include <limits.h>

#include "common/status.h"
#include "infer/cuda/plugin.h"
#include "infer/device.h"
#include "infer/model.h"

struct cuda {
    const struct cuda_plugin *plugin;
    struct cuda_device *device; /* NULL: described only, for a plan */
    struct cuda_info info;
};

/* Memory of a device that plans leave alone: its context, code, cuBLASLt's tables, what allocations are rounded up to. */
enum { CUDA_SPARE = 512 << 20 };
/* Host memory that the driver and its libraries take. */
enum { CUDA_HOST_BYTES = 512 << 20 };

/* What is there before any device is opened. */
struct cuda_presence {
    char path[PATH_MAX]; /* of the plug-in; "" when there is none */
    int devices;
    char message[CUDA_MESSAGE_MAX]; /* why there are none, as far as it is known */
};

/* Loads the plug-in where there is one. STATUS_IO when it cannot be loaded. */
enum status cuda_look(struct cuda_presence *presence, struct error *error);

/*
 * Loads the plug-in, libqstream_cuda.so, from the folder of the running program or ../lib/qstream beside it, and opens
 * the device. STATUS_IO in one line: no plug-in, one of another version, no driver, no device. Close with cuda_close, also after
 * an error.
 */
enum status cuda_open(const struct device_choice *choice, struct cuda *cuda, struct error *error);

/* A device that is not there, for a plan: choice->memory is its memory. */
void cuda_describe(const struct device_choice *choice, struct cuda *cuda);

void cuda_close(struct cuda *cuda);

/* Whether a run with this choice goes to CUDA: for DEVICE_AUTO whether a device answers. */
bool cuda_chosen(const struct device_choice *choice);

/* STATUS_BAD_INPUT when attention does not take heads of this size. */
enum status cuda_heads_check(const struct model *model, struct error *error);

/* STATUS_IO with the device's first failure. */
enum status cuda_status(const struct cuda *cuda, struct error *error);

/* Waits for what was begun. */
enum status cuda_finish(const struct cuda *cuda, struct error *error);

/* Memory of the device. */
enum status cuda_allocate(const struct cuda *cuda, uint64_t bytes, void *memory, struct error *error);

/* Memory that a plan may take. */
uint64_t cuda_memory(const struct cuda *cuda, const struct device_choice *choice);

/* Fills what a budget tells of the device. */
void cuda_budget_begin(const struct cuda *cuda, const struct device_choice *choice, struct device_budget *budget);

/* STATUS_USAGE when the budget does not fit; `host`: bytes of host memory of the run, which count where memory is unified. */
enum status cuda_budget_check(const struct device_budget *budget, uint64_t host, const char *advice,
                              struct error *error);

#endif
