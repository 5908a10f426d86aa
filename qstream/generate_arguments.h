/*
 * The command line of `qstream generate`.
 */
#ifndef QSTREAM_QSTREAM_GENERATE_ARGUMENTS_H
#define QSTREAM_QSTREAM_GENERATE_ARGUMENTS_H

#include "infer/decode.h"
#include "infer/sampler.h"

enum bos_choice { BOS_OF_TOKENIZER, BOS_ALWAYS, BOS_NEVER };

struct generate_arguments {
    const char *model;
    const char *prompt, *prompt_file, *tokens_file; /* one of them */
    enum bos_choice bos;
    uint32_t max_tokens;
    struct sampler_options sampling;
    struct decode_options decode; /* all but how many positions */
    bool ignore_eos, json;
};

extern const char generate_usage[];

/* Fills in defaults and what the words say. *help: the text was asked for, and nothing else counts. */
enum status generate_arguments_parse(int argc, char **argv, struct generate_arguments *arguments, bool *help,
                                     struct error *error);

#endif
