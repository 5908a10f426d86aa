#include "qstream/fetch_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *own_or_all(const struct fetch *fetch) {
    return fetch->folder ? fetch->folder : fetch->hub.environment.cache;
}

/* One line for each reason: files, bytes, and the first names. */
static void left_out_append(const struct fetch *fetch, enum selection_reason reason, struct text *out) {
    enum { NAMES_MOST = 4 };
    const struct hub_listing *listing = &fetch->listing;
    size_t count = 0;
    uint64_t bytes = 0;
    char size[TEXT_SIZE_MAX];
    for (size_t i = 0; i < listing->count; i++)
        if (fetch->reasons[i] == reason) {
            bytes += listing->files[i].size;
            count++;
        }
    if (count == 0)
        return;
    text_printf(out, "left out (%s): %zu file%s, %s:", selection_reason_text(reason), count, text_plural(count),
                text_size(bytes, size));
    size_t named = 0;
    for (size_t i = 0; i < listing->count && named < NAMES_MOST; i++)
        if (fetch->reasons[i] == reason) {
            text_append_string(out, named++ ? ", " : " ");
            text_append_escaped(out, listing->files[i].path);
        }
    text_append_string(out, count > NAMES_MOST ? ", ...\n" : "\n");
}

void fetch_summary(const struct fetch *fetch, struct text *out) {
    const struct hub_listing *listing = &fetch->listing;
    char bytes[TEXT_SIZE_MAX], present[TEXT_SIZE_MAX], rest[TEXT_SIZE_MAX], available[TEXT_SIZE_MAX];
    size_t there = 0;
    for (size_t i = 0; i < fetch->count; i++)
        there += fetch->files[i].present == fetch->files[i].file->size;
    text_append_escaped(out, listing->reference.repository);
    text_append_string(out, " at ");
    text_append_escaped(out, listing->reference.revision);
    if (strcmp(listing->reference.revision, listing->commit) != 0)
        text_printf(out, " (%s)", listing->commit);
    text_printf(out, ": %zu file%s, %s", fetch->count, text_plural(fetch->count), text_size(fetch->bytes, bytes));
    if (fetch->present > 0)
        text_printf(out, "; %zu there, %s of the bytes", there, text_size(fetch->present, present));
    text_append_string(out, "\n");
    for (enum selection_reason reason = SELECTION_TAKEN + 1; reason < SELECTION_REASONS; reason++)
        left_out_append(fetch, reason, out);
    if (fetch->present == fetch->bytes)
        return;
    text_printf(out, "to fetch: %s, into '", text_size(fetch->bytes - fetch->present, rest));
    text_append_escaped(out, own_or_all(fetch));
    text_printf(out, "', where %s are free\n", text_size(fetch->available, available));
}

/* What is there of a file. */
static const char *state_text(const struct fetch_file *file, char out[TEXT_SIZE_MAX + 16]) {
    char size[TEXT_SIZE_MAX];
    if (file->present == file->file->size)
        return "there";
    if (file->copied)
        return "copied from the cache";
    if (file->present == 0)
        return "to fetch";
    snprintf(out, TEXT_SIZE_MAX + 16, "%s there", text_size(file->present, size));
    return out;
}

void fetch_table(const struct fetch *fetch, struct text *out) {
    enum { STATE_WIDTH = 46 };
    char size[TEXT_SIZE_MAX], state[TEXT_SIZE_MAX + 16], left_out[STATE_WIDTH + 1];
    const struct fetch_file *chosen = fetch->files;
    text_printf(out, "%9s  %-*s  file\n", "size", STATE_WIDTH, "state");
    for (size_t i = 0; i < fetch->listing.count; i++) {
        const struct hub_file *file = &fetch->listing.files[i];
        const bool taken = fetch->reasons[i] == SELECTION_TAKEN;
        snprintf(left_out, sizeof left_out, "left out: %s", selection_reason_text(fetch->reasons[i]));
        text_printf(out, "%9s  %-*s  ", text_size(file->size, size), STATE_WIDTH,
                    taken ? state_text(chosen++, state) : left_out);
        text_append_escaped(out, file->path);
        text_append_string(out, "\n");
    }
}

static void member_text(struct text *out, const char *name, const char *value) {
    text_printf(out, "\"%s\": ", name);
    if (value)
        text_append_json_ascii(out, value);
    else
        text_append_string(out, "null");
    text_append_string(out, ", ");
}

void fetch_json(const struct fetch *fetch, bool dry_run, const char *text, struct text *out) {
    const struct hub_listing *listing = &fetch->listing;
    char etag[HUB_ETAG_HEX];
    text_append_string(out, "{\"schema\": \"qstream.fetch/1\", ");
    member_text(out, "repository", listing->reference.repository);
    member_text(out, "type", listing->reference.dataset ? "dataset" : "model");
    member_text(out, "revision", listing->reference.revision);
    member_text(out, "commit", listing->commit);
    member_text(out, "folder", fetch->where);
    if (text)
        member_text(out, "text", text);
    text_printf(out, "\"dry_run\": %s, ", dry_run ? "true" : "false");
    text_printf(out, "\"bytes\": %" PRIu64 ", \"bytes_present\": %" PRIu64 ", ", fetch->bytes, fetch->present);
    text_printf(out, "\"bytes_needed\": %" PRIu64 ", \"bytes_free\": %" PRIu64 ", \"files\": [", fetch->needed,
                fetch->available);
    for (size_t i = 0; i < fetch->count; i++) {
        const struct fetch_file *chosen = &fetch->files[i];
        text_append_string(out, i ? ", {" : "{");
        member_text(out, "path", chosen->file->path);
        hub_file_etag(chosen->file, etag);
        member_text(out, "hash", *etag ? etag : NULL);
        text_printf(out, "\"size\": %" PRIu64 ", \"present\": %" PRIu64 "}", chosen->file->size, chosen->present);
    }
    text_append_string(out, "], \"left_out\": [");
    bool first = true;
    for (size_t i = 0; i < listing->count; i++) {
        if (fetch->reasons[i] == SELECTION_TAKEN)
            continue;
        text_append_string(out, first ? "{" : ", {");
        member_text(out, "path", listing->files[i].path);
        member_text(out, "reason", selection_reason_name(fetch->reasons[i]));
        text_printf(out, "\"size\": %" PRIu64 "}", listing->files[i].size);
        first = false;
    }
    text_append_string(out, "]}\n");
}
