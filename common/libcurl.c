#include "common/libcurl.h"

#include <stdbool.h>

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
