/*
 * URLs, by libcurl's own parser, so that what is judged here is what is asked. libcurl has to be loaded.
 */
#ifndef QSTREAM_COMMON_HUB_URL_H
#define QSTREAM_COMMON_HUB_URL_H

#include <stdbool.h>

/*
 * Where `location` leads from `base`, absolute and without a fragment. NULL when it is no URL of http or https, has a user
 * or a password, or is longer than 16 KiB, and without memory. The caller frees, as with all here.
 */
char *hub_url_join(const char *base, const char *location);

/* The same scheme, host and port. */
bool hub_url_same_origin(const char *a, const char *b);

/* Whether the URL goes without TLS. */
bool hub_url_is_plain(const char *url);

/* For messages: without user, password, query and fragment, which may hold secrets. */
char *hub_url_shown(const char *url);

#endif
