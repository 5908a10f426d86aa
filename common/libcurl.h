/*
 * libcurl's functions, of a library that is loaded when a URL is asked for first: with all that it brings along it would
 * take most of every other command's start, and 30 MB of address space.
 */
#ifndef QSTREAM_COMMON_LIBCURL_H
#define QSTREAM_COMMON_LIBCURL_H

#include <curl/curl.h>
#include <stdbool.h>

#include "common/status.h"

#define LIBCURL_FUNCTIONS(X)                                                                                           \
    X(easy_cleanup)                                                                                                    \
    X(easy_getinfo)                                                                                                    \
    X(easy_init)                                                                                                       \
    X(easy_setopt)                                                                                                     \
    X(easy_strerror)                                                                                                   \
    X(free)                                                                                                            \
    X(getdate)                                                                                                         \
    X(global_cleanup)                                                                                                  \
    X(global_init)                                                                                                     \
    X(multi_add_handle)                                                                                                \
    X(multi_cleanup)                                                                                                   \
    X(multi_info_read)                                                                                                 \
    X(multi_init)                                                                                                      \
    X(multi_perform)                                                                                                   \
    X(multi_poll)                                                                                                      \
    X(multi_remove_handle)                                                                                             \
    X(multi_setopt)                                                                                                    \
    X(multi_wakeup)                                                                                                    \
    X(share_cleanup)                                                                                                   \
    X(share_init)                                                                                                      \
    X(share_setopt)                                                                                                    \
    X(slist_append)                                                                                                    \
    X(slist_free_all)                                                                                                  \
    X(url)                                                                                                             \
    X(url_cleanup)                                                                                                     \
    X(url_get)                                                                                                         \
    X(url_set)                                                                                                         \
    X(version_info)

#define LIBCURL_MEMBER(name) __typeof__(&curl_##name) name;
struct libcurl {
    LIBCURL_FUNCTIONS(LIBCURL_MEMBER)
};

/* Filled by libcurl_load. */
extern struct libcurl libcurl;

/* Loads the library, the first time. STATUS_IO when there is none. Not for several threads at once. */
enum status libcurl_load(struct error *error);

/* A user's own certificate authority, from the variables that curl, OpenSSL and Python's tools read: CURL_CA_BUNDLE,
 * SSL_CERT_FILE or REQUESTS_CA_BUNDLE (the first that is set), and SSL_CERT_DIR. */
void libcurl_authority_choose(CURL *easy);

/* Failures of the network, which may be over in a moment; not those that are the same each time. */
bool libcurl_is_transient(CURLcode code);

#endif
