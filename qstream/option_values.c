#include "qstream/option_values.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "infer/report/expectation.h"

static bool takes_value(const struct command_option *option) {
    return option->text || option->number || option->size || option->parse;
}

static enum status option_take(const struct command_option *option, const char *value, struct error *error) {
    if (option->flag)
        *option->flag = true;
    if (option->text)
        *option->text = value;
    if (option->number)
        return option_number(option->name, value, option->least, option->most, option->number, error);
    if (option->size && !text_parse_size(value, option->size))
        return error_set(error, STATUS_USAGE, "--%s takes a size such as %s, not '%s'", option->name, option->example,
                         value);
    return option->parse ? option->parse(value, option->place, error) : STATUS_OK;
}

enum status options_read(const char *command, int argc, char **argv, const struct command_option *options, bool *help,
                         struct error *error) {
    enum { OPTIONS_MOST = 64, FIRST = 1000 }; /* their numbers: behind all letters */
    struct option known[OPTIONS_MOST + 2] = {{"help", no_argument, NULL, 'h'}};
    for (int i = 0; options[i].name; i++) {
        assert(i < OPTIONS_MOST);
        known[i + 1] = (struct option){options[i].name, takes_value(&options[i]) ? required_argument : no_argument,
                                       NULL, FIRST + i};
    }
    enum status status = STATUS_OK;
    int option;
    *help = false;
    opterr = 0;
    while (status == STATUS_OK && (option = getopt_long(argc, argv, ":h", known, NULL)) != -1) {
        if (option == 'h') {
            *help = true;
            return STATUS_OK;
        }
        if (option == '?' || option == ':') {
            const char letter[3] = {'-', (char)optopt, '\0'}; /* which is one of several in a word, maybe */
            const bool is_letter = optopt && optopt != 'h' && optopt < FIRST;
            status = error_set(error, STATUS_USAGE, "%s '%s'; see 'qstream %s --help'",
                               option == ':' ? "a value is missing behind" : "there is no option",
                               is_letter ? letter : argv[optind - 1], command);
        } else {
            status = option_take(&options[option - FIRST], optarg, error);
        }
    }
    return status;
}

/* A number that begins `text`; *end is behind it. */
static bool number_read(const char *text, uint32_t least, uint32_t most, uint32_t *number, const char **end) {
    char *behind;
    errno = 0;
    const unsigned long parsed = strtoul(text, &behind, 10);
    *end = behind;
    *number = (uint32_t)parsed;
    return *text >= '0' && *text <= '9' && !errno && parsed >= least && parsed <= most;
}

enum status option_number(const char *option, const char *value, uint32_t least, uint32_t most, uint32_t *number,
                          struct error *error) {
    const char *end;
    if (!number_read(value, least, most, number, &end) || *end)
        return error_set(error, STATUS_USAGE, "--%s takes a number from %u to %u, not '%s'", option, least, most,
                         value);
    return STATUS_OK;
}

enum status option_share(const char *option, const char *value, double least, double *share, struct error *error) {
    char *end;
    *share = strtod(value, &end);
    if (*end == '%') {
        *share /= 100;
        end++;
    }
    if (*value < '0' || *value > '9' || *end || !(*share >= least && *share <= 1))
        return error_set(error, STATUS_USAGE, "--%s takes a share such as 0.01 or 1%%, not '%s'", option, value);
    return STATUS_OK;
}

enum status option_part(const char *value, uint32_t *part, uint32_t *parts, struct error *error) {
    enum { PARTS_MOST = 99999 };
    const char *end;
    if (!number_read(value, 0, PARTS_MOST - 1, part, &end) || *end != '/' ||
        !number_read(end + 1, *part + 1, PARTS_MOST, parts, &end) || *end)
        return error_set(error, STATUS_USAGE, "--part takes I/N with I from 0 to N - 1, not '%s'", value);
    return STATUS_OK;
}

enum status option_cpu(const char *value, void *place, struct error *error) {
    enum cpu_level *cpu = place;
    *cpu = cpu_level_parse(value);
    if (*cpu == CPU_LEVELS)
        return error_set(error, STATUS_USAGE,
                         "--cpu takes portable, neon, avx2 or avx512, not '%s' (see 'qstream version')", value);
    if (!cpu_has(*cpu))
        return error_set(error, STATUS_USAGE, "--cpu: this machine has no '%s' (see 'qstream version')", value);
    return STATUS_OK;
}

enum status option_device(const char *value, void *place, struct error *error) {
    struct device_choice *device = place;
    enum { NUMBER_MOST = 1023 };
    static const char *const names[] = {[DEVICE_CPU] = "cpu", [DEVICE_CUDA] = "cuda", [DEVICE_AUTO] = "auto"};
    for (enum device_kind kind = DEVICE_CPU; kind <= DEVICE_AUTO; kind++)
        if (strcmp(value, names[kind]) == 0) {
            device->kind = kind;
            device->number = 0;
            return STATUS_OK;
        }
    uint32_t number;
    static const char prefix[] = "cuda:";
    if (strncmp(value, prefix, sizeof prefix - 1) == 0 &&
        option_number("device", value + sizeof prefix - 1, 0, NUMBER_MOST, &number, error) == STATUS_OK) {
        device->kind = DEVICE_CUDA;
        device->number = (int)number;
        return STATUS_OK;
    }
    return error_set(error, STATUS_USAGE, "--device takes cpu, cuda, cuda:N or auto, not '%s'", value);
}

enum status option_device_memory(const char *value, void *place, struct error *error) {
    struct device_choice *device = place;
    static const char prefix[] = "unified:";
    device->unified = strncmp(value, prefix, sizeof prefix - 1) == 0;
    if (text_parse_size(value + (device->unified ? sizeof prefix - 1 : 0), &device->memory) && device->memory > 0)
        return STATUS_OK;
    return error_set(error, STATUS_USAGE, "--device-memory takes a size such as 96GiB or unified:128GiB, not '%s'",
                     value);
}

enum status option_activations(const char *value, void *place, struct error *error) {
    if (activations_parse(value, place))
        return STATUS_OK;
    return error_set(error, STATUS_USAGE, "--activations takes as-served or float, not '%s'", value);
}

enum status option_kv_cache(const char *value, void *place, struct error *error) {
    if (kv_cache_parse(value, place))
        return STATUS_OK;
    return error_set(error, STATUS_USAGE, "--kv-cache takes auto, bf16 or fp8, not '%s'", value);
}

/* UINT64_MAX when the file has no number: it is not there, or says "max". */
static uint64_t limit_read(const char *path) {
    char line[32] = "", *end;
    FILE *file = fopen(path, "re");
    if (!file)
        return UINT64_MAX;
    const bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    errno = 0;
    const unsigned long long bytes = strtoull(line, &end, 10);
    return read && end != line && errno == 0 ? bytes : UINT64_MAX;
}

uint64_t option_memory_default(void) {
    const long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t memory = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : (uint64_t)1 << 32;
    static const char *const limits[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const uint64_t limit = limit_read(limits[i]);
        memory = limit < memory ? limit : memory;
    }
    return memory / 5 * 4;
}
