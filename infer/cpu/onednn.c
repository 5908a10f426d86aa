#if defined __x86_64__

#include "infer/cpu/onednn.h"

#include "common/late_library.h"

struct onednn onednn;

#define TEXT(name) #name
#define ONEDNN_FUNCTION(name) {TEXT(dnnl_##name), &onednn.name},

enum status onednn_load(struct error *error) {
    if (onednn.omp_set_num_threads) /* found last */
        return STATUS_OK;
    static const struct late_function functions[] = {
        ONEDNN_FUNCTIONS(ONEDNN_FUNCTION){"omp_set_num_threads", &onednn.omp_set_num_threads}};
    return late_library_load("libdnnl.so.2", "libdnnl2 (oneDNN)", functions, sizeof functions / sizeof *functions,
                             error);
}

#endif
