#include "qstream/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/listing.h"
#include "common/version.h"

const char *source_name(const struct folder *source, char *out, size_t size) {
    const struct hub_listing *listing = folder_listing(source);
    if (listing) {
        snprintf(out, size, "%s", listing->reference.repository);
        return out;
    }
    char *real = realpath(folder_path(source), NULL);
    const char *full = real ? real : folder_path(source);
    const char *models = strstr(full, "/models--");
    const char *snapshots = models ? strstr(models, "/snapshots/") : NULL;
    if (snapshots) {
        snprintf(out, size, "%.*s", (int)(snapshots - models - 9), models + 9);
        char *dashes = strstr(out, "--");
        if (dashes) {
            *dashes = '/';
            memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
        }
    } else {
        const char *slash = strrchr(full, '/');
        snprintf(out, size, "%s", slash && slash[1] ? slash + 1 : full);
    }
    free(real);
    return out;
}

static uint64_t source_total(const struct plan *plan) {
    uint64_t total = 0;
    for (size_t i = 0; i < plan->share_count; i++)
        total += plan->shares[i].bytes_in;
    return total;
}

void plan_table(const struct plan *plan, uint64_t folder_bytes, struct text *out) {
    char in[TEXT_SIZE_MAX], made[TEXT_SIZE_MAX], folder[TEXT_SIZE_MAX];
    uint64_t tensors = 0;
    text_printf(out, "%-10s %-7s %9s %10s %10s\n", "role", "format", "tensors", "in", "out");
    for (size_t i = 0; i < plan->share_count; i++) {
        const struct plan_share *share = &plan->shares[i];
        tensors += share->tensors;
        text_printf(out, "%-10s %-7s %9" PRIu64 " %10s %10s\n", role_name(share->role),
                    recipe_format_name(share->format), share->tensors, text_size(share->bytes_in, in),
                    text_size(share->bytes_out, made));
    }
    text_printf(out, "%-10s %-7s %9" PRIu64 " %10s %10s   %.1f %% of the source, %.2f bits per weight\n", "total", "",
                tensors, text_size(source_total(plan), in), text_size(plan->tensor_bytes, made),
                100.0 * (double)plan->tensor_bytes / (double)source_total(plan),
                8.0 * (double)plan->tensor_bytes / (double)plan->parameters);
    text_printf(out, "folder: %" PRIu64 " bytes (%s), %zu shard%s\n", folder_bytes, text_size(folder_bytes, folder),
                plan->shard_count, text_plural(plan->shard_count));
}

void plan_json(const struct plan *plan, uint64_t folder_bytes, struct text *out) {
    text_printf(out, "\"rule\": \"%s\", \"gamma\": \"%s\", ", scale_rule_name(plan->options.rule),
                gamma_name(plan->options.gamma));
    text_printf(out,
                "\"folder_bytes\": %" PRIu64 ", \"tensor_bytes\": %" PRIu64 ", \"source_tensor_bytes\": %" PRIu64
                ", \"parameters\": %" PRIu64 ", \"roles\": [",
                folder_bytes, plan->tensor_bytes, source_total(plan), plan->parameters);
    for (size_t i = 0; i < plan->share_count; i++) {
        const struct plan_share *share = &plan->shares[i];
        text_printf(out,
                    "%s{\"role\": \"%s\", \"format\": \"%s\", \"tensors\": %" PRIu64 ", \"bytes_in\": %" PRIu64
                    ", \"bytes_out\": %" PRIu64 "}",
                    i ? ", " : "", role_name(share->role), recipe_format_name(share->format), share->tensors,
                    share->bytes_in, share->bytes_out);
    }
    text_append_string(out, "], \"shards\": [");
    for (size_t i = 0; i < plan->shard_count; i++) {
        text_append_string(out, i ? ", {\"file\": " : "{\"file\": ");
        text_append_json_string(out, plan->shards[i].file);
        text_printf(out, ", \"bytes\": %" PRIu64 ", \"tensors\": %u}", plan->shards[i].size,
                    plan->shards[i].output_count);
    }
    text_append_string(out, "]");
}

static const char *scheme_text(enum scheme scheme) {
    static const char *const texts[SCHEMES] = {
        [SCHEME_MXFP4] = "MXFP4: 4-bit E2M1 codes, one E8M0 scale per 32 input channels, activations not quantized",
        [SCHEME_FP8_TENSOR_STATIC] = "FP8 E4M3, one scale per weight, static per-tensor FP8 activations (the source's)",
        [SCHEME_FP8_TENSOR_DYNAMIC] = "FP8 E4M3, one scale per weight, dynamic per-token FP8 activations",
        [SCHEME_FP8_CHANNEL_STATIC] = "FP8 E4M3, one scale per output channel, static per-tensor FP8 activations",
        [SCHEME_FP8_CHANNEL_DYNAMIC] = "FP8 E4M3, one scale per output channel, dynamic per-token FP8 activations",
        [SCHEME_FP8_BLOCK] = "FP8 E4M3 in blocks (the source's), dynamic FP8 activations",
        [SCHEME_MXFP8] = "MXFP8: FP8 E4M3, one E8M0 scale per 32 input channels (the source's)",
    };
    return texts[scheme];
}

void card_render(const struct plan *plan, const struct recipe *recipe, struct text *out) {
    char name[256], in[TEXT_SIZE_MAX], made[TEXT_SIZE_MAX];
    source_name(plan->checkpoint->folder, name, sizeof name);
    text_append_string(out, "---\nlibrary_name: transformers\ntags:\n- compressed-tensors\n- qstream\n---\n\n");
    text_printf(out, "# %s, quantized\n\n", name);
    text_printf(out,
                "Made from `%s` by qstream " QSTREAM_VERSION
                " with the recipe `%s`. `qstream.json` beside this file records the source's identity, the recipe, the "
                "options and the SHA-256 of every file.\n\n",
                name, recipe->name);
    text_append_string(out, "| scheme | modules |\n| --- | ---: |\n");
    size_t plain = 0;
    for (enum scheme scheme = 0; scheme < SCHEMES; scheme++) {
        size_t count = 0;
        for (size_t m = 0; m < plan->module_count; m++)
            count += plan->modules[m].scheme == scheme;
        if (count > 0)
            text_printf(out, "| %s | %zu |\n", scheme_text(scheme), count);
    }
    for (size_t m = 0; m < plan->module_count; m++)
        plain += plan->modules[m].scheme == SCHEME_NONE;
    text_printf(out, "| as in the source | %zu |\n\n", plain);
    text_append_string(out, "| role | format | tensors | bytes in the source | bytes here |\n"
                            "| --- | --- | ---: | ---: | ---: |\n");
    for (size_t i = 0; i < plan->share_count; i++) {
        const struct plan_share *share = &plan->shares[i];
        text_printf(out, "| %s | %s | %" PRIu64 " | %" PRIu64 " | %" PRIu64 " |\n", role_name(share->role),
                    recipe_format_name(share->format), share->tensors, share->bytes_in, share->bytes_out);
    }
    text_printf(out, "\n%s of tensors became %s: %.1f %%, %.2f bits per weight over %" PRIu64 " weights.\n\n",
                text_size(source_total(plan), in), text_size(plan->tensor_bytes, made),
                100.0 * (double)plan->tensor_bytes / (double)source_total(plan),
                8.0 * (double)plan->tensor_bytes / (double)plan->parameters, plan->parameters);
    bool mxfp4 = false;
    for (size_t m = 0; m < plan->module_count && !mxfp4; m++)
        mxfp4 = plan->modules[m].scheme == SCHEME_MXFP4;
    const struct plan_calibration *calibration = &plan->options.calibration;
    if (mxfp4 && calibration->windows > 0)
        text_printf(
            out,
            "MXFP4 weights of the language model's layers were rounded so that the layers' outputs stay close on a "
            "calibration text of %" PRIu64 " tokens (GPTQ), in the same bytes as without.\n\n",
            (uint64_t)calibration->windows * calibration->window);
    else if (mxfp4)
        text_printf(out, "MXFP4 scales were chosen by the rule `%s` (gamma: %s), codes rounded to nearest.\n\n",
                    scale_rule_name(plan->options.rule), gamma_name(plan->options.gamma));
    text_append_string(out, "Perplexity and task accuracy were not measured when this card was written.\n\n"
                            "The quantization is described in `config.json` in the compressed-tensors format, which "
                            "vLLM and transformers read:\n\n```\nvllm serve PATH_OF_THIS_FOLDER\n```\n");
}
