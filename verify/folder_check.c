#include "verify/folder_check.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/interrupt.h"
#include "common/text.h"
#include "verify/folder_list.h"
#include "verify/json_compare.h"

enum { PIECE = 1 << 18 };

/* ---- what goes along ---- */

static bool is_other_form(const char *folder) {
    static const char *const names[] = {"original", "onnx", "openvino", "metal", "coreml", "flax", "gguf"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(folder, names[i]) == 0)
            return true;
    return false;
}

/* Files that hold the weights in another form than the output has, describe that form, or are unfinished. */
static bool describes_source(const char *name) {
    static const char *const endings[] = {".safetensors", ".safetensors.index.json",
                                          ".bin",         ".bin.index.json",
                                          ".pt",          ".pth",
                                          ".ckpt",        ".gguf",
                                          ".h5",          ".msgpack",
                                          ".onnx",        ".onnx_data",
                                          ".tflite",      ".ot",
                                          ".npz",         ".partial"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (text_ends_with(name, endings[i]))
            return true;
    return strcmp(name, "params.json") == 0 || strcmp(name, "hf_quant_config.json") == 0 ||
           strncmp(name, "consolidated", 12) == 0;
}

/* At the top level the output has its own of these. */
static bool is_made_anew(const char *file) {
    return strcmp(file, "config.json") == 0 || strcmp(file, "qstream.json") == 0 || strncmp(file, "README", 6) == 0;
}

static bool goes_along(const char *file) {
    const char *slash = strrchr(file, '/');
    return !is_made_anew(file) && !describes_source(slash ? slash + 1 : file);
}

/* ---- whether it is the same ---- */

/* *offset is that of the first byte that differs, UINT64_MAX when there is none. */
static enum status bytes_compare(struct byte_source *a, struct byte_source *b, uint64_t *offset, struct error *error) {
    uint64_t shorter = a->identity.size < b->identity.size ? a->identity.size : b->identity.size;
    uint8_t *buffers = malloc(2 * PIECE);
    enum status status = buffers ? STATUS_OK : error_set_memory(error);
    *offset = a->identity.size == b->identity.size ? UINT64_MAX : shorter;
    for (uint64_t at = 0; status == STATUS_OK && at < shorter; at += PIECE) {
        size_t size = shorter - at < PIECE ? (size_t)(shorter - at) : PIECE, same = 0;
        if (interrupt_pending())
            status = error_set(error, STATUS_INTERRUPTED, "interrupted");
        if (status == STATUS_OK)
            status = byte_source_read_at(a, at, buffers, size, error);
        if (status == STATUS_OK)
            status = byte_source_read_at(b, at, buffers + PIECE, size, error);
        if (status != STATUS_OK || memcmp(buffers, buffers + PIECE, size) == 0)
            continue;
        while (buffers[same] == buffers[PIECE + same])
            same++;
        *offset = at + same;
        break;
    }
    free(buffers);
    return status;
}

/* What two JSON files mean; MEMBERS_CHANGED when they are too large to tell or hold no object. */
static enum status meaning_compare(const struct folder_check *check, struct byte_source *a, struct byte_source *b,
                                   enum members *members, struct error *error) {
    enum { SHARE = 6 }; /* two texts, and their lists of members */
    struct byte_source *const sources[2] = {a, b};
    char *texts[2] = {NULL, NULL};
    enum status status = STATUS_OK;
    bool same = false;
    *members = MEMBERS_CHANGED;
    if (a->identity.size > check->memory / SHARE || b->identity.size > check->memory / SHARE)
        return STATUS_OK;
    for (int i = 0; i < 2 && status == STATUS_OK; i++) {
        size_t size = (size_t)sources[i]->identity.size;
        texts[i] = malloc(size + 1);
        status = texts[i] ? byte_source_read_at(sources[i], 0, texts[i], size, error) : error_set_memory(error);
        if (texts[i])
            texts[i][size] = '\0';
    }
    if (status == STATUS_OK)
        status = json_compare(texts[0], (struct json_span){0, (size_t)a->identity.size}, texts[1],
                              (struct json_span){0, (size_t)b->identity.size}, &same, error);
    if (status == STATUS_OK && same)
        *members = MEMBERS_SAME;
    else if (status == STATUS_OK && json_text_check("", texts[0], (size_t)a->identity.size, NULL) == STATUS_OK &&
             json_text_check("", texts[1], (size_t)b->identity.size, NULL) == STATUS_OK)
        status = json_members_compare(texts[0], (size_t)a->identity.size, texts[1], (size_t)b->identity.size, members,
                                      error);
    free(texts[0]);
    free(texts[1]);
    return status;
}

static enum status file_compare(const struct folder_check *check, const char *file, struct verify_findings *findings,
                                struct error *error) {
    struct byte_source *source = NULL, *output = NULL;
    uint64_t offset = UINT64_MAX;
    enum members members = MEMBERS_CHANGED;
    enum status status = folder_file_open(check->source->folder, file, &source, error);
    if (status == STATUS_OK)
        status = folder_file_open(check->output->folder, file, &output, error);
    if (status == STATUS_OK)
        status = bytes_compare(source, output, &offset, error);
    if (status == STATUS_OK && offset != UINT64_MAX && text_ends_with(file, ".json"))
        status = meaning_compare(check, source, output, &members, error);
    if (status == STATUS_OK && offset != UINT64_MAX && members == MEMBERS_ADDED)
        status = verify_find(findings, VERIFY_WARNING, "file-changed", file, error,
                             "it has all that the source's file has, and more");
    if (status == STATUS_OK && offset != UINT64_MAX && members == MEMBERS_CHANGED)
        status = verify_find(findings, VERIFY_ERROR, "file-changed", file, error,
                             "it is not the source's file: they differ from byte %" PRIu64 " on (%" PRIu64
                             " bytes, in the source %" PRIu64 ")",
                             offset, output->identity.size, source->identity.size);
    byte_source_close(source);
    byte_source_close(output);
    return status;
}

static enum status file_check(const struct folder_check *check, const char *file, struct verify_findings *findings,
                              struct error *error) {
    struct folder_entry entry;
    bool found;
    enum status status = folder_look(check->output->folder, file, &entry, &found, error);
    if (status != STATUS_OK)
        return status;
    if (entry.kind != FOLDER_FILE)
        return verify_find(findings, check->manifest ? VERIFY_ERROR : VERIFY_WARNING, "file-missing", file, error,
                           "the source has this file, the folder does not");
    return file_compare(check, file, findings, error);
}

enum status sidecar_files_check(const struct folder_check *check, struct verify_findings *findings,
                                struct error *error) {
    struct folder_list list;
    enum status status =
        folder_list_make(check->source->folder, is_other_form, folder_path(check->output->folder), &list, error);
    for (size_t i = 0; i < list.count && status == STATUS_OK; i++)
        if (goes_along(list.files[i]))
            status = file_check(check, list.files[i], findings, error);
    folder_list_free(&list);
    return status;
}
