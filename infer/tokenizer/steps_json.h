/*
 * The normalizer, pre-tokenizer and decoder of a tokenizer.json.
 */
#ifndef QSTREAM_INFER_TOKENIZER_STEPS_JSON_H
#define QSTREAM_INFER_TOKENIZER_STEPS_JSON_H

#include "common/json_text.h"
#include "common/status.h"
#include "infer/tokenizer/pre_tokenizer.h"

/* Spans may be empty: the part is not there, or null. What is not supported is STATUS_BAD_INPUT with its name. */
enum status normalizer_json_read(const char *json, struct json_span span, bool *nfc, struct error *error);
enum status pre_tokenizer_json_read(const char *json, struct json_span span, struct pre_tokenizer *pre,
                                    struct error *error);
enum status decoder_json_check(const char *json, struct json_span span, struct error *error);

#endif
