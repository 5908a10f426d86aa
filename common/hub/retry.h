/*
 * Whether a reply of an HTTP server asks to be asked again, and when.
 */
#ifndef QSTREAM_COMMON_HUB_RETRY_H
#define QSTREAM_COMMON_HUB_RETRY_H

#include <stdbool.h>
#include <time.h>

#include "common/hub/http.h"

/* Longer waits that a server asks for are not waited for: the Hub counts requests in windows of 300 seconds. */
enum { RETRY_WAIT_MOST = 600 };

/* 408, 429, 500, 502, 503, 504. */
bool retry_code(long code);

/*
 * The seconds that a reply asks to wait: a 429 by RateLimit ("api";r=0;t=55), which huggingface_hub reads as well, else by
 * Retry-After, in seconds or as a date (`now` is the time). Negative when it does not say. At most 1e9.
 */
double retry_asked(const struct http_reply *reply, time_t now);

/* The seconds before attempt number `attempt` (from 2) when the server does not say: `first`, doubled for each, and up to a
 * quarter more or less, so that those who failed together do not come back together. */
double retry_wait(unsigned attempt, double first);

/* STATUS_INTERRUPTED after SIGINT or SIGTERM. */
enum status retry_sleep(double seconds, struct error *error);

#endif
