#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "infer/report/ppl_text.h"
#include "qstream/command.h"
#include "qstream/option_values.h"

static const char usage[] =
    "usage: qstream tokenize MODEL [OPTIONS]\n"
    "\n"
    "Turns text into the token ids of the model in the folder MODEL, by its tokenizer.json or tekken.json, and prints\n"
    "them as a JSON array on one line. Nothing is added to the text: no token at its beginning, no chat template.\n"
    "Special tokens in the text are found where Hugging Face's tokenizers find them. Bytes that are not UTF-8 are\n"
    "read as U+FFFD. MODEL may be hf://org/name[@revision], on the Hugging Face Hub.\n"
    "\n"
    "  --text FILE         read this file; - is standard input, the default\n"
    "  --decode            read a JSON array of ids, print their text, and nothing else\n"
    "  --help              print this text\n"
    "\n"
    "Exit codes: 0 fine, 2 wrong usage, 3 the tokenizer or the ids are damaged or not supported, 4 I/O failure.\n";

struct arguments {
    const char *model, *text;
    bool decode;
};

/* *help is set when the text was asked for. */
static enum status arguments_parse(int argc, char **argv, struct arguments *arguments, bool *help,
                                   struct error *error) {
    const struct command_option options[] = {
        {"text", .text = &arguments->text},
        {"decode", .flag = &arguments->decode},
        {0},
    };
    enum status status = options_read("tokenize", argc, argv, options, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 1)
        return error_set(error, STATUS_USAGE, "tokenize takes one folder, MODEL; see 'qstream tokenize --help'");
    arguments->model = argv[optind];
    return STATUS_OK;
}

/* ---- the two directions ---- */

static enum status encode(const struct tokenizer *tokenizer, const struct text *input, struct error *error) {
    struct token_ids ids = {0};
    enum status status = tokenizer_encode(tokenizer, input->bytes, input->length, &ids, error);
    if (status == STATUS_OK) {
        fputc('[', stdout);
        for (size_t i = 0; i < ids.count; i++)
            printf(i ? ", %d" : "%d", (int)ids.ids[i]);
        fputs("]\n", stdout);
    }
    token_ids_free(&ids);
    return status;
}

static enum status decode(const struct tokenizer *tokenizer, const struct text *input, const char *name,
                          struct error *error) {
    struct token_ids ids = {0};
    struct text text = {0};
    enum status status = ppl_tokens_parse(name, input, &ids, error);
    if (status == STATUS_OK)
        status = tokenizer_decode(tokenizer, ids.ids, ids.count, true, &text, error);
    if (status == STATUS_OK && text.length > 0)
        fwrite(text.bytes, 1, text.length, stdout);
    text_free(&text);
    token_ids_free(&ids);
    return status;
}

static enum status tokenize(const struct arguments *arguments, struct error *error) {
    struct folder *folder = NULL;
    struct tokenizer *tokenizer = NULL;
    struct text input = {0};
    const char *file = arguments->text ? arguments->text : "-";
    enum status status = folder_open(arguments->model, &folder, error);
    if (status == STATUS_OK)
        status = tokenizer_open(folder, &tokenizer, error);
    if (status == STATUS_OK)
        status = ppl_text_read(file, SIZE_MAX, &input, error);
    if (status == STATUS_OK && !arguments->decode)
        status = encode(tokenizer, &input, error);
    else if (status == STATUS_OK)
        status = decode(tokenizer, &input, strcmp(file, "-") == 0 ? "standard input" : file, error);
    text_free(&input);
    tokenizer_close(tokenizer);
    folder_close(folder);
    return status;
}

int command_tokenize(int argc, char **argv) {
    struct arguments arguments = {0};
    struct error error = {0};
    bool help;
    enum status status = arguments_parse(argc, argv, &arguments, &help, &error);
    if (status == STATUS_OK && help) {
        fputs(usage, stdout);
        return STATUS_OK;
    }
    if (status == STATUS_OK)
        status = tokenize(&arguments, &error);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
