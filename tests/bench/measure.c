/*
 * measure FILE LABEL COMMAND [ARGUMENTS]: runs the command and appends to FILE one line
 *   LABEL <tab> seconds <tab> processor seconds <tab> peak resident KiB
 * Exits with the command's exit code.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static double seconds_of(struct timeval time) { return (double)time.tv_sec + (double)time.tv_usec * 1e-6; }

int main(int argc, char **argv) {
    if (argc < 4) {
        fputs("usage: measure FILE LABEL COMMAND [ARGUMENTS]\n", stderr);
        return 2;
    }
    double start = now();
    pid_t child = fork();
    if (child == 0) {
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    int how;
    struct rusage usage;
    if (child < 0 || wait4(child, &how, 0, &usage) < 0) {
        perror("measure");
        return 4;
    }
    double seconds = now() - start;
    int code = WIFEXITED(how) ? WEXITSTATUS(how) : 128 + WTERMSIG(how);
    FILE *out = code == 0 ? fopen(argv[1], "a") : NULL;
    if (code == 0 && !out) {
        perror(argv[1]);
        return 4;
    }
    if (out) {
        fprintf(out, "%s\t%.6f\t%.6f\t%ld\n", argv[2], seconds, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime),
                usage.ru_maxrss);
        fclose(out);
    }
    return code;
}
