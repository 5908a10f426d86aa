/*
 * Which groups of a quantization_config are for a module: targets and `ignore` against the checkpoint's names.
 *
 * An entry is "re:" and a regular expression, matched as Python's re.match does; or a class of modules, a word without a
 * dot that begins with a capital letter; or a module's name. Classes count for quantized modules that no other target
 * matches: which modules are linear, the checkpoint does not tell.
 */
#ifndef QSTREAM_VERIFY_CONFIG_GROUPS_H
#define QSTREAM_VERIFY_CONFIG_GROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/quant_config.h"

struct config_groups;

/* What a module is given. */
struct group_match {
    bool ignored;
    const uint32_t *groups; /* numbers of the groups that match, each once; good until the next call */
    size_t count;
};

/* `config` must outlive it. Fails only without memory. Free with config_groups_free. */
enum status config_groups_make(const struct quant_config *config, struct config_groups **groups, struct error *error);
void config_groups_free(struct config_groups *groups); /* NULL is fine */

/*
 * Finds the groups of the module `name`. Fast for many modules: names that differ in numbers only have the same answer
 * from patterns that speak of no particular number. Fails only without memory.
 */
enum status config_groups_match(struct config_groups *groups, const char *name, size_t length, bool quantized,
                                struct group_match *match, struct error *error);

/*
 * Patterns that are no valid regular expressions, or that took too long on a name, match nothing from then on: *text is
 * the pattern, the value says why. NULL behind the last.
 */
const char *config_groups_problem(const struct config_groups *groups, size_t number, const char **text);

#endif
