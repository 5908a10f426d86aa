#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_file.h"
#include "common/hub/reference.h"
#include "common/new_file.h"
#include "infer/report/ppl_report.h"
#include "infer/server/address.h"
#include "qstream/command.h"
#include "qstream/ppl_arguments.h"

/* What a run works on. */
struct run {
    struct ppl_arguments arguments;
    struct expectation expectation;
    bool expects; /* the expectation is there */
    char *expect_path;
    struct token_ids tokens;
    char hash[SHA256_HEX];
    char text_hash[SHA256_HEX]; /* of the text's bytes; "" with --tokens */
    struct ppl_result result;
};

/* ---- the tokens ---- */

enum { TOKENIZER_BYTES = 48 << 20, TEXT_SMALL = 8 << 20 /* that the least --memory has room for */ };

/* Reads the text, joined as asked for, and turns it into tokens. */
static enum status text_encode(struct run *run, struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    const struct ppl_variants *variants = &arguments->settings.variants;
    struct text text = {0}, rows = {0};
    struct folder *folder = NULL;
    struct tokenizer *tokenizer = NULL;
    enum status status = folder_open(arguments->run.model, &folder, error);
    if (status == STATUS_OK)
        status = tokenizer_open(folder, &tokenizer, error);
    if (status == STATUS_OK)
        status = ppl_text_read(arguments->text, PPL_TEXT_MAX, &text, error);
    if (status == STATUS_OK && text.length == 0)
        status = error_set(error, STATUS_BAD_INPUT, "'%s' is empty",
                           strcmp(arguments->text, "-") == 0 ? "standard input" : arguments->text);
    /* the text itself, and its tokens in an array that grows */
    const uint64_t needed = 3 * (uint64_t)text.length + TOKENIZER_BYTES;
    if (status == STATUS_OK && !arguments->server.url && needed > arguments->run.memory && text.length > TEXT_SMALL)
        status = error_set(error, STATUS_USAGE,
                           "--memory is too small: a text of %zu bytes needs at least %" PRIu64
                           "MiB to become tokens; a first part of it will do if --windows needs no more",
                           text.length, text_mebibytes(needed));
    uint8_t digest[SHA256_SIZE];
    if (status == STATUS_OK)
        status = sha256_of(text.bytes, text.length, digest, error);
    if (status == STATUS_OK)
        sha256_hex(digest, run->text_hash);
    if (status == STATUS_OK && variants->text_join == TEXT_JOIN_HF) {
        ppl_text_join_rows(&text, &rows);
        text_free(&text);
        text = rows;
        status = text.failed ? error_set_memory(error) : STATUS_OK;
    }
    int32_t bos;
    if (status == STATUS_OK && variants->bos) {
        status = ppl_bos_id(folder, tokenizer, &bos, error);
        if (status == STATUS_OK)
            status = token_ids_append(&run->tokens, bos, error);
    }
    if (status == STATUS_OK)
        status = tokenizer_encode(tokenizer, text.bytes, text.length, &run->tokens, error);
    text_free(&text);
    tokenizer_close(tokenizer);
    folder_close(folder);
    return status;
}

static enum status tokens_get(struct run *run, struct error *error) {
    const char *ids = run->arguments.tokens;
    enum status status = ids ? ppl_tokens_read(NULL, ids, &run->tokens, NULL, error) : text_encode(run, error);
    return status == STATUS_OK ? ppl_tokens_hash(run->tokens.ids, run->tokens.count, run->hash, error) : status;
}

/* ---- calibrated on the same text ---- */

/*
 * Says so on stderr when the model was calibrated on this text: with tokens that are scored, its figure is too good. Where
 * the manifest cannot be read, nothing is said: that is no reason to lose what was measured.
 */
static void calibration_look(const struct run *run) {
    enum { MANIFEST_MAX = 256 << 20 };
    static const char name[] = "qstream.json";
    struct folder *folder = NULL;
    char *bytes = NULL;
    size_t length;
    struct error unread;
    if (!run->text_hash[0] || run->arguments.run.quiet)
        return;
    enum status status = folder_open(run->arguments.run.model, &folder, &unread);
    if (status == STATUS_OK && folder_has(folder, name))
        status = folder_file_read(folder, name, MANIFEST_MAX, &bytes, &length, &unread);
    json_t *root = status == STATUS_OK && bytes ? json_loadb(bytes, length, 0, NULL) : NULL;
    const json_t *calibration = json_object_get(root, "calibration");
    const char *text = json_string_value(json_object_get(calibration, "text_sha256"));
    if (text && strcmp(text, run->text_hash) == 0) {
        const uint64_t first = (uint64_t)json_integer_value(json_object_get(calibration, "skip"));
        const uint64_t count = (uint64_t)json_integer_value(json_object_get(calibration, "windows")) *
                               (uint64_t)json_integer_value(json_object_get(calibration, "window"));
        const struct ppl_window *last =
            run->result.window_count > 0 ? &run->result.windows[run->result.window_count - 1] : NULL;
        const uint64_t scored = last ? (uint64_t)last->first + last->tokens : run->tokens.count;
        fprintf(stderr, "qstream: '%s' was calibrated on tokens %" PRIu64 " to %" PRIu64 " of this text%s\n",
                run->arguments.run.model, first, first + count - 1,
                first < scored ? ", which are among those that are scored: on another text it is worse"
                               : "; none of them is scored");
    }
    json_decref(root);
    free(bytes);
    folder_close(folder);
}

/* ---- what is expected ---- */

static enum status expectation_get(struct run *run, struct error *error) {
    struct ppl_arguments *arguments = &run->arguments;
    if (arguments->has_expect) {
        run->expects = true;
        return expectation_of(arguments->expect, arguments->tolerance, &run->expectation, error);
    }
    if (!arguments->expect_file)
        return STATUS_OK;
    run->expects = true;
    enum status status = config_file_find(CONFIG_EXPECTATION, arguments->expect_file, &run->expect_path, error);
    if (status == STATUS_BAD_INPUT && arguments->update)
        status = STATUS_OK; /* it is the name of a file to be made */
    if (status == STATUS_OK)
        status = expectation_read(run->expect_path, arguments->test, arguments->update, &run->expectation, error);
    return status == STATUS_OK ? expectation_settle(&run->expectation, &arguments->settings, error) : status;
}

/* The last part of a folder's path or of a repository's name, for a new file. The caller frees. */
static char *model_name(const char *folder) {
    struct hub_reference reference;
    if (folder && hub_reference_is(folder)) { /* it was opened: it can be parsed */
        char *name = NULL;
        if (hub_reference_parse(folder, &reference, NULL) == STATUS_OK) {
            const char *slash = strrchr(reference.repository, '/');
            name = strdup(slash ? slash + 1 : reference.repository);
        }
        hub_reference_free(&reference);
        return name;
    }
    char *real = folder ? realpath(folder, NULL) : NULL;
    const char *slash = real ? strrchr(real, '/') : NULL;
    char *name = strdup(slash && slash[1] ? slash + 1 : "model");
    free(real);
    return name;
}

static enum status expectation_write(struct run *run, struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    char *model = model_name(arguments->run.model);
    if (!model)
        return error_set_memory(error);
    const struct ppl_update update = {.model = model,
                                      .settings = &arguments->settings,
                                      .tokens_hash = run->hash,
                                      .token_count = run->tokens.count,
                                      .tolerance = arguments->tolerance};
    enum status status =
        expectation_update(&run->expectation, run->expect_path, arguments->test, &update, &run->result, error);
    free(model);
    return status;
}

/* Files that cannot be written are told of before hours of measuring, not after. */
static enum status files_probe(const struct run *run, struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    const char *const files[] = {arguments->page, arguments->per_token, arguments->junit,
                                 arguments->update ? run->expect_path : NULL};
    enum status status = STATUS_OK;
    for (size_t i = 0; status == STATUS_OK && i < sizeof files / sizeof *files; i++)
        if (files[i])
            status = new_file_probe(files[i], error);
    return status;
}

/* ---- measuring ---- */

static enum status measure_here(struct run *run, struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    struct ppl_options options = arguments->run;
    options.protocol = arguments->settings.protocol;
    options.compute = arguments->settings.compute;
    options.kv_cache = arguments->settings.variants.kv_cache;
    options.activations_float = arguments->settings.variants.activations_float;
    options.fused_scales = arguments->settings.variants.fused_scales;
    options.rope_bf16 = arguments->settings.variants.rope_bf16;
    return (arguments->dry_run ? ppl_plan : ppl_run)(&options, run->tokens.ids, run->tokens.count, &run->result, error);
}

/* The windows that a server would be asked for. */
static enum status plan_for_server(struct run *run, struct error *error) {
    struct ppl_result *result = &run->result;
    enum status status = ppl_windows(&run->arguments.settings.protocol, run->tokens.count, &result->windows,
                                     &result->window_count, error);
    for (size_t i = 0; status == STATUS_OK && i < result->window_count; i++) {
        result->tokens_run += result->windows[i].tokens;
        result->tokens_scored += result->windows[i].scored;
    }
    return status;
}

static enum status measure_server(struct run *run, struct error *error) {
    struct ppl_server_options options = run->arguments.server;
    const char *key = getenv("QSTREAM_API_KEY");
    options.api_key = key && *key ? key : getenv("OPENAI_API_KEY");
    options.protocol = run->arguments.settings.protocol;
    options.quiet = run->arguments.run.quiet;
    return run->arguments.dry_run ? plan_for_server(run, error)
                                  : ppl_server_run(&options, run->tokens.ids, run->tokens.count, &run->result, error);
}

/* ---- telling ---- */

static bool is_stdout(const char *file) { return file && strcmp(file, "-") == 0; }

/* The table, or the JSON; where a file goes to standard output, neither. Failed figures are then told on stderr. */
static enum status report_print(const struct run *run, const struct ppl_report *report, const struct text *json,
                                struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    const bool file_on_stdout =
        is_stdout(arguments->page) || is_stdout(arguments->per_token) || is_stdout(arguments->junit);
    struct text text = {0};
    enum status status = STATUS_OK;
    if (arguments->json) {
        text_write(json, stdout);
        fputc('\n', stdout);
    } else if (!file_on_stdout) {
        status = ppl_report_table(report, &text, error);
        text_write(&text, stdout);
    }
    text_free(&text);
    if ((arguments->json || file_on_stdout) && report->expectation && !report->planned &&
        !expectation_passed(report->expectation)) {
        ppl_report_verdicts(report, true, &text);
        fflush(stdout);
        text_write(&text, stderr);
        text_free(&text);
    }
    return status;
}

static enum status tell(const struct run *run, const char *server, struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    const struct ppl_report report = {.model = arguments->run.model,
                                      .baseline = arguments->run.baseline,
                                      .server = server,
                                      .text = arguments->tokens ? arguments->tokens : arguments->text,
                                      .text_is_tokens = arguments->tokens != NULL,
                                      .token_count = run->tokens.count,
                                      .tokens_hash = run->hash,
                                      .settings = &arguments->settings,
                                      .memory = arguments->run.memory,
                                      .planned = arguments->dry_run,
                                      .result = &run->result,
                                      .expectation = run->expects && !arguments->update ? &run->expectation : NULL};
    struct text json = {0};
    enum status status = STATUS_OK;
    if (arguments->json || arguments->page)
        status = ppl_report_json(&report, &json, error);
    if (status == STATUS_OK && arguments->page)
        status = ppl_report_page(arguments->page, &json, error);
    if (status == STATUS_OK && arguments->per_token)
        status = ppl_report_tokens(arguments->per_token, &report, error);
    if (status == STATUS_OK && arguments->junit)
        status = ppl_report_junit(arguments->junit, &report, error);
    if (status == STATUS_OK)
        status = report_print(run, &report, &json, error);
    text_free(&json);
    return status;
}

static enum status ppl(struct run *run, struct error *error) {
    const struct ppl_arguments *arguments = &run->arguments;
    struct ppl_settings *settings = &run->arguments.settings;
    struct address address = {0};
    enum status status = STATUS_OK;
    if (arguments->server.url)
        status = address_make(arguments->server.url, &address, error);
    if (status == STATUS_OK)
        status = expectation_get(run, error);
    if (status == STATUS_OK)
        status = files_probe(run, error);
    if (!settings->has_stride && settings->protocol.stride > settings->protocol.window)
        settings->protocol.stride = settings->protocol.window; /* short windows that do not overlap */
    if (status == STATUS_OK)
        status = tokens_get(run, error);
    if (status == STATUS_OK && run->expects && !arguments->update)
        status = expectation_check_tokens(&run->expectation, run->hash, error);
    if (status == STATUS_OK)
        status = arguments->server.url ? measure_server(run, error) : measure_here(run, error);
    if (status == STATUS_OK && !arguments->server.url)
        calibration_look(run);
    if (status == STATUS_OK && run->expects && !arguments->dry_run)
        expectation_judge(&run->expectation, &run->result);
    if (status == STATUS_OK && arguments->update)
        status = expectation_write(run, error);
    if (status == STATUS_OK)
        status = tell(run, address.shown, error);
    address_free(&address);
    return status;
}

/* Whether figures were held against expected ones and are further off than allowed; the report has told it. */
static bool missed(const struct run *run) {
    return run->expects && !run->arguments.dry_run && !run->arguments.update && !expectation_passed(&run->expectation);
}

int command_ppl(int argc, char **argv) {
    struct run run = {0};
    struct error error = {0};
    bool help;
    enum status status = ppl_arguments_parse(argc, argv, &run.arguments, &help, &error);
    if (status == STATUS_OK && help)
        fputs(ppl_usage, stdout);
    else if (status == STATUS_OK)
        status = ppl(&run, &error);
    int code = STATUS_OK;
    if (status != STATUS_OK)
        code = command_fail(status, &error);
    else if (!help && missed(&run))
        code = STATUS_CHECK_FAILED;
    ppl_result_free(&run.result);
    token_ids_free(&run.tokens);
    expectation_free(&run.expectation);
    free(run.expect_path);
    return code;
}
