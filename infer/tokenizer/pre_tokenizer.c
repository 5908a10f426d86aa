#include "infer/tokenizer/pre_tokenizer.h"

#include <stdlib.h>

#include "common/text.h"

enum status pre_tokenizer_add(struct pre_tokenizer *pre, struct pre_step step, struct error *error) {
    if (pre->count == PRE_STEPS_MAX) {
        split_pattern_close(step.pattern);
        return error_set(error, STATUS_BAD_INPUT, "more than %d pre-tokenizers are not supported", PRE_STEPS_MAX);
    }
    pre->steps[pre->count++] = step;
    return STATUS_OK;
}

void pre_tokenizer_free(struct pre_tokenizer *pre) {
    for (size_t i = 0; i < pre->count; i++)
        split_pattern_close(pre->steps[i].pattern);
    *pre = (struct pre_tokenizer){0};
}

/* One run through the chain. */
struct run {
    const struct pre_tokenizer *pre;
    struct split_scratch *scratch;
    word_taker take;
    void *context;
    struct error *error;
};

static enum status step_run(struct run *run, size_t index, struct piece piece);

/*
 * What one step cuts a piece into. The parts come as they lie in the text, matches and what is between them; one of
 * them, or several that are one word, may be held back until it is known what is behind.
 */
struct cut {
    struct run *run;
    size_t index;
    struct piece piece;
    size_t begin, end; /* held back; empty: nothing */
    bool matched;      /* what is held back matches; of a Contiguous run, and of the last part */
};

static enum status cut_release(struct cut *cut) {
    if (cut->begin == cut->end)
        return STATUS_OK;
    struct piece part = {cut->piece.text + cut->begin, cut->piece.shown + cut->begin, cut->end - cut->begin};
    cut->begin = cut->end;
    return step_run(cut->run, cut->index + 1, part);
}

static enum status cut_part(struct cut *cut, size_t begin, size_t end, bool matched) {
    bool joins = false;
    switch (cut->run->pre->steps[cut->index].behavior) {
    case SPLIT_REMOVED:
        if (matched) {
            enum status status = cut_release(cut);
            cut->begin = cut->end = end;
            return status;
        }
        break;
    case SPLIT_ISOLATED:
        break;
    case SPLIT_MERGED_WITH_PREVIOUS:
        joins = matched && !cut->matched;
        break;
    case SPLIT_MERGED_WITH_NEXT:
        joins = !matched && cut->matched;
        break;
    case SPLIT_CONTIGUOUS:
        joins = matched == cut->matched;
        break;
    }
    joins = joins && cut->begin < cut->end;
    cut->matched = matched;
    if (joins) {
        cut->end = end;
        return STATUS_OK;
    }
    enum status status = cut_release(cut);
    cut->begin = begin;
    cut->end = end;
    return status;
}

static enum status split_run(struct run *run, size_t index, struct piece piece) {
    const struct pre_step *step = &run->pre->steps[index];
    struct cut cut = {.run = run, .index = index, .piece = piece};
    const char *seen = split_pattern_by_category(step->pattern) ? piece.shown : piece.text;
    for (size_t at = 0; at < piece.length;) {
        size_t begin, end;
        enum status status =
            split_pattern_next(step->pattern, run->scratch, seen, piece.length, at, &begin, &end, run->error);
        if (status == STATUS_OK && at < begin)
            status = cut_part(&cut, at, begin, step->invert);
        if (status == STATUS_OK && begin < end)
            status = cut_part(&cut, begin, end, !step->invert);
        if (status != STATUS_OK)
            return status;
        at = end;
    }
    return cut_release(&cut);
}

static enum status prefix_run(struct run *run, size_t index, struct piece piece) {
    if (piece.text[0] == ' ')
        return step_run(run, index + 1, piece);
    struct text text = {0}, shown = {0};
    text_append(&text, " ", 1);
    text_append(&text, piece.text, piece.length);
    text_append(&shown, " ", 1);
    text_append(&shown, piece.shown, piece.length);
    enum status status = text.failed || shown.failed
                             ? error_set_memory(run->error)
                             : step_run(run, index + 1, (struct piece){text.bytes, shown.bytes, text.length});
    text_free(&text);
    text_free(&shown);
    return status;
}

/* As deep as the chain is long. */
static enum status step_run(struct run *run, size_t index, struct piece piece) { // NOLINT(misc-no-recursion)
    if (index == run->pre->count)
        return run->take(run->context, piece, run->error);
    return run->pre->steps[index].pattern ? split_run(run, index, piece) : prefix_run(run, index, piece);
}

enum status pre_tokenizer_run(const struct pre_tokenizer *pre, struct split_scratch *scratch, struct piece piece,
                              word_taker take, void *context, struct error *error) {
    struct run run = {pre, scratch, take, context, error};
    return piece.length == 0 ? STATUS_OK : step_run(&run, 0, piece);
}
