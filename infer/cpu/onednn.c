#if defined __x86_64__

#include "infer/cpu/onednn.h"

#include "common/late_library.h"
#include "common/library_memory.h"

struct onednn onednn;

#define TEXT(name) #name
#define ONEDNN_FUNCTION(name) {TEXT(dnnl_##name), &onednn.name},

enum status onednn_load(struct error *error) {
    if (onednn.omp_set_num_threads) /* found last */
        return STATUS_OK;
    /* Of the C++ library that oneDNN is linked to; first, since oneDNN allocates while it is loaded. */
    void (*(*set_new_handler)(void (*handler)(void)))(void);
    const struct late_function of_cpp[] = {{"_ZSt15set_new_handlerPFvvE", &set_new_handler}};
    static const struct late_function functions[] = {
        ONEDNN_FUNCTIONS(ONEDNN_FUNCTION){"omp_set_num_threads", &onednn.omp_set_num_threads}};
    enum status status = late_library_load("libstdc++.so.6", "libstdc++6", of_cpp, 1, error);
    if (status != STATUS_OK)
        return status;
    set_new_handler(library_memory_end);
    return late_library_load("libdnnl.so.2", "libdnnl2 (oneDNN)", functions, sizeof functions / sizeof *functions,
                             error);
}

#endif
