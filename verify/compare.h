/*
 * Carrying out comparisons: workers take tiles in the order of the output's data, read both sides and measure. Memory is
 * workers x tile plus a few hundred bytes per weight. Results do not depend on the number of workers.
 */
#ifndef QSTREAM_VERIFY_COMPARE_H
#define QSTREAM_VERIFY_COMPARE_H

#include "common/cpu.h"
#include "verify/pairing.h"

struct compare_options {
    unsigned rules;       /* bit 1 << enum known_rule: whose scales are compared */
    double sample;        /* share of the tiles that is read, 1: all */
    unsigned part, parts; /* this share of the weights; parts 0: all */
    unsigned jobs;
    uint64_t memory; /* for the workers' buffers: fewer work where it is too small */
    enum cpu_level cpu;
    bool quiet;
};

struct compare_result {
    struct histogram *histograms; /* one per pairing group; owned */
    uint64_t tiles, tiles_total;  /* of this part */
    uint64_t bytes, bytes_total;
};

/* Bytes that each worker needs. */
uint64_t compare_worker_bytes(const struct pairing *pairing);

/*
 * Fills the results of the comparisons. STATUS_USAGE when the memory does not suffice for one worker, STATUS_IO when
 * reading fails, STATUS_INTERRUPTED after a signal. Free with compare_result_free, also after an error.
 */
enum status compare_run(const struct checkpoint *source, const struct checkpoint *output, struct pairing *pairing,
                        const struct compare_options *options, struct compare_result *result, struct error *error);
void compare_result_free(struct compare_result *result);

/* Whether a comparison belongs to the part. `index` counts comparisons, in the order of pairing. */
bool compare_is_chosen(const struct pairing *pairing, size_t index, unsigned part, unsigned parts);

/* One block of a weight, for people to look at. Values are NaN where they have none. */
struct block_view {
    unsigned count; /* columns, 32 at most */
    float source[MATRIX_BLOCK];
    double output[MATRIX_BLOCK];
    int codes[MATRIX_BLOCK]; /* -1: a plain number */
    double scale;
    int scale_code; /* -1: no E8M0 */
};
enum status block_view_read(const struct comparison *comparison, const struct place *place, struct block_view *view,
                            struct error *error);

#endif
