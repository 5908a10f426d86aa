/*
 * The files of the output folder besides the weights' values: config.json's keys, files carried over from the source,
 * sizes and digests of the manifest, config.json's quantization_config against the formats that the tensors have.
 */
#ifndef QSTREAM_VERIFY_FOLDER_CHECK_H
#define QSTREAM_VERIFY_FOLDER_CHECK_H

#include <stdbool.h>

#include "common/checkpoint.h"
#include "common/modules.h"
#include "verify/manifest.h"
#include "verify/verify_finding.h"

struct folder_check {
    const struct checkpoint *source, *output;
    const struct modules *output_modules;
    const struct manifest *manifest; /* NULL: the folder has none */
    bool hash;                       /* read the shards whole and compare their digests too */
    unsigned jobs;                   /* threads that hash */
    bool quiet;                      /* no progress on stderr */
};

/*
 * config.json of the output against the source's: every top-level member but quantization_config, and every member of
 * text_config but its quantization_config, must mean the same.
 */
enum status config_keys_check(const struct folder_check *check, struct verify_findings *findings, struct error *error);

/*
 * quantization_config against the tensors: each quantized module has exactly one kind of group, whose arguments are
 * those of the format that it is stored in; each plain module has none.
 */
enum status config_formats_check(const struct folder_check *check, struct verify_findings *findings,
                                 struct error *error);

/* Files of the source's folder that go along (tokenizer, templates, generation config, licence...): there, and equal. */
enum status sidecar_files_check(const struct folder_check *check, struct verify_findings *findings,
                                struct error *error);

/* Sizes and digests of the manifest's files; shards only by size unless `hash`. */
enum status manifest_files_check(const struct folder_check *check, struct verify_findings *findings,
                                 struct error *error);

#endif
