#define PCRE2_CODE_UNIT_WIDTH 8
#include "common/pattern.h"

#include <fnmatch.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { MATCH_STEPS_MAX = 1000000 }; /* some 10 ms; real patterns need hundreds */

struct pattern {
    char *text;
    pcre2_code *code; /* NULL for a glob */
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

enum status pattern_new(const char *text, struct pattern **out, struct error *error) {
    *out = NULL;
    struct pattern *pattern = calloc(1, sizeof *pattern);
    if (!pattern || !(pattern->text = strdup(text))) {
        free(pattern);
        return error_set_memory(error);
    }
    if (strncmp(text, "re:", 3) == 0) {
        int code;
        PCRE2_SIZE offset;
        pattern->code = pcre2_compile((PCRE2_SPTR)text + 3, PCRE2_ZERO_TERMINATED,
                                      PCRE2_ANCHORED | PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
        if (!pattern->code) {
            PCRE2_UCHAR reason[128];
            pcre2_get_error_message(code, reason, sizeof reason);
            enum status status = code == PCRE2_ERROR_HEAP_FAILED
                                     ? error_set_memory(error)
                                     : error_set(error, STATUS_BAD_INPUT,
                                                 "the pattern '%s' is not a valid regular expression: %s (at %zu)",
                                                 text, (char *)reason, (size_t)offset);
            pattern_free(pattern);
            return status;
        }
        pattern->match = pcre2_match_data_create_from_pattern(pattern->code, NULL);
        pattern->limits = pcre2_match_context_create(NULL);
        if (!pattern->match || !pattern->limits) {
            pattern_free(pattern);
            return error_set_memory(error);
        }
        pcre2_set_match_limit(pattern->limits, MATCH_STEPS_MAX);
        pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE); /* where it fails, matching is interpreted */
    }
    *out = pattern;
    return STATUS_OK;
}

enum status pattern_match(struct pattern *pattern, const char *name, bool *matches, struct error *error) {
    if (!pattern->code) {
        *matches = fnmatch(pattern->text, name, 0) == 0;
        return STATUS_OK;
    }
    int result = pcre2_match(pattern->code, (PCRE2_SPTR)name, strlen(name), 0, 0, pattern->match, pattern->limits);
    *matches = result >= 0;
    if (result == PCRE2_ERROR_NOMEMORY)
        return error_set_memory(error);
    if (result < 0 && result != PCRE2_ERROR_NOMATCH) {
        PCRE2_UCHAR reason[128];
        pcre2_get_error_message(result, reason, sizeof reason);
        return error_set(error, STATUS_BAD_INPUT, "the pattern '%s' fails on '%s': %s", pattern->text, name,
                         (char *)reason);
    }
    return STATUS_OK;
}

const char *pattern_text(const struct pattern *pattern) { return pattern->text; }

bool pattern_is_regex(const struct pattern *pattern) { return pattern->code != NULL; }

void pattern_free(struct pattern *pattern) {
    if (!pattern)
        return;
    pcre2_match_data_free(pattern->match);
    pcre2_match_context_free(pattern->limits);
    pcre2_code_free(pattern->code);
    free(pattern->text);
    free(pattern);
}
