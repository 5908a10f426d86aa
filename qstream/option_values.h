/*
 * The options of a command line, and values that several commands have: words and numbers, with errors that name the option.
 */
#ifndef QSTREAM_QSTREAM_OPTION_VALUES_H
#define QSTREAM_QSTREAM_OPTION_VALUES_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/cpu.h"
#include "common/status.h"
#include "infer/device.h"

/* Takes an option, by its number in the table, into a command's arguments. */
typedef enum status option_function(int option, const char *value, void *arguments, struct error *error);

/*
 * Reads all options of a command, as getopt_long(3) does; what is left begins at optind then. -h, or 'h' of the table, sets
 * *help and ends it. STATUS_USAGE for an option that there is not, or one without its value.
 */
enum status options_read(const char *command, int argc, char **argv, const struct option *options,
                         option_function *parse, void *arguments, bool *help, struct error *error);

/* A whole number from `least` to `most`. STATUS_USAGE otherwise, as the others. */
enum status option_number(const char *option, const char *value, uint32_t least, uint32_t most, uint32_t *number,
                          struct error *error);

/* A share from `least` to 1, 0.01 or 1%. */
enum status option_share(const char *option, const char *value, double least, double *share, struct error *error);

/* --jobs: threads, 1 to 1024. */
enum status option_jobs(const char *value, uint32_t *jobs, struct error *error);

/* --part I/N: N from 1 to 99999, I from 0 to N - 1. */
enum status option_part(const char *value, uint32_t *part, uint32_t *parts, struct error *error);

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
