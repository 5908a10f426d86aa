/*
 * oneDNN's functions, of a library that is loaded when the first product is asked for: 60 MB of address space and its
 * start are spared by the commands that multiply nothing. x86-64 only.
 */
#ifndef QSTREAM_INFER_CPU_ONEDNN_H
#define QSTREAM_INFER_CPU_ONEDNN_H

#include <dnnl.h>

#include "common/status.h"

#define ONEDNN_FUNCTIONS(X)                                                                                            \
    X(engine_create)                                                                                                   \
    X(engine_destroy)                                                                                                  \
    X(get_effective_cpu_isa)                                                                                           \
    X(matmul_desc_init)                                                                                                \
    X(memory_create)                                                                                                   \
    X(memory_desc_get_size)                                                                                            \
    X(memory_desc_init_by_strides)                                                                                     \
    X(memory_desc_init_by_tag)                                                                                         \
    X(memory_desc_init_submemory)                                                                                      \
    X(memory_destroy)                                                                                                  \
    X(post_ops_append_sum)                                                                                             \
    X(post_ops_create)                                                                                                 \
    X(post_ops_destroy)                                                                                                \
    X(primitive_attr_create)                                                                                           \
    X(primitive_attr_destroy)                                                                                          \
    X(primitive_attr_set_post_ops)                                                                                     \
    X(primitive_attr_set_scratchpad_mode)                                                                              \
    X(primitive_create)                                                                                                \
    X(primitive_desc_create)                                                                                           \
    X(primitive_desc_destroy)                                                                                          \
    X(primitive_desc_query_md)                                                                                         \
    X(primitive_destroy)                                                                                               \
    X(primitive_execute)                                                                                               \
    X(reorder_primitive_desc_create)                                                                                   \
    X(set_max_cpu_isa)                                                                                                 \
    X(stream_create)                                                                                                   \
    X(stream_destroy)                                                                                                  \
    X(version)

#define ONEDNN_MEMBER(name) __typeof__(&dnnl_##name) name;
struct onednn {
    ONEDNN_FUNCTIONS(ONEDNN_MEMBER)
    void (*omp_set_num_threads)(int threads); /* of the OpenMP that it is linked to */
};

/* Filled by onednn_load. */
extern struct onednn onednn;

/* Loads the library, the first time. STATUS_IO when there is none. Not for several threads at once. */
enum status onednn_load(struct error *error);

#endif
