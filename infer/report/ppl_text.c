#include "infer/report/ppl_text.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/utf8.h"
#include "infer/tokenizer/json_walk.h"
#include "infer/tokenizer/unicode.h"

enum { CONFIG_MAX = 64 << 20, HASH_IDS = 4096 };

const char *text_join_name(enum text_join join) { return join == TEXT_JOIN_HF ? "hf" : "raw"; }

/* ---- reading ---- */

static enum status stream_read(FILE *stream, const char *name, size_t limit, struct text *text, struct error *error) {
    char piece[1 << 16];
    size_t got;
    const size_t before = text->length;
    text_append(text, "", 0);
    if (text->failed)
        return error_set_memory(error);
    while ((got = fread(piece, 1, sizeof piece, stream)) > 0) {
        if (got > limit - (text->length - before))
            return error_set(error, STATUS_BAD_INPUT, "'%s' has more than %zu MiB, which is more than is read", name,
                             limit >> 20);
        text_append(text, piece, got);
        if (text->failed)
            return error_set_memory(error);
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted while reading '%s'", name);
    }
    if (ferror(stream))
        return interrupt_pending() ? error_set(error, STATUS_INTERRUPTED, "interrupted while reading '%s'", name)
                                   : error_set_errno(error, STATUS_IO, errno, "cannot read '%s'", name);
    return STATUS_OK;
}

static const char *name_of(const char *file) { return strcmp(file, "-") == 0 ? "standard input" : file; }

enum status ppl_text_read(const char *file, size_t limit, struct text *text, struct error *error) {
    FILE *stream = strcmp(file, "-") == 0 ? stdin : fopen(file, "re");
    if (!stream)
        return error_set_errno(error, errno == ENOENT || errno == ENOTDIR ? STATUS_BAD_INPUT : STATUS_IO, errno,
                               "cannot open '%s'", file);
    enum status status = stream_read(stream, name_of(file), limit, text, error);
    if (stream != stdin)
        fclose(stream);
    return status;
}

/* ---- rows ---- */

/* What Python's str.strip() removes. */
static bool is_space(uint32_t point) { return unicode_is_space(point) || (point >= 0x1c && point <= 0x1f); }

static bool is_blank(const char *bytes, size_t length) {
    for (size_t i = 0, step; i < length; i += step)
        if (!is_space(utf8_decode(bytes + i, length - i, &step, NULL)))
            return false;
    return true;
}

void ppl_text_join_rows(const struct text *text, struct text *out) {
    const char *at = text->bytes, *end = text->bytes + text->length;
    for (const char *separator = ""; at < end; separator = "\n\n") {
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        text_append_string(out, separator);
        if (!is_blank(at, (size_t)(stop - at))) {
            text_append(out, at, (size_t)(stop - at));
            if (stop < end)
                text_append_string(out, "\n");
        }
        at = stop < end && *stop == '\r' && stop + 1 < end && stop[1] == '\n' ? stop + 2 : stop + (stop < end);
    }
}

/* ---- tokens ---- */

static bool id_scan(struct scanner *scan, uint64_t *id) {
    scan_space(scan);
    const size_t place = scan->at;
    if (scan_unsigned(scan, id) && *id <= INT32_MAX)
        return true;
    scan->at = place;
    scan->problem = "a token id, a number from 0 to 2147483647, was expected";
    return false;
}

enum status ppl_tokens_parse(const char *name, const struct text *json, struct token_ids *tokens, struct error *error) {
    struct scanner scan = {.json = json->bytes, .length = json->length};
    bool first = true, more, good;
    uint64_t id;
    while ((good = walk_next(&scan, '[', ']', &first, &more) && (!more || id_scan(&scan, &id))) && more) {
        enum status status = token_ids_append(tokens, (int32_t)id, error);
        if (status != STATUS_OK)
            return status;
    }
    if (good) {
        scan_space(&scan);
        good = scan.at == scan.length || scan_fail(&scan, "nothing was expected behind the array");
    }
    return good ? STATUS_OK
                : error_set(error, STATUS_BAD_INPUT, "'%s' is no list of tokens: byte %zu: %s", name, scan.at,
                            scan.problem ? scan.problem : "not valid JSON");
}

enum status ppl_tokens_read(const struct folder *folder, const char *file, struct token_ids *tokens,
                            char hash[SHA256_HEX], struct error *error) {
    struct text text = {0};
    struct tokenizer *tokenizer = NULL;
    uint8_t digest[SHA256_SIZE];
    enum status status = folder ? tokenizer_open(folder, &tokenizer, error) : STATUS_OK;
    if (status == STATUS_OK)
        status = ppl_text_read(file, PPL_TEXT_MAX, &text, error);
    if (status == STATUS_OK && hash) {
        status = sha256_of(text.bytes, text.length, digest, error);
        if (status == STATUS_OK)
            sha256_hex(digest, hash);
    }
    if (status == STATUS_OK)
        status = folder ? tokenizer_encode(tokenizer, text.bytes, text.length, tokens, error)
                        : ppl_tokens_parse(name_of(file), &text, tokens, error);
    text_free(&text);
    tokenizer_close(tokenizer);
    return status;
}

enum status ppl_tokens_hash(const int32_t *ids, size_t count, char hex[SHA256_HEX], struct error *error) {
    uint8_t bytes[4 * HASH_IDS], digest[SHA256_SIZE];
    struct sha256 *hash = sha256_new();
    if (!hash)
        return error_set_memory(error);
    for (size_t done = 0; done < count;) {
        size_t piece = count - done < HASH_IDS ? count - done : HASH_IDS;
        for (size_t i = 0; i < piece; i++)
            for (size_t byte = 0; byte < 4; byte++)
                bytes[4 * i + byte] = (uint8_t)((uint32_t)ids[done + i] >> (8 * byte));
        sha256_update(hash, bytes, 4 * piece);
        done += piece;
    }
    sha256_digest(hash, digest);
    sha256_free(hash);
    sha256_hex(digest, hex);
    return STATUS_OK;
}

/* ---- the first token ---- */

/* The bytes of a JSON object in FOLDER/NAME; NULL when there is none or it is not one. */
static enum status config_read(const struct folder *folder, const char *name, char **bytes, size_t *length,
                               struct error *error) {
    *bytes = NULL;
    char *path = text_format("%s/%s", folder_name(folder), name);
    if (!path)
        return error_set_memory(error);
    enum status status = folder_file_read(folder, name, CONFIG_MAX, bytes, length, error);
    if (status == STATUS_OK)
        status = json_text_check(path, *bytes, *length, error);
    if (status != STATUS_OK) {
        free(*bytes);
        *bytes = NULL;
    }
    free(path);
    return status;
}

/* A member that is a number of a token. */
static bool id_member(const char *json, struct json_span object, int32_t *id) {
    struct json_member member;
    if (!json_text_member(json, object, "bos_token_id", &member))
        return false;
    struct scanner scan = {.json = json, .at = member.value.begin, .length = member.value.end};
    uint64_t value;
    if (!scan_unsigned(&scan, &value) || scan.at != member.value.end || value > INT32_MAX)
        return false;
    *id = (int32_t)value;
    return true;
}

static bool config_bos(const char *json, size_t length, int32_t *id) {
    struct json_member text;
    const struct json_span top = json_text_object(json, length);
    return id_member(json, top, id) || (json_text_member(json, top, "text_config", &text) &&
                                        json[text.value.begin] == '{' && id_member(json, text.value, id));
}

/* bos_token is a string, or an object whose content is. */
static bool tokenizer_config_bos(const char *json, size_t length, const struct tokenizer *tokenizer, int32_t *id) {
    struct json_member member;
    if (!json_text_member(json, json_text_object(json, length), "bos_token", &member))
        return false;
    if (json[member.value.begin] == '{' && !json_text_member(json, member.value, "content", &member))
        return false;
    struct scanner scan = {.json = json, .at = member.value.begin, .length = member.value.end};
    struct json_span span;
    struct text token = {0};
    bool found = false;
    if (scan_next_is(&scan, '"') && scan_string(&scan, &span) && scan_string_decode(&scan, span, &token) &&
        token.bytes) {
        *id = tokenizer_id(tokenizer, token.bytes);
        found = *id >= 0;
    }
    text_free(&token);
    return found;
}

enum status ppl_bos_id(const struct folder *folder, const struct tokenizer *tokenizer, int32_t *id,
                       struct error *error) {
    char *config, *own = NULL;
    size_t length;
    enum status status = config_read(folder, "config.json", &config, &length, error);
    if (status != STATUS_OK)
        return status;
    bool found = config_bos(config, length, id);
    free(config);
    if (!found)
        status = config_read(folder, "tokenizer_config.json", &own, &length, error);
    if (status == STATUS_IO)
        return status;
    if (own)
        found = tokenizer_config_bos(own, length, tokenizer, id);
    free(own);
    return found ? STATUS_OK
                 : error_set(error, STATUS_BAD_INPUT,
                             "'%s': which token begins a text is not known: config.json has no \"bos_token_id\" and "
                             "tokenizer_config.json no \"bos_token\" that the tokenizer has; measure without --bos",
                             folder_name(folder));
}
