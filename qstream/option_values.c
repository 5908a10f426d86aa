#include "qstream/option_values.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"

enum status option_number(const char *option, const char *value, uint32_t least, uint32_t most, uint32_t *number,
                          struct error *error) {
    char *end;
    errno = 0;
    unsigned long parsed = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno || parsed < least || parsed > most)
        return error_set(error, STATUS_USAGE, "%s takes a number from %u to %u, not '%s'", option, least, most, value);
    *number = (uint32_t)parsed;
    return STATUS_OK;
}

enum status option_cpu(const char *value, enum cpu_level *cpu, struct error *error) {
    *cpu = cpu_level_parse(value);
    if (*cpu == CPU_LEVELS)
        return error_set(error, STATUS_USAGE, "--cpu takes portable, neon, avx2 or avx512, not '%s'", value);
    if (!cpu_has(*cpu))
        return error_set(error, STATUS_USAGE, "--cpu: this machine has no '%s' (see 'qstream version')", value);
    return STATUS_OK;
}

enum status option_memory(const char *value, uint64_t *memory, struct error *error) {
    if (!text_parse_size(value, memory))
        return error_set(error, STATUS_USAGE, "--memory takes a size such as 16GiB, not '%s'", value);
    return STATUS_OK;
}

enum status option_device(const char *value, struct device_choice *device, struct error *error) {
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
        option_number("--device", value + sizeof prefix - 1, 0, NUMBER_MOST, &number, error) == STATUS_OK) {
        device->kind = DEVICE_CUDA;
        device->number = (int)number;
        return STATUS_OK;
    }
    return error_set(error, STATUS_USAGE, "--device takes cpu, cuda, cuda:N or auto, not '%s'", value);
}

enum status option_device_memory(const char *value, struct device_choice *device, struct error *error) {
    static const char prefix[] = "unified:";
    device->unified = strncmp(value, prefix, sizeof prefix - 1) == 0;
    if (text_parse_size(value + (device->unified ? sizeof prefix - 1 : 0), &device->memory) && device->memory > 0)
        return STATUS_OK;
    return error_set(error, STATUS_USAGE, "--device-memory takes a size such as 96GiB or unified:128GiB, not '%s'",
                     value);
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
