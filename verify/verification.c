#include "verify/verification.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/hub/reference.h"
#include "common/thread_team.h"
#include "verify/folder_check.h"
#include "verify/unfinished.h"

/* The program itself, libraries and stacks, before any table or buffer. */
static const uint64_t fixed_memory = (uint64_t)24 << 20;

struct verify_options verify_options_default(void) {
    return (struct verify_options){
        .rule = KNOWN_NONE, .sample = 1, .jobs = processor_count(), .memory = (uint64_t)256 << 20, .cpu = cpu_best()};
}

const char *setting_from_name(enum setting_from from) {
    static const char *const names[] = {"default", "option", "manifest", "scales"};
    return names[from];
}

/* ---- opening ---- */

struct problem_context {
    struct verification *verification;
    struct error *error;
    enum status status;
};

static void problem_note(void *context, enum checkpoint_problem problem, const char *subject, const char *message) {
    static const char *const ids[CHECKPOINT_PROBLEMS] = {
        [PROBLEM_INDEX_INVALID] = "index-invalid",       [PROBLEM_SHARD_MISSING] = "shard-missing",
        [PROBLEM_SHARD_UNREADABLE] = "shard-unreadable", [PROBLEM_INDEX_WRONG_SHARD] = "index-wrong-shard",
        [PROBLEM_INDEX_DANGLING] = "index-dangling",     [PROBLEM_TENSOR_UNINDEXED] = "tensor-unindexed",
        [PROBLEM_TENSOR_DUPLICATE] = "tensor-duplicate",
    };
    struct problem_context *noted = context;
    if (noted->status == STATUS_OK)
        noted->status = verify_find(&noted->verification->findings, VERIFY_ERROR, ids[problem], subject, noted->error,
                                    "%s", message);
}

static enum status output_open(struct verification *verification, struct error *error) {
    const char *folder = verification->options->folder;
    struct problem_context context = {verification, error, STATUS_OK};
    enum status status = hub_reference_is(folder) ? STATUS_OK /* never unfinished */
                                                  : unfinished_detect(folder, &verification->unfinished, error);
    if (status == STATUS_OK && !verification->unfinished) {
        status = checkpoint_open_reporting(folder, problem_note, &context, &verification->output, error);
        return status == STATUS_OK ? context.status : status;
    }
    struct unfinished unfinished = {0};
    if (status == STATUS_OK)
        status = unfinished_read(folder, &verification->source, &unfinished, error);
    if (status == STATUS_OK)
        status = checkpoint_open_files(folder, unfinished.files, unfinished.count, problem_note, &context,
                                       &verification->output, error);
    if (status == STATUS_OK)
        status = context.status;
    if (status == STATUS_OK)
        status = verify_find(&verification->findings, unfinished.count > 0 ? VERIFY_NOTE : VERIFY_WARNING, "unfinished",
                             folder, error, "is still being made: shards that are complete: %zu, others: %zu",
                             unfinished.count, unfinished.incomplete);
    unfinished_free(&unfinished);
    return status;
}

/* One folder is not its own image: nothing could ever be found. */
static enum status folders_check(const struct verify_options *options, struct error *error) {
    struct stat source, folder; /* what is on the Hub is not here */
    if (stat(options->source, &source) == 0 && stat(options->folder, &folder) == 0 && source.st_dev == folder.st_dev &&
        source.st_ino == folder.st_ino)
        return error_set(error, STATUS_USAGE, "'%s' and '%s' are the same folder", options->source, options->folder);
    return STATUS_OK;
}

static enum status repositories_check(const struct verification *verification, struct error *error) {
    const char *source = folder_repository(verification->source.folder),
               *output = folder_repository(verification->output.folder);
    if (source && output && strcmp(source, output) == 0)
        return error_set(error, STATUS_USAGE, "'%s' and '%s' are the same repository at the same commit",
                         verification->options->source, verification->options->folder);
    return STATUS_OK;
}

/* ---- settings ---- */

static enum status settings_find(struct verification *verification, struct error *error) {
    const struct verify_options *options = verification->options;
    const struct manifest *manifest = verification->has_manifest ? &verification->manifest : NULL;
    verification->rounding_from = options->rounding != ROUNDING_UNSET ? FROM_OPTION
                                  : manifest                          ? FROM_MANIFEST
                                                                      : FROM_DEFAULT;
    verification->nearest = options->rounding != ROUNDING_UNSET
                                ? options->rounding == ROUNDING_NEAREST
                                : manifest && manifest->rounding && strcmp(manifest->rounding, "nearest") == 0;
    verification->rule = options->rule;
    verification->rule_from = options->rule != KNOWN_NONE ? FROM_OPTION : FROM_DEFAULT;
    verification->calibrated = verification->rounding_from == FROM_MANIFEST && manifest->rounding &&
                               strcmp(manifest->rounding, "calibrated") == 0;
    if (options->rule == KNOWN_NONE && manifest && manifest->rule && !verification->calibrated) {
        verification->rule = known_rule_parse(manifest->rule);
        verification->rule_from = verification->rule == KNOWN_NONE ? FROM_DEFAULT : FROM_MANIFEST;
    }
    verification->gamma = options->gamma ? options->gamma : manifest && manifest->gamma ? manifest->gamma : "none";
    if (options->recipe) {
        verification->wanted = &verification->recipe;
        return wanted_recipe_read(options->recipe, &verification->recipe, error);
    }
    verification->wanted = manifest ? &manifest->recipe : NULL;
    return STATUS_OK;
}

/* A manifest that cannot be read is a finding, not the end. */
static enum status manifest_open(struct verification *verification, struct error *error) {
    bool found = false;
    enum status status = manifest_read(verification->output.folder, &verification->manifest, &found, error);
    verification->has_manifest = found && status == STATUS_OK;
    if (status != STATUS_BAD_INPUT)
        return status;
    const struct error problem = *error;
    return verify_find(&verification->findings, VERIFY_ERROR, "manifest-invalid", "qstream.json", error, "%s",
                       problem.message);
}

/* ---- files ---- */

static uint64_t fixed_bytes(const struct verification *verification) {
    const struct folder *const folders[] = {verification->source.folder, verification->output.folder};
    return fixed_memory + folders_memory(folders, 2);
}

static enum status files_check(struct verification *verification, struct error *error) {
    const struct verify_options *options = verification->options;
    const uint64_t fixed = fixed_bytes(verification);
    const struct folder_check check = {.source = &verification->source,
                                       .output = &verification->output,
                                       .output_modules = &verification->output_modules,
                                       .manifest = verification->has_manifest ? &verification->manifest : NULL,
                                       .memory = options->memory > fixed ? options->memory - fixed : 0,
                                       .hash = options->hash,
                                       .jobs = options->jobs,
                                       .quiet = options->quiet};
    if (verification->unfinished)
        return STATUS_OK;
    struct verify_findings *findings = &verification->findings;
    enum status status = config_keys_check(&check, findings, error);
    if (status == STATUS_OK)
        status = config_formats_check(&check, findings, error);
    if (status == STATUS_OK)
        status = sidecar_files_check(&check, findings, error);
    if (status == STATUS_OK && check.manifest)
        status = manifest_files_check(&check, findings, error);
    return status;
}

/* ---- values ---- */

static uint64_t tables_bytes(const struct verification *verification) {
    uint64_t tensors = verification->source.tensor_count + verification->output.tensor_count;
    uint64_t bytes = tensors * (sizeof(struct tensor) + 128);
    bytes += (verification->source_modules.count + verification->output_modules.count) * (sizeof(struct module) + 48);
    for (size_t i = 0; i < verification->pairing.count; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        bytes += sizeof *comparison + comparison->tile_count * sizeof(uint32_t);
        if (comparison->figures)
            bytes += sizeof *comparison->figures + 128;
    }
    return bytes;
}

static enum status values_compare(struct verification *verification, struct error *error) {
    const struct verify_options *options = verification->options;
    unsigned all = (1u << KNOWN_RULES) - 1;
    uint64_t fixed = fixed_bytes(verification) + tables_bytes(verification),
             worker = compare_worker_bytes(&verification->pairing);
    const struct compare_options compare = {.rules = verification->rule == KNOWN_NONE ? all : 1u << verification->rule,
                                            .sample = options->sample,
                                            .part = options->part,
                                            .parts = options->parts,
                                            .jobs = options->jobs,
                                            .memory = options->memory > fixed ? options->memory - fixed : 0,
                                            .cpu = options->cpu,
                                            .quiet = options->quiet};
    if (options->memory < fixed + worker + ((uint64_t)1 << 20))
        return error_set(error, STATUS_USAGE, "--memory is too small: these checkpoints need at least %" PRIu64 "MiB",
                         ((fixed + worker) >> 20) + 2);
    return compare_run(&verification->source, &verification->output, &verification->pairing, &compare,
                       &verification->compared, error);
}

/* Ids of which more were found than are kept. */
static enum status rest_tell(struct verification *verification, struct error *error) {
    struct verify_findings *findings = &verification->findings;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < VERIFY_FINDING_IDS && findings->ids[i].id && status == STATUS_OK; i++) {
        size_t left = verify_findings_left(findings, findings->ids[i].id);
        if (left > 0)
            status = verify_find(findings, VERIFY_NOTE, "more", findings->ids[i].id, error,
                                 "there are %zu more findings of this kind", left);
    }
    return status;
}

enum status verification_compare(struct verification *verification, struct error *error) {
    const struct pairing_input input = {.source = &verification->source,
                                        .output = &verification->output,
                                        .source_modules = &verification->source_modules,
                                        .output_modules = &verification->output_modules,
                                        .recipe = verification->wanted,
                                        .gamma = verification->gamma,
                                        .unfinished = verification->unfinished};
    enum status status = pairing_make(&input, &verification->pairing, &verification->findings, error);
    if (status == STATUS_OK)
        status = values_compare(verification, error);
    return status == STATUS_OK ? verification_judge(verification, error) : status;
}

enum status verification_open(const struct verify_options *options, struct verification *verification,
                              struct error *error) {
    *verification = (struct verification){.options = options};
    enum status status = folders_check(options, error);
    if (status == STATUS_OK)
        status = checkpoint_open(options->source, &verification->source, error);
    if (status == STATUS_OK)
        status = modules_collect(&verification->source, &verification->source_modules, error);
    if (status == STATUS_OK)
        status = output_open(verification, error);
    if (status == STATUS_OK)
        status = repositories_check(verification, error);
    if (status == STATUS_OK)
        status = modules_collect(&verification->output, &verification->output_modules, error);
    if (status == STATUS_OK)
        status = manifest_open(verification, error);
    return status == STATUS_OK ? settings_find(verification, error) : status;
}

enum status verification_run(struct verification *verification, struct error *error) {
    const struct verify_options *options = verification->options;
    enum status status = files_check(verification, error);
    if (status == STATUS_OK)
        status = verification_compare(verification, error);
    if (status == STATUS_OK && options->thresholds && options->sample >= 1 && options->parts < 2 &&
        !verification->unfinished)
        status = thresholds_check_used(options->thresholds, error);
    return status == STATUS_OK ? rest_tell(verification, error) : status;
}

bool verification_passed(const struct verification *verification) {
    return verification->findings.by_severity[VERIFY_ERROR] == 0;
}

void verification_close(struct verification *verification) {
    compare_result_free(&verification->compared);
    pairing_free(&verification->pairing);
    wanted_recipe_free(&verification->recipe);
    manifest_free(&verification->manifest);
    verify_findings_free(&verification->findings);
    modules_free(&verification->source_modules);
    modules_free(&verification->output_modules);
    checkpoint_close(&verification->source);
    checkpoint_close(&verification->output);
}

/* ---- for reports ---- */

static int by_loss(const void *a, const void *b) {
    const struct comparison *x = *(const struct comparison *const *)a, *y = *(const struct comparison *const *)b;
    double p = sqnr_db(&x->sums), q = sqnr_db(&y->sums);
    p = isnan(p) ? HUGE_VAL : p;
    q = isnan(q) ? HUGE_VAL : q;
    return p != q ? (p < q ? -1 : 1) : strcmp(x->module, y->module);
}

const struct comparison **verification_worst(const struct verification *verification, size_t *count) {
    const struct comparison **worst = malloc((verification->pairing.count + 1) * sizeof(void *));
    *count = 0;
    for (size_t i = 0; i < verification->pairing.count && worst; i++)
        if (verification->pairing.comparisons[i].kind == COMPARE_VALUES &&
            verification->pairing.comparisons[i].tiles_read > 0)
            worst[(*count)++] = &verification->pairing.comparisons[i];
    if (worst)
        qsort(worst, *count, sizeof(void *), by_loss);
    return worst;
}

void total_add(struct total *total, const struct comparison *comparison) {
    if (total->tensors == 0) {
        figures_clear(&total->figures);
        total->mxfp4 = true;
    }
    total->tensors++;
    total->mxfp4 &= comparison->to.format == STORED_MXFP4;
    figures_merge(&total->figures, comparison->figures);
    sums_add(&total->sums, &comparison->sums);
}

struct total total_of(const struct verification *verification, uint32_t group, int layer) {
    struct total total = {0};
    figures_clear(&total.figures);
    for (size_t i = 0; i < verification->pairing.count; i++) {
        const struct comparison *comparison = &verification->pairing.comparisons[i];
        if (comparison->kind == COMPARE_VALUES &&
            (group == UINT32_MAX ? comparison->layer == layer : comparison->group == group))
            total_add(&total, comparison);
    }
    return total;
}

static int by_int(const void *a, const void *b) {
    return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

int *verification_layers(const struct verification *verification, size_t *count) {
    int *layers = malloc((verification->pairing.count + 1) * sizeof *layers);
    size_t all = 0;
    *count = 0;
    for (size_t i = 0; i < verification->pairing.count && layers; i++)
        if (verification->pairing.comparisons[i].kind == COMPARE_VALUES &&
            verification->pairing.comparisons[i].layer >= 0)
            layers[all++] = verification->pairing.comparisons[i].layer;
    if (layers)
        qsort(layers, all, sizeof *layers, by_int);
    for (size_t i = 0; i < all; i++)
        if (i == 0 || layers[i] != layers[i - 1])
            layers[(*count)++] = layers[i];
    return layers;
}
