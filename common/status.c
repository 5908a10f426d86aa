#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/text.h"

void error_write(struct error *error, int error_number, const char *format, ...) {
    if (!error)
        return;
    char raw[ERROR_MESSAGE_MAX], reason[128];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(raw, sizeof raw, format, arguments);
    va_end(arguments);
    if (error_number && length >= 0 && (size_t)length < sizeof raw)
        snprintf(raw + length, sizeof raw - (size_t)length, ": %s", strerror_r(error_number, reason, sizeof reason));
    text_escape(error->message, sizeof error->message, length >= 0 ? raw : format);
}
