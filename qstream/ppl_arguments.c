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

enum option_code {
    OPTION_TEXT = 1000,
    OPTION_TOKENS,
    OPTION_WINDOW,
    OPTION_STRIDE,
    OPTION_WINDOWS,
    OPTION_BOS,
    OPTION_TEXT_JOIN,
    OPTION_COMPUTE,
    OPTION_ACTIVATIONS,
    OPTION_FUSED_SCALES,
    OPTION_KV_CACHE,
    OPTION_ROPE_FREQUENCIES,
    OPTION_BASELINE,
    OPTION_MEMORY,
    OPTION_RESIDENT,
    OPTION_SPILL_FOLDER,
    OPTION_JOBS,
    OPTION_CPU,
    OPTION_DEVICE,
    OPTION_DEVICE_MEMORY,
    OPTION_DRY_RUN,
    OPTION_EXPECT,
    OPTION_TOLERANCE,
    OPTION_EXPECT_FILE,
    OPTION_CASE,
    OPTION_UPDATE,
    OPTION_JUNIT,
    OPTION_JSON,
    OPTION_HTML,
    OPTION_PER_TOKEN,
    OPTION_SERVER,
    OPTION_SERVER_MODEL,
    OPTION_IN_FLIGHT,
    OPTION_TIMEOUT,
    OPTION_RETRIES,
    OPTION_QUIET
};

/* ---- how it is measured ---- */

static enum status windows_parse(const char *value, struct ppl_settings *settings, struct error *error) {
    settings->has_windows = true;
    settings->protocol.windows = 0;
    if (strcmp(value, "all") == 0)
        return STATUS_OK;
    enum status status = option_number("--windows", value, 1, WINDOWS_MAX, &settings->protocol.windows, error);
    return status == STATUS_OK ? status
                               : error_set(error, status, "--windows takes all, or a number from 1 to %d, not '%s'",
                                           WINDOWS_MAX, value);
}

static enum status word_unknown(const char *option, const char *words, const char *value, struct error *error) {
    return error_set(error, STATUS_USAGE, "%s takes %s, not '%s'", option, words, value);
}

static enum status setting_parse(int option, const char *value, struct ppl_settings *settings, struct error *error) {
    struct ppl_variants *variants = &settings->variants;
    switch (option) {
    case OPTION_WINDOW:
        settings->has_window = true;
        return option_number("--window", value, 2, WINDOW_MAX, &settings->protocol.window, error);
    case OPTION_STRIDE:
        settings->has_stride = true;
        return option_number("--stride", value, 1, WINDOW_MAX, &settings->protocol.stride, error);
    case OPTION_WINDOWS:
        return windows_parse(value, settings, error);
    case OPTION_BOS:
        settings->has_bos = variants->bos = true;
        return STATUS_OK;
    case OPTION_FUSED_SCALES:
        settings->has_fused_scales = variants->fused_scales = true;
        return STATUS_OK;
    case OPTION_TEXT_JOIN:
        settings->has_text_join = true;
        return text_join_parse(value, &variants->text_join) ? STATUS_OK
                                                            : word_unknown("--text-join", "raw or hf", value, error);
    case OPTION_COMPUTE:
        settings->has_compute = true;
        return compute_parse(value, &settings->compute) ? STATUS_OK
                                                        : word_unknown("--compute", "auto, bf16 or f32", value, error);
    case OPTION_ACTIVATIONS:
        settings->has_activations = true;
        return activations_parse(value, &variants->activations_float)
                   ? STATUS_OK
                   : word_unknown("--activations", "as-served or float", value, error);
    case OPTION_KV_CACHE:
        settings->has_kv_cache = true;
        return kv_cache_parse(value, &variants->kv_cache)
                   ? STATUS_OK
                   : word_unknown("--kv-cache", "auto, bf16 or fp8", value, error);
    default: /* OPTION_ROPE_FREQUENCIES */
        settings->has_rope = true;
        return rope_frequencies_parse(value, &variants->rope_bf16)
                   ? STATUS_OK
                   : word_unknown("--rope-frequencies", "f32 or bf16", value, error);
    }
}

/* ---- the rest ---- */

static bool real_parse(const char *value, double *number) {
    char *end;
    *number = strtod(value, &end);
    return *value && !value[strspn(value, "0123456789.eE+-")] && !*end && isfinite(*number);
}

static enum status expected_parse(int option, const char *value, struct ppl_arguments *arguments, struct error *error) {
    switch (option) {
    case OPTION_EXPECT:
        arguments->has_expect = true;
        return real_parse(value, &arguments->expect) && arguments->expect >= 1
                   ? STATUS_OK
                   : error_set(error, STATUS_USAGE, "--expect takes a perplexity, a number from 1 on, not '%s'", value);
    case OPTION_TOLERANCE:
        arguments->has_tolerance = true;
        return tolerance_parse(value, &arguments->tolerance)
                   ? STATUS_OK
                   : error_set(error, STATUS_USAGE,
                               "--tolerance takes a share such as 0.5%% or an amount such as 0.01, not '%s'", value);
    case OPTION_EXPECT_FILE:
        arguments->expect_file = value;
        return STATUS_OK;
    case OPTION_CASE:
        arguments->test = value;
        return STATUS_OK;
    default: /* OPTION_UPDATE */
        arguments->update = true;
        return STATUS_OK;
    }
}

static enum status server_parse(int option, const char *value, struct ppl_server_options *server, struct error *error) {
    switch (option) {
    case OPTION_SERVER:
        server->url = value;
        return STATUS_OK;
    case OPTION_SERVER_MODEL:
        server->model = value;
        return STATUS_OK;
    case OPTION_IN_FLIGHT:
        return option_number("--in-flight", value, 1, IN_FLIGHT_MAX, &server->in_flight, error);
    case OPTION_RETRIES:
        return option_number("--retries", value, 0, RETRIES_MAX, &server->retries, error);
    default: /* OPTION_TIMEOUT */
        return real_parse(value, &server->timeout_seconds) && server->timeout_seconds >= 0 &&
                       server->timeout_seconds <= timeout_max
                   ? STATUS_OK
                   : error_set(error, STATUS_USAGE, "--timeout takes a number of seconds, not '%s'", value);
    }
}

static enum status machine_parse(int option, const char *value, struct ppl_options *run, struct error *error) {
    switch (option) {
    case OPTION_BASELINE:
        run->baseline = value;
        return STATUS_OK;
    case OPTION_MEMORY:
        return option_memory(value, &run->memory, error);
    case OPTION_RESIDENT:
        run->resident = true;
        return STATUS_OK;
    case OPTION_SPILL_FOLDER:
        run->spill_folder = value;
        return STATUS_OK;
    case OPTION_JOBS:
        return option_jobs(value, &run->jobs, error);
    case OPTION_CPU:
        return option_cpu(value, &run->cpu, error);
    case OPTION_DEVICE:
        return option_device(value, &run->device, error);
    case OPTION_DEVICE_MEMORY:
        return option_device_memory(value, &run->device, error);
    default: /* OPTION_QUIET */
        run->quiet = true;
        return STATUS_OK;
    }
}

static void output_parse(int option, const char *value, struct ppl_arguments *arguments) {
    switch (option) {
    case OPTION_TEXT:
        arguments->text = value;
        break;
    case OPTION_TOKENS:
        arguments->tokens = value;
        break;
    case OPTION_JUNIT:
        arguments->junit = value;
        break;
    case OPTION_HTML:
        arguments->page = value;
        break;
    case OPTION_PER_TOKEN:
        arguments->per_token = value;
        break;
    case OPTION_DRY_RUN:
        arguments->dry_run = true;
        break;
    default: /* OPTION_JSON */
        arguments->json = true;
        break;
    }
}

static enum status option_parse(int option, const char *value, void *context, struct error *error) {
    struct ppl_arguments *arguments = context;
    if (option >= OPTION_WINDOW && option <= OPTION_ROPE_FREQUENCIES)
        return setting_parse(option, value, &arguments->settings, error);
    if (option >= OPTION_EXPECT && option <= OPTION_UPDATE)
        return expected_parse(option, value, arguments, error);
    if (option >= OPTION_SERVER && option <= OPTION_RETRIES)
        return server_parse(option, value, &arguments->server, error);
    if ((option >= OPTION_BASELINE && option <= OPTION_DEVICE_MEMORY) || option == OPTION_QUIET)
        return machine_parse(option, value, &arguments->run, error);
    output_parse(option, value, arguments);
    return STATUS_OK;
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

static const struct option options[] = {
    {"text", required_argument, NULL, OPTION_TEXT},
    {"tokens", required_argument, NULL, OPTION_TOKENS},
    {"window", required_argument, NULL, OPTION_WINDOW},
    {"stride", required_argument, NULL, OPTION_STRIDE},
    {"windows", required_argument, NULL, OPTION_WINDOWS},
    {"bos", no_argument, NULL, OPTION_BOS},
    {"text-join", required_argument, NULL, OPTION_TEXT_JOIN},
    {"compute", required_argument, NULL, OPTION_COMPUTE},
    {"activations", required_argument, NULL, OPTION_ACTIVATIONS},
    {"fused-scales", no_argument, NULL, OPTION_FUSED_SCALES},
    {"kv-cache", required_argument, NULL, OPTION_KV_CACHE},
    {"rope-frequencies", required_argument, NULL, OPTION_ROPE_FREQUENCIES},
    {"baseline", required_argument, NULL, OPTION_BASELINE},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"resident", no_argument, NULL, OPTION_RESIDENT},
    {"spill-folder", required_argument, NULL, OPTION_SPILL_FOLDER},
    {"jobs", required_argument, NULL, OPTION_JOBS},
    {"cpu", required_argument, NULL, OPTION_CPU},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"device-memory", required_argument, NULL, OPTION_DEVICE_MEMORY},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"expect", required_argument, NULL, OPTION_EXPECT},
    {"tolerance", required_argument, NULL, OPTION_TOLERANCE},
    {"expect-file", required_argument, NULL, OPTION_EXPECT_FILE},
    {"case", required_argument, NULL, OPTION_CASE},
    {"update", no_argument, NULL, OPTION_UPDATE},
    {"junit", required_argument, NULL, OPTION_JUNIT},
    {"json", no_argument, NULL, OPTION_JSON},
    {"html", required_argument, NULL, OPTION_HTML},
    {"per-token", required_argument, NULL, OPTION_PER_TOKEN},
    {"server", required_argument, NULL, OPTION_SERVER},
    {"server-model", required_argument, NULL, OPTION_SERVER_MODEL},
    {"in-flight", required_argument, NULL, OPTION_IN_FLIGHT},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"retries", required_argument, NULL, OPTION_RETRIES},
    {"quiet", no_argument, NULL, OPTION_QUIET},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

enum status ppl_arguments_parse(int argc, char **argv, struct ppl_arguments *arguments, bool *help,
                                struct error *error) {
    *arguments =
        (struct ppl_arguments){.run = {.jobs = processor_count(), .cpu = cpu_best(), .memory = option_memory_default()},
                               .server = {.in_flight = 4, .retries = 3, .timeout_seconds = 600},
                               .settings = {.protocol = {.window = 2048, .stride = 512}},
                               .tolerance = tolerance_default};
    enum status status = options_read("ppl", argc, argv, options, option_parse, arguments, help, error);
    if (status != STATUS_OK || *help)
        return status;
    const int words = argc - optind;
    const bool optional = arguments->server.url && arguments->tokens;
    if (words != 1 && !(optional && words == 0))
        return error_set(error, STATUS_USAGE, "ppl takes one folder, MODEL; see 'qstream ppl --help'");
    arguments->run.model = words == 1 ? argv[optind] : NULL;
    return arguments_check(arguments, error);
}
