/*
 * Encodes and decodes many texts with one tokenizer, for check_tokenizer.py:  batch MODEL
 *
 * Standard input holds requests: "E LENGTH\n" and that many bytes of text, answered by a line of ids; "D COUNT\n" and a
 * line of ids, answered by "LENGTH\n", that many bytes and "\n"; "R LENGTH\n" and a text, which is encoded, decoded and
 * answered in the same way; "I LENGTH\n" and the text of a token, answered by its id. A line that begins with "!" is an
 * error.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/tokenizer/tokenizer.h"

static char *bytes_read(size_t length) {
    char *bytes = malloc(length + 1);
    if (!bytes || fread(bytes, 1, length, stdin) != length)
        abort();
    bytes[length] = '\0';
    return bytes;
}

static void encode(const struct tokenizer *tokenizer, size_t length) {
    struct token_ids ids = {0};
    struct error error;
    char *text = bytes_read(length);
    if (tokenizer_encode(tokenizer, text, length, &ids, &error) != STATUS_OK) {
        printf("!%s\n", error.message);
    } else {
        for (size_t i = 0; i < ids.count; i++)
            printf(i ? " %d" : "%d", (int)ids.ids[i]);
        putchar('\n');
    }
    token_ids_free(&ids);
    free(text);
}

static void decode(const struct tokenizer *tokenizer, const struct token_ids *ids) {
    struct text text = {0};
    struct error error;
    if (tokenizer_decode(tokenizer, ids->ids, ids->count, true, &text, &error) != STATUS_OK) {
        printf("!%s\n", error.message);
    } else {
        printf("%zu\n", text.length);
        if (text.length > 0)
            fwrite(text.bytes, 1, text.length, stdout);
        putchar('\n');
    }
    text_free(&text);
}

static void decode_listed(const struct tokenizer *tokenizer, size_t count) {
    struct token_ids ids = {0};
    struct error error;
    for (size_t i = 0; i < count; i++) {
        int id;
        if (scanf("%d", &id) != 1 || token_ids_append(&ids, id, &error) != STATUS_OK)
            abort();
    }
    getchar();
    decode(tokenizer, &ids);
    token_ids_free(&ids);
}

static void there_and_back(const struct tokenizer *tokenizer, size_t length) {
    struct token_ids ids = {0};
    struct error error;
    char *text = bytes_read(length);
    if (tokenizer_encode(tokenizer, text, length, &ids, &error) != STATUS_OK)
        printf("!%s\n", error.message);
    else
        decode(tokenizer, &ids);
    token_ids_free(&ids);
    free(text);
}

static void id_find(const struct tokenizer *tokenizer, size_t length) {
    char *token = bytes_read(length);
    printf("%d\n", (int)tokenizer_id(tokenizer, token));
    free(token);
}

int main(int argc, char **argv) {
    struct folder *folder;
    struct tokenizer *tokenizer;
    struct error error;
    if (argc != 2)
        return 2;
    if (folder_open(argv[1], &folder, &error) != STATUS_OK || tokenizer_open(folder, &tokenizer, &error) != STATUS_OK) {
        printf("!%s\n", error.message);
        return 3;
    }
    char kind;
    size_t length;
    while (scanf("%c %zu", &kind, &length) == 2) {
        getchar();
        if (kind == 'E')
            encode(tokenizer, length);
        else if (kind == 'D')
            decode_listed(tokenizer, length);
        else if (kind == 'R')
            there_and_back(tokenizer, length);
        else
            id_find(tokenizer, length);
    }
    tokenizer_close(tokenizer);
    folder_close(folder);
    return 0;
}
