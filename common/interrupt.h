/*
 * SIGINT and SIGTERM as a flag that long loops look at. The second signal ends the process at once.
 */
#ifndef QSTREAM_COMMON_INTERRUPT_H
#define QSTREAM_COMMON_INTERRUPT_H

#include <stdbool.h>

void interrupt_install(void);
bool interrupt_pending(void);

#endif
