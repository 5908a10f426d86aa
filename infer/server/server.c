#include "infer/server/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/progress.h"
#include "common/text.h"
#include "infer/server/address.h"
#include "infer/server/exchange.h"

/* What windows are asked with. */
struct run {
    const struct ppl_server_options *options;
    const int32_t *ids;
    struct text model;
    struct ppl_result *result;
    size_t *first_token; /* [window]: the place of its first scored token in result->tokens */
    float *nll;          /* of a window while it is read */
    double start, last_shown;
    bool open_line;
};

/* ---- progress ---- */

static void progress_tick(void *context, const struct exchange_state *state) {
    static const double terminal_period = 0.2, plain_period = 10; /* seconds */
    struct run *run = context;
    const bool terminal = isatty(STDERR_FILENO) == 1;
    const double now = seconds_now();
    if (run->options->quiet || now - run->last_shown < (terminal ? terminal_period : plain_period))
        return;
    run->last_shown = now;
    char left[32] = "", again[48] = "";
    if (state->answered > 0) {
        const double rest = (double)(state->total - state->answered) * (now - run->start) / (double)state->answered;
        const unsigned long seconds = (unsigned long)(rest + 0.5);
        snprintf(left, sizeof left, ", %lu:%02lu:%02lu left", seconds / 3600, seconds / 60 % 60, seconds % 60);
    }
    if (state->again > 0)
        snprintf(again, sizeof again, ", %zu asked again", state->again);
    fprintf(stderr, "%smeasuring %5.1f %%  %zu of %zu windows%s%s%s", terminal ? "\r" : "",
            100.0 * (double)state->answered / (double)state->total, state->answered, state->total, again, left,
            terminal ? "\033[K" : "\n");
    run->open_line = terminal;
}

/* ---- the model's name ---- */

static size_t model_answer_max(void *context, size_t question) {
    (void)context;
    (void)question;
    return (size_t)16 << 20; /* a hub's list of thousands */
}

static enum answer_verdict model_take(void *context, size_t question, const char *bytes, size_t length,
                                      struct error *error) {
    struct run *run = context;
    (void)question;
    return answer_read_model(bytes, length, &run->model, error);
}

/* ---- windows ---- */

static enum status window_ask(void *context, size_t question, struct text *body, struct error *error) {
    const struct run *run = context;
    const struct ppl_window *window = &run->result->windows[question];
    (void)error;
    text_append_string(body, "{\"model\": ");
    text_append_json_ascii(body, run->model.bytes);
    text_append_string(body, ", \"prompt\": [");
    for (uint32_t i = 0; i < window->tokens; i++) {
        text_append_string(body, i > 0 ? ", " : "");
        text_append_number(body, (uint64_t)run->ids[window->first + i]);
    }
    /* One token is generated since not every server takes 0; its logprob comes last and is not looked at. */
    text_append_string(body, "], \"max_tokens\": 1, \"temperature\": 0, \"echo\": true, \"logprobs\": 1}");
    return STATUS_OK;
}

static size_t window_answer_max(void *context, size_t question) {
    /*
     * An entry of each of the four lists takes 100 to 200 bytes a token as servers write them. A token of 512 spaces,
     * thrice, is in bounds.
     */
    static const size_t fixed = 1 << 20, per_token = 4096;
    const struct run *run = context;
    return fixed + per_token * run->result->windows[question].tokens;
}

static enum answer_verdict window_take(void *context, size_t question, const char *bytes, size_t length,
                                       struct error *error) {
    const struct run *run = context;
    const struct ppl_window *window = &run->result->windows[question];
    const enum answer_verdict verdict = answer_read_nll(bytes, length, window->tokens, window->scored, run->nll, error);
    struct ppl_token *token = run->result->tokens + run->first_token[question];
    const size_t first = window->first + window->tokens - window->scored;
    for (size_t i = 0; i < window->scored && verdict == ANSWER_TAKEN; i++)
        token[i] = (struct ppl_token){.position = (uint32_t)(first + i), .id = run->ids[first + i], .nll = run->nll[i]};
    return verdict;
}

/* ---- the run ---- */

static enum status run_prepare(struct run *run, size_t count, struct error *error) {
    struct ppl_result *result = run->result;
    enum status status = ppl_windows(&run->options->protocol, count, &result->windows, &result->window_count, error);
    if (status != STATUS_OK)
        return status;
    run->first_token = calloc(result->window_count, sizeof *run->first_token);
    if (!run->first_token)
        return error_set_memory(error);
    size_t scored = 0;
    for (size_t i = 0; i < result->window_count; i++) {
        const struct ppl_window *window = &result->windows[i];
        run->first_token[i] = scored;
        scored += window->scored;
        result->tokens_run += window->tokens;
        for (uint32_t j = 0; j < window->tokens; j++)
            if (run->ids[window->first + j] < 0)
                return error_set(error, STATUS_BAD_INPUT, "token %zu of the text has the id %ld, which none has",
                                 window->first + j, (long)run->ids[window->first + j]);
    }
    result->tokens = calloc(scored + 1, sizeof *result->tokens);
    run->nll = calloc(scored + 1, sizeof *run->nll);
    return result->tokens && run->nll ? STATUS_OK : error_set_memory(error);
}

static enum status run_measure(struct run *run, const struct address *address, struct error *error) {
    const struct ppl_server_options *options = run->options;
    struct exchange_options exchange = {.url = address->models,
                                        .shown = address->shown,
                                        .api_key = options->api_key,
                                        .in_flight = 1,
                                        .retries = options->retries,
                                        .timeout_seconds = options->timeout_seconds};
    enum status status = STATUS_OK;
    if (options->model) {
        text_append_string(&run->model, options->model);
    } else {
        static const struct exchange_calls calls = {.answer_max = model_answer_max, .take = model_take};
        status = exchange_run(&exchange, 1, &calls, run, error);
    }
    if (status == STATUS_OK && run->model.failed)
        status = error_set_memory(error);
    if (status != STATUS_OK)
        return status;
    static const struct exchange_calls calls = {
        .ask = window_ask, .answer_max = window_answer_max, .take = window_take, .tick = progress_tick};
    exchange.url = address->completions;
    exchange.subject = "window";
    exchange.post = true;
    exchange.in_flight = options->in_flight;
    run->start = run->last_shown = seconds_now();
    status = exchange_run(&exchange, run->result->window_count, &calls, run, error);
    if (run->open_line)
        fputs("\r\033[K", stderr);
    run->result->seconds = seconds_now() - run->start;
    if (run->result->seconds > 0)
        run->result->tokens_per_second = (double)run->result->tokens_run / run->result->seconds;
    return status;
}

enum status ppl_server_run(const struct ppl_server_options *options, const int32_t *ids, size_t count,
                           struct ppl_result *result, struct error *error) {
    struct run run = {.options = options, .ids = ids, .result = result};
    struct address address;
    *result = (struct ppl_result){0};
    enum status status = address_make(options->url, &address, error);
    if (status == STATUS_OK)
        status = run_prepare(&run, count, error);
    if (status == STATUS_OK)
        status = run_measure(&run, &address, error);
    if (status == STATUS_OK)
        status = ppl_summarize(result, error);
    address_free(&address);
    text_free(&run.model);
    free(run.first_token);
    free(run.nll);
    return status;
}
