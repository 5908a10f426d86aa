#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/interrupt.h"
#include "infer/tokenizer/json_walk.h"
#include "infer/tokenizer/tokenizer.h"
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

/* ---- reading ---- */

static enum status descriptor_read(int descriptor, const char *name, struct text *text, struct error *error) {
    enum { PART = 1 << 16 };
    char part[PART];
    for (;;) {
        ssize_t count = read(descriptor, part, sizeof part);
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return error_set_errno(error, STATUS_IO, errno, "cannot read '%s'", name);
        if (count == 0)
            return STATUS_OK;
        text_append(text, part, (size_t)count);
        if (text->failed)
            return error_set_memory(error);
    }
}

static enum status input_read(const char *path, struct text *text, struct error *error) {
    text_append(text, "", 0);
    if (!path || strcmp(path, "-") == 0)
        return descriptor_read(STDIN_FILENO, "standard input", text, error);
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return error_set_errno(error, errno == ENOENT ? STATUS_BAD_INPUT : STATUS_IO, errno, "cannot open '%s'", path);
    enum status status = descriptor_read(descriptor, path, text, error);
    close(descriptor);
    return status;
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

static enum status ids_parse(const struct text *json, const char *name, struct token_ids *ids, struct error *error) {
    struct scanner scan = {.json = json->bytes, .length = json->length};
    struct error inner;
    bool first = true, more = true, good = true;
    while (good && more) {
        uint64_t id = 0;
        good = walk_next(&scan, '[', ']', &first, &more) && (!more || scan_unsigned(&scan, &id));
        if (good && id > INT32_MAX)
            good = scan_fail(&scan, "a number that is no token id");
        if (good && more && token_ids_append(ids, (int32_t)id, error) != STATUS_OK)
            return STATUS_IO;
    }
    scan_space(&scan);
    if (good && scan.at != json->length)
        good = scan_fail(&scan, "something follows the array");
    if (good)
        return STATUS_OK;
    walk_error(&scan, &inner);
    return error_set(error, STATUS_BAD_INPUT, "%s is no JSON array of token ids: %s", name, inner.message);
}

static enum status decode(const struct tokenizer *tokenizer, const struct text *input, const char *name,
                          struct error *error) {
    struct token_ids ids = {0};
    struct text text = {0};
    enum status status = ids_parse(input, name, &ids, error);
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
    enum status status = folder_open(arguments->model, &folder, error);
    if (status == STATUS_OK)
        status = tokenizer_open(folder, &tokenizer, error);
    if (status == STATUS_OK)
        status = input_read(arguments->text, &input, error);
    if (status == STATUS_OK && !arguments->decode)
        status = encode(tokenizer, &input, error);
    else if (status == STATUS_OK)
        status = decode(tokenizer, &input, arguments->text ? arguments->text : "standard input", error);
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
