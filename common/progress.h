/*
 * Progress on stderr: share done, rate, time left. On a terminal one line that is rewritten; elsewhere a plain
 * line now and then; nothing when quiet.
 */
#ifndef QSTREAM_COMMON_PROGRESS_H
#define QSTREAM_COMMON_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *verb; /* "quantizing" */
    uint64_t total;   /* bytes */
    uint64_t begun;   /* bytes that were done before this run */
    double start, last_shown;
    bool quiet, terminal, open_line;
};

void progress_start(struct progress *progress, const char *verb, uint64_t total, uint64_t begun, bool quiet);

/* Call as often as you like; shows itself when it is time. */
void progress_update(struct progress *progress, uint64_t done);

/* Ends an open line, so that other text can follow. */
void progress_end(struct progress *progress);

double seconds_now(void); /* monotonic */

#endif
