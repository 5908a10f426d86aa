/*
 * Perplexity by a server: the windows of infer/perplexity.h, measured by an OpenAI-compatible server that computes the
 * log probabilities of a prompt's own tokens (vLLM, SGLang).
 */
#ifndef QSTREAM_INFER_SERVER_SERVER_H
#define QSTREAM_INFER_SERVER_SERVER_H

#include "infer/perplexity.h"

struct ppl_server_options {
    const char *url;        /* http://host:port, also with /v1 or /v1/completions behind it */
    const char *model;      /* its name there; NULL: the only one that the server has */
    const char *api_key;    /* NULL: none */
    unsigned in_flight;     /* windows that are asked for at a time, from 1 */
    unsigned retries;       /* of each window */
    double timeout_seconds; /* of each try; 0: none */
    struct ppl_protocol protocol;
    bool quiet;
};

/*
 * Measures. Fills windows, tokens and what ppl_summarize does, tokens_run, seconds and tokens_per_second. STATUS_USAGE:
 * a protocol or a URL that is none, or a stride as long as the window (a server tells nothing of the first token of a
 * prompt); STATUS_BAD_INPUT: the text is too short, or the server answers something else than the log probabilities
 * that are needed; STATUS_IO: no answer after all tries. Free with ppl_result_free, also after an error.
 */
enum status ppl_server_run(const struct ppl_server_options *options, const int32_t *ids, size_t count,
                           struct ppl_result *result, struct error *error);

#endif
