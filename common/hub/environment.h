/*
 * The settings that users of the Hub have already, read as huggingface_hub reads them: HF_TOKEN and the token file
 * (HF_TOKEN_PATH), HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_HUB_OFFLINE, HF_HUB_DISABLE_IMPLICIT_TOKEN,
 * HF_HUB_DOWNLOAD_TIMEOUT, HF_HUB_ETAG_TIMEOUT and their older names. Proxies and certificates (https_proxy, no_proxy,
 * SSL_CERT_FILE, ...) are libcurl's.
 */
#ifndef QSTREAM_COMMON_HUB_ENVIRONMENT_H
#define QSTREAM_COMMON_HUB_ENVIRONMENT_H

#include <stdbool.h>

#include "common/status.h"

struct hub_environment {
    char *endpoint; /* "https://huggingface.co": no '/' at its end */
    char *token;    /* NULL: none, or not to be sent unasked */
    char *cache;    /* the folder with models--org--name */
    bool offline;
    long connect_seconds, stall_seconds; /* a connection's start; no byte for so long */
};

/* STATUS_USAGE when a variable cannot be understood, STATUS_IO when the token file is there and cannot be read. */
enum status hub_environment_read(struct hub_environment *environment, struct error *error);

void hub_environment_free(struct hub_environment *environment);

#endif
