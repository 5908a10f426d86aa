#include "qstream/ppl_arguments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/text.h"
#include "common/thread_team.h"
#include "common/utf8.h"
#include "qstream/option_values.h"

enum { WINDOW_MAX = 1 << 24, WINDOWS_MAX = 1 << 24, IN_FLIGHT_MAX = 256, RETRIES_MAX = 100 };
static const double timeout_max = 1e6;
static const struct tolerance tolerance_default = {0.005, true};

const char ppl_usage[] =
    "usage: qstream ppl MODEL (--text FILE | --tokens FILE) [OPTIONS]\n"
    "\n"
    "Measures the perplexity of the checkpoint in the folder MODEL on a text, in windows that overlap, reading each\n"
    "weight once and keeping no more in memory than allowed; with --baseline, also that of a second checkpoint and\n"
    "how far the two are apart. Each may be hf://org/name[@revision], on the Hugging Face Hub.\n"
    "\n"
    "  --text FILE         the text; - is standard input, which is also read when it is no terminal and no file is "
    "given\n"
    "  --tokens FILE       instead of a text its tokens, a JSON array of ids (as 'qstream tokenize' prints them)\n"
    "  --window N          tokens of a window (default 2048)\n"
    "  --stride N          tokens between the beginnings of two windows (default 512)\n"
    "  --windows N         so many windows from the beginning of the text; all (the default): as many as it has\n"
    "  --bos               put the model's first token (bos_token_id) before the text\n"
    "  --text-join MODE    raw (the default): the file as it is; hf: its lines as rows with blank lines between\n"
    "  --compute TYPE      products in bf16 or f32; auto (the default): bf16 where the machine has it\n"
    "  --activations MODE  as-served (the default): rounded as the checkpoint's config says; float: not rounded\n"
    "  --fused-scales      q, k, v and gate, up share their largest scales, as in vLLM's fused layers\n"
    "  --kv-cache TYPE     keys and values kept in bf16 or fp8; auto (the default): as precise as the computing\n"
    "  --rope-frequencies TYPE\n"
    "                      f32 (the default), or rounded to bf16, as in a model that was cast as a whole\n"
    "  --baseline FOLDER   also run this checkpoint, and compare: KL divergence, top token, hidden states by layer\n"
    "  --memory SIZE       most memory to use (default: four fifths of what there is)\n"
    "  --resident          read all weights first and keep them\n"
    "  --spill-folder DIR  where hidden states go that do not fit (default: $TMPDIR or /tmp)\n"
    "  --jobs N            threads (default: one per processor); the result is the same for any number\n"
    "  --cpu LEVEL         portable, neon, avx2 or avx512 (default: the best)\n"
    "  --device DEVICE     cpu (the default), cuda, cuda:N (the Nth card, from 0), or auto: cuda where there is a "
    "card\n"
    "  --device-memory SIZE\n"
    "                      most memory of the card to use; with --dry-run a card of this memory is planned for, which\n"
    "                      need not be there (unified:SIZE: it shares the machine's memory)\n"
    "  --dry-run           print what would be run and the memory it takes; compute nothing\n"
    "  --expect PPL        fail when the perplexity is further away than --tolerance\n"
    "  --tolerance T       a share such as 0.5% (the default), or an amount such as 0.01\n"
    "  --expect-file FILE  fail when the figures of a file, a path or a name, are not met; it sets protocol and "
    "variants\n"
    "  --case NAME         which case of the file, if it has several\n"
    "  --update            write what was measured to the file instead of judging by it\n"
    "  --junit FILE        write a test case for each expected figure as JUnit XML\n"
    "  --json              print one JSON object (schema qstream.ppl/1)\n"
    "  --html FILE         write a page for browsers; - is standard output\n"
    "  --per-token FILE    write a line for each scored token: position, id, NLL\n"
    "  --server URL        measure a running OpenAI-compatible server; MODEL then only gives the tokenizer, and none "
    "is\n"
    "                      needed with --tokens. A key is taken from QSTREAM_API_KEY or OPENAI_API_KEY\n"
    "  --server-model NAME the model's name there (default: the only one that there is)\n"
    "  --in-flight N       windows asked for at a time (default 4)\n"
    "  --timeout SECONDS   of each try (default 600; 0: none)\n"
    "  --retries N         of each window (default 3)\n"
    "  --quiet             no progress\n"
    "  --help              print this text\n"
    "\n"
    "Exit codes: 0 fine, 1 a figure is further off than allowed, 2 wrong usage, 3 a checkpoint, text or file is "
    "damaged\n"
    "or does not fit, 4 I/O, device, network or memory failure, 130 interrupted.\n";

/* ---- values ---- */

static enum status windows_parse(const char *value, void *place, struct error *error) {
    uint32_t *windows = place;
    *windows = 0;
    if (strcmp(value, "all") == 0)
        return STATUS_OK;
    enum status status = option_number("windows", value, 1, WINDOWS_MAX, windows, error);
    return status == STATUS_OK ? status
                               : error_set(error, status, "--windows takes all, or a number from 1 to %d, not '%s'",
                                           WINDOWS_MAX, value);
}

static enum status join_parse(const char *value, void *place, struct error *error) {
    return text_join_parse(value, place)
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "--text-join takes raw or hf, not '%s'", value);
}

static enum status compute_option(const char *value, void *place, struct error *error) {
    return compute_parse(value, place)
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "--compute takes auto, bf16 or f32, not '%s'", value);
}

static enum status frequencies_parse(const char *value, void *place, struct error *error) {
    return rope_frequencies_parse(value, place)
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "--rope-frequencies takes f32 or bf16, not '%s'", value);
}

static bool real_parse(const char *value, double *number) {
    char *end;
    *number = strtod(value, &end);
    return *value && !value[strspn(value, "0123456789.eE+-")] && !*end && isfinite(*number);
}

static enum status expect_parse(const char *value, void *place, struct error *error) {
    double *expected = place;
    return real_parse(value, expected) && *expected >= 1
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "--expect takes a perplexity, a number from 1 on, not '%s'", value);
}

static enum status tolerance_option(const char *value, void *place, struct error *error) {
    return tolerance_parse(value, place)
               ? STATUS_OK
               : error_set(error, STATUS_USAGE,
                           "--tolerance takes a share such as 0.5%% or an amount such as 0.01, not '%s'", value);
}

static enum status timeout_parse(const char *value, void *place, struct error *error) {
    double *seconds = place;
    return real_parse(value, seconds) && *seconds >= 0 && *seconds <= timeout_max
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "--timeout takes a number of seconds, not '%s'", value);
}

/* ---- what goes together ---- */

static enum status server_check(const struct ppl_arguments *arguments, struct error *error) {
    const struct ppl_settings *settings = &arguments->settings;
    const struct ppl_options *run = &arguments->run;
    const struct {
        bool given;
        const char *option;
    } local[] = {{settings->has_compute, "--compute"},
                 {settings->has_activations, "--activations"},
                 {settings->has_fused_scales, "--fused-scales"},
                 {settings->has_kv_cache, "--kv-cache"},
                 {settings->has_rope, "--rope-frequencies"},
                 {run->baseline != NULL, "--baseline"},
                 {run->resident, "--resident"},
                 {run->spill_folder != NULL, "--spill-folder"},
                 {run->device.kind != DEVICE_CPU, "--device"},
                 {run->device.memory > 0, "--device-memory"}};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        if (local[i].given)
            return error_set(error, STATUS_USAGE, "%s says how to compute here; with --server the server computes",
                             local[i].option);
    return STATUS_OK;
}

static enum status expectation_options_check(const struct ppl_arguments *arguments, struct error *error) {
    if (arguments->has_expect && arguments->expect_file)
        return error_set(error, STATUS_USAGE, "--expect and --expect-file both say what is expected");
    if (arguments->update && !arguments->expect_file)
        return error_set(error, STATUS_USAGE, "--update writes to a file: give --expect-file");
    if (arguments->test && !arguments->expect_file)
        return error_set(error, STATUS_USAGE, "--case chooses from a file: give --expect-file");
    if (arguments->test && (!*arguments->test || !utf8_is_valid(arguments->test, strlen(arguments->test))))
        return error_set(error, STATUS_USAGE, "--case takes the name of a case, not '%s'", arguments->test);
    if (arguments->has_tolerance && !arguments->has_expect && !arguments->update)
        return error_set(error, STATUS_USAGE, "--tolerance goes with --expect or --update; a file has its own");
    if (arguments->junit && !arguments->has_expect && (!arguments->expect_file || arguments->update))
        return error_set(error, STATUS_USAGE, "--junit tells of expected figures: give --expect or --expect-file");
    if (arguments->dry_run && (arguments->junit || arguments->per_token || arguments->update))
        return error_set(error, STATUS_USAGE, "--dry-run measures nothing that %s could write",
                         arguments->junit       ? "--junit"
                         : arguments->per_token ? "--per-token"
                                                : "--update");
    return STATUS_OK;
}

/* One thing at a time on standard output. */
static enum status outputs_check(const struct ppl_arguments *arguments, struct error *error) {
    const char *const files[] = {arguments->page, arguments->per_token, arguments->junit};
    int streams = arguments->json;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        streams += files[i] && strcmp(files[i], "-") == 0;
    return streams > 1 ? error_set(error, STATUS_USAGE,
                                   "only one of --json, --html -, --per-token - and --junit - can have standard "
                                   "output")
                       : STATUS_OK;
}

static enum status arguments_check(struct ppl_arguments *arguments, struct error *error) {
    if (arguments->text && arguments->tokens)
        return error_set(error, STATUS_USAGE, "--text and --tokens both say what to measure on");
    if (arguments->tokens && (arguments->settings.has_bos || arguments->settings.has_text_join))
        return error_set(error, STATUS_USAGE, "%s changes a text; --tokens are taken as they are",
                         arguments->settings.has_bos ? "--bos" : "--text-join");
    if (!arguments->text && !arguments->tokens) {
        if (isatty(STDIN_FILENO))
            return error_set(error, STATUS_USAGE, "ppl measures on a text: give --text FILE or --tokens FILE");
        arguments->text = "-";
    }
    if (arguments->run.device.memory > 0 && arguments->run.device.kind == DEVICE_CPU && !arguments->server.url)
        return error_set(error, STATUS_USAGE, "--device-memory goes with --device cuda");
    enum status status = expectation_options_check(arguments, error);
    if (status == STATUS_OK && arguments->server.url)
        status = server_check(arguments, error);
    return status == STATUS_OK ? outputs_check(arguments, error) : status;
}

enum status ppl_arguments_parse(int argc, char **argv, struct ppl_arguments *arguments, bool *help,
                                struct error *error) {
    *arguments =
        (struct ppl_arguments){.run = {.jobs = processor_count(), .cpu = cpu_best(), .memory = option_memory_default()},
                               .server = {.in_flight = 4, .retries = 3, .timeout_seconds = 600},
                               .settings = {.protocol = {.window = 2048, .stride = 512}},
                               .tolerance = tolerance_default};
    struct ppl_settings *settings = &arguments->settings;
    struct ppl_variants *variants = &settings->variants;
    struct ppl_options *run = &arguments->run;
    struct ppl_server_options *server = &arguments->server;
    const struct command_option options[] = {
        {"text", .text = &arguments->text},
        {"tokens", .text = &arguments->tokens},
        {"window", .flag = &settings->has_window, .number = &settings->protocol.window, .least = 2, .most = WINDOW_MAX},
        {"stride", .flag = &settings->has_stride, .number = &settings->protocol.stride, .least = 1, .most = WINDOW_MAX},
        {"windows", .flag = &settings->has_windows, .parse = windows_parse, .place = &settings->protocol.windows},
        {"bos", .flag = &settings->has_bos},
        {"text-join", .flag = &settings->has_text_join, .parse = join_parse, .place = &variants->text_join},
        {"compute", .flag = &settings->has_compute, .parse = compute_option, .place = &settings->compute},
        {"activations", .flag = &settings->has_activations, .parse = option_activations,
         .place = &variants->activations_float},
        {"fused-scales", .flag = &settings->has_fused_scales},
        {"kv-cache", .flag = &settings->has_kv_cache, .parse = option_kv_cache, .place = &variants->kv_cache},
        {"rope-frequencies", .flag = &settings->has_rope, .parse = frequencies_parse, .place = &variants->rope_bf16},
        {"baseline", .text = &run->baseline},
        {"memory", .size = &run->memory, .example = "16GiB"},
        {"resident", .flag = &run->resident},
        {"spill-folder", .text = &run->spill_folder},
        {"jobs", .number = &run->jobs, .least = 1, .most = OPTION_JOBS_MOST},
        {"cpu", .parse = option_cpu, .place = &run->cpu},
        {"device", .parse = option_device, .place = &run->device},
        {"device-memory", .parse = option_device_memory, .place = &run->device},
        {"dry-run", .flag = &arguments->dry_run},
        {"expect", .flag = &arguments->has_expect, .parse = expect_parse, .place = &arguments->expect},
        {"tolerance", .flag = &arguments->has_tolerance, .parse = tolerance_option, .place = &arguments->tolerance},
        {"expect-file", .text = &arguments->expect_file},
        {"case", .text = &arguments->test},
        {"update", .flag = &arguments->update},
        {"junit", .text = &arguments->junit},
        {"json", .flag = &arguments->json},
        {"html", .text = &arguments->page},
        {"per-token", .text = &arguments->per_token},
        {"server", .text = &server->url},
        {"server-model", .text = &server->model},
        {"in-flight", .number = &server->in_flight, .least = 1, .most = IN_FLIGHT_MAX},
        {"timeout", .parse = timeout_parse, .place = &server->timeout_seconds},
        {"retries", .number = &server->retries, .least = 0, .most = RETRIES_MAX},
        {"quiet", .flag = &run->quiet},
        {0},
    };
    enum status status = options_read("ppl", argc, argv, options, help, error);
    variants->bos = settings->has_bos;
    variants->fused_scales = settings->has_fused_scales;
    if (status != STATUS_OK || *help)
        return status;
    const int words = argc - optind;
    const bool optional = arguments->server.url && arguments->tokens;
    if (words != 1 && !(optional && words == 0))
        return error_set(error, STATUS_USAGE, "ppl takes one folder, MODEL; see 'qstream ppl --help'");
    arguments->run.model = words == 1 ? argv[optind] : NULL;
    return arguments_check(arguments, error);
}
