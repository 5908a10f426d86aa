#include "common/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
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

/* Share and bytes: of a part, or of the whole. */
static void share_append(struct text *out, uint64_t done, uint64_t total) {
    char done_text[TEXT_SIZE_MAX], total_text[TEXT_SIZE_MAX];
    text_printf(out, "%5.1f %%  %s of %s", total ? 100.0 * (double)done / (double)total : 100.0,
                text_size(done, done_text), text_size(total, total_text));
}

static void whole_append(struct text *out, const struct progress *progress, uint64_t done, double now) {
    const double elapsed = now - progress->start;
    const uint64_t new =
        done > progress->begun ? done - progress->begun : 0; /* less than none: something begins anew */
    const double rate = elapsed > 0 ? (double)new / elapsed : 0;
    char rate_text[TEXT_SIZE_MAX];
    text_printf(out, "%s ", progress->verb);
    share_append(out, done, progress->total);
    text_printf(out, ", %s/s", text_size((uint64_t)rate, rate_text));
    if (rate > 0) {
        const double left = (double)(progress->total - done) / rate;
        const unsigned long seconds =
            (unsigned long)((left > progress->seconds_left ? left : progress->seconds_left) + 0.5);
        text_printf(out, ", %lu:%02lu:%02lu left", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    text_append_string(out, progress->note);
}

/* Goes to the beginning of what is on the terminal, and clears it. */
static void clear_append(struct text *out, struct progress *progress) {
    text_append_string(out, "\r");
    if (progress->part_lines > 0)
        text_printf(out, "\033[%uA", progress->part_lines);
    text_append_string(out, "\033[J");
    progress->part_lines = 0;
    progress->open_line = false;
}

static unsigned terminal_rows(void) {
    struct winsize size;
    enum { ROWS_USUAL = 24 };
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 ? size.ws_row : ROWS_USUAL;
}

/* Lines that are too long are cut by the terminal: else one would take two rows, and the next update would miss. */
static void terminal_append(struct text *out, struct progress *progress, uint64_t done, double now,
                            const struct progress_part *parts, size_t count) {
    const unsigned rows = count > 0 ? terminal_rows() : 0;
    const size_t room = rows > 2 ? rows - 2 : 0;
    clear_append(out, progress);
    text_append_string(out, "\033[?7l");
    for (size_t i = 0; i < count && i < room; i++) {
        text_append_string(out, "  ");
        share_append(out, parts[i].done, parts[i].total);
        text_append_string(out, "  ");
        text_append_escaped(out, parts[i].name);
        text_append_string(out, "\n");
        progress->part_lines++;
    }
    whole_append(out, progress, done, now);
    text_append_string(out, "\033[?7h");
    progress->open_line = true;
}

void progress_update_parts(struct progress *progress, uint64_t done, const struct progress_part *parts, size_t count) {
    static const double terminal_period = 0.2, plain_period = 10; /* seconds */
    const double now = seconds_now();
    if (progress->quiet || now - progress->last_shown < (progress->terminal ? terminal_period : plain_period))
        return;
    progress->last_shown = now;
    struct text out = {0};
    if (progress->terminal) {
        terminal_append(&out, progress, done, now, parts, count);
    } else {
        whole_append(&out, progress, done, now);
        text_append_string(&out, "\n");
    }
    if (!out.failed)
        fputs(out.bytes, stderr);
    text_free(&out);
}

void progress_update(struct progress *progress, uint64_t done) { progress_update_parts(progress, done, NULL, 0); }

void progress_end(struct progress *progress) {
    struct text out = {0};
    if (!progress->open_line)
        return;
    clear_append(&out, progress);
    if (!out.failed)
        fputs(out.bytes, stderr);
    text_free(&out);
}
