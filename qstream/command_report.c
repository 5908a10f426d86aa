#include <stdio.h>

#include "qstream/command.h"
#include "qstream/option_values.h"
#include "report/report.h"

static const char usage[] =
    "usage: qstream report FILE... --html FILE\n"
    "\n"
    "Joins what 'qstream inspect --json', 'audit --json', 'verify --json' and 'ppl --json' printed into one page for\n"
    "browsers that needs no network. Each FILE is one of them, told by its schema; in any order, none twice.\n"
    "\n"
    "  --html FILE   write the page to this file; - is standard output\n"
    "  --help        print this text\n"
    "\n"
    "Exit codes: 0 fine, 2 wrong usage, 3 a file is none of these, 4 I/O failure.\n";

static enum status option_parse(int option, const char *value, void *context, struct error *error) {
    (void)option;
    (void)error;
    *(const char **)context = value;
    return STATUS_OK;
}

int command_report(int argc, char **argv) {
    static const struct option options[] = {
        {"html", required_argument, NULL, 1000}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *html = NULL;
    struct report report = {0};
    struct error error = {0};
    bool help;
    enum status status = options_read("report", argc, argv, options, option_parse, &html, &help, &error);
    if (status == STATUS_OK && help) {
        fputs(usage, stdout);
        return STATUS_OK;
    }
    if (status == STATUS_OK && (!html || optind == argc))
        status = error_set(&error, STATUS_USAGE, "report takes files and --html; see 'qstream report --help'");
    for (int i = optind; status == STATUS_OK && i < argc; i++)
        status = report_add(&report, argv[i], &error);
    if (status == STATUS_OK)
        status = report_write(&report, html, &error);
    report_free(&report);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
