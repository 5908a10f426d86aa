/*
 * Comparing two checkpoints of strangers, from one input (fuzz.h): shards a* are the source under the config
 * "@@file source.json", shards b* the output under config.json. The input's first byte: bit 0, the begin of the data is
 * filled, else it is all zeros; bit 1, --rounding nearest; bit 2, the rule is not known; bit 3, a sample; bit 4, unfinished.
 */
#include <dirent.h>
#include <unistd.h>

#include "common/json_text.h"
#include "tests/fuzz/fuzz.h"
#include "verify/verification.h"

enum { FILES_MAX = 8, FILLED = 1 << 14, BYTES_MAX = 4 << 20 };

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* The shards whose names begin with `letter`. */
static size_t files_list(char letter, char *files[FILES_MAX]) {
    DIR *list = opendir(fuzz_folder());
    REQUIRE(list);
    size_t count = 0;
    struct dirent *entry;
    while ((entry = readdir(list)) && count < FILES_MAX)
        if (*entry->d_name == letter && text_ends_with(entry->d_name, ".safetensors"))
            files[count++] = strdup(entry->d_name);
    closedir(list);
    qsort(files, count, sizeof *files, by_name);
    return count;
}

static void ignore_problem(void *context, enum checkpoint_problem problem, const char *subject, const char *message) {
    (void)context;
    REQUIRE(problem < CHECKPOINT_PROBLEMS && subject && message[0]);
}

/* Random bytes behind the header. */
static void shard_fill(const char *file, uint32_t state) {
    char path[512];
    static uint8_t bytes[FILLED];
    uint8_t length[8] = {0};
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), file);
    FILE *stream = fopen(path, "r+b");
    REQUIRE(stream);
    uint64_t size = fread(length, 1, 8, stream) == 8 ? (uint64_t)length[0] | (uint64_t)length[1] << 8 : 0;
    fseek(stream, 0, SEEK_END);
    uint64_t end = (uint64_t)ftell(stream), begin = 8 + size;
    for (size_t i = 0; i < FILLED; i++)
        bytes[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    if (begin < end) {
        fseek(stream, (long)begin, SEEK_SET);
        REQUIRE(fwrite(bytes, 1, end - begin < FILLED ? end - begin : FILLED, stream) > 0);
    }
    fclose(stream);
}

static uint64_t bytes_of(const struct checkpoint *checkpoint) {
    uint64_t bytes = 0;
    for (size_t i = 0; i < checkpoint->shard_count; i++)
        bytes += checkpoint->shards[i].source ? checkpoint->shards[i].source->identity.size : 0;
    return bytes;
}

static bool side_open(char letter, uint8_t options, struct checkpoint *checkpoint, struct modules *modules) {
    char *files[FILES_MAX];
    struct error error = {0};
    size_t count = files_list(letter, files);
    for (size_t i = 0; i < count && options & 1; i++)
        shard_fill(files[i], (uint32_t)letter);
    enum status status = checkpoint_open_files(fuzz_folder(), files, count, ignore_problem, NULL, checkpoint, &error);
    REQUIRE(status == STATUS_OK);
    for (size_t i = 0; i < count; i++)
        free(files[i]);
    REQUIRE(modules_collect(checkpoint, modules, &error) == STATUS_OK);
    return bytes_of(checkpoint) < BYTES_MAX;
}

static void config_read(const char *name, struct checkpoint *checkpoint) {
    char path[512];
    struct error error = {0};
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    if (file_read(path, 1 << 20, &checkpoint->config, &checkpoint->config_length, &error) != STATUS_OK ||
        json_text_check(name, checkpoint->config, checkpoint->config_length, &error) != STATUS_OK) {
        free(checkpoint->config);
        checkpoint->config = strdup("{}");
        checkpoint->config_length = 2;
    }
}

static void verification_check(const struct verification *verification) {
    const struct accounting *all = &verification->pairing.accounting;
    REQUIRE(all->source_tensors == verification->source.tensor_count);
    REQUIRE(all->quantized + all->kept + all->consumed + all->missing + all->not_yet == all->source_tensors);
    struct text json = {0}, table = {0};
    struct error error = {0};
    REQUIRE(verification_json(verification, &json, &error) == STATUS_OK);
    REQUIRE(verification_table(verification, &table, &error) == STATUS_OK);
    /* which refuses what printf makes of NaN and infinity */
    REQUIRE(json_text_check("the report", json.bytes, json.length, &error) == STATUS_OK);
    text_free(&json);
    text_free(&table);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct folder_input input = {0};
    if (size < 1)
        return 0;
    folder_from_sections(data + 1, size - 1, &input);
    const uint8_t bits = data[0];
    const struct verify_options options = {.source = "a",
                                           .folder = "b",
                                           .rule = KNOWN_NONE,
                                           .sample = bits & 8 ? 0.3 : 1,
                                           .jobs = 1,
                                           .memory = (uint64_t)256 << 20,
                                           .quiet = true};
    struct verification verification = {.options = &options,
                                        .nearest = bits & 2,
                                        .rule = bits & 4 ? KNOWN_NONE : KNOWN_QSTREAM,
                                        .rule_from = bits & 4 ? FROM_DEFAULT : FROM_MANIFEST,
                                        .unfinished = bits & 16,
                                        .gamma = bits & 32 ? "layernorm" : "none"};
    struct error error = {0};
    bool small = side_open('a', bits, &verification.source, &verification.source_modules);
    small &= side_open('b', bits, &verification.output, &verification.output_modules);
    config_read("source.json", &verification.source);
    config_read("config.json", &verification.output);
    if (small) {
        enum status status = verification_compare(&verification, &error);
        REQUIRE(status == STATUS_OK || error.message[0]);
        if (status == STATUS_OK)
            verification_check(&verification);
    }
    verification_close(&verification);
    folder_clear();
    return 0;
}
