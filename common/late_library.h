/*
 * Libraries that only some commands need, loaded when they are first used: the others start faster and keep their
 * address space. Functions are declared by the library's own header and reached through a table of pointers.
 */
#ifndef QSTREAM_COMMON_LATE_LIBRARY_H
#define QSTREAM_COMMON_LATE_LIBRARY_H

#include <stddef.h>

#include "common/status.h"

/* A function's name and where its address goes: the address of a pointer to such a function. */
struct late_function {
    const char *name;
    void *address;
};

/*
 * Loads `file` ("libdnnl.so.2") and finds the functions. STATUS_IO names the library and `package`, what to install.
 * A library stays loaded. Not for several threads at once.
 */
enum status late_library_load(const char *file, const char *package, const struct late_function *functions,
                              size_t count, struct error *error);

#endif
