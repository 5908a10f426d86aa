/*
 * Patterns for paths in a repository, as huggingface_hub's allow_patterns and ignore_patterns take them: Python's
 * fnmatch.fnmatchcase over the whole path, by characters of UTF-8. '*' is any run of characters, '/' and a leading '.'
 * among them, '?' any one; [abc], [a-z] and [!abc] are sets; there is no escape character. A backslash counts as '/', in
 * both, and a pattern that ends in '/' means all that is below.
 */
#ifndef QSTREAM_COMMON_HUB_WILDCARD_H
#define QSTREAM_COMMON_HUB_WILDCARD_H

#include <stdbool.h>

bool wildcard_matches(const char *pattern, const char *path);

#endif
