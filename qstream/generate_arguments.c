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

enum option_code {
    OPTION_PROMPT = 1000,
    OPTION_PROMPT_FILE,
    OPTION_TOKENS,
    OPTION_BOS,
    OPTION_NO_BOS,
    OPTION_MAX_TOKENS,
    OPTION_IGNORE_EOS,
    OPTION_TEMPERATURE,
    OPTION_TOP_P,
    OPTION_SEED,
    OPTION_ACTIVATIONS,
    OPTION_FUSED_SCALES,
    OPTION_KV_CACHE,
    OPTION_MEMORY,
    OPTION_JOBS,
    OPTION_CPU,
    OPTION_DEVICE,
    OPTION_DEVICE_MEMORY,
    OPTION_DRY_RUN,
    OPTION_JSON,
    OPTION_QUIET
};

static const struct option options[] = {
    {"prompt", required_argument, NULL, OPTION_PROMPT},
    {"prompt-file", required_argument, NULL, OPTION_PROMPT_FILE},
    {"tokens", required_argument, NULL, OPTION_TOKENS},
    {"bos", no_argument, NULL, OPTION_BOS},
    {"no-bos", no_argument, NULL, OPTION_NO_BOS},
    {"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
    {"ignore-eos", no_argument, NULL, OPTION_IGNORE_EOS},
    {"temperature", required_argument, NULL, OPTION_TEMPERATURE},
    {"top-p", required_argument, NULL, OPTION_TOP_P},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"activations", required_argument, NULL, OPTION_ACTIVATIONS},
    {"fused-scales", no_argument, NULL, OPTION_FUSED_SCALES},
    {"kv-cache", required_argument, NULL, OPTION_KV_CACHE},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"jobs", required_argument, NULL, OPTION_JOBS},
    {"cpu", required_argument, NULL, OPTION_CPU},
    {"device", required_argument, NULL, OPTION_DEVICE},
    {"device-memory", required_argument, NULL, OPTION_DEVICE_MEMORY},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"json", no_argument, NULL, OPTION_JSON},
    {"quiet", no_argument, NULL, OPTION_QUIET},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

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

static enum status temperature_parse(const char *value, double *temperature, struct error *error) {
    static const char problem[] = "--temperature takes 0, or a number from 0.001 to 100";
    enum status status = real_parse(value, 0, temperature_most, temperature, problem, error);
    if (status == STATUS_OK && *temperature > 0 && *temperature < SAMPLER_COLDEST)
        return error_set(error, STATUS_USAGE, "%s, not '%s'", problem, value);
    return status;
}

static enum status top_p_parse(const char *value, double *top_p, struct error *error) {
    static const char problem[] = "--top-p takes a probability above 0, at most 1";
    enum status status = real_parse(value, 0, 1, top_p, problem, error);
    return status == STATUS_OK && *top_p == 0 ? error_set(error, STATUS_USAGE, "%s, not '%s'", problem, value) : status;
}

static enum status seed_parse(const char *value, uint64_t *seed, struct error *error) {
    uint32_t number;
    enum status status = option_number("--seed", value, 0, UINT32_MAX, &number, error);
    if (status == STATUS_OK)
        *seed = number;
    return status;
}

static enum status activations_parse(const char *value, bool *as_float, struct error *error) {
    *as_float = strcmp(value, "float") == 0;
    return *as_float || strcmp(value, "as-served") == 0
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "--activations takes as-served or float, not '%s'", value);
}

static enum status kv_cache_parse(const char *value, enum kv_cache *kv_cache, struct error *error) {
    static const char *const names[] = {[KV_CACHE_AUTO] = "auto", [KV_CACHE_BF16] = "bf16", [KV_CACHE_FP8] = "fp8"};
    for (enum kv_cache i = KV_CACHE_AUTO; i <= KV_CACHE_FP8; i++)
        if (strcmp(value, names[i]) == 0) {
            *kv_cache = i;
            return STATUS_OK;
        }
    return error_set(error, STATUS_USAGE, "--kv-cache takes auto, bf16 or fp8, not '%s'", value);
}

/* ---- options ---- */

/* What the command line is read into. */
struct parsing {
    struct generate_arguments *arguments;
    struct said said;
};

static enum status option_parse(int option, const char *value, void *context, struct error *error) {
    struct generate_arguments *arguments = ((struct parsing *)context)->arguments;
    struct said *said = &((struct parsing *)context)->said;
    struct decode_options *decode = &arguments->decode;
    switch (option) {
    case OPTION_PROMPT:
        arguments->prompt = value;
        return STATUS_OK;
    case OPTION_PROMPT_FILE:
        arguments->prompt_file = value;
        return STATUS_OK;
    case OPTION_TOKENS:
        arguments->tokens_file = value;
        return STATUS_OK;
    case OPTION_BOS:
        said->bos = true;
        return STATUS_OK;
    case OPTION_NO_BOS:
        said->no_bos = true;
        return STATUS_OK;
    case OPTION_MAX_TOKENS:
        return option_number("--max-tokens", value, 1, TOKENS_MAX, &arguments->max_tokens, error);
    case OPTION_IGNORE_EOS:
        arguments->ignore_eos = true;
        return STATUS_OK;
    case OPTION_TEMPERATURE:
        said->temperature = true;
        return temperature_parse(value, &arguments->sampling.temperature, error);
    case OPTION_TOP_P:
        said->top_p = true;
        return top_p_parse(value, &arguments->sampling.top_p, error);
    case OPTION_SEED:
        said->seed = true;
        return seed_parse(value, &arguments->sampling.seed, error);
    case OPTION_ACTIVATIONS:
        return activations_parse(value, &decode->model.activations_float, error);
    case OPTION_FUSED_SCALES:
        decode->model.fused_scales = true;
        return STATUS_OK;
    case OPTION_KV_CACHE:
        return kv_cache_parse(value, &decode->kv_cache, error);
    case OPTION_MEMORY:
        return option_memory(value, &decode->memory, error);
    case OPTION_JOBS:
        return option_jobs(value, &decode->jobs, error);
    case OPTION_CPU:
        return option_cpu(value, &decode->cpu, error);
    case OPTION_DEVICE:
        return option_device(value, &decode->device, error);
    case OPTION_DEVICE_MEMORY:
        return option_device_memory(value, &decode->device, error);
    case OPTION_DRY_RUN:
        decode->plan_only = true;
        return STATUS_OK;
    case OPTION_JSON:
        arguments->json = true;
        return STATUS_OK;
    default: /* OPTION_QUIET */
        decode->quiet = true;
        return STATUS_OK;
    }
}

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
    struct parsing parsing = {.arguments = arguments};
    const struct said *said = &parsing.said;
    enum status status = options_read("generate", argc, argv, options, option_parse, &parsing, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 1)
        return error_set(error, STATUS_USAGE, "generate takes one folder, MODEL; see 'qstream generate --help'");
    arguments->model = argv[optind];
    if (said->top_p && !said->temperature)
        arguments->sampling.temperature = 1;
    if (arguments->decode.device.memory > 0 && arguments->decode.device.kind == DEVICE_CPU)
        return error_set(error, STATUS_USAGE, "--device-memory goes with --device cuda");
    status = prompt_check(arguments, said, error);
    return status == STATUS_OK && !said->seed ? seed_choose(&arguments->sampling.seed, error) : status;
}
