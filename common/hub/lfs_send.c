#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "common/hub/lfs.h"
#include "common/progress.h"
#include "common/thread_team.h"
#include "common/utf8.h"

enum { ORDERS_MOST = 4 }; /* of an object: more would be refused as well */

/* A part of an object: all of it where it goes in one piece. */
struct part {
    uint64_t sent; /* bytes of it that went out, in order */
    uint32_t crc32;
    char *etag; /* the storage's answer */
};

struct item {
    const struct lfs_object *object;
    struct part *parts;
    size_t count, taken, done, under_way; /* parts */
    unsigned orders;                      /* that were carried out, this one too */
    bool finished;                        /* the Hub has it */
    bool refused;                         /* this order is */
    struct error refusal;
};

struct sending {
    struct hub *hub;
    const struct hub_reference *reference;
    const char *branch;
    struct item *items;
    size_t count, finished;
    pthread_mutex_t lock; /* of all below, and of the items but for the parts under way */
    pthread_cond_t change;
    struct progress progress;
    uint64_t sent; /* bytes */
    enum status status;
    struct error error;
};

/* What a transfer's callback works on. */
struct stretch {
    struct sending *sending;
    struct item *item;
    struct part *part;
    uint64_t offset, size; /* in the object */
};

static uint64_t size_of(const struct item *item) { return item->object->source->identity.size; }

static enum status changed(const struct item *item, struct error *error) {
    return error_set(error, STATUS_BAD_INPUT,
                     "'%s' was changed while it was sent: nothing of this was committed; push again once it is at rest",
                     item->object->source->name);
}

/* ---- a part ---- */

/*
 * A file that goes in one piece is held back by its last bytes when they are not those that were hashed: the storage
 * would take them for the object.
 */
static enum status stretch_read(void *context, uint64_t offset, void *bytes, size_t size, struct error *error) {
    struct stretch *stretch = context;
    struct sending *sending = stretch->sending;
    struct part *part = stretch->part;
    if (offset == 0)
        part->crc32 = (uint32_t)crc32(0, NULL, 0);
    else if (offset != part->sent)
        return error_set(error, STATUS_IO, "'%s' cannot be sent again from its middle", stretch->item->object->path);
    enum status status =
        byte_source_read_at(stretch->item->object->source, stretch->offset + offset, bytes, size, error);
    if (status != STATUS_OK)
        return status;
    part->crc32 = (uint32_t)crc32_z(part->crc32, bytes, size);
    if (stretch->item->count == 1 && offset + size == stretch->size && part->crc32 != stretch->item->object->crc32)
        return changed(stretch->item, error);
    pthread_mutex_lock(&sending->lock);
    sending->sent += offset + size - part->sent; /* less when it begins anew */
    part->sent = offset + size;
    progress_update(&sending->progress, sending->sent);
    const bool ended = sending->status != STATUS_OK;
    pthread_mutex_unlock(&sending->lock);
    return ended ? error_set(error, STATUS_IO, "another transfer failed") : STATUS_OK;
}

/* Whether a request was refused so that another order may help. */
static bool is_refusal(const struct http_reply *reply) {
    return reply->code >= 400 && reply->code < 500 && reply->code != 408 && reply->code != 429;
}

static enum status part_send(struct sending *sending, struct item *item, size_t number, bool *refused,
                             struct error *error) {
    const struct lfs_order *order = item->object->order;
    struct stretch stretch = {sending, item, &item->parts[number], number * order->part_bytes, size_of(item)};
    if (order->part_bytes > 0 && stretch.size - stretch.offset > order->part_bytes)
        stretch.size = order->part_bytes;
    else
        stretch.size -= stretch.offset;
    struct http_reply reply = {0};
    const struct hub_request request = {
        .subject = {sending->reference, item->object->path},
        .method = "PUT",
        .url = order->part_count > 0 ? order->parts[number] : order->url,
        .body_read = stretch_read,
        .body_size = stretch.size,
        .context = &stretch,
        .anonymous = true,
    };
    enum status status = hub_perform(sending->hub, &request, &reply, error);
    *refused = status != STATUS_OK && is_refusal(&reply);
    if (status == STATUS_OK && order->part_count > 0) {
        stretch.part->etag = http_reply_field(&reply, "ETag");
        *refused = !stretch.part->etag || !utf8_is_valid(stretch.part->etag, strlen(stretch.part->etag));
        if (*refused)
            status = error_set(error, STATUS_IO, "the storage has not confirmed part %zu of '%s' by an ETag",
                               number + 1, item->object->path);
    }
    if (status == STATUS_OK && stretch.part->sent != stretch.size) {
        *refused = true;
        status = error_set(error, STATUS_IO, "the storage has not taken all of '%s'", item->object->path);
    }
    http_reply_free(&reply);
    return status;
}

/* ---- an object ---- */

static enum status post(struct sending *sending, const struct item *item, const char *url, bool anonymous,
                        const struct text *body, bool *refused, struct error *error) {
    struct http_reply reply = {0};
    const struct hub_request request = {.subject = {sending->reference, item->object->path},
                                        .method = "POST",
                                        .url = url,
                                        .fields = lfs_fields,
                                        .field_count = LFS_FIELDS,
                                        .body = body->bytes,
                                        .body_size = body->length,
                                        .anonymous = anonymous};
    enum status status = body->failed ? error_set_memory(error) : hub_perform(sending->hub, &request, &reply, error);
    *refused = status != STATUS_OK && is_refusal(&reply);
    http_reply_free(&reply);
    return status;
}

static enum status parts_join(struct sending *sending, const struct item *item, bool *refused, struct error *error) {
    const struct lfs_order *order = item->object->order;
    struct text body = {0};
    char hex[SHA256_HEX];
    uLong crc = crc32(0, NULL, 0);
    for (size_t i = 0; i < item->count; i++)
        crc = crc32_combine(crc, item->parts[i].crc32, (z_off_t)item->parts[i].sent);
    if ((uint32_t)crc != item->object->crc32)
        return changed(item, error);
    text_printf(&body, "{\"oid\":\"%s\",\"parts\":[", sha256_hex(item->object->sha256, hex));
    for (size_t i = 0; i < item->count; i++) {
        text_printf(&body, "%s{\"partNumber\":%zu,\"etag\":", i ? "," : "", i + 1);
        text_append_json_string(&body, item->parts[i].etag);
        text_append_string(&body, "}");
    }
    text_append_string(&body, "]}");
    enum status status = post(sending, item, order->url, true, &body, refused, error);
    text_free(&body);
    return status;
}

/* All bytes are there: says so. */
static enum status item_finish(struct sending *sending, const struct item *item, bool *refused, struct error *error) {
    const struct lfs_order *order = item->object->order;
    struct text body = {0};
    char hex[SHA256_HEX];
    enum status status = order->part_count > 0 ? parts_join(sending, item, refused, error) : STATUS_OK;
    if (status == STATUS_OK && order->verify) {
        text_printf(&body, "{\"oid\":\"%s\",\"size\":%" PRIu64 "}", sha256_hex(item->object->sha256, hex),
                    size_of(item));
        status = post(sending, item, order->verify, false, &body, refused, error);
    }
    text_free(&body);
    return status;
}

static void parts_free(struct item *item) {
    for (size_t i = 0; i < item->count; i++)
        free(item->parts[i].etag);
    free(item->parts);
    item->parts = NULL;
    item->count = 0;
}

/* Begins an order: all of its parts are to be sent. */
static enum status order_begin(struct item *item, struct error *error) {
    const struct lfs_order *order = item->object->order;
    const size_t count = order->part_count > 0 ? order->part_count : 1;
    parts_free(item);
    item->taken = item->done = 0;
    item->refused = false;
    item->orders++;
    item->parts = calloc(count, sizeof *item->parts);
    if (!item->parts)
        return error_set_memory(error);
    item->count = count;
    return STATUS_OK;
}

/* Asks for another order in place of one that was refused. */
static enum status order_renew(struct sending *sending, struct item *item, struct error *error) {
    if (item->orders >= ORDERS_MOST) {
        *error = item->refusal;
        return STATUS_IO;
    }
    lfs_order_free(item->object->order);
    return lfs_batch(sending->hub, sending->reference, sending->branch, item->object, 1, error);
}

/* ---- the threads ---- */

/* With the lock. */
static void fail(struct sending *sending, enum status status, const struct error *error) {
    if (sending->status == STATUS_OK) {
        sending->status = status;
        sending->error = *error;
    }
}

/* With the lock: the outcome of a request for an item. */
static void note(struct sending *sending, struct item *item, enum status status, bool refused,
                 const struct error *error) {
    if (status != STATUS_OK && refused) {
        item->refused = true;
        item->refusal = *error;
    } else if (status != STATUS_OK) {
        fail(sending, status, error);
    }
}

/* With the lock, which is given up meanwhile: nothing of the item is under way. */
static void item_renew(struct sending *sending, struct item *item) {
    struct error error;
    for (size_t i = 0; i < item->count; i++)
        sending->sent -= item->parts[i].sent;
    item->under_way++;
    pthread_mutex_unlock(&sending->lock);
    enum status status = order_renew(sending, item, &error);
    pthread_mutex_lock(&sending->lock);
    if (status == STATUS_OK && !item->object->order->url) {
        sending->sent += size_of(item);
        item->finished = true;
    } else if (status == STATUS_OK) {
        status = order_begin(item, &error);
    }
    item->under_way--;
    if (status != STATUS_OK)
        fail(sending, status, &error);
}

/* With the lock, which is given up meanwhile: all parts of the item are there. */
static void item_close(struct sending *sending, struct item *item) {
    struct error error;
    bool refused = false;
    item->under_way++;
    pthread_mutex_unlock(&sending->lock);
    enum status status = item_finish(sending, item, &refused, &error);
    pthread_mutex_lock(&sending->lock);
    item->under_way--;
    item->finished = status == STATUS_OK;
    note(sending, item, status, refused, &error);
}

/* The first part that is to be sent. */
static struct item *part_find(struct sending *sending) {
    for (size_t i = sending->finished; i < sending->count; i++) {
        struct item *item = &sending->items[i];
        if (!item->finished && !item->refused && item->taken < item->count)
            return item;
    }
    return NULL;
}

/* With the lock, which is given up meanwhile. */
static void part_carry(struct sending *sending, struct item *item) {
    struct error error;
    bool refused = false;
    const size_t number = item->taken++;
    item->under_way++;
    pthread_mutex_unlock(&sending->lock);
    enum status status = part_send(sending, item, number, &refused, &error);
    pthread_mutex_lock(&sending->lock);
    item->under_way--;
    item->done += status == STATUS_OK;
    note(sending, item, status, refused, &error);
    if (sending->status == STATUS_OK && !item->refused && item->done == item->count)
        item_close(sending, item);
    if (sending->status == STATUS_OK && item->refused && item->under_way == 0)
        item_renew(sending, item);
}

static void sender_run(void *context, unsigned number) {
    struct sending *sending = context;
    (void)number;
    pthread_mutex_lock(&sending->lock);
    while (sending->status == STATUS_OK) {
        while (sending->finished < sending->count && sending->items[sending->finished].finished)
            sending->finished++; /* the first that is not */
        if (sending->finished == sending->count)
            break;
        struct item *item = part_find(sending);
        if (item) {
            part_carry(sending, item);
            pthread_cond_broadcast(&sending->change);
        } else {
            pthread_cond_wait(&sending->change, &sending->lock);
        }
    }
    pthread_cond_broadcast(&sending->change);
    pthread_mutex_unlock(&sending->lock);
}

enum status lfs_send(struct hub *hub, const struct hub_reference *reference, const char *branch,
                     const struct lfs_object *objects, size_t count, unsigned connections, bool quiet,
                     struct error *error) {
    struct sending sending = {.hub = hub, .reference = reference, .branch = branch, .count = count};
    uint64_t total = 0;
    sending.items = calloc(count + 1, sizeof *sending.items);
    if (!sending.items)
        return error_set_memory(error);
    pthread_mutex_init(&sending.lock, NULL);
    pthread_cond_init(&sending.change, NULL);
    enum status status = STATUS_OK;
    for (size_t i = 0; i < count && status == STATUS_OK; i++) {
        sending.items[i].object = &objects[i];
        status = order_begin(&sending.items[i], error);
        total += objects[i].source->identity.size;
    }
    struct thread_team team = {0};
    progress_start(&sending.progress, "sending", total, 0, quiet);
    if (status == STATUS_OK)
        status = thread_team_start(&team, connections, sender_run, &sending, error);
    if (status == STATUS_OK) {
        thread_team_join(&team);
        status = sending.status;
        if (status != STATUS_OK)
            *error = sending.error;
    }
    progress_end(&sending.progress);
    for (size_t i = 0; i < count; i++)
        parts_free(&sending.items[i]);
    pthread_cond_destroy(&sending.change);
    pthread_mutex_destroy(&sending.lock);
    free(sending.items);
    return status;
}
