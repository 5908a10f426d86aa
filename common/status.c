#include "common/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

/* Copies a message, without its middle when it is too long: what is wrong often stands at its end. */
static void message_fit(char out[ERROR_MESSAGE_MAX], const char *message) {
    static const char gap[] = " [...] ";
    enum { HEAD = ERROR_MESSAGE_MAX / 2, TAIL = ERROR_MESSAGE_MAX - HEAD - (int)sizeof gap };
    size_t length = strlen(message);
    if (length < ERROR_MESSAGE_MAX) {
        memcpy(out, message, length + 1);
        return;
    }
    memcpy(out, message, HEAD);
    memcpy(out + HEAD, gap, sizeof gap - 1);
    memcpy(out + HEAD + sizeof gap - 1, message + length - TAIL, TAIL + 1);
}

void error_write(struct error *error, int error_number, const char *format, ...) {
    if (!error)
        return;
    struct text raw = {0};
    char reason[128], *escaped;
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(&raw, format, arguments);
    va_end(arguments);
    if (error_number)
        text_printf(&raw, ": %s", strerror_r(error_number, reason, sizeof reason));
    size_t size = 4 * raw.length + 1; /* \xNN for every byte */
    escaped = raw.failed ? NULL : malloc(size);
    if (escaped)
        text_escape(escaped, size, raw.bytes);
    message_fit(error->message, escaped ? escaped : "out of memory");
    free(escaped);
    text_free(&raw);
}
