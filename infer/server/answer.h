/*
 * What an OpenAI-compatible server answers: the log probabilities of a prompt's tokens, the names of its models, the
 * text of an error. Pure functions of bytes from the network; nothing in them is believed before it is checked.
 *
 * POST /v1/completions with {"prompt": [ids], "max_tokens": 1, "echo": true, "logprobs": 1} gives an object with
 *   choices[0].logprobs.token_logprobs: an entry for each token of the prompt, the first one null (nothing is before
 *   it), then one for each generated token; usage.prompt_tokens, usage.completion_tokens.
 * vLLM writes -9999.0 for minus infinity. Servers in Python may write NaN and Infinity, which are read as numbers.
 */
#ifndef QSTREAM_INFER_SERVER_ANSWER_H
#define QSTREAM_INFER_SERVER_ANSWER_H

#include <stddef.h>
#include <stdint.h>

#include "common/status.h"
#include "common/text.h"

enum answer_verdict {
    ANSWER_TAKEN,
    ANSWER_GARBLED, /* no JSON: cut short or mixed up on its way; worth another try */
    ANSWER_WRONG    /* JSON that does not hold what it should: the next one would not either */
};

/*
 * Reads the answer to a prompt of `tokens` tokens: nll[0 .. scored - 1] gets -logprob of its last `scored` tokens, in
 * nats. 1 <= scored < tokens, since nothing is before the first one. Unless ANSWER_TAKEN, *error says what the server
 * lacks and what to do about it; nll is undefined then.
 */
enum answer_verdict answer_read_nll(const char *json, size_t length, uint32_t tokens, uint32_t scored, float *nll,
                                    struct error *error);

/*
 * Reads the answer to GET /v1/models, which has to list exactly one model, and appends its name to `name`. Several:
 * ANSWER_WRONG and an error that names them.
 */
enum answer_verdict answer_read_model(const char *json, size_t length, struct text *name, struct error *error);

/*
 * Appends what a server says of an error, on one line of at most ANSWER_ERROR_MAX bytes: the message of OpenAI's,
 * vLLM's, FastAPI's or llama.cpp's object, else the body as it is. Control characters become spaces, runs of spaces
 * one; nothing is appended when there is nothing to say.
 */
enum { ANSWER_ERROR_MAX = 300 };
void answer_read_error(const char *body, size_t length, struct text *line);

#endif
