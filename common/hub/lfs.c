#include "common/hub/lfs.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/json_call.h"

enum {
    AT_ONCE = 16,               /* objects of a request: the reply has an address for each part */
    REPLY_BYTES_MOST = 64 << 20 /* of 16 objects with 2,000 parts each */
};

const char *const lfs_fields[LFS_FIELDS] = {"Accept: application/vnd.git-lfs+json",
                                            "Content-Type: application/vnd.git-lfs+json"};

void lfs_order_free(struct lfs_order *order) {
    for (size_t i = 0; i < order->part_count; i++)
        free(order->parts[i]);
    free(order->parts);
    free(order->url);
    free(order->verify);
    *order = (struct lfs_order){0};
}

/* ---- the question ---- */

static void question_write(const char *branch, const struct lfs_object *objects, size_t count, struct text *out) {
    text_append_string(out,
                       "{\"operation\":\"upload\",\"transfers\":[\"basic\",\"multipart\"],\"hash_algo\":\"sha256\"");
    if (branch) {
        text_append_string(out, ",\"ref\":{\"name\":");
        text_append_json_string(out, branch);
        text_append_string(out, "}");
    }
    text_append_string(out, ",\"objects\":[");
    for (size_t i = 0; i < count; i++) {
        char hex[SHA256_HEX];
        text_printf(out, "%s{\"oid\":\"%s\",\"size\":%" PRIu64 "}", i ? "," : "", sha256_hex(objects[i].sha256, hex),
                    objects[i].source->identity.size);
    }
    text_append_string(out, "]}");
}

/* ---- the answer ---- */

static enum status order_refuse(const struct lfs_object *object, const char *problem, struct error *error) {
    return error_set(error, STATUS_IO, "the Hub's order for '%s' cannot be carried out: %s", object->path, problem);
}

static enum status copy(const json_t *string, const struct lfs_object *object, const char *problem, char **out,
                        struct error *error) {
    if (!json_is_string(string))
        return order_refuse(object, problem, error);
    *out = strdup(json_string_value(string));
    return *out ? STATUS_OK : error_set_memory(error);
}

/* A number in digits, 0 when it is none. */
static uint64_t digits_read(const char *text) {
    uint64_t number = 0;
    enum { DIGITS_MOST = 15 };
    if (strlen(text) > DIGITS_MOST || text[strspn(text, "0123456789")])
        return 0;
    for (; *text; text++)
        number = 10 * number + (uint64_t)(*text - '0');
    return number;
}

/* Members of the header that are numbers are the parts' addresses. */
static enum status parts_read(json_t *header, const struct lfs_object *object, struct error *error) {
    struct lfs_order *order = object->order;
    const json_t *size = json_object_get(header, "chunk_size");
    const json_int_t whole = json_integer_value(size);
    order->part_bytes = json_is_string(size) ? digits_read(json_string_value(size)) : whole > 0 ? (uint64_t)whole : 0;
    if (order->part_bytes == 0)
        return order_refuse(object, "\"chunk_size\" is no size", error);
    const uint64_t count = (object->source->identity.size - 1) / order->part_bytes + 1;
    if (count > LFS_PARTS_MOST)
        return order_refuse(object, "it wants more than 10,000 parts", error);
    order->parts = calloc((size_t)count, sizeof *order->parts);
    if (!order->parts)
        return error_set_memory(error);
    order->part_count = (size_t)count;
    const char *name;
    json_t *value;
    size_t found = 0;
    json_object_foreach(header, name, value) {
        const uint64_t number = digits_read(name);
        if (number == 0)
            continue;
        if (number > count || order->parts[number - 1])
            return order_refuse(object, "its parts are not those of its size", error);
        enum status status = copy(value, object, "a part's address is no string", &order->parts[number - 1], error);
        if (status != STATUS_OK)
            return status;
        found++;
    }
    return found == count ? STATUS_OK : order_refuse(object, "it has not an address for each part", error);
}

static enum status order_read(const json_t *answer, const struct lfs_object *object, struct error *error) {
    struct lfs_order *order = object->order;
    const json_t *problem = json_object_get(answer, "error"), *actions = json_object_get(answer, "actions");
    const json_t *upload = json_object_get(actions, "upload"), *verify = json_object_get(actions, "verify");
    if (json_is_object(problem)) {
        const json_int_t code = json_integer_value(json_object_get(problem, "code"));
        const char *message = json_string_value(json_object_get(problem, "message"));
        return error_set(error, code >= 500 || code == 429 ? STATUS_IO : STATUS_BAD_INPUT,
                         "the Hub does not take '%s': %.200s (%d)", object->path, message ? message : "no reason given",
                         (int)code);
    }
    if (!json_is_object(upload)) /* nothing to do: it is there */
        return STATUS_OK;
    enum status status = copy(json_object_get(upload, "href"), object, "it has no address", &order->url, error);
    if (status == STATUS_OK && json_is_object(verify))
        status = copy(json_object_get(verify, "href"), object, "\"verify\" has no address", &order->verify, error);
    json_t *header = json_object_get(upload, "header");
    if (status == STATUS_OK && json_object_get(header, "chunk_size"))
        status = parts_read(header, object, error);
    return status;
}

static enum status answer_read(const json_t *root, const struct lfs_object *objects, size_t count,
                               struct error *error) {
    const json_t *list = json_object_get(root, "objects");
    bool answered[AT_ONCE] = {false};
    enum status status = STATUS_OK;
    for (size_t i = 0; i < json_array_size(list) && status == STATUS_OK; i++) {
        const json_t *answer = json_array_get(list, i);
        const char *oid = json_string_value(json_object_get(answer, "oid"));
        for (size_t k = 0; oid && k < count; k++) {
            char hex[SHA256_HEX];
            if (answered[k] || strcmp(oid, sha256_hex(objects[k].sha256, hex)) != 0)
                continue;
            answered[k] = true;
            status = order_read(answer, &objects[k], error);
            break;
        }
    }
    for (size_t k = 0; k < count && status == STATUS_OK; k++)
        if (!answered[k])
            status = order_refuse(&objects[k], "there is none", error);
    return status;
}

static enum status batch_ask(struct hub *hub, const struct hub_reference *reference, const char *url,
                             const char *branch, const struct lfs_object *objects, size_t count, struct error *error) {
    struct text question = {0};
    struct http_reply reply = {0};
    json_t *root = NULL;
    question_write(branch, objects, count, &question);
    const struct hub_request request = {.subject = {.reference = reference},
                                        .method = "POST",
                                        .url = url,
                                        .fields = lfs_fields,
                                        .field_count = LFS_FIELDS,
                                        .body = question.bytes,
                                        .body_size = question.length,
                                        .body_limit = REPLY_BYTES_MOST};
    enum status status = question.failed ? error_set_memory(error) : json_call(hub, &request, &reply, &root, error);
    if (status == STATUS_OK)
        status = answer_read(root, objects, count, error);
    json_decref(root);
    http_reply_free(&reply);
    text_free(&question);
    return status;
}

enum status lfs_batch(struct hub *hub, const struct hub_reference *reference, const char *branch,
                      const struct lfs_object *objects, size_t count, struct error *error) {
    char *url = text_format("%s/%s.git/info/lfs/objects/batch", hub->environment.endpoint, reference->repository);
    enum status status = url ? STATUS_OK : error_set_memory(error);
    for (size_t first = 0; first < count && status == STATUS_OK; first += AT_ONCE) {
        const size_t these = count - first < AT_ONCE ? count - first : AT_ONCE;
        status = batch_ask(hub, reference, url, branch, objects + first, these, error);
    }
    free(url);
    return status;
}
