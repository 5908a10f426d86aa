/*
 * Values of options that several commands have: words and numbers of the command line, with errors that name the option.
 */
#ifndef QSTREAM_QSTREAM_OPTION_VALUES_H
#define QSTREAM_QSTREAM_OPTION_VALUES_H

#include <stdint.h>

#include "common/cpu.h"
#include "common/status.h"
#include "infer/device.h"

/* A whole number from `least` to `most`. STATUS_USAGE otherwise, as the others. */
enum status option_number(const char *option, const char *value, uint32_t least, uint32_t most, uint32_t *number,
                          struct error *error);

/* --cpu: a level that this machine has. */
enum status option_cpu(const char *value, enum cpu_level *cpu, struct error *error);

/* --memory: a size. */
enum status option_memory(const char *value, uint64_t *memory, struct error *error);

/* --device: cpu, cuda, cuda:N or auto. */
enum status option_device(const char *value, struct device_choice *device, struct error *error);

/* --device-memory: a size, with "unified:" before it where it is the host's memory too. */
enum status option_device_memory(const char *value, struct device_choice *device, struct error *error);

/* Four fifths of the memory that this process may use: the machine's, or less where its control group has a limit. */
uint64_t option_memory_default(void);

#endif
