/*
 * The command line of `qstream quantize`.
 */
#ifndef QSTREAM_QSTREAM_QUANTIZE_ARGUMENTS_H
#define QSTREAM_QSTREAM_QUANTIZE_ARGUMENTS_H

#include "common/cpu.h"
#include "qstream/plan.h"

struct quantize_arguments {
    const char *source, *destination, *recipe;
    struct plan_options plan;
    const char *calibrate; /* file of the calibration text, or of its ids; NULL: none */
    bool calibrate_ids;    /* it is a JSON array of ids */
    uint32_t calibrate_tokens, calibrate_skip;
    double calibrate_correction;
    bool correction_given;
    unsigned jobs;
    uint64_t memory;
    uint64_t disk;        /* 0: not said */
    unsigned part, parts; /* parts 0: the whole */
    bool finish, dry_run, json, quiet, keep_source;
    enum cpu_level cpu;
};

extern const char quantize_usage[];

/* Fills in defaults and what the words say. *help: the text was asked for, and nothing else counts. */
enum status quantize_arguments_parse(int argc, char **argv, struct quantize_arguments *arguments, bool *help,
                                     struct error *error);

#endif
