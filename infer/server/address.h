/*
 * Where a server is asked: from what a user gives as its URL, in any of these forms:
 *   host:8000   http://host:8000   https://host/prefix/v1   https://host/v1/completions
 */
#ifndef QSTREAM_INFER_SERVER_ADDRESS_H
#define QSTREAM_INFER_SERVER_ADDRESS_H

#include "common/status.h"

struct address {
    char *completions, *models; /* complete, with a user's name and password if the URL has them */
    char *shown;                /* for messages and reports: scheme, host, port, and what is before /v1 in the path */
};

/* STATUS_USAGE when it is no URL of http or https. Free with address_free, also after an error. */
enum status address_make(const char *url, struct address *address, struct error *error);
void address_free(struct address *address);

#endif
