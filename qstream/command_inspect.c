#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/pattern.h"
#include "common/thread_team.h"
#include "inspect/audit_report.h"
#include "inspect/inspect_report.h"
#include "inspect/page.h"
#include "inspect/show.h"
#include "inspect/statistics.h"
#include "qstream/command.h"
#include "qstream/option_values.h"

static const char usage[] =
    "usage: qstream inspect MODEL [OPTIONS]\n"
    "\n"
    "Shows what the checkpoint in the folder MODEL holds: every tensor with its format, what they come to by role, "
    "and\n"
    "the folder's size to the byte. Reads headers only, unless --stats or --show ask for values. MODEL may be\n"
    "hf://org/name[@revision], on the Hugging Face Hub.\n"
    "\n"
    "  --tensors GLOB  only the tensors whose whole name matches; 're:' begins a regular expression\n"
    "  --by GROUP      a row for each role, layer, format or shard instead of one for each tensor\n"
    "  --stats         also read the values: ranges of scales, codes that are zero or saturated, NaN\n"
    "  --show WHAT     decode values: 'NAME[row, block]' or 'NAME[row]', NAME being a module or a tensor; stacked\n"
    "                  experts have their number in front, 'NAME[expert, row, block]'\n"
    "  --html FILE     write a page for browsers instead of the table; - is standard output\n"
    "  --json          print one JSON object (schema qstream.inspect/1, with --show qstream.show/1)\n"
    "  --jobs N        threads that read for --stats (default: one per processor)\n"
    "  --quiet         no progress and no warnings\n"
    "  --help          print this text\n";

struct arguments {
    const char *model, *tensors, *show, *html;
    enum grouping by; /* GROUPINGS: none */
    unsigned jobs;
    bool stats, json, quiet;
};

/* ---- the command line ---- */

static enum status by_parse(const char *value, void *place, struct error *error) {
    for (enum grouping by = 0; by < GROUPINGS; by++)
        if (strcmp(value, grouping_name(by)) == 0) {
            *(enum grouping *)place = by;
            return STATUS_OK;
        }
    return error_set(error, STATUS_USAGE, "--by takes role, layer, format or shard, not '%s'", value);
}

static enum status arguments_check(const struct arguments *arguments, struct error *error) {
    bool table = !arguments->json && !arguments->html;
    if (arguments->show && (arguments->stats || arguments->html || arguments->tensors || arguments->by != GROUPINGS))
        return error_set(error, STATUS_USAGE, "--show goes with --json and --quiet only");
    if (arguments->stats && table && arguments->by != GROUPINGS)
        return error_set(error, STATUS_USAGE,
                         "--stats tells of tensors; --by shows none (with --json it may be given)");
    if (arguments->json && arguments->html && strcmp(arguments->html, "-") == 0)
        return error_set(error, STATUS_USAGE, "--json and --html - both want standard output");
    return STATUS_OK;
}

/* *help is set when the text was asked for. */
static enum status arguments_parse(int argc, char **argv, struct arguments *arguments, bool *help,
                                   struct error *error) {
    const struct command_option options[] = {
        {"tensors", .text = &arguments->tensors},
        {"by", .parse = by_parse, .place = &arguments->by},
        {"stats", .flag = &arguments->stats},
        {"show", .text = &arguments->show},
        {"html", .text = &arguments->html},
        {"json", .flag = &arguments->json},
        {"jobs", .number = &arguments->jobs, .least = 1, .most = OPTION_JOBS_MOST},
        {"quiet", .flag = &arguments->quiet},
        {0},
    };
    *arguments = (struct arguments){.by = GROUPINGS, .jobs = processor_count()};
    enum status status = options_read("inspect", argc, argv, options, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 1)
        return error_set(error, STATUS_USAGE, "inspect takes one folder; see 'qstream inspect --help'");
    arguments->model = argv[optind];
    return arguments_check(arguments, error);
}

/* ---- which tensors ---- */

/* Sets *chosen to one flag per tensor, which the caller frees; NULL when no pattern was given. */
static enum status tensors_choose(const struct inspection *inspection, const char *glob, bool **chosen,
                                  struct error *error) {
    *chosen = NULL;
    if (!glob)
        return STATUS_OK;
    size_t count = inspection->checkpoint.tensor_count, found = 0;
    struct pattern *pattern;
    enum status status = pattern_new(glob, &pattern, error);
    if (status != STATUS_OK)
        return status == STATUS_BAD_INPUT ? STATUS_USAGE : status;
    *chosen = calloc(count + 1, sizeof **chosen);
    if (!*chosen)
        status = error_set_memory(error);
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        status = pattern_match(pattern, inspection->checkpoint.tensors[i].info.name, &(*chosen)[i], error);
        found += (*chosen)[i];
    }
    pattern_free(pattern);
    if (status == STATUS_BAD_INPUT)
        return STATUS_USAGE;
    if (status == STATUS_OK && found == 0)
        return error_set(error, STATUS_USAGE, "--tensors: no tensor has a name like '%s'", glob);
    return status;
}

/* Reads the values of the chosen tensors and of the scales that belong to them. */
static enum status stats_gather(struct inspection *inspection, const struct report_view *view,
                                const struct arguments *arguments, struct error *error) {
    const struct statistics_options options = {.jobs = arguments->jobs, .quiet = arguments->quiet};
    if (!view->chosen)
        return statistics_gather(inspection, NULL, &options, error);
    size_t count = inspection->checkpoint.tensor_count;
    bool *read = calloc(count + 1, sizeof *read);
    if (!read)
        return error_set_memory(error);
    for (size_t i = 0; i < count; i++) {
        uint32_t module = inspection->modules.of_tensor[i];
        const struct tensor *weight = module_weight(&inspection->checkpoint, &inspection->modules.items[module]);
        read[i] = read[i] || view->chosen[i];
        if (!view->chosen[i] || weight != &inspection->checkpoint.tensors[i])
            continue;
        for (uint32_t c = view->companions_begin[module]; c < view->companions_begin[module + 1]; c++)
            read[view->companions[c]] = true;
    }
    enum status status = statistics_gather(inspection, read, &options, error);
    free(read);
    return status;
}

/* ---- the command ---- */

/* Some of each kind: an index that names other tensors has as many problems as there are names. */
static void problems_tell(const struct inspection *inspection) {
    static const char *const rest[CHECKPOINT_PROBLEMS] = {
        [PROBLEM_INDEX_INVALID] = "mistakes in the index",
        [PROBLEM_SHARD_MISSING] = "missing shards",
        [PROBLEM_SHARD_UNREADABLE] = "shards that cannot be read",
        [PROBLEM_INDEX_WRONG_SHARD] = "tensors in another shard than the index says",
        [PROBLEM_INDEX_DANGLING] = "names in the index that no shard holds",
        [PROBLEM_TENSOR_UNINDEXED] = "tensors that the index does not name",
        [PROBLEM_TENSOR_DUPLICATE] = "tensors that two shards hold",
    };
    enum { TOLD_MAX = 10 };
    size_t counts[CHECKPOINT_PROBLEMS] = {0};
    for (size_t i = 0; i < inspection->problem_count; i++)
        if (counts[inspection->problems[i].kind]++ < TOLD_MAX)
            fprintf(stderr, "qstream: warning: %s\n", inspection->problems[i].message);
    for (int kind = 0; kind < CHECKPOINT_PROBLEMS; kind++)
        if (counts[kind] > TOLD_MAX)
            fprintf(stderr, "qstream: warning: and %zu more %s\n", counts[kind] - TOLD_MAX, rest[kind]);
}

static enum status values_show(const struct inspection *inspection, const struct arguments *arguments,
                               struct error *error) {
    struct shown shown;
    struct text out = {0};
    enum status status =
        show_read(inspection, arguments->show, arguments->json ? SHOW_JSON_VALUES : SHOW_TABLE_VALUES, &shown, error);
    if (status == STATUS_OK) {
        (arguments->json ? show_json : show_table)(&shown, &out);
        if (arguments->json)
            text_append_string(&out, "\n");
        status = out.failed ? error_set_memory(error) : STATUS_OK;
    }
    if (status == STATUS_OK)
        text_write(&out, stdout);
    text_free(&out);
    shown_free(&shown);
    return status;
}

/* The page shows the audit's findings too; values are judged where they were read. */
static enum status html_write(struct inspection *inspection, const struct report_view *view,
                              const struct arguments *arguments, struct error *error) {
    struct audit_options options = audit_options_default();
    options.headers_only = !arguments->stats;
    options.jobs = arguments->jobs;
    options.quiet = true;
    struct audit audit;
    enum status status = audit_run(inspection, &options, &audit, error);
    if (status == STATUS_OK)
        status = page_write(arguments->html, view, &audit, error);
    audit_free(&audit);
    return status;
}

static enum status json_print(const struct report_view *view, struct error *error) {
    struct text json = {0};
    enum status status = inspect_json(view, &json, error);
    if (status == STATUS_OK) {
        text_write(&json, stdout);
        fputc('\n', stdout);
    }
    text_free(&json);
    return status;
}

static enum status table_tell(const struct report_view *view, const struct arguments *arguments, struct error *error) {
    struct text table = {0};
    enum status status = arguments->by == GROUPINGS ? inspect_table(view, &table, error)
                                                    : inspect_groups_table(view, arguments->by, &table, error);
    if (status == STATUS_OK)
        text_write(&table, stdout);
    text_free(&table);
    return status;
}

static enum status inspect(struct inspection *inspection, const struct arguments *arguments, struct error *error) {
    bool *chosen = NULL;
    struct report_view view = {0};
    enum status status = inspection_open(arguments->model, inspection, error);
    if (status == STATUS_OK && !arguments->quiet)
        problems_tell(inspection);
    if (status == STATUS_OK && arguments->show)
        return values_show(inspection, arguments, error);
    if (status == STATUS_OK)
        status = tensors_choose(inspection, arguments->tensors, &chosen, error);
    if (status == STATUS_OK)
        status = report_view_make(inspection, chosen, arguments->stats, &view, error);
    if (status == STATUS_OK && arguments->stats)
        status = stats_gather(inspection, &view, arguments, error);
    if (status == STATUS_OK && arguments->html)
        status = html_write(inspection, &view, arguments, error);
    if (status == STATUS_OK && arguments->json)
        status = json_print(&view, error);
    if (status == STATUS_OK && !arguments->html && !arguments->json)
        status = table_tell(&view, arguments, error);
    report_view_free(&view);
    free(chosen);
    return status;
}

int command_inspect(int argc, char **argv) {
    struct arguments arguments;
    struct inspection inspection = {0};
    struct error error = {0};
    bool help;
    enum status status = arguments_parse(argc, argv, &arguments, &help, &error);
    if (status == STATUS_OK && help)
        fputs(usage, stdout);
    else if (status == STATUS_OK)
        status = inspect(&inspection, &arguments, &error);
    inspection_close(&inspection);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
