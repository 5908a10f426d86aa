/*
 * Targets and entries of `ignore`: names and re: patterns of quantization_config, and the lists in which loaders go
 * through them. Patterns match from the start of a name, as Python's re.match does.
 */
#ifndef QSTREAM_INSPECT_ENTRIES_H
#define QSTREAM_INSPECT_ENTRIES_H

#include "common/architecture.h"
#include "common/name_table.h"
#include "common/pattern.h"

enum { NO_ENTRY = UINT32_MAX };

/* A target, or an entry of `ignore`. */
struct config_entry {
    const char *text;         /* as config.json has it */
    char *mapped;             /* as vLLM reads it */
    uint32_t group;           /* of a target */
    struct pattern *pattern;  /* of a re: entry that compiles */
    struct pattern *anywhere; /* the same, free to match inside a name */
    bool is_regex, is_class;  /* is_class: it named a class, and no module */
    char *problem;            /* why the pattern cannot be used */
    /* which modules it was found to match, by name */
    uint64_t by_checkpoint_name, by_runtime_name, by_class, inside_names;
};

/* What a loader goes through, in its order. */
struct entry_list {
    uint32_t *order; /* indices into the entries */
    uint32_t *group; /* of each place in the order: where a target stands twice, vLLM takes the later group */
    size_t count;
    uint32_t *regexes; /* places in the order that hold patterns */
    size_t regex_count;
    struct name_table plain; /* text -> place in the order */
};

/* Makes an entry; a pattern that does not compile is no error, but entry->problem. */
enum status entry_make(const struct architecture *architecture, const char *text, uint32_t group,
                       struct config_entry *entry, struct error *error);

/* Whether one of the entry's patterns matches; a search that explodes does not, and becomes entry->problem. */
bool entry_matches(struct config_entry *entry, struct pattern *pattern, const char *name);

void entries_free(struct config_entry *entries, size_t count);

/*
 * Makes the list of `count` entries in the given order (NULL: their own), by the texts that vLLM reads (`mapped`) or by
 * those that config.json has. Of equal texts the first keeps its place and the last gives the group.
 */
enum status entry_list_make(const struct config_entry *entries, size_t count, bool mapped, const uint32_t *order,
                            struct entry_list *list, struct error *error);

void entry_list_free(struct entry_list *list);

/*
 * The first place in the list, from `place` on, whose entry matches the name; NO_ENTRY. A search that comes to a
 * pattern that does not compile ends there and sets *failed (may be NULL), as it would end in an error in Python.
 */
uint32_t entry_list_match(const struct entry_list *list, struct config_entry *entries, const char *name, uint32_t place,
                          bool *failed);

/* Whether a search ends at this entry, as above. */
bool entry_search_fails(const struct config_entry *entry, bool *failed);

#endif
