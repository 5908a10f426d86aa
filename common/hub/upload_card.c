#include <stdlib.h>
#include <string.h>

#include "common/hub/json_call.h"
#include "common/hub/upload.h"
#include "common/utf8.h"

enum { CARD_BYTES_MOST = 4 << 20, BAD_REQUEST = 400 };

static const struct upload_file *card_find(const struct upload *upload) {
    for (size_t i = 0; i < upload->count; i++)
        if (strcmp(upload->files[i].path, "README.md") == 0)
            return &upload->files[i];
    return NULL;
}

/* {"errors":[{"message":...}]} of a refusal, in words. */
static enum status card_refuse(const struct upload_file *card, const struct http_reply *reply, struct error *error) {
    json_t *root = reply->body.bytes ? json_loadb(reply->body.bytes, reply->body.length, 0, NULL) : NULL;
    const json_t *first = json_array_get(json_object_get(root, "errors"), 0);
    const char *message = json_string_value(json_object_get(first, "message"));
    const enum status status =
        error_set(error, STATUS_BAD_INPUT,
                  "the Hub would not take '%s': its metadata, between the lines '---', are wrong%s%.400s",
                  card->source->name, message ? ": " : "", message ? message : "");
    json_decref(root);
    return status;
}

enum status upload_card_check(const struct upload *upload, struct error *error) {
    const struct upload_file *card = card_find(upload);
    if (!card || card->source->identity.size > CARD_BYTES_MOST)
        return STATUS_OK;
    const size_t size = (size_t)card->source->identity.size;
    struct text body = {0};
    struct http_reply reply = {0};
    char *url = text_format("%s/api/validate-yaml", upload->hub->environment.endpoint), *content = calloc(1, size + 1);
    enum status status =
        url && content ? byte_source_read_at(card->source, 0, content, size, error) : error_set_memory(error);
    if (status == STATUS_OK && !utf8_is_valid(content, size))
        status = error_set(error, STATUS_BAD_INPUT, "'%s' is not UTF-8: the Hub would not take it", card->source->name);
    if (status == STATUS_OK) {
        text_append_string(&body, "{\"repoType\":\"model\",\"content\":");
        text_append_json_string(&body, content);
        text_append_string(&body, "}");
        status = json_post(upload->hub, upload->reference, url, &body, &reply, NULL, error);
    }
    if (reply.code == BAD_REQUEST)
        status = card_refuse(card, &reply, error);
    else if (reply.code > BAD_REQUEST && status == STATUS_BAD_INPUT) /* a Hub that does not tell */
        status = STATUS_OK;
    http_reply_free(&reply);
    text_free(&body);
    free(content);
    free(url);
    return status;
}
