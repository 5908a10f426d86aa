#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/interrupt.h"
#include "common/library_memory.h"
#include "qstream/command.h"

struct command {
    const char *name;
    int (*function)(int argc, char **argv);
    const char *summary;
};

static int command_help(int argc, char **argv);

static const struct command commands[] = {
    {"fetch", command_fetch, "download a checkpoint from the Hugging Face Hub"},
    {"quantize", command_quantize, "turn a BF16 or FP8 checkpoint into an MXFP4 one"},
    {"inspect", command_inspect, "show what a checkpoint holds"},
    {"audit", command_audit, "tell what loaders will do with a checkpoint"},
    {"verify", command_verify, "compare a quantized checkpoint with its source"},
    {"push", command_push, "check a checkpoint and upload it to the Hugging Face Hub"},
    {"ppl", command_ppl, "measure perplexity"},
    {"generate", command_generate, "continue a text"},
    {"tokenize", command_tokenize, "turn text into token ids, and back"},
    {"report", command_report, "join the output of inspect, audit, verify and ppl into one page"},
    {"version", command_version, "print the version and what this machine offers"},
    {"help", command_help, "print this text, or a command's"},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static const struct command *command_find(const char *name) {
    for (int i = 0; i < COMMANDS; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static void usage(FILE *out) {
    fputs("usage: qstream COMMAND [ARGUMENTS]\n\n", out);
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    fputs("\n'qstream COMMAND --help' explains a command. Exit codes: 0 fine, 1 a check failed, 2 wrong usage,\n"
          "3 bad input, 4 I/O or memory failure, 130 interrupted.\n",
          out);
}

static int command_help(int argc, char **argv) {
    if (argc < 2 || strcmp(argv[1], "--help") == 0) {
        usage(stdout);
        return STATUS_OK;
    }
    const struct command *command = command_find(argv[1]);
    if (!command) {
        fprintf(stderr, "qstream: there is no command '%s'; see 'qstream help'\n", argv[1]);
        return STATUS_USAGE;
    }
    char help[] = "--help";
    char *arguments[] = {argv[1], help, NULL};
    return command->function(2, arguments);
}

int command_fail(enum status status, const struct error *error) {
    fprintf(stderr, "qstream: %s\n", error->message);
    return (int)status;
}

/* A shard and an output per open file: large checkpoints have more than the usual soft limit of 1024. */
static void open_files_raise(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/*
 * Closed standard descriptors would be given to the next files that are opened, and messages written into them.
 * What is opened here instead cannot be used in the way that it would be needed, so that this still shows.
 */
static void standard_descriptors_open(void) {
    static const int modes[] = {O_WRONLY, O_RDONLY, O_RDONLY};
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", modes[fd]) != fd)
            _exit(STATUS_IO);
}

int main(int argc, char **argv) {
    standard_descriptors_open();
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a failed write like others */
    mallopt(M_ARENA_MAX, 1);  /* an arena per thread would reserve 64 MiB of address space each */
    library_memory_set();
    open_files_raise();
    interrupt_install();
    if (argc < 2) {
        usage(stderr);
        return STATUS_USAGE;
    }
    const char *name = argv[1];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
        name = "help";
    else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
        name = "version";
    const struct command *command = command_find(name);
    if (!command) {
        fprintf(stderr, "qstream: there is no command '%s'; see 'qstream help'\n", argv[1]);
        return STATUS_USAGE;
    }
    int code = command->function(argc - 1, argv + 1);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("qstream: cannot write to standard output\n", stderr);
        if (code == STATUS_OK || code == STATUS_CHECK_FAILED) /* a reader of the report has nothing */
            code = STATUS_IO;
    }
    return code;
}
