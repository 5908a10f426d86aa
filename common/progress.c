#include "common/progress.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/text.h"

double seconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void progress_start(struct progress *progress, const char *verb, uint64_t total, uint64_t begun, bool quiet) {
    double now = seconds_now();
    *progress = (struct progress){.verb = verb,
                                  .total = total,
                                  .begun = begun,
                                  .start = now,
                                  .last_shown = now,
                                  .quiet = quiet,
                                  .terminal = isatty(STDERR_FILENO) == 1};
}

void progress_update(struct progress *progress, uint64_t done) {
    static const double terminal_period = 0.2, plain_period = 10; /* seconds */
    double now = seconds_now();
    if (progress->quiet || now - progress->last_shown < (progress->terminal ? terminal_period : plain_period))
        return;
    progress->last_shown = now;
    double elapsed = now - progress->start;
    double rate = elapsed > 0 ? (double)(done - progress->begun) / elapsed : 0;
    char done_text[TEXT_SIZE_MAX], total_text[TEXT_SIZE_MAX], rate_text[TEXT_SIZE_MAX], left[32] = "";
    if (rate > 0) {
        unsigned long seconds = (unsigned long)((double)(progress->total - done) / rate + 0.5);
        snprintf(left, sizeof left, ", %lu:%02lu:%02lu left", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    fprintf(stderr, "%s%s %5.1f %%  %s of %s, %s/s%s%s", progress->terminal ? "\r" : "", progress->verb,
            progress->total ? 100.0 * (double)done / (double)progress->total : 100.0, text_size(done, done_text),
            text_size(progress->total, total_text), text_size((uint64_t)rate, rate_text), left,
            progress->terminal ? "\033[K" : "\n");
    progress->open_line = progress->terminal;
}

void progress_end(struct progress *progress) {
    if (progress->open_line)
        fputs("\r\033[K", stderr);
    progress->open_line = false;
}
