/*
 * A config.json and an index that describe the tensors as they are.
 */
#ifndef QSTREAM_INSPECT_AUDIT_FIX_H
#define QSTREAM_INSPECT_AUDIT_FIX_H

#include "inspect/inspection.h"

/*
 * Writes them to `folder`, which is made when it is not there. Files that exist are replaced only with `force`
 * (STATUS_USAGE otherwise, before anything is written). config.json keeps every byte but quantization_config; tensors
 * are never touched. STATUS_BAD_INPUT when the tensors are stored in a way that no group can describe.
 */
enum status audit_fix(const struct inspection *inspection, const char *folder, bool force, struct error *error);

#endif
