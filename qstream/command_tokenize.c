#include "common/status.h"
#include "qstream/command.h"

int command_tokenize(int argc, char **argv) {
    (void)argc;
    (void)argv;
    struct error error;
    return command_fail(error_set(&error, STATUS_USAGE, "not yet"), &error);
}
