#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qstream/command.h"
#include "qstream/fetch.h"
#include "qstream/fetch_dataset.h"
#include "qstream/fetch_report.h"
#include "qstream/option_values.h"

static const char usage[] =
    "usage: qstream fetch MODEL [OPTIONS]\n"
    "       qstream fetch --dataset wikitext-2 [--to FILE]\n"
    "\n"
    "Downloads MODEL, org/name or hf://org/name[@revision], from the Hugging Face Hub into the cache that Hugging "
    "Face's\n"
    "own tools use, and prints the folder that it is in then. What is there already is not fetched again; a fetch "
    "that\n"
    "was interrupted goes on where it stopped. Every file's hash is checked before it gets its name.\n"
    "\n"
    "Of a checkpoint, the shards that its index names are fetched and everything that is no weights; the same weights "
    "in\n"
    "other forms (consolidated*, *.bin, *.gguf, onnx/, original/, ...) are left out.\n"
    "\n"
    "  --revision R      a branch, a tag or a commit (default: main)\n"
    "  --all             every file\n"
    "  --include GLOB    only files whose whole path matches, '*' across folders; may be repeated\n"
    "  --exclude GLOB    none of these files; may be repeated\n"
    "  --to DIR          plain files in the folder DIR instead of the cache\n"
    "  --dataset         MODEL is a dataset; wikitext-2 is the text that perplexity is measured on, the raw test "
    "split:\n"
    "                    it is written to wiki.test.raw, or to --to, if its hash is the known one\n"
    "  --connections N   transfers at a time, 1 to 32 (default: 8)\n"
    "  --dry-run         print what would be fetched, and fetch nothing\n"
    "  --json            print one JSON object (schema qstream.fetch/1) instead of the folder\n"
    "  --quiet           no progress and no summary\n"
    "  --help            print this text\n"
    "\n"
    "HF_TOKEN, HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE and proxies are what they are for other tools.\n"
    "Memory: 64 MB, whatever the sizes of the files.\n";

enum { CONNECTIONS_DEFAULT = 8, CONNECTIONS_MOST = 32 };

struct arguments {
    const char *model, *revision, *to;
    struct selection_rules rules;
    const char **include, **exclude; /* of rules */
    uint32_t connections;
    bool dataset, dry_run, json, quiet;
    const struct named_dataset *named; /* MODEL's name is one of these; NULL: of a repository */
};

/* ---- the command line ---- */

static enum status include_parse(const char *value, void *place, struct error *error) {
    struct arguments *arguments = place;
    (void)error;
    arguments->include[arguments->rules.include_count++] = value;
    return STATUS_OK;
}

static enum status exclude_parse(const char *value, void *place, struct error *error) {
    struct arguments *arguments = place;
    (void)error;
    arguments->exclude[arguments->rules.exclude_count++] = value;
    return STATUS_OK;
}

static enum status arguments_check(const struct arguments *arguments, struct error *error) {
    if (arguments->rules.all && arguments->rules.include_count > 0)
        return error_set(error, STATUS_USAGE, "--all takes everything; it does not go with --include");
    if (arguments->revision && !*arguments->revision)
        return error_set(error, STATUS_USAGE, "--revision takes a branch, a tag or a commit");
    if (arguments->to && !*arguments->to)
        return error_set(error, STATUS_USAGE, "--to takes a folder");
    if (arguments->named && (arguments->revision || arguments->rules.all || arguments->rules.include_count > 0 ||
                             arguments->rules.exclude_count > 0))
        return error_set(error, STATUS_USAGE,
                         "'%s' is one file of one revision: --revision, --all, --include and "
                         "--exclude do not go with it",
                         arguments->model);
    return STATUS_OK;
}

/* *help is set when the text was asked for. */
static enum status arguments_parse(int argc, char **argv, struct arguments *arguments, bool *help,
                                   struct error *error) {
    const struct command_option options[] = {
        {"revision", .text = &arguments->revision},
        {"all", .flag = &arguments->rules.all},
        {"include", .parse = include_parse, .place = arguments},
        {"exclude", .parse = exclude_parse, .place = arguments},
        {"to", .text = &arguments->to},
        {"dataset", .flag = &arguments->dataset},
        {"connections", .number = &arguments->connections, .least = 1, .most = CONNECTIONS_MOST},
        {"dry-run", .flag = &arguments->dry_run},
        {"json", .flag = &arguments->json},
        {"quiet", .flag = &arguments->quiet},
        {0},
    };
    *help = false;
    arguments->connections = CONNECTIONS_DEFAULT;
    arguments->include = calloc((size_t)argc, sizeof *arguments->include);
    arguments->exclude = calloc((size_t)argc, sizeof *arguments->exclude);
    if (!arguments->include || !arguments->exclude)
        return error_set_memory(error);
    arguments->rules.include = arguments->include;
    arguments->rules.exclude = arguments->exclude;
    enum status status = options_read("fetch", argc, argv, options, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 1)
        return error_set(error, STATUS_USAGE, "fetch takes one repository; see 'qstream fetch --help'");
    arguments->model = argv[optind];
    arguments->named = arguments->dataset ? named_dataset_find(arguments->model) : NULL;
    return arguments_check(arguments, error);
}

static enum status reference_make(const struct arguments *arguments, struct hub_reference *reference,
                                  struct error *error) {
    enum status status =
        hub_reference_parse(arguments->named ? arguments->named->reference : arguments->model, reference, error);
    if (status != STATUS_OK)
        return status;
    reference->dataset = reference->dataset || arguments->dataset;
    if (!arguments->revision)
        return STATUS_OK;
    if (strchr(arguments->model, '@') && strcmp(reference->revision, arguments->revision) != 0)
        return error_set(error, STATUS_USAGE, "'%s' names a revision, and --revision another", arguments->model);
    free(reference->revision);
    reference->revision = strdup(arguments->revision);
    return reference->revision ? STATUS_OK : error_set_memory(error);
}

/* ---- the command ---- */

static void put(struct text *text, FILE *stream) {
    text_write(text, stream);
    text_free(text);
}

/* The folder, without links above it. */
static void where_put(const char *where) {
    char resolved[PATH_MAX];
    puts(realpath(where, resolved) ? resolved : where);
}

/* Fetches what is missing, and makes of it what was asked for, which is `where` then. */
static enum status carry_out(const struct arguments *arguments, struct fetch *fetch, const char *where,
                             struct error *error) {
    enum status status = fetch_room_check(fetch, error);
    if (status != STATUS_OK || arguments->dry_run)
        return status;
    status = fetch_run(fetch, arguments->connections, arguments->quiet, error);
    if (status == STATUS_OK && arguments->named)
        status = named_dataset_write(arguments->named, fetch, where, error);
    if (status == STATUS_OK && !arguments->json)
        where_put(where);
    return status;
}

static enum status fetch(const struct arguments *arguments, const struct hub_reference *reference,
                         struct error *error) {
    const struct named_dataset *named = arguments->named;
    struct selection_rules rules = arguments->rules;
    struct fetch fetch = {0};
    struct text summary = {0}, result = {0};
    char *where = NULL;
    if (named) {
        rules.include = &named->file;
        rules.include_count = 1;
    }
    enum status status = fetch_open(reference, &rules, named ? NULL : arguments->to, &fetch, error);
    if (status == STATUS_OK && !(where = named ? named_dataset_path(named, arguments->to) : strdup(fetch.where)))
        status = error_set_memory(error);
    if (status == STATUS_OK && !arguments->quiet)
        fetch_summary(&fetch, &summary);
    if (status == STATUS_OK && arguments->json)
        fetch_json(&fetch, arguments->dry_run, named ? where : NULL, &result);
    else if (status == STATUS_OK && arguments->dry_run)
        fetch_table(&fetch, &result);
    if (summary.failed || result.failed)
        status = error_set_memory(error);
    put(&summary, stderr);
    if (status == STATUS_OK && arguments->dry_run)
        put(&result, stdout);
    if (status == STATUS_OK)
        status = carry_out(arguments, &fetch, where, error);
    if (status == STATUS_OK)
        put(&result, stdout);
    text_free(&result);
    free(where);
    fetch_close(&fetch);
    return status;
}

int command_fetch(int argc, char **argv) {
    struct arguments arguments = {0};
    struct hub_reference reference = {0};
    struct error error = {0};
    bool help;
    enum status status = arguments_parse(argc, argv, &arguments, &help, &error);
    if (status == STATUS_OK && help)
        fputs(usage, stdout);
    else if (status == STATUS_OK) {
        status = reference_make(&arguments, &reference, &error);
        if (status == STATUS_OK)
            status = fetch(&arguments, &reference, &error);
    }
    hub_reference_free(&reference);
    free(arguments.include);
    free(arguments.exclude);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
