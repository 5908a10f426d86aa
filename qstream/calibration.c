#include "qstream/calibration.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calibrate/calibrate.h"
#include "common/file_bytes.h"
#include "common/new_file.h"
#include "infer/cpu/product.h"
#include "infer/report/ppl_text.h"
#include "qstream/planned_output.h"

enum { WINDOW = 2048, WINDOW_LEAST = 32 };
static const double damping = 0.01;

/* ---- the text ---- */

enum status calibration_read(const struct quantize_arguments *arguments, const struct folder *source,
                             struct calibration *calibration, struct error *error) {
    struct plan_calibration *settings = &calibration->settings;
    enum status status = ppl_tokens_read(arguments->calibrate_ids ? NULL : source, arguments->calibrate,
                                         &calibration->tokens, settings->text, error);
    if (status != STATUS_OK)
        return status;
    struct token_ids *tokens = &calibration->tokens;
    const uint64_t skip = arguments->calibrate_skip, most = arguments->calibrate_tokens;
    if (tokens->count < skip + WINDOW_LEAST)
        return error_set(
            error, STATUS_BAD_INPUT,
            "'%s': %zu tokens are too few to calibrate with%s: at least %d are needed, and 65536 are better",
            arguments->calibrate, tokens->count, skip ? " behind --calibrate-skip" : "", WINDOW_LEAST);
    const uint64_t there = tokens->count - skip < most ? tokens->count - skip : most;
    settings->window = there < WINDOW ? (uint32_t)there : WINDOW;
    settings->windows = (uint32_t)(there / settings->window);
    settings->skip = skip;
    settings->correction = arguments->calibrate_correction;
    settings->damping = damping;
    settings->cpu = arguments->cpu;
    settings->bf16 = products_have_bf16(arguments->cpu);
    tokens->count = (size_t)settings->windows * settings->window;
    memmove(tokens->ids, tokens->ids + skip, tokens->count * sizeof *tokens->ids);
    return ppl_tokens_hash(tokens->ids, tokens->count, settings->tokens, error);
}

void calibration_free(struct calibration *calibration) {
    token_ids_free(&calibration->tokens);
    free(calibration->jobs);
    *calibration = (struct calibration){0};
}

/* ---- the output as a model ---- */

/* config.json and the index as they will be, into a folder. */
static enum status view_describe(const struct publication *publication, const char *view, struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < publication->count; i++) {
        const struct publish_file *file = &publication->files[i];
        if (file->source || (strcmp(file->name, "config.json") != 0 && !text_ends_with(file->name, ".index.json")))
            continue;
        char *path = text_format("%s/%s", view, file->name);
        status = path ? new_file_write(path, file->bytes.bytes, file->bytes.length, error) : error_set_memory(error);
        free(path);
    }
    return status;
}

/* A folder in which the shards in the making have their final names. The caller frees its path, also after an error. */
static enum status view_make(const struct plan *plan, const struct publication *publication, const char *folder,
                             char **view, struct error *error) {
    *view = text_format("%s/%s/output", folder, work_folder);
    enum status status = *view ? folder_make(*view, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = view_describe(publication, *view, error);
    for (size_t s = 0; status == STATUS_OK && s < plan->shard_count; s++) {
        char *path = text_format("%s/%s", *view, plan->shards[s].file);
        char *target = text_format("../../%s.partial", plan->shards[s].file);
        if (!path || !target)
            status = error_set_memory(error);
        else if (symlink(target, path) != 0 && errno != EEXIST)
            status = error_set_errno(error, STATUS_IO, errno, "cannot make the link '%s'", path);
        free(path);
        free(target);
    }
    return status;
}

/* ---- layers ---- */

struct making {
    struct calibration *calibration;
    const struct plan *plan;
    const struct publication *publication;
    const char *destination;
    const struct execute_options *options;
    const struct fingerprint *fingerprint;
    struct run_state *state; /* NULL: nothing is done */
    char *view;              /* the output in the making as a model's folder; NULL: it is only planned */
    uint32_t *jobs;          /* [layers][LAYER_WEIGHTS]: the job of a weight, NO_JOB where it is not to be rounded */
};
#define NO_JOB UINT32_MAX

static enum status output_open(void *context, struct model *model, struct error *error) {
    const struct making *making = context;
    const struct model_options as_served = {0};
    if (making->view)
        return model_open(making->view, &as_served, model, error);
    struct checkpoint planned;
    const enum status status =
        planned_output_open(making->plan, making->publication, making->destination, &planned, error);
    if (status == STATUS_OK)
        return model_of_checkpoint(planned, &as_served, model, error);
    checkpoint_close(&planned);
    return status;
}

static bool job_done(const struct making *making, uint32_t job) {
    const struct plan_job *planned = &making->plan->jobs[job];
    if (!making->state)
        return false;
    for (uint32_t t = planned->first_tile; t < planned->first_tile + planned->tile_count; t++)
        if (!making->state->tiles[t])
            return false;
    return true;
}

static bool weight_wanted(void *context, uint32_t layer, enum layer_weight weight) {
    const struct making *making = context;
    const uint32_t job = making->jobs[(size_t)layer * LAYER_WEIGHTS + weight];
    return job != NO_JOB && !job_done(making, job);
}

/* An output tensor's bytes into its shard. */
static enum status output_write(const struct making *making, const struct plan_output *output, const void *bytes,
                                struct error *error) {
    char *path = shard_partial_path(making->plan, output->shard, making->options->folder);
    if (!path)
        return error_set_memory(error);
    enum status status = STATUS_OK;
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || !file_bytes_write(fd, bytes, (size_t)output->info.size, output->info.offset) || fdatasync(fd) != 0)
        status = error_set_errno(error, STATUS_IO, errno,
                                 "cannot write '%s'; what is done is kept, run the same command to go on", path);
    if (fd >= 0)
        close(fd);
    free(path);
    return status;
}

static enum status layer_keep(void *context, uint32_t layer, const struct weight *weights, struct error *error) {
    const struct making *making = context;
    struct journal_record records[LAYER_WEIGHTS];
    size_t count = 0;
    enum status status = STATUS_OK;
    for (enum layer_weight i = 0; status == STATUS_OK && i < LAYER_WEIGHTS; i++) {
        if (!weight_wanted(context, layer, i))
            continue;
        const struct plan_job *job = &making->plan->jobs[making->jobs[(size_t)layer * LAYER_WEIGHTS + i]];
        status = output_write(making, &making->plan->outputs[job->outputs[0]], weights[i].codes, error);
        if (status == STATUS_OK)
            status = output_write(making, &making->plan->outputs[job->outputs[1]], weights[i].exponents, error);
        records[count++] = (struct journal_record){
            .type = JOURNAL_TILES, .first = job->first_tile, .last = job->first_tile + job->tile_count - 1};
    }
    struct journal *journal = NULL;
    if (status == STATUS_OK)
        status = journal_open(making->options->journal, making->fingerprint, run_state_visit, making->state, &journal,
                              error);
    if (status == STATUS_OK)
        status = journal_append(journal, records, count, error);
    for (size_t i = 0; status == STATUS_OK && i < count; i++)
        run_state_visit(making->state, &records[i]);
    journal_close(journal);
    return status;
}

static void weight_note(void *context, uint32_t layer, enum layer_weight weight) {
    const struct making *making = context;
    if (!making->options->quiet)
        fprintf(stderr, "qstream: layer %u, %s: its inputs are too large to be calibrated on: rounded to nearest\n",
                layer, layer_weight_name(weight));
}

/* ---- which jobs ---- */

struct named_job {
    const char *name;
    uint32_t job;
};

static int compare_names(const void *a, const void *b) {
    return strcmp(((const struct named_job *)a)->name, ((const struct named_job *)b)->name);
}

/* The jobs of the layers' weights in MXFP4, found by the names of what they make. */
static enum status jobs_find(struct making *making, struct error *error) {
    const struct plan *plan = making->plan;
    struct model model = {0};
    struct named_job *names = malloc((plan->job_count + 1) * sizeof *names);
    size_t count = 0;
    enum status status = output_open(making, &model, error);
    if (status == STATUS_BAD_INPUT) { /* the path in there is one of ours */
        const struct error inner = *error;
        status = error_set(error, status, "--calibrate: what this checkpoint becomes cannot be run: %s", inner.message);
    }
    if (status == STATUS_OK && !names)
        status = error_set_memory(error);
    for (uint32_t j = 0; status == STATUS_OK && j < plan->job_count; j++)
        if (plan->jobs[j].kind == JOB_MXFP4)
            names[count++] = (struct named_job){plan->outputs[plan->jobs[j].outputs[0]].info.name, j};
    if (count > 0)
        qsort(names, count, sizeof *names, compare_names);
    if (status == STATUS_OK) {
        making->jobs = malloc((size_t)model.layer_count * LAYER_WEIGHTS * sizeof *making->jobs);
        if (!making->jobs)
            status = error_set_memory(error);
    }
    size_t found = 0;
    for (size_t i = 0; status == STATUS_OK && i < (size_t)model.layer_count * LAYER_WEIGHTS; i++) {
        const struct weight_place *place = &model.layers[i / LAYER_WEIGHTS].weights[i % LAYER_WEIGHTS];
        const struct named_job wanted = {.name = place->codes->info.name};
        const struct named_job *named = count ? bsearch(&wanted, names, count, sizeof *names, compare_names) : NULL;
        making->jobs[i] = named && place->weight.format == WEIGHT_MXFP4 ? named->job : NO_JOB;
        if (making->jobs[i] != NO_JOB) {
            making->calibration->jobs[named->job] = true;
            found++;
        }
    }
    if (status == STATUS_OK && found == 0)
        status =
            error_set(error, STATUS_USAGE,
                      "--calibrate: the recipe makes no weight of a layer MXFP4, so there is nothing to calibrate");
    model_close(&model);
    free(names);
    return status;
}

/* ---- */

static struct calibrate_options options_of(const struct making *making, const struct quantize_arguments *arguments) {
    const struct plan_calibration *settings = &making->calibration->settings;
    return (struct calibrate_options){.source = arguments->source,
                                      .output_open = output_open,
                                      .ids = making->calibration->tokens.ids,
                                      .windows = settings->windows,
                                      .tokens = settings->window,
                                      .correction = settings->correction,
                                      .damping = settings->damping,
                                      .bf16 = settings->bf16,
                                      .cpu = arguments->cpu,
                                      .jobs = arguments->jobs,
                                      .memory = arguments->memory,
                                      .quiet = arguments->quiet,
                                      .wanted = weight_wanted,
                                      .keep = layer_keep,
                                      .note = weight_note,
                                      .context = (void *)(uintptr_t)making};
}

enum status calibration_plan(struct calibration *calibration, const struct plan *plan,
                             const struct publication *publication, const struct quantize_arguments *arguments,
                             struct calibrate_budget *budget, double *rate, struct error *error) {
    struct making making = {
        .calibration = calibration, .plan = plan, .publication = publication, .destination = arguments->destination};
    calibration->jobs = calloc(plan->job_count, sizeof *calibration->jobs);
    enum status status = calibration->jobs ? jobs_find(&making, error) : error_set_memory(error);
    if (status == STATUS_OK) {
        const struct calibrate_options options = options_of(&making, arguments);
        status = calibrate_plan(&options, budget, error);
        if (status == STATUS_OK && arguments->dry_run)
            status = calibrate_rate(&options, rate, error);
    }
    free(making.jobs);
    return status;
}

static enum status layers_make(struct making *making, const struct quantize_arguments *arguments, struct error *error) {
    char *states = text_format("%s/%s/calibration", making->options->folder, work_folder);
    enum status status = states ? folder_make(states, error) : error_set_memory(error);
    if (status == STATUS_OK)
        status = view_make(making->plan, making->publication, making->options->folder, &making->view, error);
    if (status == STATUS_OK)
        status = jobs_find(making, error);
    if (status == STATUS_OK) {
        struct calibrate_options options = options_of(making, arguments);
        options.states_folder = states;
        status = sha256_of(making->fingerprint, sizeof *making->fingerprint, options.identity, error);
        if (status == STATUS_OK)
            status = calibrate_run(&options, error);
        if (status == STATUS_INTERRUPTED)
            status = error_set(error, status, "interrupted; what is done is kept, run the same command to go on");
    }
    free(states);
    return status;
}

enum status calibration_execute(struct calibration *calibration, const struct plan *plan,
                                const struct publication *publication, const struct quantize_arguments *arguments,
                                const struct execute_options *options, const struct fingerprint *fingerprint,
                                struct run_state *state, struct error *error) {
    struct making making = {.calibration = calibration,
                            .plan = plan,
                            .publication = publication,
                            .destination = arguments->destination,
                            .options = options,
                            .fingerprint = fingerprint,
                            .state = state};
    struct execute_options others = *options;
    others.left = calibration->jobs;
    enum status status = execute(plan, &others, fingerprint, state, error);
    bool all = true;
    for (uint32_t j = 0; j < plan->job_count; j++)
        all = all && (!calibration->jobs[j] || job_done(&making, j));
    if (status == STATUS_OK && !all)
        status = layers_make(&making, arguments, error);
    if (status == STATUS_OK)
        status = execute(plan, options, fingerprint, state, error);
    free(making.view);
    free(making.jobs);
    return status;
}
