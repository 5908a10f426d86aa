/*
 * Limits for the loss of quantized weights, by role or by name: from the command line and from a file.
 *
 *   {"schema": "qstream.thresholds/1", "name": "...", "description": "...",
 *    "rules": [{"role": "mlp", "min_sqnr_db": 17.5},
 *              {"match": "re:model\\.layers\\.0\\.", "max_rel_error": 0.12, "comment": "..."}]}
 *
 * Recognized besides: "optional": true (it may apply to nothing) and "comment". Options are not optional.
 * A rule with neither role nor match is for every quantized weight; one with both needs both. For each limit the last
 * rule that says something about it and that matches counts; options of the command line come after the file's rules.
 */
#ifndef QSTREAM_VERIFY_THRESHOLDS_H
#define QSTREAM_VERIFY_THRESHOLDS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/checkpoint.h"
#include "common/status.h"

struct pattern;

/* What a weight must keep; NAN where there is no such limit. */
struct limits {
    double min_sqnr_db;   /* at least */
    double max_rel_error; /* at most */
};

struct threshold_rule {
    enum role role;          /* ROLES: any */
    struct pattern *pattern; /* of the module's name; NULL: any */
    bool optional;
    char *text; /* as the user wrote it, for messages */
    struct limits limits;
    size_t matches; /* weights that it applied to */
};

struct thresholds {
    char *name; /* of the file, NULL without one */
    struct threshold_rule *rules;
    size_t count;
};

/* Reads a file; its rules go before those that are there. Mistakes are STATUS_BAD_INPUT and name the rule. */
enum status thresholds_read(struct thresholds *thresholds, const char *path, struct error *error);

enum limit { LIMIT_MIN_SQNR, LIMIT_MAX_REL };

/*
 * Adds what stands behind --min-sqnr or --max-rel: NUMBER, ROLE=NUMBER or PATTERN=NUMBER (the last '=' counts). A word
 * that is a role (common/checkpoint.h) is one; else it is a pattern of a module's name. STATUS_USAGE when it is wrong.
 */
enum status thresholds_add(struct thresholds *thresholds, enum limit limit, const char *argument, struct error *error);

/* The limits of a module, and counts the rules that apply. Not for several threads at once. */
enum status thresholds_for(struct thresholds *thresholds, const char *module, enum role role, struct limits *limits,
                           struct error *error);

/* After all modules: STATUS_USAGE naming a rule that applied to no weight; NULL `error` is not allowed. */
enum status thresholds_check_used(const struct thresholds *thresholds, struct error *error);

void thresholds_free(struct thresholds *thresholds);

#endif
