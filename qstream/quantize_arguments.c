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

static enum status rule_parse(const char *value, void *place, struct error *error) {
    const enum scale_rule rule = scale_rule_parse(value);
    *(enum scale_rule *)place = rule;
    if (rule == SCALE_RULES)
        return error_set(error, STATUS_USAGE, "--rule takes mse, amax or qstream, not '%s'", value);
    return STATUS_OK;
}

static enum status gamma_parse(const char *value, void *place, struct error *error) {
    for (int i = 0; i < GAMMA_SOURCES; i++)
        if (strcmp(value, gamma_name((enum gamma_source)i)) == 0) {
            *(enum gamma_source *)place = (enum gamma_source)i;
            return STATUS_OK;
        }
    return error_set(error, STATUS_USAGE, "--gamma takes none, layernorm or original, not '%s'", value);
}

static enum status text_take(const char *value, bool is_ids, struct quantize_arguments *arguments,
                             struct error *error) {
    if (arguments->calibrate)
        return error_set(error, STATUS_USAGE, "--calibrate and --calibrate-ids: give one of them, once");
    arguments->calibrate = value;
    arguments->calibrate_ids = is_ids;
    return STATUS_OK;
}

static enum status calibrate_parse(const char *value, void *place, struct error *error) {
    return text_take(value, false, place, error);
}

static enum status calibrate_ids_parse(const char *value, void *place, struct error *error) {
    return text_take(value, true, place, error);
}

static enum status correction_parse(const char *value, void *place, struct error *error) {
    return option_share("calibrate-correction", value, 0, place, error);
}

static enum status part_parse(const char *value, void *place, struct error *error) {
    struct quantize_arguments *arguments = place;
    return option_part(value, &arguments->part, &arguments->parts, error);
}

enum status quantize_arguments_parse(int argc, char **argv, struct quantize_arguments *arguments, bool *help,
                                     struct error *error) {
    const struct command_option options[] = {
        {"recipe", .text = &arguments->recipe},
        {"rule", .parse = rule_parse, .place = &arguments->plan.rule},
        {"gamma", .parse = gamma_parse, .place = &arguments->plan.gamma},
        {"calibrate", .parse = calibrate_parse, .place = arguments},
        {"calibrate-ids", .parse = calibrate_ids_parse, .place = arguments},
        {"calibrate-tokens", .number = &arguments->calibrate_tokens, .least = 1, .most = UINT32_MAX},
        {"calibrate-skip", .number = &arguments->calibrate_skip, .least = 0, .most = UINT32_MAX},
        {"calibrate-correction", .flag = &arguments->correction_given, .parse = correction_parse,
         .place = &arguments->calibrate_correction},
        {"shard-size", .size = &arguments->plan.shard_size, .example = "5GB"},
        {"disk", .size = &arguments->disk, .example = "20GB"},
        {"memory", .size = &arguments->memory, .example = "256MiB"},
        {"jobs", .number = &arguments->jobs, .least = 1, .most = OPTION_JOBS_MOST},
        {"part", .parse = part_parse, .place = arguments},
        {"cpu", .parse = option_cpu, .place = &arguments->cpu},
        {"dry-run", .flag = &arguments->dry_run},
        {"finish", .flag = &arguments->finish},
        {"keep-source", .flag = &arguments->keep_source},
        {"hash-source", .flag = &arguments->plan.hash_source},
        {"json", .flag = &arguments->json},
        {"quiet", .flag = &arguments->quiet},
        {0},
    };
    *arguments = (struct quantize_arguments){
        .plan = {.rule = SCALE_RULE_MSE, .gamma = GAMMA_NONE}, .jobs = processor_count(), .cpu = cpu_best()};
    enum status status = options_read("quantize", argc, argv, options, help, error);
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
