#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config_file.h"
#include "common/progress.h"
#include "common/thread_team.h"
#include "common/version.h"
#include "qstream/command.h"
#include "qstream/destination.h"
#include "qstream/execute.h"
#include "qstream/publish.h"
#include "qstream/report.h"
#include "qstream/tile.h"

static const char usage[] =
    "usage: qstream quantize SRC DST --recipe FILE [OPTIONS]\n"
    "       qstream quantize SRC DST --recipe FILE --part I/N [OPTIONS]   (I from 0), then once\n"
    "       qstream quantize SRC DST --recipe FILE --finish [OPTIONS]\n"
    "\n"
    "Quantizes the checkpoint in the folder SRC into the folder DST. Memory does not grow with the model. A run that\n"
    "was killed goes on when the same command is given again; the result is the same to the byte.\n"
    "\n"
    "  --recipe FILE      which weight gets which format: a file, or the name of one that comes with qstream\n"
    "                     (mistral-medium-3.5-mxfp4, llama-mxfp4, qwen3-moe-mxfp4)\n"
    "  --rule RULE        how MXFP4 scales are chosen: mse (default), amax, qstream\n"
    "  --gamma SOURCE     weights for the errors of --rule qstream: none (default), layernorm, original\n"
    "  --shard-size SIZE  largest sum of tensor bytes in a shard, e.g. 5GB (default: shards as in the source)\n"
    "  --dry-run          print the plan and the exact size of DST; write nothing\n"
    "  --part I/N         make only this share of the shards, for a cluster with a shared file system\n"
    "  --finish           check that all parts are complete and publish DST\n"
    "  --jobs N           worker threads (default: one per processor)\n"
    "  --memory SIZE      most memory to use (default 256MiB); fewer workers run where it does not suffice\n"
    "  --hash-source      also record digests of the source's bytes in qstream.json\n"
    "  --cpu LEVEL        portable, neon, avx2 or avx512 (default: the best this machine has)\n"
    "  --json             print the result as one JSON object (schema qstream.quantize/1)\n"
    "  --quiet            no progress and no summary\n"
    "  --help             print this text\n";

struct arguments {
    const char *source, *destination, *recipe;
    struct plan_options plan;
    unsigned jobs;
    uint64_t memory;
    unsigned part, parts; /* parts 0: the whole */
    bool finish, dry_run, json, quiet;
    enum cpu_level cpu;
};

static const uint64_t default_memory = (uint64_t)256 << 20;
/* Program, libraries, thread stacks and the open tables of files: measured at under 20 MiB. */
static const uint64_t fixed_memory = (uint64_t)24 << 20;

/* ---- the command line ---- */

static bool number_parse(const char *text, unsigned least, unsigned most, unsigned *number) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end || errno || *text == '-' || value < least || value > most)
        return false;
    *number = (unsigned)value;
    return true;
}

static bool part_parse(const char *text, struct arguments *arguments) {
    char *copy = strdup(text), *slash = copy ? strchr(copy, '/') : NULL;
    bool good = false;
    if (slash) {
        *slash = '\0';
        good = number_parse(slash + 1, 1, 99999, &arguments->parts) &&
               number_parse(copy, 0, arguments->parts - 1, &arguments->part);
    }
    free(copy);
    return good;
}

static enum status option_parse(int option, const char *value, struct arguments *arguments, struct error *error) {
    switch (option) {
    case 'r':
        arguments->recipe = value;
        return STATUS_OK;
    case 'R':
        arguments->plan.rule = scale_rule_parse(value);
        if (arguments->plan.rule == SCALE_RULES)
            return error_set(error, STATUS_USAGE, "--rule takes mse, amax or qstream, not '%s'", value);
        return STATUS_OK;
    case 'g':
        for (int i = 0; i < GAMMA_SOURCES; i++)
            if (strcmp(value, gamma_name((enum gamma_source)i)) == 0) {
                arguments->plan.gamma = (enum gamma_source)i;
                return STATUS_OK;
            }
        return error_set(error, STATUS_USAGE, "--gamma takes none, layernorm or original, not '%s'", value);
    case 's':
        if (!text_parse_size(value, &arguments->plan.shard_size))
            return error_set(error, STATUS_USAGE, "--shard-size takes a size such as 5GB, not '%s'", value);
        return STATUS_OK;
    case 'm':
        if (!text_parse_size(value, &arguments->memory))
            return error_set(error, STATUS_USAGE, "--memory takes a size such as 256MiB, not '%s'", value);
        return STATUS_OK;
    case 'j':
        if (!number_parse(value, 1, 1024, &arguments->jobs))
            return error_set(error, STATUS_USAGE, "--jobs takes a number from 1 to 1024, not '%s'", value);
        return STATUS_OK;
    case 'p':
        if (!part_parse(value, arguments))
            return error_set(error, STATUS_USAGE, "--part takes I/N with I from 0 to N-1, not '%s'", value);
        return STATUS_OK;
    case 'c':
        arguments->cpu = cpu_level_parse(value);
        if (arguments->cpu == CPU_LEVELS || !cpu_has(arguments->cpu) || !mxfp4_quantize_for(arguments->cpu))
            return error_set(error, STATUS_USAGE, "--cpu: this machine has no '%s' (see 'qstream version')", value);
        return STATUS_OK;
    case 'n':
        arguments->dry_run = true;
        return STATUS_OK;
    case 'f':
        arguments->finish = true;
        return STATUS_OK;
    case 'H':
        arguments->plan.hash_source = true;
        return STATUS_OK;
    case 'J':
        arguments->json = true;
        return STATUS_OK;
    case 'q':
        arguments->quiet = true;
        return STATUS_OK;
    default:
        return error_set(error, STATUS_USAGE, "see 'qstream quantize --help'");
    }
}

/* *help is set when the text was asked for. */
static enum status arguments_parse(int argc, char **argv, struct arguments *arguments, bool *help,
                                   struct error *error) {
    static const struct option options[] = {
        {"recipe", required_argument, NULL, 'r'},
        {"rule", required_argument, NULL, 'R'},
        {"gamma", required_argument, NULL, 'g'},
        {"shard-size", required_argument, NULL, 's'},
        {"memory", required_argument, NULL, 'm'},
        {"jobs", required_argument, NULL, 'j'},
        {"part", required_argument, NULL, 'p'},
        {"cpu", required_argument, NULL, 'c'},
        {"dry-run", no_argument, NULL, 'n'},
        {"finish", no_argument, NULL, 'f'},
        {"hash-source", no_argument, NULL, 'H'},
        {"json", no_argument, NULL, 'J'},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *arguments = (struct arguments){.plan = {.rule = SCALE_RULE_MSE, .gamma = GAMMA_NONE},
                                    .jobs = processor_count(),
                                    .memory = default_memory,
                                    .cpu = cpu_best()};
    *help = false;
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
        if (option == 'h') {
            *help = true;
            return STATUS_OK;
        }
        const char short_option[3] = {'-', (char)optopt, '\0'};
        const char *word = option == '?' && optopt ? short_option : argv[optind - 1];
        if (option == '?' || option == ':')
            return error_set(error, STATUS_USAGE, "%s '%s'; see 'qstream quantize --help'",
                             option == ':' ? "a value is missing behind" : "there is no option", word);
        enum status status = option_parse(option, optarg, arguments, error);
        if (status != STATUS_OK)
            return status;
    }
    if (argc - optind != 2)
        return error_set(error, STATUS_USAGE, "quantize takes two folders, SRC and DST; see 'qstream quantize --help'");
    arguments->source = argv[optind];
    arguments->destination = argv[optind + 1];
    if (!arguments->recipe)
        return error_set(error, STATUS_USAGE, "--recipe is missing; see 'qstream quantize --help'");
    if (arguments->finish && arguments->parts)
        return error_set(error, STATUS_USAGE, "--part and --finish exclude each other");
    if (arguments->plan.gamma != GAMMA_NONE && arguments->plan.rule != SCALE_RULE_QSTREAM)
        return error_set(error, STATUS_USAGE, "--gamma goes with --rule qstream");
    return STATUS_OK;
}

/* ---- the plan ---- */

static enum status fingerprint_make(const struct plan *plan, const struct recipe *recipe,
                                    struct fingerprint *fingerprint, struct error *error) {
    struct text source = {0}, options = {0};
    const struct checkpoint *checkpoint = plan->checkpoint;
    for (size_t i = 0; i < checkpoint->shard_count; i++) {
        const struct shard *shard = &checkpoint->shards[i];
        const struct source_identity *identity = &shard->source->identity;
        char hex[SHA256_HEX];
        text_printf(&source, "%s %" PRIu64, shard->file, identity->size);
        if (identity->hashed) /* the same whether it is read there, or from the cache */
            text_printf(&source, " sha256 %s\n", sha256_hex(identity->sha256, hex));
        else
            text_printf(&source, " %" PRId64 "\n", identity->mtime_ns);
    }
    text_append(&source, checkpoint->config, checkpoint->config_length);
    text_printf(&options, "output %d rule %s gamma %s shard-size %" PRIu64 " hash-source %d tiles %u",
                QSTREAM_OUTPUT_VERSION, scale_rule_name(plan->options.rule), gamma_name(plan->options.gamma),
                plan->options.shard_size, plan->options.hash_source, plan->tile_count);
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
    struct arguments arguments;
    struct destination destination;
    struct checkpoint checkpoint;
    struct layout layout;
    struct recipe recipe;
    struct plan plan;
    struct fingerprint fingerprint;
    struct run_state state;
    struct publication publication;
    uint32_t first_shard, end_shard; /* of this command's share */
    unsigned jobs;
    int lock;
    double start;
};

static enum status session_plan(struct session *session, struct error *error) {
    const struct arguments *arguments = &session->arguments;
    char *path = config_file_find(arguments->recipe, ".json");
    if (!path)
        return error_set_memory(error);
    enum status status = recipe_read(path, &session->recipe, error);
    free(path);
    if (status == STATUS_OK)
        status = checkpoint_open(arguments->source, &session->checkpoint, error);
    if (status == STATUS_OK)
        status = layout_detect(&session->checkpoint, &session->layout, error);
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

static void tell(const struct session *session, const char *state) {
    const struct arguments *arguments = &session->arguments;
    if (arguments->json) {
        struct text out = {0};
        text_append_string(&out, "{\"schema\": \"qstream.quantize/1\", \"state\": ");
        text_append_json_string(&out, state);
        text_append_string(&out, ", ");
        plan_json(&session->plan, session->publication.folder_bytes, &out);
        text_append_string(&out, "}\n");
        if (!out.failed)
            fputs(out.bytes, stdout);
        text_free(&out);
        return;
    }
    if (arguments->quiet && !arguments->dry_run)
        return;
    if (strcmp(state, "part complete") == 0) {
        printf("%s: part %u of %u is complete; when all are, run with --finish\n", arguments->destination,
               arguments->part, arguments->parts);
        return;
    }
    struct text table = {0};
    plan_table(&session->plan, session->publication.folder_bytes, &table);
    if (!table.failed)
        fputs(table.bytes, stdout);
    text_free(&table);
    if (strcmp(state, "finished") == 0) {
        double seconds = seconds_now() - session->start;
        uint64_t source = 0;
        char rate[TEXT_SIZE_MAX];
        for (size_t i = 0; i < session->plan.share_count; i++)
            source += session->plan.shares[i].bytes_in;
        printf("%s: finished in %.1f s, %s/s of source\n", arguments->destination, seconds,
               text_size((uint64_t)((double)source / seconds), rate));
    } else if (strcmp(state, "complete") == 0) {
        printf("%s: is complete already\n", arguments->destination);
    }
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
    struct arguments *arguments = &session->arguments;
    struct execute_options options = {.folder = arguments->destination,
                                      .first_shard = session->first_shard,
                                      .end_shard = session->end_shard,
                                      .jobs = session->jobs,
                                      .cpu = arguments->cpu,
                                      .quiet = arguments->quiet};
    enum status status = destination_journals_check(&session->destination, error);
    char *journal = destination_journal_path(&session->destination);
    if (status == STATUS_OK && !journal)
        status = error_set_memory(error);
    options.journal = journal;
    if (status == STATUS_OK)
        status = execute(&session->plan, &options, &session->fingerprint, &session->state, error);
    free(journal);
    return status;
}

/* Everything that can be refused before DST is touched. *done: there is nothing left to do. */
static enum status session_prepare(struct session *session, bool *done, struct error *error) {
    struct arguments *arguments = &session->arguments;
    enum destination_state state;
    *done = true;
    enum status status = session_plan(session, error);
    /* The files that come with the shards: rendered once to know their sizes, again with digests at the end. */
    if (status == STATUS_OK)
        status = publication_prepare(&session->plan, &session->recipe, NULL, &session->fingerprint,
                                     &session->publication, error);
    if (status == STATUS_OK && arguments->dry_run) {
        tell(session, "planned");
        tell_left_out(session);
        return STATUS_OK;
    }
    if (status == STATUS_OK)
        status = destination_overlap_check(session->checkpoint.folder, arguments->destination, error);
    if (status == STATUS_OK)
        status = destination_look(arguments->destination, &session->fingerprint, &state, error);
    if (status == STATUS_OK && state == DESTINATION_FINISHED) {
        status = finished_check(session, error);
        if (status == STATUS_OK) {
            publication_clean(arguments->destination); /* the run that finished it may have been killed before it did */
            tell(session, "complete");
        }
        return status;
    }
    if (status == STATUS_OK && state == DESTINATION_NEW && arguments->finish)
        status = error_set(error, STATUS_USAGE, "--finish: '%s' holds no parts yet", arguments->destination);
    if (status == STATUS_OK)
        status = jobs_limit(session, &session->jobs, error);
    session->end_shard = (uint32_t)session->plan.shard_count;
    if (arguments->parts)
        part_shards(&session->plan, arguments->part, arguments->parts, &session->first_shard, &session->end_shard);
    *done = false;
    return status;
}

static enum status session_run(struct session *session, struct error *error) {
    struct arguments *arguments = &session->arguments;
    bool done;
    session->start = seconds_now();
    enum status status = session_prepare(session, &done, error);
    if (status != STATUS_OK || done)
        return status;
    status = folder_make(arguments->destination, error);
    if (status == STATUS_OK)
        status = destination_lock(&session->destination, &session->lock, error);
    if (status == STATUS_OK)
        status = destination_space_check(&session->plan, arguments->destination, bytes_wanted(session), error);
    if (status == STATUS_OK)
        status = run_state_init(&session->plan, &session->state, error);
    if (status == STATUS_OK)
        status = arguments->finish ? destination_parts_collect(&session->destination, &session->plan,
                                                               &session->fingerprint, &session->state, error)
                                   : session_execute(session, error);
    if (status == STATUS_OK && arguments->parts) {
        tell(session, "part complete");
        return STATUS_OK;
    }
    publication_free(&session->publication);
    if (status == STATUS_OK)
        status = publication_prepare(&session->plan, &session->recipe, &session->state, &session->fingerprint,
                                     &session->publication, error);
    if (status == STATUS_OK)
        status = publication_write(&session->plan, &session->publication, arguments->destination, error);
    if (status == STATUS_OK) {
        tell(session, "finished");
        tell_left_out(session);
    }
    return status;
}

int command_quantize(int argc, char **argv) {
    struct session *session = calloc(1, sizeof *session);
    struct error error = {0};
    bool help;
    if (!session)
        return command_fail(error_set_memory(&error), &error);
    enum status status = arguments_parse(argc, argv, &session->arguments, &help, &error);
    session->lock = -1;
    session->destination =
        (struct destination){session->arguments.destination, session->arguments.part, session->arguments.parts};
    if (status == STATUS_OK && help)
        fputs(usage, stdout);
    else if (status == STATUS_OK)
        status = session_run(session, &error);
    if (session->lock >= 0)
        close(session->lock);
    publication_free(&session->publication);
    run_state_free(&session->state);
    plan_free(&session->plan);
    recipe_free(&session->recipe);
    layout_free(&session->layout);
    checkpoint_close(&session->checkpoint);
    free(session);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
