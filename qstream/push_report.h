/*
 * What 'qstream push' tells: lines for people as it goes, and at its end the URL or one JSON object.
 */
#ifndef QSTREAM_QSTREAM_PUSH_REPORT_H
#define QSTREAM_QSTREAM_PUSH_REPORT_H

#include "common/folder.h"
#include "common/hub/upload.h"
#include "common/hub/upload_target.h"
#include "qstream/push_gate.h"
#include "verify/manifest.h"

struct push_options {
    const char *folder, *source, *verified, *revision, *message; /* NULL: not given */
    bool private, create_pull_request, dry_run, json, quiet;
    uint32_t connections;
};

/* A push on its way. */
struct push {
    struct push_options options;
    struct hub_reference target;
    struct hub *hub;
    struct folder *folder;
    struct manifest manifest;
    bool has_manifest;
    char *source; /* that the folder is, or was, verified against */
    struct hub_target repository;
    struct hub_listing listing; /* of the branch before */
    struct upload upload;
    struct gate_result audit, verify;
    struct upload_result result;
};

/* A check's summary; its table when it failed. */
void push_tell_gate(const struct push *push, const struct gate_result *result, enum status status);

/* What the branch has of the files, and what else. */
void push_tell_branch(const struct push *push);

/* How much is to be sent. */
void push_tell_orders(const struct push *push);

/* The outcome: STATUS_OK, or STATUS_CHECK_FAILED with `error` as the reason. Fails without memory only. */
enum status push_tell_result(const struct push *push, enum status status, struct error *error);

#endif
