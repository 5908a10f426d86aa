/*
 * What verify reads of a folder besides its weights, from one input (fuzz.h): config.json, the manifest, a file of
 * thresholds ("@@file limits.json"), the source's config.json ("@@file source.json") and a journal ("@@file journal").
 * The input's first byte: bit 0, the journal's header and checksums are made to fit, its records being 44 bytes each.
 */
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "common/pattern.h"
#include "tests/fuzz/fuzz.h"
#include "verify/folder_check.h"
#include "verify/json_compare.h"
#include "verify/thresholds.h"
#include "verify/unfinished.h"

enum { HEADER = 112, RECORD = 48, MODULES_MAX = 64 };

static char *path_of(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    return path;
}

/* Bad input, if anything, and said why, printably. */
static bool is_good(enum status status, const struct error *error) {
    REQUIRE(status == STATUS_OK || (status == STATUS_BAD_INPUT && error->message[0]));
    return status == STATUS_OK;
}

static void findings_check(struct verify_findings *findings) {
    size_t counted = 0;
    for (size_t i = 0; i < findings->count; i++)
        REQUIRE(findings->items[i].id[0] && findings->items[i].message[0] &&
                findings->items[i].severity < VERIFY_SEVERITIES);
    for (int s = 0; s < VERIFY_SEVERITIES; s++)
        counted += findings->by_severity[s];
    REQUIRE(counted >= findings->count && (counted == findings->count || counted > VERIFY_FINDINGS_KEPT));
    verify_findings_free(findings);
}

/* ---- files of their own ---- */

/* What is read stays inside the folder. */
static void manifest_check(const struct manifest *manifest) {
    REQUIRE(manifest->file_count > 0 && manifest->source_count > 0 && manifest->recipe.count > 0);
    REQUIRE(manifest->rule && manifest->gamma && manifest->rounding && manifest->ties && manifest->recipe.name);
    for (size_t i = 0; i < manifest->file_count; i++) {
        const char *name = manifest->files[i].name;
        REQUIRE(*name && *name != '/' && strcmp(name, "..") != 0 && strncmp(name, "../", 3) != 0);
        REQUIRE(!strstr(name, "/../") && !strstr(name, "//") && !text_ends_with(name, "/.."));
    }
}

static void thresholds_check(void) {
    struct thresholds thresholds = {0};
    struct error error = {0};
    if (access(path_of("limits.json"), R_OK) == 0 &&
        is_good(thresholds_read(&thresholds, path_of("limits.json"), &error), &error)) {
        REQUIRE(thresholds.name && thresholds.count > 0);
        struct limits limits;
        for (int role = 0; role < ROLES; role++)
            is_good(thresholds_for(&thresholds, "model.layers.0.mlp.up_proj", (enum role)role, &limits, &error),
                    &error);
        enum status status = thresholds_check_used(&thresholds, &error);
        REQUIRE(status == STATUS_OK || status == STATUS_USAGE);
        for (size_t i = 0; i < thresholds.count; i++) /* a limit for each, and text to name it */
            REQUIRE(thresholds.rules[i].text[0]);
    } else {
        REQUIRE(thresholds.count == 0);
    }
    thresholds_free(&thresholds);
}

static void store32(uint8_t *out, uint32_t value) {
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* The journal as verify/unfinished.c describes it, with checksums that fit; returns its length. */
static size_t journal_make(const uint8_t *data, size_t size, uint8_t *file) {
    memset(file, 's', HEADER);
    memcpy(file, "qstreamJ", 8);
    store32(file + 8, 1);
    store32(file + HEADER - 4, (uint32_t)crc32(0, file, HEADER - 4));
    uint32_t seed = (uint32_t)crc32(0, file, HEADER - 4);
    size_t length = HEADER;
    for (; size >= RECORD - 4; data += RECORD - 4, size -= RECORD - 4, length += RECORD) {
        memcpy(file + length, data, RECORD - 4);
        store32(file + length + RECORD - 4, (uint32_t)crc32(seed, file + length, RECORD - 4));
    }
    memcpy(file + length, data, size);
    return length + size;
}

/* A shard counts as complete only if a record says so. */
static void unfinished_check(bool make, const struct checkpoint *source) {
    struct unfinished unfinished;
    struct error error = {0};
    bool is_unfinished = true;
    char *bytes;
    size_t length;
    if (file_read(path_of("journal"), 1 << 20, &bytes, &length, &error) != STATUS_OK)
        return;
    uint8_t *file = malloc(HEADER + 2 * length);
    unlink(path_of(".qstream"));
    REQUIRE(file && mkdir(path_of(".qstream"), 0700) == 0);
    if (make)
        length = journal_make((const uint8_t *)bytes, length, file);
    else
        memcpy(file, bytes, length);
    folder_write(".qstream/journal", file, length, 0);
    free(file);
    free(bytes);
    REQUIRE(unfinished_detect(fuzz_folder(), &is_unfinished, &error) == STATUS_OK);
    REQUIRE(is_unfinished == (access(path_of("config.json"), F_OK) != 0));
    enum status status = unfinished_read(fuzz_folder(), source, &unfinished, &error);
    REQUIRE(is_good(status, &error) || !make);
    REQUIRE(length > HEADER || unfinished.count == 0);
    for (size_t i = 1; i < unfinished.count; i++)
        REQUIRE(strcmp(unfinished.files[i - 1], unfinished.files[i]) < 0);
    unfinished_free(&unfinished);
    unlink(path_of(".qstream/journal"));
    rmdir(path_of(".qstream"));
}

/* ---- two configs ---- */

/* The source: the same shards under the other config, if that is one. */
static void checks_run(const struct checkpoint *output, struct checkpoint *source, const struct manifest *manifest) {
    struct modules modules;
    struct error error = {0};
    struct verify_findings findings = {0};
    REQUIRE(modules_collect(output, &modules, &error) == STATUS_OK);
    struct folder_check check = {
        .source = output, .output = output, .output_modules = &modules, .manifest = manifest, .jobs = 1, .quiet = true};
    bool same = false;
    struct json_span all = {0, output->config_length};
    REQUIRE(json_compare(output->config, all, output->config, all, &same, &error) == STATUS_OK);
    REQUIRE(config_keys_check(&check, &findings, &error) == STATUS_OK);
    REQUIRE(same && findings.count == 0); /* of a config with itself */
    findings_check(&findings);
    REQUIRE(config_formats_check(&check, &findings, &error) == STATUS_OK);
    findings_check(&findings);
    REQUIRE(sidecar_files_check(&check, &findings, &error) == STATUS_OK);
    REQUIRE(findings.count == 0); /* of a folder with itself */
    REQUIRE(manifest_files_check(&check, &findings, &error) == STATUS_OK);
    findings_check(&findings);
    check.source = source;
    REQUIRE(config_keys_check(&check, &findings, &error) == STATUS_OK);
    size_t changed = findings.by_severity[VERIFY_ERROR];
    findings_check(&findings);
    check.source = output;
    check.output = source;
    REQUIRE(config_keys_check(&check, &findings, &error) == STATUS_OK);
    REQUIRE(json_compare(output->config, all, source->config, (struct json_span){0, source->config_length}, &same,
                         &error) == STATUS_OK);
    REQUIRE(!same || (findings.count == 0 && changed == 0));
    findings_check(&findings);
    modules_free(&modules);
}

static void folder_check_all(uint8_t options) {
    struct folder *folder;
    struct checkpoint output;
    struct manifest manifest;
    struct error error = {0};
    bool found = false;
    char *config;
    size_t length;
    REQUIRE(folder_open(fuzz_folder(), &folder, &error) == STATUS_OK);
    if (is_good(manifest_read(folder, &manifest, &found, &error), &error) && found)
        manifest_check(&manifest);
    else
        found = false;
    if (checkpoint_open(fuzz_folder(), &output, &error) == STATUS_OK) {
        struct checkpoint source = output;
        if (file_read(path_of("source.json"), 1 << 20, &config, &length, &error) == STATUS_OK &&
            json_text_check("source.json", config, length, &error) == STATUS_OK) {
            source.config = config;
            source.config_length = length;
        }
        checks_run(&output, &source, found ? &manifest : NULL);
        unfinished_check(options & 1, &source);
        enum wanted_format format;
        for (size_t i = 0; found && i < output.tensor_count && i < MODULES_MAX; i++)
            is_good(wanted_format_of(&manifest.recipe, output.tensors[i].info.name, &format, &error), &error);
        free(config);
    } else {
        const struct checkpoint none = {.path = NULL};
        unfinished_check(options & 1, &none);
    }
    checkpoint_close(&output);
    manifest_free(&manifest);
    folder_close(folder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct folder_input input = {0};
    if (size < 1)
        return 0;
    folder_from_sections(data + 1, size - 1, &input);
    folder_check_all(data[0]);
    thresholds_check();
    folder_clear();
    return 0;
}
