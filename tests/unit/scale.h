/*
 * How often tests try what is random: QSTREAM_TEST_SCALE (a factor, 1 by default) makes it less for slow machines, emulated ones
 * and programs with sanitizers.
 */
#ifndef QSTREAM_TESTS_UNIT_SCALE_H
#define QSTREAM_TESTS_UNIT_SCALE_H

#include <stdlib.h>

/* `count` times the factor, at least `least`. */
static inline int scaled(int count, int least) {
    const char *factor = getenv("QSTREAM_TEST_SCALE");
    const int wanted = (int)(factor ? count * strtod(factor, NULL) : count);
    return wanted < least ? least : wanted;
}

#endif
