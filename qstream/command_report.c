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

int command_report(int argc, char **argv) {
    const char *html = NULL;
    const struct command_option options[] = {{"html", .text = &html}, {0}};
    struct report report = {0};
    struct error error = {0};
    bool help;
    enum status status = options_read("report", argc, argv, options, &help, &error);
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
