#include "infer/tokenizer/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"
#include "infer/tokenizer/pattern_translate.h"

enum {
    PATTERN_LENGTH_MAX = 1 << 14,
    JIT_STACK_FIRST = 1 << 15,
    JIT_STACK_MOST = 1 << 23,
    HEAP_LIMIT = 1 << 16,     /* KiB, without JIT */
    STEPS_PER_BYTE = 1 << 10, /* those of tokenizers in use need fewer than 200, whatever the text */
    WORK_MAX = 1 << 10,       /* those of tokenizers in use have fewer than 100 */
    WORK_PER_STEP = 1 << 4
};

struct split_pattern {
    pcre2_code *code;
    struct pattern_traits traits;
    bool jit;
};

struct split_scratch {
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
    uint64_t steps, steps_max; /* of all matching so far */
    uint64_t callout_steps;    /* of a callout, for the work that may have been done since the last one */
    size_t place;              /* where the last step ended */
};

/*
 * PCRE2 10.42 takes \P{N} and \P{L} for classes without a common character when it makes repeats possessive, and its
 * JIT, where a repeat has led to nothing before, goes on with the next alternative even of an atomic group. The patterns
 * of tokenizers are as fast without either.
 */
static const uint32_t faults_off = PCRE2_NO_AUTO_POSSESS | PCRE2_NO_START_OPTIMIZE;

static enum status pattern_compile(struct split_pattern *pattern, const char *text, size_t length, bool literal,
                                   struct error *error) {
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_NEVER_BACKSLASH_C | faults_off);
    int code;
    PCRE2_SIZE offset;
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context)
        return error_set_memory(error);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF); /* what '.' stops at */
    pattern->code = pcre2_compile((PCRE2_SPTR)text, length, options, &code, &offset, context);
    pcre2_compile_context_free(context);
    if (!pattern->code) {
        char message[128];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
        return error_set(error, STATUS_BAD_INPUT, "the pattern is not supported: %s", message);
    }
    uint32_t empty = 0;
    pcre2_pattern_info(pattern->code, PCRE2_INFO_MATCHEMPTY, &empty);
    if (empty)
        return error_set(error, STATUS_BAD_INPUT, "the pattern is not supported: it may match nothing at all");
    pattern->jit = pcre2_jit_compile(pattern->code, PCRE2_JIT_COMPLETE) == 0;
    return STATUS_OK;
}

enum status split_pattern_open(const char *text, enum pattern_kind kind, struct split_pattern **pattern,
                               struct error *error) {
    struct text translated = {0};
    *pattern = NULL;
    size_t length = strlen(text);
    if (length == 0 || length > PATTERN_LENGTH_MAX)
        return error_set(error, STATUS_BAD_INPUT, "a pattern of %zu bytes is not supported", length);
    struct split_pattern *made = calloc(1, sizeof *made);
    enum status status = made ? STATUS_OK : error_set_memory(error);
    bool foreign = kind == PATTERN_ONIGURUMA || kind == PATTERN_RUST;
    if (status == STATUS_OK && foreign)
        status = pattern_translate(text, kind == PATTERN_RUST ? DIALECT_RUST : DIALECT_ONIGURUMA, &translated,
                                   &made->traits, error);
    if (status == STATUS_OK && kind == PATTERN_LITERAL)
        made->traits.work = length;
    if (status == STATUS_OK && made->traits.work > WORK_MAX)
        status = error_set(error, STATUS_BAD_INPUT,
                           "the pattern '%.100s...' is not supported: more than %d characters, with repeats", text,
                           WORK_MAX);
    if (status == STATUS_OK)
        status = foreign ? pattern_compile(made, translated.bytes, translated.length, false, error)
                         : pattern_compile(made, text, length, kind == PATTERN_LITERAL, error);
    text_free(&translated);
    if (status == STATUS_OK)
        *pattern = made;
    else
        split_pattern_close(made);
    return status;
}

void split_pattern_close(struct split_pattern *pattern) {
    if (!pattern)
        return;
    pcre2_code_free(pattern->code);
    free(pattern);
}

bool split_pattern_by_category(const struct split_pattern *pattern) { return pattern->traits.categories; }

/*
 * Called wherever pattern_translate has put (?C): behind all that can match in more than one way. How far the matcher
 * has moved since is what it has worked, and what of the pattern it may have tried in vain.
 */
static int step_count(pcre2_callout_block *block, void *data) {
    struct split_scratch *scratch = data;
    size_t place = block->current_position;
    scratch->steps +=
        scratch->callout_steps + (place > scratch->place ? place - scratch->place : scratch->place - place);
    scratch->place = place;
    return scratch->steps > scratch->steps_max ? PCRE2_ERROR_MATCHLIMIT : 0;
}

enum status split_scratch_open(size_t length, struct split_scratch **scratch, struct error *error) {
    struct split_scratch *made = calloc(1, sizeof *made);
    *scratch = made;
    if (!made)
        return error_set_memory(error);
    made->data = pcre2_match_data_create(1, NULL);
    made->context = pcre2_match_context_create(NULL);
    made->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_MOST, NULL); /* NULL where there is no JIT */
    if (!made->data || !made->context) {
        split_scratch_close(made);
        *scratch = NULL;
        return error_set_memory(error);
    }
    made->steps_max = ((uint64_t)length + (1 << 16)) * STEPS_PER_BYTE;
    pcre2_set_callout(made->context, step_count, made);
    pcre2_set_match_limit(made->context, UINT32_MAX);
    pcre2_set_heap_limit(made->context, HEAP_LIMIT);
    if (made->stack)
        pcre2_jit_stack_assign(made->context, NULL, made->stack);
    return STATUS_OK;
}

void split_scratch_close(struct split_scratch *scratch) {
    if (!scratch)
        return;
    pcre2_match_data_free(scratch->data);
    pcre2_match_context_free(scratch->context);
    pcre2_jit_stack_free(scratch->stack);
    free(scratch);
}

enum status split_pattern_next(const struct split_pattern *pattern, struct split_scratch *scratch, const char *text,
                               size_t length, size_t from, size_t *begin, size_t *end, struct error *error) {
    scratch->place = from;
    scratch->callout_steps = 1 + pattern->traits.work / WORK_PER_STEP;
    /* Not checking the text again for each word is what keeps this linear. */
    int found = pattern->jit && scratch->stack ? pcre2_jit_match(pattern->code, (PCRE2_SPTR)text, length, from,
                                                                 PCRE2_NO_UTF_CHECK, scratch->data, scratch->context)
                                               : pcre2_match(pattern->code, (PCRE2_SPTR)text, length, from,
                                                             PCRE2_NO_UTF_CHECK, scratch->data, scratch->context);
    if (found == PCRE2_ERROR_NOMATCH) {
        *begin = *end = length;
        return STATUS_OK;
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(scratch->data);
    if (found < 0 || place[1] <= place[0]) {
        char message[128] = "an empty match";
        if (found == PCRE2_ERROR_NOMEMORY)
            return error_set_memory(error);
        if (found == PCRE2_ERROR_MATCHLIMIT)
            return error_set(error, STATUS_BAD_INPUT, "the tokenizer's pattern takes too many steps on this text");
        if (found < 0)
            pcre2_get_error_message(found, (PCRE2_UCHAR *)message, sizeof message);
        return error_set(error, STATUS_BAD_INPUT, "the tokenizer's pattern cannot be matched to the text: %s", message);
    }
    *begin = place[0];
    *end = place[1];
    return STATUS_OK;
}
