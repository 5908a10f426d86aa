/*
 * Progress on stderr: share done, rate, time left. On a terminal one line that is rewritten, with lines for the parts
 * that are under way above it; elsewhere a plain line now and then; nothing when quiet.
 */
#ifndef QSTREAM_COMMON_PROGRESS_H
#define QSTREAM_COMMON_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct progress {
    const char *verb; /* "quantizing" */
    uint64_t total;   /* bytes */
    uint64_t begun;   /* bytes that were done before this run */
    double start, last_shown;
    bool quiet, terminal, open_line;
    unsigned part_lines; /* of parts, on the terminal now */
    /* The caller may change these at any time: */
    char note[128];      /* shown behind the rest */
    double seconds_left; /* at least, for a reason that the rate does not know */
};

/* A part of the work that is under way. */
struct progress_part {
    const char *name;
    uint64_t done, total; /* bytes */
};

void progress_start(struct progress *progress, const char *verb, uint64_t total, uint64_t begun, bool quiet);

/* Call as often as you like; shows itself when it is time. */
void progress_update(struct progress *progress, uint64_t done);

/* The same, with parts: of a terminal, as many as its height has room for. */
void progress_update_parts(struct progress *progress, uint64_t done, const struct progress_part *parts, size_t count);

/* Ends an open line, so that other text can follow. */
void progress_end(struct progress *progress);

double seconds_now(void); /* monotonic */

#endif
