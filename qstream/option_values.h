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

/* Reads a value into `place`. STATUS_USAGE, with an error that names the option, when it is none. */
typedef enum status option_parse_function(const char *value, void *place, struct error *error);

/*
 * An option: what it is called, and where what is given goes. With `flag` alone it takes no value; with any other it does, and
 * `flag`, where there is one, says that it was given. A table of them ends with one that has no name.
 */
struct command_option {
    const char *name; /* without its dashes */
    bool *flag;
    const char **text; /* the value as it is */
    uint32_t *number;  /* a whole number from `least` to `most` */
    uint32_t least, most;
    uint64_t *size;               /* bytes, or with a unit */
    const char *example;          /* of a size, for messages */
    option_parse_function *parse; /* all else, with `place` */
    void *place;
};

/*
 * Reads all options of a command, as getopt_long(3) does; what is left begins at optind then. -h or --help sets *help and ends
 * it. STATUS_USAGE for an option that there is not, or one whose value is missing or wrong.
 */
enum status options_read(const char *command, int argc, char **argv, const struct command_option *options, bool *help,
                         struct error *error);

enum { OPTION_JOBS_MOST = 1024 }; /* of --jobs */

/* A whole number from `least` to `most`. STATUS_USAGE otherwise, as the others; `option` is its name without dashes. */
enum status option_number(const char *option, const char *value, uint32_t least, uint32_t most, uint32_t *number,
                          struct error *error);

/* A share from `least` to 1, 0.01 or 1%. */
enum status option_share(const char *option, const char *value, double least, double *share, struct error *error);

/* --part I/N: N from 1 to 99999, I from 0 to N - 1. */
enum status option_part(const char *value, uint32_t *part, uint32_t *parts, struct error *error);

/* For tables, with what `place` points to. --cpu: a level that this machine has, an enum cpu_level. */
option_parse_function option_cpu;

/* --device: cpu, cuda, cuda:N or auto, a struct device_choice. */
option_parse_function option_device;

/* --device-memory: a size, with "unified:" before it where it is the host's memory too, a struct device_choice. */
option_parse_function option_device_memory;

/* --activations: as-served or float, a bool that says float. */
option_parse_function option_activations;

/* --kv-cache: auto, bf16 or fp8, an enum kv_cache. */
option_parse_function option_kv_cache;

/* Four fifths of the memory that this process may use: the machine's, or less where its control group has a limit. */
uint64_t option_memory_default(void);

#endif
