#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "common/utf8.h"
#include "common/version.h"
#include "infer/generate.h"
#include "infer/report/ppl_text.h"
#include "infer/special_tokens.h"
#include "qstream/command.h"
#include "qstream/generate_arguments.h"

/* What a run works on. */
struct run {
    struct generate_arguments arguments;
    struct folder *folder;
    struct tokenizer *tokenizer;
    struct special_tokens special;
    struct token_ids prompt, tokens;
    struct decoder *decoder;
    struct text text;    /* all of it, for JSON */
    struct text pending; /* bytes that are not whole characters yet */
    bool terminal;       /* standard output is one */
    struct generation_result result;
    double read_rate; /* of memory, bytes per second; 0: not measured */
};

/* ---- the prompt ---- */

static enum status begin_append(struct run *run, struct error *error) {
    const struct token_ids *begin = &run->special.begin;
    enum status status = STATUS_OK;
    if (run->arguments.bos == BOS_ALWAYS) {
        int32_t bos;
        status = ppl_bos_id(run->folder, run->tokenizer, &bos, error);
        return status == STATUS_OK ? token_ids_append(&run->prompt, bos, error) : status;
    }
    for (size_t i = 0; status == STATUS_OK && run->arguments.bos == BOS_OF_TOKENIZER && i < begin->count; i++)
        status = token_ids_append(&run->prompt, begin->ids[i], error);
    return status;
}

static enum status prompt_encode(struct run *run, struct error *error) {
    const struct generate_arguments *arguments = &run->arguments;
    struct text text = {0};
    enum status status = begin_append(run, error);
    if (status == STATUS_OK && arguments->prompt_file)
        status = ppl_text_read(arguments->prompt_file, PPL_TEXT_MAX, &text, error);
    const char *bytes = arguments->prompt_file ? text.bytes : arguments->prompt;
    const size_t length = arguments->prompt_file ? text.length : strlen(bytes);
    if (status == STATUS_OK)
        status = tokenizer_encode(run->tokenizer, bytes, length, &run->prompt, error);
    text_free(&text);
    return status;
}

static enum status prompt_get(struct run *run, struct error *error) {
    const char *ids = run->arguments.tokens_file;
    enum status status = ids ? ppl_tokens_read(NULL, ids, &run->prompt, NULL, error) : prompt_encode(run, error);
    if (status == STATUS_OK && run->prompt.count == 0)
        return error_set(error, STATUS_BAD_INPUT, "the prompt has no token, and a model needs one to continue%s",
                         ids ? "" : "; --bos puts one before it");
    return status;
}

/* ---- the text ---- */

/* A character. What a terminal would take for a command is shown instead: models may come from strangers. */
static void character_put(struct run *run, uint32_t point) {
    char bytes[4] = "";
    const size_t length = utf8_encode(point, bytes);
    if (run->arguments.json)
        text_append(&run->text, bytes, length);
    else if (run->terminal && ((point < ' ' && point != '\n' && point != '\t') || (point >= 0x7f && point < 0xa0)))
        printf("\\x%02x", point);
    else
        fwrite(bytes, 1, length, stdout);
}

/* Puts the pending characters that are whole, and what cannot become one; at the end all of them. */
static enum status pending_put(struct run *run, bool end, struct error *error) {
    const char *bytes = run->pending.bytes;
    const size_t length = run->pending.length;
    size_t at = 0, step;
    for (; at < length; at += step) {
        bool good;
        const uint32_t point = utf8_decode(bytes + at, length - at, &step, &good);
        if (!good && at + step == length && !end)
            break;
        character_put(run, point);
    }
    if (at > 0) {
        memmove(run->pending.bytes, bytes + at, length - at);
        run->pending.length = length - at;
    }
    if (run->text.failed)
        return error_set_memory(error);
    return fflush(stdout) == 0 && !ferror(stdout) ? STATUS_OK
                                                  : error_set(error, STATUS_IO, "cannot write to standard output");
}

static enum status token_receive(void *context, int32_t id, struct error *error) {
    struct run *run = context;
    enum status status = token_ids_append(&run->tokens, id, error);
    if (status != STATUS_OK)
        return status;
    struct error unknown; /* models have rows that no token of the tokenizer belongs to */
    if (tokenizer_decode(run->tokenizer, &id, 1, false, &run->pending, &unknown) == STATUS_BAD_INPUT)
        text_append_string(&run->pending, "\xef\xbf\xbd");
    if (run->pending.failed)
        return error_set_memory(error);
    return pending_put(run, false, error);
}

/* ---- figures ---- */

static double rate(double amount, double seconds) { return seconds > 0 ? amount / seconds : 0; }

static double weights_rate(const struct run *run) {
    return rate((double)decoder_budget(run->decoder)->read * run->result.steps, run->result.seconds);
}

static void figures_print(const struct run *run) {
    const struct generation_result *result = &run->result;
    const struct sampler_options *sampling = &run->arguments.sampling;
    static const char *const stops[] = {
        [STOP_END] = "its end", [STOP_TOKENS] = "--max-tokens", [STOP_CONTEXT] = "the end of the model's context"};
    fprintf(stderr, "prompt      %6zu tokens in %.2f s, %.1f tokens/s\n", run->prompt.count, result->prompt_seconds,
            rate((double)run->prompt.count, result->prompt_seconds));
    fprintf(stderr, "generation  %6u tokens in %.2f s", result->tokens, result->seconds);
    if (result->steps > 0)
        fprintf(stderr, ", %.1f tokens/s", rate(result->steps, result->seconds));
    fprintf(stderr, ", up to %s\n", stops[result->stop]);
    if (result->steps > 0 && run->read_rate > 0)
        fprintf(stderr, "weights     %6.1f GB/s, %.0f %% of the %.1f GB/s at which memory can be read\n",
                weights_rate(run) / 1e9, 100 * weights_rate(run) / run->read_rate, run->read_rate / 1e9);
    if (sampling->temperature > 0)
        fprintf(stderr, "seed        %6llu\n", (unsigned long long)sampling->seed);
}

/* ---- the plan ---- */

static void size_print(const char *label, uint64_t bytes, const char *rest) {
    char size[TEXT_SIZE_MAX];
    printf("%-16s%10s%s\n", label, text_size(bytes, size), rest);
}

static void limit_print(const char *label, uint64_t bytes, uint64_t limit) {
    char size[TEXT_SIZE_MAX], rest[TEXT_SIZE_MAX + 32];
    snprintf(rest, sizeof rest, " of %s that it may use", text_size(limit, size));
    size_print(label, bytes, rest);
}

static void plan_print(const struct run *run) {
    const struct decode_budget *budget = decoder_budget(run->decoder);
    const struct device_budget *device = &budget->device;
    printf("%-16s%10u\n", "tokens", decoder_positions(run->decoder));
    size_print("weights read", budget->read, " for each token");
    limit_print("memory", budget->total, run->arguments.decode.memory);
    size_print("  weights", budget->weights, device->used ? ", on their way to the device" : "");
    if (!device->used)
        size_print("  keys, values", budget->cache, "");
    size_print("  all else", budget->work, "");
    if (!device->used)
        return;
    printf("%-16s%s%s\n", "device", device->name, device->unified ? ", its memory is the machine's" : "");
    limit_print("device memory", device->total, device->memory);
    size_print("  weights", device->weights, "");
    size_print("  keys, values", device->states, "");
    size_print("  all else", device->work, "");
}

static json_t *ids_json(const struct token_ids *ids) {
    json_t *array = json_array();
    for (size_t i = 0; array && i < ids->count; i++)
        json_array_append_new(array, json_integer(ids->ids[i]));
    return array;
}

/* A path: bytes that are no UTF-8 are U+FFFD. */
static json_t *path_json(const char *path) {
    struct text text = {0};
    text_append_json_ascii(&text, path);
    json_t *value = text.failed ? NULL : json_loadb(text.bytes, text.length, JSON_DECODE_ANY, NULL);
    text_free(&text);
    return value;
}

/* null where there is nothing to divide by. */
static json_t *quotient_json(double amount, double by) { return by > 0 ? json_real(amount / by) : json_null(); }

struct member {
    const char *key;
    json_t *value;
};

static enum status members_print(const struct member *members, size_t count, struct error *error) {
    json_t *object = json_object();
    bool good = object != NULL;
    for (size_t i = 0; i < count; i++)
        good = json_object_set_new(object, members[i].key, members[i].value) == 0 && good;
    char *json = good ? json_dumps(object, JSON_ENSURE_ASCII) : NULL;
    if (json)
        puts(json);
    free(json);
    json_decref(object);
    return json ? STATUS_OK : error_set_memory(error);
}

static json_t *memory_json(const struct decode_budget *budget) {
    return json_pack("{s:I, s:I, s:I, s:I}", "total", (json_int_t)budget->total, "weights", (json_int_t)budget->weights,
                     "cache", (json_int_t)budget->cache, "work", (json_int_t)budget->work);
}

static json_t *device_json(const struct device_budget *device) {
    if (!device->used)
        return json_null();
    return json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I}", "name", device->name, "unified", device->unified, "memory",
                     (json_int_t)device->memory, "total", (json_int_t)device->total, "weights",
                     (json_int_t)device->weights, "cache", (json_int_t)device->states, "work",
                     (json_int_t)device->work);
}

static enum status json_print(const struct run *run, struct error *error) {
    static const char *const stops[] = {[STOP_END] = "end", [STOP_TOKENS] = "max-tokens", [STOP_CONTEXT] = "context"};
    const struct generation_result *result = &run->result;
    const struct decode_budget *budget = decoder_budget(run->decoder);
    const double moved = (double)budget->read * result->steps;
    const struct member members[] = {
        {"schema", json_string("qstream.generate/1")},
        {"qstream", json_string(QSTREAM_VERSION)},
        {"state", json_string("generated")},
        {"model", path_json(run->arguments.model)},
        {"prompt_tokens", ids_json(&run->prompt)},
        {"tokens", ids_json(&run->tokens)},
        {"text", json_stringn(run->text.bytes ? run->text.bytes : "", run->text.length)},
        {"stop", json_string(stops[result->stop])},
        {"temperature", json_real(run->arguments.sampling.temperature)},
        {"top_p", json_real(run->arguments.sampling.top_p)},
        {"seed", json_integer((json_int_t)run->arguments.sampling.seed)},
        {"prompt_seconds", json_real(result->prompt_seconds)},
        {"prompt_tokens_per_second", quotient_json((double)run->prompt.count, result->prompt_seconds)},
        {"seconds", json_real(result->seconds)},
        {"tokens_per_second", quotient_json(result->steps, result->steps ? result->seconds : 0)},
        {"weight_bytes_per_token", json_integer((json_int_t)budget->read)},
        {"weight_bytes_per_second", quotient_json(moved, result->steps ? result->seconds : 0)},
        {"memory_bytes_per_second", quotient_json(run->read_rate, run->read_rate > 0)},
        {"bandwidth_share", quotient_json(moved, result->seconds * run->read_rate)},
        {"memory", memory_json(budget)},
        {"device", device_json(&budget->device)},
    };
    return members_print(members, sizeof members / sizeof *members, error);
}

/* What a dry run tells. */
static enum status plan_tell(const struct run *run, struct error *error) {
    const struct decode_budget *budget = decoder_budget(run->decoder);
    if (!run->arguments.json) {
        plan_print(run);
        return STATUS_OK;
    }
    const struct member members[] = {
        {"schema", json_string("qstream.generate/1")},
        {"qstream", json_string(QSTREAM_VERSION)},
        {"state", json_string("planned")},
        {"model", path_json(run->arguments.model)},
        {"prompt_tokens", ids_json(&run->prompt)},
        {"weight_bytes_per_token", json_integer((json_int_t)budget->read)},
        {"memory", memory_json(budget)},
        {"device", device_json(&budget->device)},
    };
    return members_print(members, sizeof members / sizeof *members, error);
}

/* ---- the command ---- */

static enum status decode_open(struct run *run, struct error *error) {
    struct decode_options options = run->arguments.decode;
    if (run->prompt.count > UINT32_MAX / 2)
        return error_set(error, STATUS_BAD_INPUT, "the prompt is too long: %zu tokens", run->prompt.count);
    options.least = (uint32_t)run->prompt.count;
    options.positions = options.least + run->arguments.max_tokens - 1; /* the last token need not be taken */
    return decoder_open(run->arguments.model, &options, &run->decoder, error);
}

static enum status generate(struct run *run, struct error *error) {
    const struct generate_arguments *arguments = &run->arguments;
    enum status status = folder_open(arguments->model, &run->folder, error);
    if (status == STATUS_OK)
        status = tokenizer_open(run->folder, &run->tokenizer, error);
    if (status == STATUS_OK)
        status = special_tokens_read(run->folder, run->tokenizer, &run->special, error);
    if (status == STATUS_OK)
        status = prompt_get(run, error);
    if (status == STATUS_OK)
        status = decode_open(run, error);
    if (status == STATUS_OK && arguments->decode.plan_only)
        return plan_tell(run, error);
    if (status != STATUS_OK)
        return status;
    const struct generation generation = {.prompt = run->prompt.ids,
                                          .prompt_count = run->prompt.count,
                                          .ends = run->special.end.ids,
                                          .end_count = arguments->ignore_eos ? 0 : run->special.end.count,
                                          .tokens = arguments->max_tokens,
                                          .sampling = arguments->sampling};
    run->terminal = isatty(STDOUT_FILENO) == 1;
    status = generation_run(run->decoder, &generation, token_receive, run, &run->result, error);
    struct error ignored;
    if (ferror(stdout) == 0 && pending_put(run, true, status == STATUS_OK ? error : &ignored) != STATUS_OK)
        status = status == STATUS_OK ? STATUS_IO : status;
    if (run->terminal && !arguments->json && run->tokens.count > 0) { /* what follows begins a line */
        putchar('\n');
        fflush(stdout);
    }
    if (status == STATUS_OK && (arguments->json || !arguments->decode.quiet))
        run->read_rate = decoder_read_rate(run->decoder);
    if (status == STATUS_OK && !arguments->decode.quiet)
        figures_print(run);
    return status == STATUS_OK && arguments->json ? json_print(run, error) : status;
}

int command_generate(int argc, char **argv) {
    struct run run = {0};
    struct error error = {0};
    bool help;
    enum status status = generate_arguments_parse(argc, argv, &run.arguments, &help, &error);
    if (status == STATUS_OK && help)
        fputs(generate_usage, stdout);
    else if (status == STATUS_OK)
        status = generate(&run, &error);
    decoder_close(run.decoder);
    tokenizer_close(run.tokenizer);
    folder_close(run.folder);
    special_tokens_free(&run.special);
    token_ids_free(&run.prompt);
    token_ids_free(&run.tokens);
    text_free(&run.text);
    text_free(&run.pending);
    /* of a failed write the program's end tells */
    return status == STATUS_OK || ferror(stdout) ? (int)status : command_fail(status, &error);
}
