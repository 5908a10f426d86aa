#include "common/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t pending; /* a signal handler has nowhere else to leave word */

static void note(int signal) {
    (void)signal;
    pending = 1;
}

void interrupt_install(void) {
    struct sigaction action = {.sa_handler = note, .sa_flags = (int)(SA_RESETHAND)};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool interrupt_pending(void) { return pending != 0; }
