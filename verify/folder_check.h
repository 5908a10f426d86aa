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
    uint64_t memory;                 /* that may be used; JSON files too large for it are compared byte by byte */
    bool hash;                       /* read the shards whole and compare their digests too */
    unsigned jobs;                   /* threads that hash */
    bool quiet;                      /* no progress on stderr */
};

/*
 * config.json of the output against the source's: every top-level member, and every member of text_config, must mean the
 * same (json_compare.h), but for quantization_config, transformers_version and _name_or_path. torch_dtype and dtype are
 * two names of one thing.
 */
enum status config_keys_check(const struct folder_check *check, struct verify_findings *findings, struct error *error);

/* How the members of one JSON object are to those of another, those left out that say which program wrote it. */
enum members { MEMBERS_SAME, MEMBERS_ADDED, MEMBERS_CHANGED };

/* MEMBERS_ADDED: all of the source's are there with their values, and others. What is no object is MEMBERS_CHANGED. */
enum status json_members_compare(const char *source, size_t source_length, const char *output, size_t output_length,
                                 enum members *result, struct error *error);

/*
 * quantization_config against the tensors: each quantized module has exactly one kind of group, whose arguments are
 * those of the format that it is stored in; each plain module has none. Modules of one format in one group that have the
 * same flaw are one finding, whose subject is the first of them.
 */
enum status config_formats_check(const struct folder_check *check, struct verify_findings *findings,
                                 struct error *error);

/*
 * Files of the source's folder that go along (tokenizer, templates, generation config, licence...): there, and equal;
 * JSON files may be written otherwise. Without a manifest a missing one is a warning.
 */
enum status sidecar_files_check(const struct folder_check *check, struct verify_findings *findings,
                                struct error *error);

/*
 * Sizes and digests of the manifest's files; shards, and other files of 64 MiB and more, only by size unless `hash`.
 * The source's shards by their sizes. STATUS_INTERRUPTED after SIGINT or SIGTERM.
 */
enum status manifest_files_check(const struct folder_check *check, struct verify_findings *findings,
                                 struct error *error);

#endif
