#include "common/library_memory.h"

#include <jansson.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/status.h"

void library_memory_end(void) {
    static const char message[] = "qstream: out of memory\n";
    const ssize_t written = write(STDERR_FILENO, message, sizeof message - 1); /* stdio may want memory itself */
    (void)written;
    _exit(STATUS_IO);
}

static void *malloc_or_end(size_t size) {
    void *memory = malloc(size);
    if (!memory && size)
        library_memory_end();
    return memory;
}

static void *crypto_malloc(size_t size, const char *file, int line) {
    (void)file;
    (void)line;
    return malloc_or_end(size);
}

static void *crypto_realloc(void *memory, size_t size, const char *file, int line) {
    (void)file;
    (void)line;
    void *larger = realloc(memory, size);
    if (!larger && size)
        library_memory_end();
    return larger;
}

static void crypto_free(void *memory, const char *file, int line) {
    (void)file;
    (void)line;
    free(memory);
}

void library_memory_set(void) {
    json_set_alloc_funcs(malloc_or_end, free);
    CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free);
}
