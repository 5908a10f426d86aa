#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_file.h"
#include "infer/output_error.h"
#include "infer/report/ppl_text.h"
#include "qstream/command.h"
#include "qstream/option_values.h"
#include "verify/verification.h"
#include "verify/verify_page.h"

static const char usage[] =
    "usage: qstream verify SRC DST [OPTIONS]\n"
    "\n"
    "Compares the quantized checkpoint in the folder DST with the source SRC that it was made from: every tensor\n"
    "accounted for, copies identical, quantized weights decoded and measured, files and config unchanged. Each may be\n"
    "hf://org/name[@revision], on the Hugging Face Hub.\n"
    "\n"
    "  --rounding MODE     nearest: a code that is not the nearest to its source value is an error; any: it is not.\n"
    "                      Default: what the manifest says, any without one\n"
    "  --rule RULE         scales must be those of amax, qstream or mse. Default: the manifest's; without one the "
    "rule\n"
    "                      is told from the scales, if they follow one\n"
    "  --gamma SOURCE      with the rule qstream: none, layernorm or original. Default: the manifest's\n"
    "  --recipe FILE       formats must be those of this recipe, a path or a name. Default: the manifest's\n"
    "  --min-sqnr [WHAT=]DB    least SQNR of quantized weights; WHAT is a role (mlp, attention, expert, ...) or a\n"
    "                      pattern of module names; may be repeated, the last that applies counts\n"
    "  --max-rel [WHAT=]R  largest relative error (Frobenius norm), likewise\n"
    "  --thresholds FILE   limits from a file, a path or a name\n"
    "  --sample P          read only this share of the tiles, 0.01 or 1%, always the same ones\n"
    "  --part I/N          compare the values of part I of N, I from 0\n"
    "  --hash              also compare the digests of all files with the manifest's\n"
    "  --text FILE         also tell how far the outputs of each quantized weight are from the source's on this text\n"
    "  --tokens FILE       the same with tokens that were made elsewhere, a JSON array of ids\n"
    "  --windows N         of 2048 tokens of it (default 8)\n"
    "  --memory SIZE       most memory to use (default 256MiB; with --text four fifths of what there is)\n"
    "  --jobs N            threads (default: one per processor); the result is the same for any number\n"
    "  --cpu LEVEL         portable, neon, avx2 or avx512 (default: the best); the result is the same for each\n"
    "  --json              print one JSON object (schema qstream.verify/1)\n"
    "  --html FILE         write a page for browsers; - is standard output\n"
    "  --quiet             no progress\n"
    "  --help              print this text\n"
    "\n"
    "Exit codes: 0 it is the image of SRC, 1 it is not, 2 wrong usage, 3 SRC is damaged or DST no checkpoint.\n";

struct arguments {
    struct verify_options verify;
    struct thresholds thresholds; /* of options and file */
    const char *recipe, *thresholds_file, *html, *text;
    bool text_is_ids;
    uint32_t windows;
    bool json;
};

/* ---- the command line ---- */

static enum status rounding_parse(const char *value, void *place, struct error *error) {
    const enum rounding rounding = strcmp(value, "nearest") == 0 ? ROUNDING_NEAREST
                                   : strcmp(value, "any") == 0   ? ROUNDING_ANY
                                                                 : ROUNDING_UNSET;
    *(enum rounding *)place = rounding;
    if (rounding == ROUNDING_UNSET)
        return error_set(error, STATUS_USAGE, "--rounding takes nearest or any, not '%s'", value);
    return STATUS_OK;
}

static enum status rule_parse(const char *value, void *place, struct error *error) {
    const enum known_rule rule = known_rule_parse(value);
    *(enum known_rule *)place = rule;
    if (rule == KNOWN_NONE)
        return error_set(error, STATUS_USAGE, "--rule takes amax, qstream or mse, not '%s'", value);
    return STATUS_OK;
}

static enum status gamma_parse(const char *value, void *place, struct error *error) {
    *(const char **)place = value;
    if (strcmp(value, "none") != 0 && strcmp(value, "layernorm") != 0 && strcmp(value, "original") != 0)
        return error_set(error, STATUS_USAGE, "--gamma takes none, layernorm or original, not '%s'", value);
    return STATUS_OK;
}

static enum status min_sqnr_parse(const char *value, void *place, struct error *error) {
    return thresholds_add(place, LIMIT_MIN_SQNR, value, error);
}

static enum status max_rel_parse(const char *value, void *place, struct error *error) {
    return thresholds_add(place, LIMIT_MAX_REL, value, error);
}

static enum status sample_parse(const char *value, void *place, struct error *error) {
    return option_share("sample", value, DBL_TRUE_MIN, place, error);
}

static enum status part_parse(const char *value, void *place, struct error *error) {
    struct verify_options *verify = place;
    return option_part(value, &verify->part, &verify->parts, error);
}

static enum status text_take(const char *value, bool is_ids, struct arguments *arguments, struct error *error) {
    if (arguments->text)
        return error_set(error, STATUS_USAGE, "--text and --tokens: give one of them, once");
    arguments->text = value;
    arguments->text_is_ids = is_ids;
    return STATUS_OK;
}

static enum status text_parse(const char *value, void *place, struct error *error) {
    return text_take(value, false, place, error);
}

static enum status tokens_parse(const char *value, void *place, struct error *error) {
    return text_take(value, true, place, error);
}

/* *help is set when the text was asked for. */
static enum status arguments_parse(int argc, char **argv, struct arguments *arguments, bool *help,
                                   struct error *error) {
    struct verify_options *verify = &arguments->verify;
    const struct command_option options[] = {
        {"rounding", .parse = rounding_parse, .place = &verify->rounding},
        {"rule", .parse = rule_parse, .place = &verify->rule},
        {"gamma", .parse = gamma_parse, .place = &verify->gamma},
        {"recipe", .text = &arguments->recipe},
        {"min-sqnr", .parse = min_sqnr_parse, .place = &arguments->thresholds},
        {"max-rel", .parse = max_rel_parse, .place = &arguments->thresholds},
        {"thresholds", .text = &arguments->thresholds_file},
        {"sample", .parse = sample_parse, .place = &verify->sample},
        {"part", .parse = part_parse, .place = verify},
        {"hash", .flag = &verify->hash},
        {"text", .parse = text_parse, .place = arguments},
        {"tokens", .parse = tokens_parse, .place = arguments},
        {"windows", .number = &arguments->windows, .least = 1, .most = UINT32_MAX},
        {"memory", .size = &verify->memory, .example = "256MiB"},
        {"jobs", .number = &verify->jobs, .least = 1, .most = OPTION_JOBS_MOST},
        {"cpu", .parse = option_cpu, .place = &verify->cpu},
        {"json", .flag = &arguments->json},
        {"html", .text = &arguments->html},
        {"quiet", .flag = &verify->quiet},
        {0},
    };
    *verify = verify_options_default();
    const uint64_t memory = verify->memory;
    verify->memory = 0;
    enum status status = options_read("verify", argc, argv, options, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 2)
        return error_set(error, STATUS_USAGE, "verify takes two folders, SRC and DST; see 'qstream verify --help'");
    if (verify->gamma && strcmp(verify->gamma, "none") != 0 && verify->rule != KNOWN_NONE &&
        verify->rule != KNOWN_QSTREAM)
        return error_set(error, STATUS_USAGE, "--gamma goes with --rule qstream");
    if (arguments->json && arguments->html && strcmp(arguments->html, "-") == 0)
        return error_set(error, STATUS_USAGE, "--json and --html - both want standard output");
    if (arguments->windows && !arguments->text)
        return error_set(error, STATUS_USAGE, "--windows goes with --text or --tokens");
    if (arguments->text && (verify->parts || verify->sample < 1))
        return error_set(error, STATUS_USAGE, "%s goes with all of the weights: not with --part or --sample",
                         arguments->text_is_ids ? "--tokens" : "--text");
    if (verify->memory == 0)
        verify->memory = arguments->text ? option_memory_default() : memory;
    verify->source = argv[optind];
    verify->folder = argv[optind + 1];
    return STATUS_OK;
}

/* ---- the command ---- */

static enum status thresholds_load(struct arguments *arguments, struct error *error) {
    if (!arguments->thresholds_file)
        return STATUS_OK;
    char *path;
    enum status status = config_file_find(CONFIG_THRESHOLDS, arguments->thresholds_file, &path, error);
    if (status == STATUS_OK)
        status = thresholds_read(&arguments->thresholds, path, error);
    free(path);
    return status;
}

static enum status tell(const struct verification *verification, const struct arguments *arguments,
                        struct error *error) {
    struct text json = {0}, table = {0};
    enum status status = STATUS_OK;
    if (arguments->json || arguments->html)
        status = verification_json(verification, &json, error);
    if (status == STATUS_OK && arguments->html)
        status = verify_page_write(arguments->html, &json, error);
    bool html_on_stdout = arguments->html && strcmp(arguments->html, "-") == 0;
    if (status == STATUS_OK && arguments->json) {
        text_write(&json, stdout);
        fputc('\n', stdout);
    } else if (status == STATUS_OK && !html_on_stdout) {
        status = verification_table(verification, &table, error);
        if (status == STATUS_OK)
            text_write(&table, stdout);
    }
    text_free(&json);
    text_free(&table);
    return status;
}

/* What is measured of outputs. */
struct outputs {
    struct token_ids tokens;
    uint32_t windows, window;
    struct output_error *errors;
    struct output_figure *figures;
    size_t count;
};

static void outputs_free(struct outputs *outputs) {
    token_ids_free(&outputs->tokens);
    output_errors_free(outputs->errors, outputs->count);
    free(outputs->figures);
}

static enum status outputs_text(const struct arguments *arguments, struct outputs *outputs, struct error *error) {
    enum { WINDOW = 2048, WINDOWS = 8 };
    struct folder *folder = NULL;
    enum status status = arguments->text_is_ids ? STATUS_OK : folder_open(arguments->verify.source, &folder, error);
    if (status == STATUS_OK)
        status = ppl_tokens_read(folder, arguments->text, &outputs->tokens, NULL, error);
    folder_close(folder);
    const size_t count = outputs->tokens.count;
    if (status == STATUS_OK && count == 0)
        return error_set(error, STATUS_BAD_INPUT, "'%s' has no tokens", arguments->text);
    const uint32_t wanted = arguments->windows ? arguments->windows : WINDOWS;
    outputs->window = count < WINDOW ? (uint32_t)count : WINDOW;
    outputs->windows =
        status == STATUS_OK && count / outputs->window < wanted ? (uint32_t)(count / outputs->window) : wanted;
    return status;
}

/* Before the weights are compared: what cannot be run is told before 200 GB are read. */
static enum status outputs_measure(const struct arguments *arguments, struct outputs *outputs, struct error *error) {
    const struct verify_options *verify = &arguments->verify;
    enum status status = outputs_text(arguments, outputs, error);
    if (status != STATUS_OK)
        return status;
    const struct output_error_options options = {.source = verify->source,
                                                 .output = verify->folder,
                                                 .ids = outputs->tokens.ids,
                                                 .windows = outputs->windows,
                                                 .tokens = outputs->window,
                                                 .jobs = verify->jobs,
                                                 .cpu = verify->cpu,
                                                 .memory = verify->memory,
                                                 .quiet = verify->quiet};
    status = output_errors_measure(&options, &outputs->errors, &outputs->count, error);
    outputs->figures = calloc(outputs->count + 1, sizeof *outputs->figures);
    if (status == STATUS_OK && !outputs->figures)
        status = error_set_memory(error);
    for (size_t i = 0; status == STATUS_OK && i < outputs->count; i++)
        outputs->figures[i] =
            (struct output_figure){outputs->errors[i].module, outputs->errors[i].layer, outputs->errors[i].rel_error};
    return status;
}

static enum status verify(struct arguments *arguments, struct error *error) {
    struct verification verification = {0};
    char *recipe = NULL;
    enum status status =
        arguments->recipe ? config_file_find(CONFIG_RECIPE, arguments->recipe, &recipe, error) : STATUS_OK;
    arguments->verify.recipe = recipe;
    arguments->verify.thresholds = arguments->thresholds.count > 0 ? &arguments->thresholds : NULL;
    struct outputs outputs = {0};
    if (status == STATUS_OK)
        status = verification_open(&arguments->verify, &verification, error);
    if (status == STATUS_OK && arguments->text)
        status = outputs_measure(arguments, &outputs, error);
    if (status == STATUS_OK)
        status = verification_run(&verification, error);
    verification.outputs = outputs.figures;
    verification.output_count = outputs.count;
    verification.output_tokens = (uint64_t)outputs.windows * outputs.window;
    if (status == STATUS_OK)
        status = tell(&verification, arguments, error);
    if (status == STATUS_OK && !verification_passed(&verification))
        status = STATUS_CHECK_FAILED;
    verification_close(&verification);
    outputs_free(&outputs);
    free(recipe);
    return status;
}

int command_verify(int argc, char **argv) {
    struct arguments arguments = {0};
    struct error error = {0};
    bool help;
    enum status status = arguments_parse(argc, argv, &arguments, &help, &error);
    if (status == STATUS_OK && help) {
        fputs(usage, stdout);
    } else {
        if (status == STATUS_OK)
            status = thresholds_load(&arguments, &error);
        if (status == STATUS_OK)
            status = verify(&arguments, &error);
    }
    thresholds_free(&arguments.thresholds);
    return status == STATUS_OK || status == STATUS_CHECK_FAILED ? (int)status : command_fail(status, &error);
}
