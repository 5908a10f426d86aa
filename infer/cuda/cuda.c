#include "infer/cuda/cuda.h"

#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/program_folder.h"
#include "common/text.h"

enum { PLUGIN_PATH_SIZE = PATH_MAX + 64 }; /* a place and the file behind the folder */

/* ---- the plug-in ---- */

/* Never the working directory, nor what LD_LIBRARY_PATH says: code is loaded from where the program was installed. */
static bool plugin_find(const char *folder, char path[PLUGIN_PATH_SIZE]) {
    static const char *const places[] = {"", "/../lib/qstream"};
    for (size_t i = 0; *folder && i < sizeof places / sizeof *places; i++) {
        snprintf(path, PLUGIN_PATH_SIZE, "%s%s/" CUDA_PLUGIN_FILE, folder, places[i]);
        if (access(path, F_OK) == 0)
            return true;
    }
    return false;
}

static enum status plugin_load(const char *path, const struct cuda_plugin **plugin, struct error *error) {
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* it stays: its runtime does not like to go */
    if (!library) {
        const char *reason = dlerror();
        return error_set(error, STATUS_IO, "the plug-in cannot be loaded: %s", reason ? reason : path);
    }
    cuda_plugin_function *function;
    void *address = dlsym(library, CUDA_PLUGIN_SYMBOL);
    if (!address)
        return error_set(error, STATUS_IO, "'%s' is not a plug-in of qstream: it has no " CUDA_PLUGIN_SYMBOL, path);
    memcpy(&function, &address, sizeof function);
    *plugin = function();
    if ((*plugin)->version != CUDA_PLUGIN_VERSION || (*plugin)->size != sizeof **plugin)
        return error_set(error, STATUS_IO,
                         "'%s' is of another version of qstream (interface %" PRIu32
                         ", wanted %d): build it again with "
                         "'make cuda'",
                         path, (*plugin)->version, CUDA_PLUGIN_VERSION);
    return STATUS_OK;
}

enum status cuda_look(struct cuda_presence *presence, struct error *error) {
    char folder[PATH_MAX], path[PLUGIN_PATH_SIZE];
    *presence = (struct cuda_presence){.path = ""};
    program_folder(folder);
    if (!plugin_find(folder, path))
        return STATUS_OK;
    if (!realpath(path, presence->path))
        return error_set_errno(error, STATUS_IO, errno, "'%s'", path);
    const struct cuda_plugin *plugin;
    const enum status status = plugin_load(path, &plugin, error);
    if (status == STATUS_OK)
        presence->devices = plugin->device_count(presence->message);
    return status;
}

/* ---- the device ---- */

enum status cuda_open(const struct device_choice *choice, struct cuda *cuda, struct error *error) {
    *cuda = (struct cuda){0};
    char folder[PATH_MAX], path[PLUGIN_PATH_SIZE];
    program_folder(folder);
    if (!plugin_find(folder, path))
        return error_set(error, STATUS_IO,
                         "--device cuda needs the plug-in " CUDA_PLUGIN_FILE
                         ", which is neither in '%s' nor in '%s/../lib/qstream': 'make cuda' builds it",
                         folder, folder);
    const enum status status = plugin_load(path, &cuda->plugin, error);
    if (status != STATUS_OK)
        return status;
    char message[CUDA_MESSAGE_MAX] = "";
    const int count = cuda->plugin->device_count(message);
    if (count <= 0)
        return error_set(error, STATUS_IO, "--device cuda: %s", *message ? message : "there is no CUDA device");
    if (choice->number >= count)
        return error_set(error, STATUS_IO, "--device cuda:%d: there %s only %d CUDA device%s, numbered from 0",
                         choice->number, count == 1 ? "is" : "are", count, count == 1 ? "" : "s");
    cuda->device = cuda->plugin->open(choice->number, &cuda->info, message);
    if (!cuda->device)
        return error_set(error, STATUS_IO, "--device cuda:%d: %s", choice->number, message);
    if (choice->unified && !cuda->info.unified)
        return error_set(error, STATUS_USAGE,
                         "--device-memory unified: is for a --dry-run, or a card that shares the machine's memory; "
                         "%s has its own",
                         cuda->info.name);
    return STATUS_OK;
}

void cuda_describe(const struct device_choice *choice, struct cuda *cuda) {
    *cuda = (struct cuda){.info = {.name = "a card as described",
                                   .memory = choice->memory,
                                   .memory_free = choice->memory,
                                   .unified = choice->unified,
                                   .fp8 = true}};
}

void cuda_close(struct cuda *cuda) {
    if (cuda->plugin && cuda->device)
        cuda->plugin->close(cuda->device);
    cuda->device = NULL;
}

bool cuda_chosen(const struct device_choice *choice) {
    if (choice->kind != DEVICE_AUTO)
        return choice->kind == DEVICE_CUDA;
    struct cuda cuda;
    struct error ignored;
    const bool works = cuda_open(choice, &cuda, &ignored) == STATUS_OK; /* a card may be too old */
    cuda_close(&cuda);
    return works;
}

enum status cuda_heads_check(const struct model *model, struct error *error) {
    enum { MULTIPLE = 8, MOST = 256 };
    if (model->head_dim <= MOST && model->head_dim % MULTIPLE == 0)
        return STATUS_OK;
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s': heads of %u values are not supported by --device cuda; multiples of %d up to %d are",
                     model->checkpoint.path, model->head_dim, MULTIPLE, MOST);
}

enum status cuda_status(const struct cuda *cuda, struct error *error) {
    const char *failure = cuda->plugin->failure(cuda->device);
    return failure ? error_set(error, STATUS_IO, "%s: %s", cuda->info.name, failure) : STATUS_OK;
}

enum status cuda_finish(const struct cuda *cuda, struct error *error) {
    cuda->plugin->synchronize(cuda->device, CUDA_COPY);
    cuda->plugin->synchronize(cuda->device, CUDA_COMPUTE);
    return cuda_status(cuda, error);
}

/* ---- memory ---- */

enum status cuda_allocate(const struct cuda *cuda, uint64_t bytes, void *memory, struct error *error) {
    void *place = cuda->plugin->allocate(cuda->device, bytes ? bytes : 1);
    memcpy(memory, &place, sizeof place);
    return place ? STATUS_OK : cuda_status(cuda, error);
}

/* What Linux can hand out, the files that it keeps in memory included; 0 when it does not say. */
static uint64_t host_available(void) {
    enum { KIB = 1024 };
    static const char label[] = "MemAvailable:";
    char line[128];
    uint64_t kib = 0;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && kib == 0 && fgets(line, sizeof line, file))
        if (strncmp(line, label, sizeof label - 1) == 0)
            kib = strtoull(line + sizeof label - 1, NULL, 10);
    if (file)
        fclose(file);
    return kib * KIB;
}

uint64_t cuda_memory(const struct cuda *cuda, const struct device_choice *choice) {
    const uint64_t spare = CUDA_SPARE;
    uint64_t free = cuda->info.memory_free;
    if (cuda->info.unified &&
        cuda->device) { /* CUDA calls memory taken that only holds files, such as weights read before */
        const uint64_t available = host_available();
        free = available > free ? available : free;
        free = free < cuda->info.memory ? free : cuda->info.memory;
    }
    const uint64_t most = free > spare ? free - spare : 0;
    return choice->memory > 0 && choice->memory < most ? choice->memory : most;
}

void cuda_budget_begin(const struct cuda *cuda, const struct device_choice *choice, struct device_budget *budget) {
    *budget = (struct device_budget){.used = true, .unified = cuda->info.unified, .memory = cuda_memory(cuda, choice)};
    snprintf(budget->name, sizeof budget->name, "%s", cuda->info.name);
}

enum status cuda_budget_check(const struct device_budget *budget, uint64_t host, const char *advice,
                              struct error *error) {
    const uint64_t wanted = budget->total + (budget->unified ? host : 0);
    if (wanted <= budget->memory)
        return STATUS_OK;
    char all[TEXT_SIZE_MAX], weights[TEXT_SIZE_MAX], states[TEXT_SIZE_MAX], work[TEXT_SIZE_MAX], most[TEXT_SIZE_MAX];
    return error_set(error, STATUS_USAGE,
                     "%s has too little memory: this run needs %s of it (weights %s, states %s, the rest %s%s), and "
                     "%s may be used%s",
                     budget->name, text_size(wanted, all), text_size(budget->weights, weights),
                     text_size(budget->states, states), text_size(budget->work, work),
                     budget->unified ? ", and what the host needs, which is the same memory" : "",
                     text_size(budget->memory, most), advice);
}
