#include "common/hub/retry.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/interrupt.h"
#include "common/libcurl.h"
#include "common/progress.h"

bool retry_code(long code) {
    return code == 408 || code == 429 || code == 500 || code == 502 || code == 503 || code == 504;
}

static const double asked_most = 1e9;

/* The number that `text` begins with; *end is behind it. Negative when it begins with none. */
static double number_read(const char *text, const char **end) {
    double number = -1;
    for (*end = text; isdigit((unsigned char)**end); ++*end)
        number = fmin((number < 0 ? 0 : number) * 10 + (**end - '0'), asked_most);
    return number;
}

/* The number of `;NAME=NUMBER`; negative when `text` does not begin so. */
static double parameter_read(const char *text, char name, const char **end) {
    const char *const signs[] = {";", (const char[]){name, '\0'}, "="};
    for (size_t i = 0; i < 3; i++) {
        text += strspn(text, " \t");
        if (*text++ != *signs[i])
            return -1;
    }
    return number_read(text + strspn(text, " \t"), end);
}

/* "api";r=0;t=55: nothing remains for 55 seconds. */
static double rate_limit_read(const char *value) {
    for (const char *open = strchr(value, '"'); open; open = strchr(open + 1, '"')) {
        const char *at = open + 1;
        while (isalnum((unsigned char)*at) || *at == '_')
            at++;
        if (at == open + 1 || *at != '"')
            continue;
        const double remaining = parameter_read(at + 1, 'r', &at);
        const double seconds = remaining == 0 ? parameter_read(at, 't', &at) : -1;
        if (remaining >= 0)
            return seconds;
    }
    return -1;
}

static double retry_after_read(const char *value, time_t now) {
    const char *end;
    const double seconds = number_read(value, &end);
    if (seconds >= 0)
        return *end ? -1 : seconds;
    const time_t when = libcurl.getdate(value, NULL);
    return when < 0 ? -1 : fmin(fmax(difftime(when, now), 0), asked_most);
}

double retry_asked(const struct http_reply *reply, time_t now) {
    double asked = -1;
    char *limit = reply->code == 429 ? http_reply_field(reply, "RateLimit") : NULL;
    char *after = http_reply_field(reply, "Retry-After");
    if (limit)
        asked = rate_limit_read(limit);
    if (asked < 0 && after)
        asked = retry_after_read(after, now);
    free(limit);
    free(after);
    return asked < 0 ? -1 : asked + 1; /* the server's clock is not ours */
}

double retry_wait(unsigned attempt, double first) {
    uint32_t chance = 0;
    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) != sizeof chance)
        chance = UINT32_MAX / 2;
    return ldexp(first, (int)attempt - 2) * (0.75 + 0.5 * (double)chance / UINT32_MAX);
}

enum status retry_sleep(double seconds, struct error *error) {
    static const double glance = 0.05;
    const double end = seconds_now() + seconds;
    for (double left; (left = end - seconds_now()) > 0;) {
        if (interrupt_pending())
            return error_set(error, STATUS_INTERRUPTED, "interrupted");
        nanosleep(&(struct timespec){.tv_nsec = (long)(fmin(left, glance) * 1e9)}, NULL);
    }
    return STATUS_OK;
}
