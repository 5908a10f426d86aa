/*
 * The output's config.json: the source's bytes with quantization_config replaced by one that describes what was
 * written (common/scheme_config.h).
 */
#ifndef QSTREAM_QSTREAM_CONFIG_H
#define QSTREAM_QSTREAM_CONFIG_H

#include "qstream/plan.h"

/* Appends the whole config.json. */
enum status config_build(const struct plan *plan, const struct recipe *recipe, struct text *out, struct error *error);

#endif
