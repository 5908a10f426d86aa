/*
 * The command line of `qstream ppl`.
 */
#ifndef QSTREAM_QSTREAM_PPL_ARGUMENTS_H
#define QSTREAM_QSTREAM_PPL_ARGUMENTS_H

#include "infer/perplexity.h"
#include "infer/report/expectation.h"
#include "infer/server/server.h"

struct ppl_arguments {
    struct ppl_options run;           /* model, baseline and what is not in `settings` */
    struct ppl_server_options server; /* url is NULL without --server */
    struct ppl_settings settings;     /* protocol, compute and variants, and which of them were said */
    const char *text, *tokens;        /* files; one of them, or neither */
    bool has_expect;
    double expect; /* a perplexity */
    bool has_tolerance;
    struct tolerance tolerance;
    const char *expect_file, *test; /* --case */
    const char *junit, *page, *per_token;
    bool update, dry_run, json;
};

extern const char ppl_usage[];

/* Fills in defaults and what the words say. *help: the text was asked for, and nothing else counts. */
enum status ppl_arguments_parse(int argc, char **argv, struct ppl_arguments *arguments, bool *help,
                                struct error *error);

#endif
