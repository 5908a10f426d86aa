#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_file.h"
#include "common/progress.h"
#include "common/version.h"
#include "qstream/calibration.h"
#include "qstream/command.h"
#include "qstream/destination.h"
#include "qstream/execute.h"
#include "qstream/fetch.h"
#include "qstream/publish.h"
#include "qstream/quantize_arguments.h"
#include "qstream/report.h"
#include "qstream/tile.h"

/* Program, libraries, thread stacks and the open tables of files: measured at under 20 MiB. */
static const uint64_t fixed_memory = (uint64_t)24 << 20;

/* ---- the plan ---- */

static enum status fingerprint_make(const struct plan *plan, const struct recipe *recipe,
                                    struct fingerprint *fingerprint, struct error *error) {
    struct text source = {0}, options = {0};
    const struct checkpoint *checkpoint = plan->checkpoint;
    const char *repository = folder_repository(checkpoint->folder);
    if (repository)
        text_printf(&source, "%s\n", repository);
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        const struct shard *shard = &checkpoint->shards[i];
        const struct source_identity *identity = &shard->source->identity;
        char hex[SHA256_HEX];
        text_printf(&source, "%s %" PRIu64, shard->file, identity->size);
        if (identity->hashed)
            text_printf(&source, " sha256 %s", sha256_hex(identity->sha256, hex));
        else if (!repository) /* the same whether a repository's file is read there, or from the cache */
            text_printf(&source, " %" PRId64, identity->mtime_ns);
        text_append_string(&source, "\n");
    }
    /* Headers on the Hub are read by ranges, without a hash: parts, and attempts, have to agree on them. */
    for (size_t i = 0; i < checkpoint->tensor_count && repository; i++) {
        const struct tensor_info *info = &checkpoint->tensors[i].info;
        char shape[SHAPE_TEXT_MAX];
        text_printf(&source, "%s %s %s %" PRIu64 " %u\n", info->name, dtype_name(info->dtype),
                    shape_text(info->shape, info->rank, shape), info->offset, checkpoint->tensors[i].shard);
    }
    text_append(&source, checkpoint->config, checkpoint->config_length);
    text_printf(&options, "output %d rule %s gamma %s shard-size %" PRIu64 " hash-source %d tiles %u",
                QSTREAM_OUTPUT_VERSION, scale_rule_name(plan->options.rule), gamma_name(plan->options.gamma),
                plan->options.shard_size, plan->options.hash_source, plan->tile_count);
    const struct plan_calibration *calibration = &plan->options.calibration;
    if (calibration->windows > 0)
        text_printf(&options, " calibration %s windows %u of %u correction %.17g damping %g %s %s", calibration->tokens,
                    calibration->windows, calibration->window, calibration->correction, calibration->damping,
                    calibration->bf16 ? "bf16" : "f32", cpu_level_name(calibration->cpu));
    enum status status = source.failed || options.failed ? error_set_memory(error) : STATUS_OK;
    if (status == STATUS_OK)
        status = sha256_of(source.bytes, source.length, fingerprint->source, error);
    if (status == STATUS_OK)
        status = sha256_of(recipe->bytes, recipe->length, fingerprint->recipe, error);
    if (status == STATUS_OK)
        status = sha256_of(options.bytes, options.length, fingerprint->options, error);
    text_free(&source);
    text_free(&options);
    return status;
}

/* The shards of part `part` of `parts`: contiguous, about the same number of bytes each. */
static void part_shards(const struct plan *plan, unsigned part, unsigned parts, uint32_t *first, uint32_t *end) {
    double total = 0, before = 0;
    for (size_t s = 0; s < plan->shard_count; s++)
        total += (double)plan->shards[s].size;
    *first = *end = 0;
    for (uint32_t s = 0; s < plan->shard_count; s++) {
        /* A shard belongs to the part in which its middle lies. */
        double middle = before + (double)plan->shards[s].size / 2;
        unsigned owner = (unsigned)(middle / total * parts);
        before += (double)plan->shards[s].size;
        if (owner < part)
            *first = s + 1;
        if (owner <= part)
            *end = s + 1;
    }
    if (*end < *first)
        *end = *first;
}

/* ---- the command ---- */

struct session {
    struct quantize_arguments arguments;
    struct destination destination;
    struct checkpoint checkpoint;
    struct layout layout;
    struct recipe recipe;
    struct calibration calibration; /* with --calibrate */
    struct calibrate_budget budget; /* of that */
    double rate;                    /* floating-point operations a second that this machine computes */
    struct plan plan;
    struct fingerprint fingerprint;
    struct run_state state;
    struct publication publication;
    struct supply *supply;           /* NULL: the source is on this machine */
    uint32_t first_shard, end_shard; /* of this command's share */
    unsigned jobs;
    int lock;
    double start;
};

static enum status session_plan(struct session *session, struct error *error) {
    const struct quantize_arguments *arguments = &session->arguments;
    char *path;
    enum status status = config_file_find(CONFIG_RECIPE, arguments->recipe, &path, error);
    if (status == STATUS_OK)
        status = recipe_read(path, &session->recipe, error);
    free(path);
    if (status == STATUS_OK)
        status = checkpoint_open(arguments->source, &session->checkpoint, error);
    if (status == STATUS_OK)
        status = layout_detect(&session->checkpoint, &session->layout, error);
    if (status == STATUS_OK && arguments->calibrate) {
        status = calibration_read(arguments, session->checkpoint.folder, &session->calibration, error);
        session->arguments.plan.calibration = session->calibration.settings;
    }
    if (status == STATUS_OK)
        status = plan_build(&session->checkpoint, &session->layout, &session->recipe, &arguments->plan, &session->plan,
                            error);
    if (status == STATUS_OK)
        status = fingerprint_make(&session->plan, &session->recipe, &session->fingerprint, error);
    return status;
}

/* Workers that fit into --memory beside the tables. */
static enum status jobs_limit(const struct session *session, unsigned *jobs, struct error *error) {
    const struct plan *plan = &session->plan;
    uint64_t tables = 0, header = 0;
    for (size_t i = 0; i < plan->shard_count; i++)
        header = plan->shards[i].header_size > header ? plan->shards[i].header_size : header;
    tables += session->checkpoint.tensor_count * (sizeof(struct tensor) + sizeof(struct tensor_layout) + 128);
    tables +=
        plan->output_count * (sizeof(struct plan_output) + 128) + plan->job_count * (sizeof(struct plan_job) + 16);
    tables += plan->module_count * 128 + (uint64_t)plan->tile_count * 2 + 2 * header;
    if (plan->options.hash_source)
        tables += (uint64_t)plan->tile_count * SHA256_SIZE;
    /* A download takes less than the blocks that were read by ranges, which are free by then. */
    const struct folder *folder = session->checkpoint.folder;
    uint64_t fixed = fixed_memory + tables + folders_memory(&folder, 1),
             each = tile_worker_bytes(plan) + ((uint64_t)1 << 20);
    if (session->arguments.memory < fixed + each)
        return error_set(error, STATUS_USAGE, "--memory is too small: this checkpoint needs at least %" PRIu64 "MiB",
                         text_mebibytes(fixed + each));
    uint64_t fitting = (session->arguments.memory - fixed) / each;
    *jobs = fitting < session->arguments.jobs ? (unsigned)fitting : session->arguments.jobs;
    return STATUS_OK;
}

/* What a source that is not on this machine takes, as a line. */
static void supply_table(const struct session *session, struct text *out) {
    char download[TEXT_SIZE_MAX], least[TEXT_SIZE_MAX], usual[TEXT_SIZE_MAX];
    if (!session->supply)
        return;
    struct supply_needs needs = supply_needs(session->supply);
    text_printf(out, "source: %s in %zu of %zu shards to download", text_size(needs.download, download), needs.shards,
                session->checkpoint.shard_count);
    if (session->arguments.keep_source)
        text_append_string(out, ", kept in the cache\n");
    else
        text_printf(out, ", at least %" PRIu64 " bytes (%s) of it on the disk at once, %s without --disk\n",
                    needs.least, text_size(needs.least, least), text_size(needs.usual, usual));
}

/* The same as a member of a JSON object. */
static void supply_json(const struct session *session, struct text *out) {
    if (!session->supply)
        return;
    struct supply_needs needs = supply_needs(session->supply);
    text_printf(out,
                ", \"download\": {\"shards\": %zu, \"bytes\": %" PRIu64 ", \"companion_bytes\": %" PRIu64
                ", \"disk_least\": %" PRIu64 ", \"disk_usual\": %" PRIu64 ", \"fetched_bytes\": %" PRIu64 "}",
                needs.shards, needs.download, needs.companions, needs.least, needs.usual,
                supply_fetched(session->supply));
}

/*
 * A machine of the kind that such runs are made on, to compare with: half of what its cores can do in float32, two
 * products and sums of 8 values a cycle at its base clock (AMD, data sheet and optimization guide of the family 19h).
 */
static const struct machine {
    const char *name;
    double rate; /* floating-point operations a second */
} machine = {"EPYC 9554 (64 cores)", 0.5 * 64 * 2 * 2 * 8 * 3.1e9};

/* What calibrated rounding takes. */
static void calibration_table(const struct session *session, struct text *out) {
    const struct calibrate_budget *budget = &session->budget;
    const struct plan_calibration *settings = &session->arguments.plan.calibration;
    char total[TEXT_SIZE_MAX], gram[TEXT_SIZE_MAX], weights[TEXT_SIZE_MAX], states[TEXT_SIZE_MAX];
    if (!session->arguments.calibrate)
        return;
    text_printf(out, "calibration: %u windows of %u tokens; memory %s (Gram matrices %s, weights %s), disk %s\n",
                settings->windows, settings->window, text_size(budget->total, total), text_size(budget->gram, gram),
                text_size(budget->weights, weights), text_size(budget->states, states));
    text_printf(out, "             %.3g floating-point operations: %.3g hours at the %.3g GFLOP/s of this machine\n",
                budget->flops, budget->flops / session->rate / 3600, session->rate / 1e9);
    text_printf(out, "             computed, not measured: %.3g hours on an %s at half of its peak\n",
                budget->flops / machine.rate / 3600, machine.name);
}

/* The same as a member of a JSON object. */
static void calibration_json(const struct session *session, struct text *out) {
    const struct calibrate_budget *budget = &session->budget;
    const struct plan_calibration *settings = &session->arguments.plan.calibration;
    if (!session->arguments.calibrate)
        return;
    text_printf(out,
                ", \"calibration\": {\"windows\": %u, \"window\": %u, \"memory_bytes\": %" PRIu64
                ", \"gram_bytes\": %" PRIu64 ", \"weight_bytes\": %" PRIu64 ", \"disk_bytes\": %" PRIu64
                ", \"flops\": %.6g",
                settings->windows, settings->window, budget->total, budget->gram, budget->weights, budget->states,
                budget->flops);
    if (session->rate > 0)
        text_printf(out, ", \"flops_per_second\": %.6g", session->rate);
    text_append_string(out, "}");
}

/* Prints a text, which is freed. */
static enum status text_print(struct text *text, struct error *error) {
    const enum status status = text->failed ? error_set_memory(error) : STATUS_OK;
    if (status == STATUS_OK)
        fputs(text->bytes, stdout);
    text_free(text);
    return status;
}

static enum status tell(const struct session *session, const char *state, struct error *error) {
    const struct quantize_arguments *arguments = &session->arguments;
    if (arguments->json) {
        struct text out = {0};
        text_append_string(&out, "{\"schema\": \"qstream.quantize/1\", \"state\": ");
        text_append_json_string(&out, state);
        text_append_string(&out, ", ");
        plan_json(&session->plan, session->publication.folder_bytes, &out);
        supply_json(session, &out);
        calibration_json(session, &out);
        text_append_string(&out, "}\n");
        return text_print(&out, error);
    }
    if (arguments->quiet && !arguments->dry_run)
        return STATUS_OK;
    if (strcmp(state, "part complete") == 0) {
        printf("%s: part %u of %u is complete; when all are, run with --finish\n", arguments->destination,
               arguments->part, arguments->parts);
        return STATUS_OK;
    }
    struct text table = {0};
    plan_table(&session->plan, session->publication.folder_bytes, &table);
    if (arguments->dry_run) {
        supply_table(session, &table);
        calibration_table(session, &table);
    }
    const enum status status = text_print(&table, error);
    if (status != STATUS_OK)
        return status;
    if (strcmp(state, "finished") == 0) {
        double seconds = seconds_now() - session->start;
        uint64_t source = 0;
        char rate[TEXT_SIZE_MAX];
        for (size_t i = 0; i < session->plan.share_count; i++)
            source += session->plan.shares[i].bytes_in;
        printf("%s: finished in %.1f s, %s/s of source", arguments->destination, seconds,
               text_size((uint64_t)((double)source / seconds), rate));
        if (session->supply)
            printf(", %s of it downloaded", text_size(supply_fetched(session->supply), rate));
        putchar('\n');
    } else if (strcmp(state, "complete") == 0) {
        printf("%s: is complete already\n", arguments->destination);
    }
    return STATUS_OK;
}

static void tell_left_out(const struct session *session) {
    const struct text *left_out = &session->publication.left_out;
    if (session->arguments.quiet || left_out->length == 0)
        return;
    fputs("not carried over, since they describe or hold the source's weights:", stderr);
    for (const char *line = left_out->bytes; *line;) {
        char name[512], escaped[512];
        size_t length = strcspn(line, "\n");
        snprintf(name, sizeof name, "%.*s", (int)length, line);
        text_escape(escaped, sizeof escaped, name);
        fprintf(stderr, " %s", escaped);
        line += length + 1;
    }
    fputc('\n', stderr);
}

/* Bytes that this command will have put into DST: its share of the shards, and the other files. */
static uint64_t bytes_wanted(const struct session *session) {
    uint64_t bytes = session->publication.folder_bytes;
    for (size_t s = 0; s < session->plan.shard_count; s++)
        if (s < session->first_shard || s >= session->end_shard)
            bytes -= session->plan.shards[s].size;
    return bytes;
}

/* A folder that was published earlier: is everything still there? */
static enum status finished_check(const struct session *session, struct error *error) {
    const char *folder = session->arguments.destination;
    size_t shards = session->plan.shard_count, count = shards + session->publication.count;
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        const struct publish_file *made = i < shards ? NULL : &session->publication.files[i - shards];
        char *path = made ? text_format("%s/%s", folder, made->name) : shard_final_path(&session->plan, i, folder);
        struct stat file;
        if (!path)
            status = error_set_memory(error);
        else if (stat(path, &file) != 0 || (uint64_t)file.st_size != (made ? made->size : session->plan.shards[i].size))
            status =
                error_set(error, STATUS_BAD_INPUT,
                          "'%s' was finished, but '%s' is missing or has another size; remove the folder to make it "
                          "anew",
                          folder, path);
        free(path);
    }
    return status;
}

static enum status session_execute(struct session *session, struct error *error) {
    struct quantize_arguments *arguments = &session->arguments;
    struct execute_options options = {.folder = arguments->destination,
                                      .first_shard = session->first_shard,
                                      .end_shard = session->end_shard,
                                      .jobs = session->jobs,
                                      .cpu = arguments->cpu,
                                      .supply = session->supply,
                                      .quiet = arguments->quiet};
    enum status status = destination_journals_check(&session->destination, error);
    char *journal = destination_journal_path(&session->destination);
    if (status == STATUS_OK && !journal)
        status = error_set_memory(error);
    options.journal = journal;
    if (status == STATUS_OK)
        status = arguments->calibrate
                     ? calibration_execute(&session->calibration, &session->plan, &session->publication, arguments,
                                           &options, &session->fingerprint, &session->state, error)
                     : execute(&session->plan, &options, &session->fingerprint, &session->state, error);
    free(journal);
    return status;
}

/* What there is to supply, and whether --disk suffices for it. */
static enum status session_supply(struct session *session, struct error *error) {
    const struct quantize_arguments *arguments = &session->arguments;
    struct supply_options options = {.first_shard = session->first_shard,
                                     .end_shard = arguments->finish ? session->first_shard : session->end_shard,
                                     .keep = arguments->keep_source};
    char *folder = destination_supply_path(&session->destination), size[TEXT_SIZE_MAX];
    options.folder = folder;
    enum status status = folder ? supply_open(&session->plan, &session->checkpoint, &options, &session->supply, error)
                                : error_set_memory(error);
    free(folder);
    if (status != STATUS_OK || !session->supply)
        return status;
    uint64_t least = supply_needs(session->supply).least;
    if (arguments->disk && arguments->disk < least)
        return error_set(error, STATUS_USAGE,
                         "--disk is too small: at least %" PRIu64 " bytes (%s) of this source have to be on the disk "
                         "at once",
                         least, text_size(least, size));
    return STATUS_OK;
}

/* Everything that can be refused before DST is touched. *done: there is nothing left to do. */
static enum status session_prepare(struct session *session, bool *done, struct error *error) {
    struct quantize_arguments *arguments = &session->arguments;
    enum destination_state state;
    *done = true;
    enum status status = session_plan(session, error);
    /* The files that come with the shards: rendered once to know their sizes, again with digests at the end. */
    if (status == STATUS_OK)
        status = publication_prepare(&session->plan, &session->recipe, NULL, &session->fingerprint,
                                     arguments->destination, &session->publication, error);
    session->end_shard = (uint32_t)session->plan.shard_count;
    if (status == STATUS_OK && arguments->parts)
        part_shards(&session->plan, arguments->part, arguments->parts, &session->first_shard, &session->end_shard);
    if (status == STATUS_OK)
        status = session_supply(session, error);
    if (status == STATUS_OK && arguments->calibrate)
        status = calibration_plan(&session->calibration, &session->plan, &session->publication, arguments,
                                  &session->budget, &session->rate, error);
    if (status == STATUS_OK && arguments->dry_run) {
        tell_left_out(session);
        return tell(session, "planned", error);
    }
    if (status == STATUS_OK)
        status = destination_overlap_check(session->checkpoint.folder, arguments->destination, error);
    if (status == STATUS_OK)
        status = destination_look(arguments->destination, &session->fingerprint, &state, error);
    if (status == STATUS_OK && state == DESTINATION_FINISHED) {
        status = finished_check(session, error);
        if (status == STATUS_OK) {
            publication_clean(arguments->destination); /* the run that finished it may have been killed before it did */
            status = tell(session, "complete", error);
        }
        return status;
    }
    if (status == STATUS_OK && state == DESTINATION_NEW && arguments->finish)
        status = error_set(error, STATUS_USAGE, "--finish: '%s' holds no parts yet", arguments->destination);
    if (status == STATUS_OK)
        status = jobs_limit(session, &session->jobs, error);
    *done = false;
    return status;
}

/* With --keep-source the cache gets what belongs to the shards, too, as 'qstream fetch' would leave it. */
static enum status source_rest_keep(const struct session *session, struct error *error) {
    static const char *const shards[] = {"*.safetensors"};
    const struct hub_listing *listing = folder_listing(session->checkpoint.folder);
    const struct selection_rules rules = {.exclude = shards, .exclude_count = 1};
    struct hub_reference reference = listing->reference;
    char commit[HUB_OID_HEX];
    memcpy(commit, listing->commit, sizeof commit);
    reference.revision = commit; /* the branch may have moved on */
    struct fetch fetch;
    enum status status = fetch_open(&reference, &rules, NULL, &fetch, error);
    if (status == STATUS_OK)
        status = fetch_run(&fetch, 1, true, error);
    fetch_close(&fetch);
    return status;
}

static enum status session_run(struct session *session, struct error *error) {
    struct quantize_arguments *arguments = &session->arguments;
    bool done;
    session->start = seconds_now();
    enum status status = session_prepare(session, &done, error);
    if (status != STATUS_OK || done)
        return status;
    status = folder_make(arguments->destination, error);
    if (status == STATUS_OK)
        status = destination_lock(&session->destination, &session->lock, error);
    if (status == STATUS_OK)
        status =
            destination_repository_check(&session->destination, folder_repository(session->checkpoint.folder), error);
    uint64_t beside = 0;
    if (status == STATUS_OK)
        status = destination_space_check(&session->plan, session->first_shard, session->end_shard,
                                         arguments->destination, bytes_wanted(session), &beside, error);
    if (status == STATUS_OK && session->supply)
        supply_settle(session->supply, arguments->disk, beside);
    if (status == STATUS_OK)
        status = run_state_init(&session->plan, &session->state, error);
    if (status == STATUS_OK)
        status = arguments->finish ? destination_parts_collect(&session->destination, &session->plan,
                                                               &session->fingerprint, &session->state, error)
                                   : session_execute(session, error);
    if (status == STATUS_OK && arguments->parts)
        return tell(session, "part complete", error);
    publication_free(&session->publication);
    if (status == STATUS_OK && session->supply && arguments->keep_source)
        status = source_rest_keep(session, error); /* first: what is carried over is read there then */
    if (status == STATUS_OK)
        status = publication_prepare(&session->plan, &session->recipe, &session->state, &session->fingerprint,
                                     arguments->destination, &session->publication, error);
    if (status == STATUS_OK)
        status = publication_write(&session->plan, &session->publication, arguments->destination, error);
    if (status == STATUS_OK) {
        tell_left_out(session);
        status = tell(session, "finished", error);
    }
    return status;
}

int command_quantize(int argc, char **argv) {
    struct session *session = calloc(1, sizeof *session);
    struct error error = {0};
    bool help;
    if (!session)
        return command_fail(error_set_memory(&error), &error);
    enum status status = quantize_arguments_parse(argc, argv, &session->arguments, &help, &error);
    session->lock = -1;
    session->destination =
        (struct destination){session->arguments.destination, session->arguments.part, session->arguments.parts};
    if (status == STATUS_OK && help)
        fputs(quantize_usage, stdout);
    else if (status == STATUS_OK)
        status = session_run(session, &error);
    if (session->lock >= 0)
        close(session->lock);
    publication_free(&session->publication);
    run_state_free(&session->state);
    plan_free(&session->plan);
    recipe_free(&session->recipe);
    calibration_free(&session->calibration);
    layout_free(&session->layout);
    checkpoint_close(&session->checkpoint);
    supply_close(session->supply);
    free(session);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
