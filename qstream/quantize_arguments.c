#include "qstream/quantize_arguments.h"

#include <string.h>

#include "common/hub/reference.h"
#include "common/text.h"
#include "common/thread_team.h"
#include "qstream/option_values.h"

const char quantize_usage[] =
    "usage: qstream quantize SRC DST --recipe FILE [OPTIONS]\n"
    "       qstream quantize SRC DST --recipe FILE --part I/N [OPTIONS]   (I from 0), then once\n"
    "       qstream quantize SRC DST --recipe FILE --finish [OPTIONS]\n"
    "\n"
    "Quantizes the checkpoint SRC, a folder or hf://org/name[@revision], into the folder DST. Memory does not grow\n"
    "with the model. Of one on the Hub, shards are downloaded, quantized and removed one after the other. A run that\n"
    "was killed goes on when the same command is given again; the result is the same to the byte.\n"
    "\n"
    "  --recipe FILE      which weight gets which format: a file, or the name of one that comes with qstream\n"
    "                     (mistral-medium-3.5-mxfp4, llama-mxfp4, qwen3-moe-mxfp4)\n"
    "  --rule RULE        how MXFP4 scales are chosen: mse (default), amax, qstream\n"
    "  --gamma SOURCE     weights for the errors of --rule qstream: none (default), layernorm, original\n"
    "  --calibrate FILE   round MXFP4 weights of layers so that the layers' outputs on this text stay close (GPTQ):\n"
    "                     the same files, of the same size, from a model that qstream can run\n"
    "  --calibrate-ids FILE\n"
    "                     the same with tokens that were made elsewhere, a JSON array of ids\n"
    "  --calibrate-tokens N\n"
    "                     tokens of the text to use (default 65536)\n"
    "  --calibrate-skip N tokens of the text to leave out at its beginning\n"
    "  --calibrate-correction SHARE\n"
    "                     how far the outputs are drawn to those of the source, 0 to 1 (default 0.25): from what a "
    "weight\n"
    "                     gives for the inputs that earlier layers leave it to what the source gives for its own\n"
    "  --shard-size SIZE  largest sum of tensor bytes in a shard, e.g. 5GB (default: shards as in the source)\n"
    "  --dry-run          print the plan and the exact size of DST; write nothing\n"
    "  --part I/N         make only this share of the shards, for a cluster with a shared file system\n"
    "  --finish           check that all parts are complete and publish DST\n"
    "  --jobs N           worker threads (default: one per processor)\n"
    "  --disk SIZE        of hf://: most of the source on the disk at once (default: the least, which --dry-run "
    "tells,\n"
    "                     and one shard more)\n"
    "  --keep-source      of hf://: keep the source, in the Hugging Face cache\n"
    "  --memory SIZE      most memory to use (default 256MiB; with --calibrate four fifths of what there is); fewer\n"
    "                     workers run where it does not suffice\n"
    "  --hash-source      also record digests of the source's bytes in qstream.json\n"
    "  --cpu LEVEL        portable, neon, avx2 or avx512 (default: the best this machine has)\n"
    "  --json             print the result as one JSON object (schema qstream.quantize/1)\n"
    "  --quiet            no progress and no summary\n"
    "  --help             print this text\n";

enum { CALIBRATE_TOKENS = 65536 };
static const double calibrate_correction = 0.25;
static const uint64_t default_memory = (uint64_t)256 << 20;

static enum status option_parse(int option, const char *value, void *context, struct error *error) {
    struct quantize_arguments *arguments = context;
    switch (option) {
    case 'r':
        arguments->recipe = value;
        return STATUS_OK;
    case 'R':
        arguments->plan.rule = scale_rule_parse(value);
        if (arguments->plan.rule == SCALE_RULES)
            return error_set(error, STATUS_USAGE, "--rule takes mse, amax or qstream, not '%s'", value);
        return STATUS_OK;
    case 'g':
        for (int i = 0; i < GAMMA_SOURCES; i++)
            if (strcmp(value, gamma_name((enum gamma_source)i)) == 0) {
                arguments->plan.gamma = (enum gamma_source)i;
                return STATUS_OK;
            }
        return error_set(error, STATUS_USAGE, "--gamma takes none, layernorm or original, not '%s'", value);
    case 'C':
    case 'I':
        if (arguments->calibrate)
            return error_set(error, STATUS_USAGE, "--calibrate and --calibrate-ids: give one of them, once");
        arguments->calibrate = value;
        arguments->calibrate_ids = option == 'I';
        return STATUS_OK;
    case 'T':
        return option_number("--calibrate-tokens", value, 1, UINT32_MAX, &arguments->calibrate_tokens, error);
    case 'S':
        return option_number("--calibrate-skip", value, 0, UINT32_MAX, &arguments->calibrate_skip, error);
    case 'Q':
        arguments->correction_given = true;
        return option_share("--calibrate-correction", value, 0, &arguments->calibrate_correction, error);
    case 's':
        if (!text_parse_size(value, &arguments->plan.shard_size))
            return error_set(error, STATUS_USAGE, "--shard-size takes a size such as 5GB, not '%s'", value);
        return STATUS_OK;
    case 'd':
        if (!text_parse_size(value, &arguments->disk))
            return error_set(error, STATUS_USAGE, "--disk takes a size such as 20GB, not '%s'", value);
        return STATUS_OK;
    case 'k':
        arguments->keep_source = true;
        return STATUS_OK;
    case 'm':
        if (!text_parse_size(value, &arguments->memory))
            return error_set(error, STATUS_USAGE, "--memory takes a size such as 256MiB, not '%s'", value);
        return STATUS_OK;
    case 'j':
        return option_jobs(value, &arguments->jobs, error);
    case 'p':
        return option_part(value, &arguments->part, &arguments->parts, error);
    case 'c':
        return option_cpu(value, &arguments->cpu, error);
    case 'n':
        arguments->dry_run = true;
        return STATUS_OK;
    case 'f':
        arguments->finish = true;
        return STATUS_OK;
    case 'H':
        arguments->plan.hash_source = true;
        return STATUS_OK;
    case 'J':
        arguments->json = true;
        return STATUS_OK;
    case 'q':
        arguments->quiet = true;
        return STATUS_OK;
    default:
        return error_set(error, STATUS_USAGE, "see 'qstream quantize --help'");
    }
}

enum status quantize_arguments_parse(int argc, char **argv, struct quantize_arguments *arguments, bool *help,
                                     struct error *error) {
    static const struct option options[] = {
        {"recipe", required_argument, NULL, 'r'},
        {"rule", required_argument, NULL, 'R'},
        {"gamma", required_argument, NULL, 'g'},
        {"calibrate", required_argument, NULL, 'C'},
        {"calibrate-ids", required_argument, NULL, 'I'},
        {"calibrate-tokens", required_argument, NULL, 'T'},
        {"calibrate-skip", required_argument, NULL, 'S'},
        {"calibrate-correction", required_argument, NULL, 'Q'},
        {"shard-size", required_argument, NULL, 's'},
        {"disk", required_argument, NULL, 'd'},
        {"memory", required_argument, NULL, 'm'},
        {"jobs", required_argument, NULL, 'j'},
        {"part", required_argument, NULL, 'p'},
        {"cpu", required_argument, NULL, 'c'},
        {"dry-run", no_argument, NULL, 'n'},
        {"finish", no_argument, NULL, 'f'},
        {"keep-source", no_argument, NULL, 'k'},
        {"hash-source", no_argument, NULL, 'H'},
        {"json", no_argument, NULL, 'J'},
        {"quiet", no_argument, NULL, 'q'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    *arguments = (struct quantize_arguments){
        .plan = {.rule = SCALE_RULE_MSE, .gamma = GAMMA_NONE}, .jobs = processor_count(), .cpu = cpu_best()};
    enum status status = options_read("quantize", argc, argv, options, option_parse, arguments, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 2)
        return error_set(error, STATUS_USAGE,
                         "quantize takes two folders, SRC (or hf://org/name) and DST; see 'qstream quantize --help'");
    arguments->source = argv[optind];
    if (arguments->memory == 0)
        arguments->memory = arguments->calibrate ? option_memory_default() : default_memory;
    arguments->destination = argv[optind + 1];
    if (!arguments->recipe)
        return error_set(error, STATUS_USAGE, "--recipe is missing; see 'qstream quantize --help'");
    if (arguments->finish && arguments->parts)
        return error_set(error, STATUS_USAGE, "--part and --finish exclude each other");
    if (arguments->plan.gamma != GAMMA_NONE && arguments->plan.rule != SCALE_RULE_QSTREAM)
        return error_set(error, STATUS_USAGE, "--gamma goes with --rule qstream");
    if (!arguments->calibrate &&
        (arguments->calibrate_tokens || arguments->calibrate_skip || arguments->correction_given))
        return error_set(error, STATUS_USAGE,
                         "--calibrate-tokens, --calibrate-skip and --calibrate-correction go with --calibrate");
    if (arguments->calibrate) {
        if (arguments->parts || arguments->finish)
            return error_set(
                error, STATUS_USAGE,
                "--calibrate and %s exclude each other: a layer is rounded for what the layers before it give",
                arguments->parts ? "--part" : "--finish");
        if (arguments->plan.hash_source)
            return error_set(error, STATUS_USAGE, "--calibrate and --hash-source exclude each other");
        if (hub_reference_is(arguments->source))
            return error_set(error, STATUS_USAGE,
                             "--calibrate reads the source several times: download it first, 'qstream fetch %s'",
                             arguments->source + strlen("hf://"));
        if (arguments->calibrate_tokens == 0)
            arguments->calibrate_tokens = CALIBRATE_TOKENS;
        if (!arguments->correction_given)
            arguments->calibrate_correction = calibrate_correction;
    }
    if ((arguments->disk || arguments->keep_source) && !hub_reference_is(arguments->source))
        return error_set(error, STATUS_USAGE, "%s goes with a model on the Hub, hf://org/name; '%s' is on this machine",
                         arguments->disk ? "--disk" : "--keep-source", arguments->source);
    if (arguments->disk && arguments->keep_source)
        return error_set(error, STATUS_USAGE, "--disk bounds what --keep-source keeps: give one of them");
    return STATUS_OK;
}
