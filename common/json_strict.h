/*
 * JSON that people write, read strictly: what is unknown or of another kind is refused, and the message says where.
 */
#ifndef QSTREAM_COMMON_JSON_STRICT_H
#define QSTREAM_COMMON_JSON_STRICT_H

#include <stdbool.h>
#include <stddef.h>

#include "common/status.h"

struct json_t;

/* Where a value stands: messages begin with "recipe 'a.json': rule 3: ". */
struct json_place {
    const char *kind; /* of the file; "" when its name says enough */
    const char *path;
    const char *part; /* of the file; "" for the whole */
};

/* STATUS_BAD_INPUT with what is wrong at the place. A macro, so that analyzers see which status it is. */
#define JSON_REFUSE(place, error, ...) (json_refuse((place), (error), __VA_ARGS__), (enum status)STATUS_BAD_INPUT)

void json_refuse(const struct json_place *place, struct error *error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* An object in which no key stands twice, to be released by the caller; NULL after an error. */
enum status json_object_parse(const struct json_place *place, const char *bytes, size_t length, struct json_t **root,
                              struct error *error);

/* Its "schema" has to be this one. */
enum status json_schema_check(const struct json_place *place, const struct json_t *object, const char *schema,
                              struct error *error);

/* A key of the object that is none of `known`, which ends with NULL; NULL when there is none. */
const char *json_unknown_key(const struct json_t *object, const char *const *known);

/* Refuses such a key. */
enum status json_keys_check(const struct json_place *place, const struct json_t *object, const char *const *known,
                            struct error *error);

/* A member that may be missing: *string, which belongs to the object, is then NULL. */
enum status json_string_read(const struct json_place *place, const struct json_t *object, const char *key,
                             const char **string, struct error *error);

/* A member that may be missing: *flag then stays as it is. */
enum status json_flag_read(const struct json_place *place, const struct json_t *object, const char *key, bool *flag,
                           struct error *error);

#endif
