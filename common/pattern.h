/*
 * Name patterns, as recipes and quantization configs write them.
 *
 *   re:REGEX   a regular expression, matched from the start of the name but not necessarily to its end, as
 *              Python's re.match does (PCRE2 syntax, of which Python's common subset behaves the same)
 *   GLOB       anything else: *, ? and [...] over the whole name; without them, the exact name
 *
 * A pattern that takes unreasonably long (catastrophic backtracking) counts as an error, not as a hang.
 */
#ifndef QSTREAM_COMMON_PATTERN_H
#define QSTREAM_COMMON_PATTERN_H

#include <stdbool.h>

#include "common/status.h"

struct pattern;

/* Compiles `text`. STATUS_BAD_INPUT with the place of the mistake when it is no valid pattern. */
enum status pattern_new(const char *text, struct pattern **pattern, struct error *error);

/* Sets *matches. STATUS_BAD_INPUT when matching exceeds its limits. Not for several threads at once. */
enum status pattern_match(struct pattern *pattern, const char *name, bool *matches, struct error *error);

const char *pattern_text(const struct pattern *pattern); /* as given to pattern_new */
bool pattern_is_regex(const struct pattern *pattern);
void pattern_free(struct pattern *pattern); /* NULL is fine */

#endif
