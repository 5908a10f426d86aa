/*
 * Answers of a server, any bytes. The first line may say for which prompt an answer is: "TOKENS SCORED", as "5 4"; the
 * rest is the body. What is taken has to be log probabilities: not above 0 by more than rounding, not below -9999.
 */
#include "infer/server/answer.h"

#include "tests/fuzz/fuzz.h"

#define TOKENS_MAX 64

/* Reads a number from 1 to `most` and steps behind it and one byte more. */
static uint32_t number_take(const uint8_t **at, const uint8_t *end, uint32_t most) {
    uint32_t number = 0;
    while (*at < end && **at >= '0' && **at <= '9' && number < most)
        number = number * 10 + (uint32_t)(*(*at)++ - '0');
    if (*at < end)
        (*at)++;
    return number < 1 ? 1 : number > most ? most : number;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *at = data, *end = data + size;
    const uint32_t tokens = number_take(&at, end, TOKENS_MAX - 1) + 1, scored = number_take(&at, end, tokens - 1);
    const size_t length = (size_t)(end - at);
    char *body = malloc(length + (length == 0)); /* without a NUL: a read behind its end is seen */
    REQUIRE(body);
    memcpy(body, at, length);

    float nll[TOKENS_MAX];
    for (size_t i = 0; i < TOKENS_MAX; i++)
        nll[i] = -1;
    struct error error = {{0}};
    enum answer_verdict verdict = answer_read_nll(body, length, tokens, scored, nll, &error);
    REQUIRE(verdict == ANSWER_TAKEN || error.message[0]);
    for (uint32_t i = 0; i < scored && verdict == ANSWER_TAKEN; i++)
        REQUIRE(nll[i] >= -1e-4F && nll[i] < 9999.5F);
    REQUIRE(nll[scored] == -1);

    struct text name = {0}, line = {0};
    error = (struct error){{0}};
    verdict = answer_read_model(body, length, &name, &error);
    REQUIRE(verdict == ANSWER_TAKEN ? name.length > 0 && strlen(name.bytes) == name.length : error.message[0] != 0);
    answer_read_error(body, length, &line);
    REQUIRE(line.length <= ANSWER_ERROR_MAX);
    for (size_t i = 0; i < line.length; i++)
        REQUIRE((unsigned char)line.bytes[i] >= ' ' && line.bytes[i] != 0x7f);
    text_free(&name);
    text_free(&line);
    free(body);
    return 0;
}
