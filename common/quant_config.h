/*
 * quantization_config in the form that compressed-tensors defines: groups of targets with their arguments.
 *
 * Reading follows compressed_tensors 0.20 (quantization/quant_config.py, quant_scheme.py, quant_args.py), whose
 * pydantic models coerce ("4" is a number of bits, 1 is true), fill in defaults, and refuse unknown keys. What they
 * refuse does not end the reading here: each args, group and the whole keep the first reason, because loaders differ
 * in which of them they look at.
 */
#ifndef QSTREAM_COMMON_QUANT_CONFIG_H
#define QSTREAM_COMMON_QUANT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/quant_args.h"
#include "common/status.h"

struct json_t;

/* One entry of config_groups. */
struct quant_group {
    char *name;
    char **targets;
    size_t target_count;
    struct quant_args weights, inputs, outputs;
    char *format;        /* NULL: none of its own */
    bool preset;         /* a list of targets instead of an object: its name stands for arguments */
    bool unreadable;     /* not an object with targets, a list of strings or a string: vLLM fails on it */
    char *refusal;       /* of the group itself, not of its args */
    bool format_refused; /* the refusal is about the format */
};

struct quant_config {
    char *method; /* quant_method, NULL when there is none */
    char *format; /* NULL: none */
    char *status; /* quantization_status, NULL: none */
    struct quant_group *groups;
    size_t group_count;
    char **ignore;
    size_t ignore_count;
    struct quant_args kv_cache;
    bool nested;   /* it stands in text_config, not at the top */
    char *refusal; /* of the top level */
};

/*
 * Reads the JSON value of quantization_config. Fails only without memory: what is wrong with it stands in the
 * refusals. Free with quant_config_free, also after an error.
 */
enum status quant_config_read(const struct json_t *json, struct quant_config *config, struct error *error);

void quant_config_free(struct quant_config *config);

/* Whether two groups have the same arguments, whatever their targets. */
bool quant_groups_equal(const struct quant_config *config, size_t a, size_t b);

/*
 * The format that compressed-tensors infers for a group without one (compressors/format.py:infer_module_format), or
 * the group's own.
 */
const char *quant_group_format(const struct quant_group *group);

#endif
