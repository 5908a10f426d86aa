#include "qstream/generate_arguments.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/thread_team.h"
#include "qstream/option_values.h"

enum { TOKENS_MAX = 1 << 24, TOKENS_DEFAULT = 256 };
static const double temperature_most = 100;

const char generate_usage[] =
    "usage: qstream generate MODEL [--prompt TEXT | --prompt-file FILE | --tokens FILE] [OPTIONS]\n"
    "\n"
    "Continues a text with the checkpoint in the folder MODEL, on its weights as they are stored. The text goes to\n"
    "standard output as it is made, figures to standard error. No chat template is applied. MODEL may be\n"
    "hf://org/name[@revision], on the Hugging Face Hub.\n"
    "\n"
    "  --prompt TEXT       the text to continue\n"
    "  --prompt-file FILE  the same from a file; - is standard input, which is also read when it is no terminal and "
    "no\n"
    "                      prompt is given\n"
    "  --tokens FILE       instead of a text its tokens, a JSON array of ids (as 'qstream tokenize' prints them)\n"
    "  --bos               put the model's first token (bos_token_id) before the prompt\n"
    "  --no-bos            put nothing before it; default: what the model's tokenizer puts there\n"
    "  --max-tokens N      make so many tokens at most (default 256)\n"
    "  --ignore-eos        do not stop at a token that ends the text\n"
    "  --temperature T     0: always the most probable token; above: choose by probability, the more freely the "
    "higher.\n"
    "                      Default: 1 with --top-p, else 0\n"
    "  --top-p P           choose among the most probable tokens that together reach this probability (default 1)\n"
    "  --seed N            the same seed chooses the same tokens (default: a random one, which is told)\n"
    "  --activations MODE  as-served (the default): rounded as the checkpoint's config says; float: not rounded\n"
    "  --fused-scales      q, k, v and gate, up share their largest scales, as in vLLM's fused layers\n"
    "  --kv-cache TYPE     keys and values kept in bf16 or fp8; auto (the default): in float32, on a card in bf16\n"
    "  --memory SIZE       most memory to use (default: four fifths of what there is)\n"
    "  --jobs N            threads (default: one per processor); the result is the same for any number\n"
    "  --cpu LEVEL         portable, neon, avx2 or avx512 (default: the best)\n"
    "  --device DEVICE     cpu (the default), cuda, cuda:N (the Nth card, from 0), or auto: cuda where there is a "
    "card\n"
    "  --device-memory SIZE\n"
    "                      most memory of the card to use; with --dry-run a card of this memory is planned for, which\n"
    "                      need not be there (unified:SIZE: it shares the machine's memory)\n"
    "  --dry-run           print the memory that it takes; load and make nothing\n"
    "  --json              print one JSON object (schema qstream.generate/1) at the end instead of the text\n"
    "  --quiet             no progress and no figures\n"
    "  --help              print this text\n"
    "\n"
    "Exit codes: 0 fine, 2 wrong usage or too little memory, 3 the checkpoint or prompt is damaged or does not fit,\n"
    "4 I/O, device or memory failure, 130 interrupted.\n";

/* What was said, where the default depends on it. */
struct said {
    bool temperature, top_p, seed, bos, no_bos;
};

/* ---- values ---- */

static enum status real_parse(const char *value, double least, double most, double *number, const char *problem,
                              struct error *error) {
    char *end;
    *number = strtod(value, &end);
    if (*value < '.' || *value > '9' || *end || !(*number >= least && *number <= most))
        return error_set(error, STATUS_USAGE, "%s, not '%s'", problem, value);
    return STATUS_OK;
}

static enum status temperature_parse(const char *value, void *place, struct error *error) {
    static const char problem[] = "--temperature takes 0, or a number from 0.001 to 100";
    double *temperature = place;
    enum status status = real_parse(value, 0, temperature_most, temperature, problem, error);
    if (status == STATUS_OK && *temperature > 0 && *temperature < SAMPLER_COLDEST)
        return error_set(error, STATUS_USAGE, "%s, not '%s'", problem, value);
    return status;
}

static enum status top_p_parse(const char *value, void *place, struct error *error) {
    static const char problem[] = "--top-p takes a probability above 0, at most 1";
    double *top_p = place;
    enum status status = real_parse(value, 0, 1, top_p, problem, error);
    return status == STATUS_OK && *top_p == 0 ? error_set(error, STATUS_USAGE, "%s, not '%s'", problem, value) : status;
}

static enum status seed_parse(const char *value, void *place, struct error *error) {
    uint32_t number;
    enum status status = option_number("seed", value, 0, UINT32_MAX, &number, error);
    if (status == STATUS_OK)
        *(uint64_t *)place = number;
    return status;
}

/* ---- what goes together ---- */

static enum status prompt_check(struct generate_arguments *arguments, const struct said *said, struct error *error) {
    const int prompts =
        (arguments->prompt != NULL) + (arguments->prompt_file != NULL) + (arguments->tokens_file != NULL);
    if (prompts > 1)
        return error_set(error, STATUS_USAGE, "--prompt, --prompt-file and --tokens: only one of them can be given");
    if (prompts == 0 && isatty(STDIN_FILENO) == 1)
        return error_set(error, STATUS_USAGE, "there is no prompt: give --prompt, --prompt-file or --tokens");
    if (prompts == 0)
        arguments->prompt_file = "-";
    if (said->bos && said->no_bos)
        return error_set(error, STATUS_USAGE, "--bos and --no-bos: only one of them can be given");
    if (said->bos && arguments->tokens_file)
        return error_set(error, STATUS_USAGE, "--bos goes with a text; the tokens of --tokens are taken as they are");
    arguments->bos = said->bos ? BOS_ALWAYS : said->no_bos ? BOS_NEVER : BOS_OF_TOKENIZER;
    return STATUS_OK;
}

static enum status seed_choose(uint64_t *seed, struct error *error) {
    uint32_t random;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        return error_set(error, STATUS_IO, "this machine gives no random seed; choose one with --seed");
    *seed = random;
    return STATUS_OK;
}

enum status generate_arguments_parse(int argc, char **argv, struct generate_arguments *arguments, bool *help,
                                     struct error *error) {
    *arguments = (struct generate_arguments){
        .max_tokens = TOKENS_DEFAULT,
        .sampling = {.top_p = 1},
        .decode = {.jobs = processor_count(), .cpu = cpu_best(), .memory = option_memory_default()}};
    struct said said = {0};
    struct decode_options *decode = &arguments->decode;
    struct sampler_options *sampling = &arguments->sampling;
    const struct command_option options[] = {
        {"prompt", .text = &arguments->prompt},
        {"prompt-file", .text = &arguments->prompt_file},
        {"tokens", .text = &arguments->tokens_file},
        {"bos", .flag = &said.bos},
        {"no-bos", .flag = &said.no_bos},
        {"max-tokens", .number = &arguments->max_tokens, .least = 1, .most = TOKENS_MAX},
        {"ignore-eos", .flag = &arguments->ignore_eos},
        {"temperature", .flag = &said.temperature, .parse = temperature_parse, .place = &sampling->temperature},
        {"top-p", .flag = &said.top_p, .parse = top_p_parse, .place = &sampling->top_p},
        {"seed", .flag = &said.seed, .parse = seed_parse, .place = &sampling->seed},
        {"activations", .parse = option_activations, .place = &decode->model.activations_float},
        {"fused-scales", .flag = &decode->model.fused_scales},
        {"kv-cache", .parse = option_kv_cache, .place = &decode->kv_cache},
        {"memory", .size = &decode->memory, .example = "16GiB"},
        {"jobs", .number = &decode->jobs, .least = 1, .most = OPTION_JOBS_MOST},
        {"cpu", .parse = option_cpu, .place = &decode->cpu},
        {"device", .parse = option_device, .place = &decode->device},
        {"device-memory", .parse = option_device_memory, .place = &decode->device},
        {"dry-run", .flag = &decode->plan_only},
        {"json", .flag = &arguments->json},
        {"quiet", .flag = &decode->quiet},
        {0},
    };
    enum status status = options_read("generate", argc, argv, options, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 1)
        return error_set(error, STATUS_USAGE, "generate takes one folder, MODEL; see 'qstream generate --help'");
    arguments->model = argv[optind];
    if (said.top_p && !said.temperature)
        arguments->sampling.temperature = 1;
    if (arguments->decode.device.memory > 0 && arguments->decode.device.kind == DEVICE_CPU)
        return error_set(error, STATUS_USAGE, "--device-memory goes with --device cuda");
    status = prompt_check(arguments, &said, error);
    return status == STATUS_OK && !said.seed ? seed_choose(&arguments->sampling.seed, error) : status;
}
