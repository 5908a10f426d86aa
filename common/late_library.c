#include "common/late_library.h"

#include <dlfcn.h>
#include <string.h>

enum status late_library_load(const char *file, const char *package, const struct late_function *functions,
                              size_t count, struct error *error) {
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        return error_set(error, STATUS_IO, "the library %s cannot be loaded (%s); it is in the package %s", file,
                         reason ? reason : "no reason given", package);
    }
    for (size_t i = 0; i < count; i++) {
        void *address = dlsym(library, functions[i].name);
        if (!address)
            return error_set(error, STATUS_IO, "the library %s has no %s: it is of another version than qstream wants",
                             file, functions[i].name);
        memcpy(functions[i].address, &address, sizeof address);
    }
    return STATUS_OK;
}
