/*
 * The audit: what loaders will do with a checkpoint, and what is wrong with it.
 */
#ifndef QSTREAM_INSPECT_AUDIT_H
#define QSTREAM_INSPECT_AUDIT_H

#include "inspect/finding.h"
#include "inspect/fit.h"
#include "inspect/inspection.h"
#include "inspect/resolution.h"

struct prediction {
    enum outcome outcome;
    enum resolution resolution;
    uint32_t group, target; /* NO_ENTRY: none */
    const char *scheme;     /* vLLM's class, or NULL */
    char *reason;           /* NULL when it loads as meant, or reasons were not asked for */
};

/* One module's fate. */
struct module_predictions {
    struct prediction by[LOADERS];
};

struct audit_options {
    unsigned loaders;      /* bits: whose troubles are findings */
    enum severity fail_on; /* for JUnit: what counts as a failure */
    bool headers_only;     /* do not read scales */
    bool reasons;          /* keep a reason for each module */
    unsigned jobs;
    bool quiet;
};

/* What `qstream audit` does when it is not told otherwise. */
struct audit_options audit_options_default(void);

struct audit {
    struct inspection *inspection;
    struct audit_options options;
    struct resolutions resolutions;
    struct findings findings;
    struct module_predictions *modules; /* one for each of inspection.modules; only candidates count */
    char *config_error[LOADERS];        /* why a loader refuses quantization_config as a whole, or NULL */
    bool predicted;                     /* compressed-tensors: there are predictions */
    bool plain;                         /* nothing is quantized and nothing says so */
};

/* Runs every rule. Free with audit_free, also after an error. `inspection` must outlive it. */
enum status audit_run(struct inspection *inspection, const struct audit_options *options, struct audit *audit,
                      struct error *error);

void audit_free(struct audit *audit);

/* Whether no finding is as severe as options.fail_on. */
bool audit_passed(const struct audit *audit);

/* A candidate for quantization that has predictions. */
bool audit_module_counts(const struct audit *audit, size_t module);

/* A candidate that vLLM or transformers does not load as meant. */
bool audit_module_faulty(const struct audit *audit, size_t module);

/* Notes a finding whose message and fix are formatted. */
void audit_find(struct audit *audit, enum finding_id id, enum severity severity, unsigned loaders, const char *cause,
                const char *subject, const char *fix, const char *format, ...) __attribute__((format(printf, 8, 9)));

/* An `ignore` entry that configs list whether or not the model has such modules. */
bool ignore_is_conventional(const char *text);

/* The rules, by what they look at. */
void audit_files(struct audit *audit);  /* shards and index */
void audit_config(struct audit *audit); /* quantization_config in itself */
/* The formats of the groups and the top level: readers go by the groups', tools and people by the other. After modules. */
void audit_formats(struct audit *audit);
enum status audit_modules(struct audit *audit, struct error *error); /* modules, groups and tensors */
void audit_patterns(struct audit *audit);                            /* regular expressions */
void audit_entries(struct audit *audit);                             /* targets and ignore entries; after modules */
enum status audit_values(struct audit *audit, struct error *error);  /* scales */
enum status audit_architecture(struct audit *audit, struct error *error); /* figures of config.json */
void audit_other_loaders(struct audit *audit);                            /* SGLang and TensorRT-LLM */

/* A module's name, NUL-terminated, in `out`. */
enum { MODULE_NAME_MAX = 512 };
const char *module_name_text(const struct module *module, char out[MODULE_NAME_MAX]);

#endif
