#include "common/libcurl.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "common/late_library.h"

struct libcurl libcurl;

#define TEXT(name) #name
#define LIBCURL_FUNCTION(name) {TEXT(curl_##name), &libcurl.name},

enum status libcurl_load(struct error *error) {
    static bool loaded;
    if (loaded)
        return STATUS_OK;
    static const struct late_function functions[] = {LIBCURL_FUNCTIONS(LIBCURL_FUNCTION)};
    const enum status status = late_library_load("libcurl.so.4", "libcurl4 (or libcurl4t64)", functions,
                                                 sizeof functions / sizeof *functions, error);
    loaded = status == STATUS_OK;
    return status;
}

void libcurl_authority_choose(CURL *easy) {
    static const char *const files[] = {"CURL_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"};
    const char *folder = getenv("SSL_CERT_DIR");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        const char *file = getenv(files[i]);
        struct stat stat_of;
        if (!file || !*file)
            continue;
        if (stat(file, &stat_of) == 0 && S_ISDIR(stat_of.st_mode)) /* which requests takes, too */
            folder = file;
        else
            libcurl.easy_setopt(easy, CURLOPT_CAINFO, file), libcurl.easy_setopt(easy, CURLOPT_PROXY_CAINFO, file);
        break;
    }
    if (folder && *folder)
        libcurl.easy_setopt(easy, CURLOPT_CAPATH, folder), libcurl.easy_setopt(easy, CURLOPT_PROXY_CAPATH, folder);
}

bool libcurl_is_transient(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
        return true;
    default:
        return false;
    }
}
