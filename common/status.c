#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"

static void error_format(struct error *error, const char *format, va_list arguments, const char *reason) {
    char raw[ERROR_MESSAGE_MAX];
    int length = vsnprintf(raw, sizeof raw, format, arguments);
    if (length < 0)
        length = 0;
    if (reason && (size_t)length < sizeof raw)
        snprintf(raw + length, sizeof raw - (size_t)length, ": %s", reason);
    text_escape(error->message, sizeof error->message, raw);
}

enum status error_set(struct error *error, enum status status, const char *format, ...) {
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        error_format(error, format, arguments, NULL);
        va_end(arguments);
    }
    return status;
}

enum status error_set_errno(struct error *error, enum status status, int error_number, const char *format,
                            ...) {
    if (error) {
        char reason[128];
        va_list arguments;
        va_start(arguments, format);
        error_format(error, format, arguments, strerror_r(error_number, reason, sizeof reason));
        va_end(arguments);
    }
    return status;
}

enum status error_set_memory(struct error *error) {
    return error_set(error, STATUS_IO, "out of memory");
}
