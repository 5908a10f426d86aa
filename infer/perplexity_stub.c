#include "infer/perplexity.h"
#include <stdlib.h>
/* Until the engine is there. */
enum status ppl_plan(const struct ppl_options *options, const int32_t *ids, size_t count, struct ppl_result *result,
                     struct error *error) {
    (void)options, (void)ids, (void)count, (void)result;
    return error_set(error, STATUS_USAGE, "the engine is not there yet");
}
enum status ppl_run(const struct ppl_options *options, const int32_t *ids, size_t count, struct ppl_result *result,
                    struct error *error) {
    (void)options, (void)ids, (void)count, (void)result;
    return error_set(error, STATUS_USAGE, "the engine is not there yet");
}
