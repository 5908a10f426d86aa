#include "infer/server/answer.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/json_scan.h"
#include "common/utf8.h"

static const char needed[] = "what is needed is \"echo\" with \"logprobs\" in /v1/completions, as vLLM and SGLang have";

static bool is_word(const char *json, struct json_span value, const char *word) {
    const size_t length = strlen(word);
    return value.end - value.begin == length && memcmp(json + value.begin, word, length) == 0;
}

/* The member `key` of a value, if that is an object that has one and it is not null. */
static bool member_find(const char *json, struct json_span value, const char *key, struct json_span *found) {
    struct json_member member;
    if (json[value.begin] != '{' || !json_text_member(json, value, key, &member) || is_word(json, member.value, "null"))
        return false;
    *found = member.value;
    return true;
}

/* Goes through the elements of an array, whose text is known to be good. */
struct elements {
    struct scanner scan;
    bool open;
};

static struct elements elements_of(const char *json, struct json_span array) {
    struct elements elements = {{.json = json, .at = array.begin + 1, .length = array.end, .python = true}, true};
    elements.open = !scan_next_is(&elements.scan, ']');
    return elements;
}

static bool element_next(struct elements *elements, struct json_span *value) {
    if (!elements->open || !scan_value(&elements->scan, value))
        return false;
    elements->open = scan_next_is(&elements->scan, ',');
    elements->scan.at++;
    return true;
}

static size_t elements_count(const char *json, struct json_span array) {
    struct elements elements = elements_of(json, array);
    struct json_span value;
    size_t count = 0;
    while (element_next(&elements, &value))
        count++;
    return count;
}

/* False when it is no number. NaN and Infinity are some. */
static bool number_read(const char *json, struct json_span value, double *number) {
    const char first = json[value.begin];
    if (is_word(json, value, "NaN"))
        *number = (double)NAN;
    else if (is_word(json, value, "Infinity") || is_word(json, value, "-Infinity"))
        *number = first == '-' ? -HUGE_VAL : HUGE_VAL;
    else if (first == '-' || (first >= '0' && first <= '9'))
        *number = strtod(json + value.begin, NULL); /* ends at the comma or bracket that follows */
    else
        return false;
    return true;
}

/* ---- log probabilities ---- */

/* usage.KEY; SIZE_MAX when the server does not tell. */
static size_t usage_read(const char *json, struct json_span object, const char *key) {
    struct json_span usage, value;
    double number = 0;
    if (!member_find(json, object, "usage", &usage) || !member_find(json, usage, key, &value) ||
        !number_read(json, value, &number) || !(number >= 0 && number < (double)UINT32_MAX))
        return SIZE_MAX;
    return (size_t)number;
}

/* The array of the prompt's log probabilities, without a look at its elements. */
static bool logprobs_find(const char *json, struct json_span object, struct json_span *array, struct error *error) {
    struct json_span choices, choice, logprobs;
    if (!member_find(json, object, "choices", &choices) || json[choices.begin] != '[') {
        error_write(error, 0, "the answer has no \"choices\": it is none of /v1/completions");
        return false;
    }
    struct elements elements = elements_of(json, choices);
    if (!element_next(&elements, &choice) || json[choice.begin] != '{') {
        error_write(error, 0, "the answer's \"choices\" are empty");
        return false;
    }
    if (!member_find(json, choice, "logprobs", &logprobs)) {
        error_write(error, 0, "the answer has no log probabilities; %s", needed);
        return false;
    }
    if (!member_find(json, logprobs, "token_logprobs", array) || json[array->begin] != '[') {
        error_write(error, 0, "the answer's \"logprobs\" have no \"token_logprobs\"; %s", needed);
        return false;
    }
    return true;
}

/*
 * Whether element i is that of the prompt's token i. A prompt with a token more or less would shift all figures by one
 * without a trace.
 */
static bool count_check(const char *json, struct json_span object, struct json_span array, uint32_t tokens,
                        struct error *error) {
    const size_t count = elements_count(json, array);
    const size_t seen = usage_read(json, object, "prompt_tokens");
    const size_t generated = usage_read(json, object, "completion_tokens");
    struct elements elements = elements_of(json, array);
    struct json_span first = array;
    element_next(&elements, &first);
    if (seen != SIZE_MAX && seen != tokens) {
        error_write(error, 0,
                    "the server counts %zu tokens in a prompt of %u: it adds some (a BOS) or cuts the prompt; it must "
                    "take token ids as they are",
                    seen, (unsigned)tokens);
        return false;
    }
    if (count < 2 || (tokens > 2 && count <= 2)) {
        error_write(error, 0,
                    "log probabilities only of what was generated: %zu for a prompt of %u tokens; the server ignores "
                    "\"echo\"; %s",
                    count, (unsigned)tokens, needed);
        return false;
    }
    if (count != tokens && count != (size_t)tokens + 1) {
        error_write(error, 0, "%zu log probabilities for a prompt of %u tokens and at most one that is generated; %s",
                    count, (unsigned)tokens, needed);
        return false;
    }
    if (count != tokens && generated == 0) {
        error_write(
            error, 0,
            "%zu log probabilities for a prompt of %u tokens, and none is generated: the server adds a token (a "
            "BOS) to it; it must take token ids as they are",
            count, (unsigned)tokens);
        return false;
    }
    /* As many as the prompt has tokens: they might be those of the second and later ones and of a generated one. */
    if (count == tokens && generated != 0 && !is_word(json, first, "null")) {
        error_write(
            error, 0,
            "%zu log probabilities for a prompt of %u tokens and one that is generated: the first token's, which "
            "is null, is missing",
            count, (unsigned)tokens);
        return false;
    }
    return true;
}

static bool logprob_check(double logprob, size_t place, struct error *error) {
    static const double minus_infinity = -9999; /* of vLLM, which has no other way to write it */
    static const double rounding = 1e-4;        /* logit - log(sum) in float32 of logits up to some hundred */
    if (isnan(logprob))
        error_write(error, 0,
                    "the log probability of token %zu is not a number: the model's logits are not finite; look at its "
                    "weights with 'qstream inspect --stats'",
                    place);
    else if (logprob <= minus_infinity)
        error_write(error, 0,
                    "the server holds token %zu for impossible (a log probability of %g): the perplexity is infinite; "
                    "look for masked logits or damaged weights",
                    place, logprob);
    else if (logprob > rounding)
        error_write(error, 0, "the log probability of token %zu is %g, above 0: not one of a probability", place,
                    logprob);
    else
        return true;
    return false;
}

enum answer_verdict answer_read_nll(const char *json, size_t length, uint32_t tokens, uint32_t scored, float *nll,
                                    struct error *error) {
    if (json_text_check("the answer", json, length, error) != STATUS_OK)
        return ANSWER_GARBLED;
    const struct json_span object = json_text_object(json, length);
    struct json_span array, value;
    if (!logprobs_find(json, object, &array, error) || !count_check(json, object, array, tokens, error))
        return ANSWER_WRONG;
    struct elements elements = elements_of(json, array);
    for (size_t place = 0; place < tokens && element_next(&elements, &value); place++) {
        if (place < tokens - scored)
            continue;
        double logprob;
        if (!number_read(json, value, &logprob)) {
            error_write(error, 0, "%s stands for the log probability of token %zu; %s",
                        is_word(json, value, "null") ? "null" : "no number", place,
                        "the server computes none for prompts, or its logits are not finite");
            return ANSWER_WRONG;
        }
        if (!logprob_check(logprob, place, error))
            return ANSWER_WRONG;
        nll[place - (tokens - scored)] = (float)(0.0 - logprob); /* of 0: 0, not -0 */
    }
    return ANSWER_TAKEN;
}

/* ---- models ---- */

enum answer_verdict answer_read_model(const char *json, size_t length, struct text *name, struct error *error) {
    static const size_t named = 10; /* of the names in a message */
    if (json_text_check("the list of models", json, length, error) != STATUS_OK)
        return ANSWER_GARBLED;
    const struct json_span object = json_text_object(json, length);
    struct json_span data, model, id;
    if (!member_find(json, object, "data", &data) || json[data.begin] != '[') {
        error_write(error, 0, "the list of models has no \"data\": this is no OpenAI-compatible server");
        return ANSWER_WRONG;
    }
    struct text names = {0};
    size_t count = 0;
    bool good = true;
    struct elements elements = elements_of(json, data);
    while (good && element_next(&elements, &model)) {
        struct text one = {0};
        struct scanner scan = elements.scan;
        good = member_find(json, model, "id", &id) && json[id.begin] == '"' && scan_string_decode(&scan, id, &one) &&
               one.length > 0;
        if (good && count == 0)
            text_append(name, one.bytes, one.length);
        if (good && count < named)
            text_printf(&names, "%s'%s'", count ? ", " : "", one.bytes);
        text_free(&one);
        count++;
    }
    enum answer_verdict verdict = ANSWER_WRONG;
    if (!good)
        error_write(error, 0, "a model in the server's list has no name");
    else if (count == 0)
        error_write(error, 0, "the server lists no model");
    else if (names.failed || name->failed)
        error_write(error, 0, "out of memory");
    else if (count > 1)
        error_write(error, 0, "the server has %zu models; name one of them with --server-model: %s%s", count,
                    names.bytes, count > named ? ", ..." : "");
    else
        verdict = ANSWER_TAKEN;
    text_free(&names);
    return verdict;
}

/* ---- errors ---- */

/* The text of an error's object: {"error": {"message": M}}, {"error": M}, {"message": M}, {"detail": M}. */
static bool message_find(const char *json, size_t length, struct text *out) {
    if (json_text_check("", json, length, NULL) != STATUS_OK)
        return false;
    const struct json_span object = json_text_object(json, length);
    struct json_span value, inner;
    if (!member_find(json, object, "error", &value) && !member_find(json, object, "message", &value) &&
        !member_find(json, object, "detail", &value))
        return false;
    if (member_find(json, value, "message", &inner))
        value = inner;
    struct scanner scan = {.json = json, .length = length, .python = true};
    if (json[value.begin] == '"')
        return scan_string_decode(&scan, value, out);
    text_append(out, json + value.begin, value.end - value.begin);
    return true;
}

void answer_read_error(const char *body, size_t length, struct text *line) {
    struct text message = {0};
    if (length == 0)
        return;
    if (!message_find(body, length, &message)) {
        message.length = 0;
        text_append(&message, body, length);
    }
    if (message.failed || message.length == 0) {
        line->failed |= message.failed;
        text_free(&message);
        return;
    }
    const size_t begin = line->length;
    bool space = false;
    for (const char *at = message.bytes, *end = at + message.length; at < end;) {
        if ((unsigned char)*at <= ' ' || *at == 0x7f) {
            space = line->length > begin;
            at++;
            continue;
        }
        size_t size;
        utf8_decode(at, (size_t)(end - at), &size, NULL);
        if (line->length - begin + space + size > ANSWER_ERROR_MAX - 3) {
            text_append_string(line, "...");
            break;
        }
        if (space)
            text_append(line, " ", 1);
        text_append(line, at, size);
        space = false;
        at += size;
    }
    text_free(&message);
}
