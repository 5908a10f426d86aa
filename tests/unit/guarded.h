/* Memory for tests of kernels: reading or writing past its end is a crash. */
#ifndef QSTREAM_TESTS_GUARDED_H
#define QSTREAM_TESTS_GUARDED_H

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

struct guarded {
    unsigned char *bytes;
    void *pages;
    size_t size;
};

static inline struct guarded guarded_make(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    struct guarded memory = {.size = (bytes + page - 1) / page * page + page};
    memory.pages = mmap(NULL, memory.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory.pages != MAP_FAILED);
    memory.bytes = (unsigned char *)memory.pages + memory.size - page - bytes;
    assert_int_equal(mprotect((unsigned char *)memory.pages + memory.size - page, page, PROT_NONE), 0);
    return memory;
}

static inline void guarded_free(struct guarded *memory) { munmap(memory->pages, memory->size); }

#endif
