#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/new_file.h"
#include "inspect/audit_fix.h"
#include "inspect/audit_report.h"
#include "inspect/inspect_report.h"
#include "inspect/page.h"
#include "qstream/command.h"
#include "qstream/option_values.h"

static const char usage[] =
    "usage: qstream audit MODEL [OPTIONS]\n"
    "\n"
    "Tells what loaders will do with a checkpoint: which module gets which scheme in vLLM, transformers, SGLang and\n"
    "TensorRT-LLM, whether its tensors fit, and what is wrong with its values, files and figures. MODEL is a folder\n"
    "or, on the Hugging Face Hub, hf://org/name[@revision]. Exit code 0: no finding at or above --fail-on; 1: there\n"
    "are some.\n"
    "\n"
    "  --fail-on SEVERITY  error (default), warning or note\n"
    "  --loaders LIST      whose troubles are findings (default vllm,transformers; also sglang, tensorrt-llm); the "
    "table\n"
    "                      shows all four\n"
    "  --headers-only      do not read the scales; so it is on the Hub\n"
    "  --scales            read the scales on the Hub, too: of block formats that is a part of the model's size\n"
    "  --fix DIR           write a config.json and an index that describe the tensors to DIR; tensors are never "
    "touched\n"
    "  --force             let --fix replace files in DIR\n"
    "  --json              print the result as one JSON object (schema qstream.audit/1)\n"
    "  --modules           with --json: what every loader does with every module, and why\n"
    "  --sarif FILE        write the findings as SARIF 2.1.0\n"
    "  --junit FILE        write the findings as JUnit XML\n"
    "  --html FILE         write a page with the findings and what the checkpoint holds\n"
    "  --jobs N            threads that read (default: one per processor)\n"
    "  --quiet             no progress, and no table\n"
    "  --help              print this text\n";

struct arguments {
    const char *model, *fix, *sarif, *junit, *html;
    struct audit_options audit;
    bool scales, force, json, modules;
};

static bool loaders_parse(const char *list, unsigned *loaders) {
    *loaders = 0;
    while (*list) {
        size_t length = strcspn(list, ",");
        char *name = strndup(list, length);
        enum loader loader = name ? loader_parse(name) : LOADERS;
        free(name);
        if (loader == LOADERS)
            return false;
        *loaders |= 1u << loader;
        list += length + (list[length] == ',');
    }
    return *loaders != 0;
}

static enum status fail_on_parse(const char *value, void *place, struct error *error) {
    for (enum severity severity = 0; severity < SEVERITIES; severity++)
        if (strcmp(value, severity_name(severity)) == 0) {
            *(enum severity *)place = severity;
            return STATUS_OK;
        }
    return error_set(error, STATUS_USAGE, "--fail-on takes error, warning or note, not '%s'", value);
}

static enum status loaders_option(const char *value, void *place, struct error *error) {
    if (!loaders_parse(value, place))
        return error_set(error, STATUS_USAGE,
                         "--loaders takes names from vllm, transformers, sglang, tensorrt-llm, separated by commas, "
                         "not '%s'",
                         value);
    return STATUS_OK;
}

static enum status arguments_parse(int argc, char **argv, struct arguments *arguments, bool *help,
                                   struct error *error) {
    struct audit_options *audit = &arguments->audit;
    const struct command_option options[] = {
        {"fail-on", .parse = fail_on_parse, .place = &audit->fail_on},
        {"loaders", .parse = loaders_option, .place = &audit->loaders},
        {"headers-only", .flag = &audit->headers_only},
        {"fix", .text = &arguments->fix},
        {"force", .flag = &arguments->force},
        {"json", .flag = &arguments->json},
        {"modules", .flag = &arguments->modules},
        {"sarif", .text = &arguments->sarif},
        {"junit", .text = &arguments->junit},
        {"html", .text = &arguments->html},
        {"jobs", .number = &audit->jobs, .least = 1, .most = OPTION_JOBS_MOST},
        {"quiet", .flag = &audit->quiet},
        {"scales", .flag = &arguments->scales},
        {0},
    };
    *arguments = (struct arguments){.audit = audit_options_default()};
    enum status status = options_read("audit", argc, argv, options, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 1)
        return error_set(error, STATUS_USAGE, "audit takes one folder, MODEL; see 'qstream audit --help'");
    arguments->model = argv[optind];
    audit->reasons = arguments->modules;
    if (audit->headers_only && arguments->scales)
        return error_set(error, STATUS_USAGE, "--headers-only and --scales exclude each other");
    if (arguments->modules && !arguments->json)
        return error_set(error, STATUS_USAGE, "--modules goes with --json");
    if (arguments->force && !arguments->fix)
        return error_set(error, STATUS_USAGE, "--force goes with --fix");
    return STATUS_OK;
}

/* The checkpoint's own files are replaced only when that is asked for. */
static enum status fix_check(const struct arguments *arguments, struct error *error) {
    struct stat model, folder;
    bool same = arguments->fix && stat(arguments->model, &model) == 0 && stat(arguments->fix, &folder) == 0 &&
                model.st_dev == folder.st_dev && model.st_ino == folder.st_ino;
    if (same && !arguments->force)
        return error_set(error, STATUS_USAGE,
                         "--fix: '%s' is the checkpoint itself; name another folder, or say --force", arguments->fix);
    return STATUS_OK;
}

static enum status fix_write(const struct arguments *arguments, const struct audit *audit, struct error *error) {
    bool clean =
        findings_count(&audit->findings, SEVERITY_ERROR) + findings_count(&audit->findings, SEVERITY_WARNING) == 0;
    if (!arguments->fix)
        return STATUS_OK;
    enum status status = clean ? STATUS_OK : audit_fix(audit->inspection, arguments->fix, arguments->force, error);
    if (status == STATUS_OK && !arguments->audit.quiet)
        fprintf(stderr,
                clean ? "qstream: there is nothing to correct; '%s' was not touched\n"
                      : "qstream: wrote a corrected config.json to '%s'; audit it there with the shards\n",
                arguments->fix);
    return status;
}

static enum status report_write(const char *file, void (*render)(const struct audit *, struct text *),
                                const struct audit *audit, struct error *error) {
    struct text out = {0};
    if (!file)
        return STATUS_OK;
    render(audit, &out);
    enum status status = out.failed ? error_set_memory(error) : new_file_write(file, out.bytes, out.length, error);
    text_free(&out);
    return status;
}

static enum status html_write(const struct arguments *arguments, const struct audit *audit, struct error *error) {
    if (!arguments->html)
        return STATUS_OK;
    struct report_view view = {0};
    enum status status = report_view_make(audit->inspection, NULL, false, &view, error);
    if (status == STATUS_OK)
        status = page_write(arguments->html, &view, audit, error);
    report_view_free(&view);
    return status;
}

static enum status result_print(const struct arguments *arguments, const struct audit *audit, struct error *error) {
    struct text out = {0};
    if (arguments->json)
        audit_json(audit, arguments->modules, &out);
    else if (!arguments->audit.quiet)
        audit_table(audit, &out);
    enum status status = out.failed ? error_set_memory(error) : STATUS_OK;
    if (status == STATUS_OK)
        text_write(&out, stdout);
    text_free(&out);
    return status;
}

int command_audit(int argc, char **argv) {
    struct arguments arguments;
    struct error error;
    bool help;
    enum status status = arguments_parse(argc, argv, &arguments, &help, &error);
    if (status != STATUS_OK)
        return command_fail(status, &error);
    if (help) {
        fputs(usage, stdout);
        return STATUS_OK;
    }
    struct inspection inspection = {0};
    struct audit audit = {0};
    status = fix_check(&arguments, &error);
    if (status == STATUS_OK)
        status = inspection_open(arguments.model, &inspection, &error);
    if (status == STATUS_OK && !arguments.scales && folder_listing(inspection.checkpoint.folder)) {
        if (!arguments.audit.headers_only && !arguments.audit.quiet)
            fputs("qstream: headers only: on the Hub, scales are read with --scales\n", stderr);
        arguments.audit.headers_only = true;
    }
    if (status == STATUS_OK)
        status = audit_run(&inspection, &arguments.audit, &audit, &error);
    if (status == STATUS_OK)
        status = fix_write(&arguments, &audit, &error);
    if (status == STATUS_OK)
        status = report_write(arguments.sarif, audit_sarif, &audit, &error);
    if (status == STATUS_OK)
        status = report_write(arguments.junit, audit_junit, &audit, &error);
    if (status == STATUS_OK)
        status = html_write(&arguments, &audit, &error);
    if (status == STATUS_OK)
        status = result_print(&arguments, &audit, &error);
    int code = status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
    if (status == STATUS_OK && !audit_passed(&audit))
        code = STATUS_CHECK_FAILED;
    audit_free(&audit);
    inspection_close(&inspection);
    return code;
}
