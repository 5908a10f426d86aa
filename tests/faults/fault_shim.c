/*
 * A preloaded library that makes one call fail, chosen by its kind and its number. Calls are counted from the beginning of
 * main to its end, those of libraries among them; what libc calls inside itself does not pass by here, so streams fail in
 * the functions that the program calls. The environment says what happens:
 *
 *   FAULTS_FAIL=KIND:N:ERRNO   the N-th call of a kind fails with this number as errno; N+: that one and all later ones;
 *                              of the kind "short", it transfers half of what it is asked to
 *   FAULTS_LOG=FILE            gets a line "failed FUNCTION WHAT" and "at OBJECT+OFFSET" for each of its callers; at the
 *                              end a line "count KIND NUMBER" for each kind
 *   FAULTS_CALLS=1             the log also gets a line "call KIND OBJECT STACK" for each call: the program or the library that
 *                              makes it, and a number that calls by way of the same functions have in common
 *
 * With AddressSanitizer the program must be linked with its shared runtime, and this library come before it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define KINDS(X)                                                                                                       \
    X(open) X(read) X(write) X(sync) X(rename) X(mmap) X(malloc) X(size) X(make) X(remove) X(look) X(thread) X(short)
#define KIND_OF(name) KIND_##name,
#define NAME_OF(name) #name,
enum kind { KINDS(KIND_OF) KIND_COUNT };
static const char *const kind_names[] = {KINDS(NAME_OF)};

enum { LOG_DESCRIPTOR = 1000, CALLERS = 16 };

static struct {
    enum kind kind;
    long at; /* 0: never */
    bool and_later;
    int error;
} plan;
static bool logging, log_calls;
static atomic_bool armed;
static atomic_long counts[KIND_COUNT];
static _Thread_local bool inside __attribute__((tls_model("initial-exec"))); /* our own calls do not count */

#define REAL(name)                                                                                                     \
    static __typeof__(&name) real_##name;                                                                              \
    if (!real_##name)                                                                                                  \
    *(void **)&real_##name = dlsym(RTLD_NEXT, #name)

/* ---- the plan and the log ---- */

static void log_line(const char *format, ...) {
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    REAL(write);
    if (logging && length > 0 &&
        real_write(LOG_DESCRIPTOR, line, (size_t)length < sizeof line ? (size_t)length : sizeof line - 1) < 0)
        abort();
}

static void log_callers(void) {
    void *callers[CALLERS];
    int count = backtrace(callers, CALLERS);
    for (int i = 2; i < count; i++) { /* behind ourselves */
        Dl_info info;
        if (dladdr(callers[i], &info) && info.dli_fname)
            log_line("at %s+0x%lx\n", info.dli_fname, (unsigned long)((char *)callers[i] - (char *)info.dli_fbase - 1));
    }
}

/* The name of the object that an address lies in; NULL for those that only hand calls on. */
static const char *object_name(void *address) {
    static const char *const between[] = {"fault_shim.so", "libc.so", "libclang_rt", "libstdc++"};
    struct dl_find_object object;
    if (_dl_find_object(address, &object) != 0)
        return NULL;
    const char *path = object.dlfo_link_map->l_name, *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    for (size_t i = 0; i < sizeof between / sizeof *between; i++)
        if (strncmp(name, between[i], strlen(between[i])) == 0)
            return NULL;
    return *name ? name : "program";
}

/* Where a call came from; the program also allocates for libraries, which then are within its first two callers. */
static const char *caller_name(void **callers, int count) {
    int first = 0;
    while (first < count && !object_name(callers[first]))
        first++;
    for (int i = first; i < count && i <= first + 2; i++) {
        const char *name = object_name(callers[i]);
        if (name && strcmp(name, "program") != 0)
            return name;
    }
    return first < count ? "program" : "unknown";
}

static void log_call(enum kind kind) {
    void *callers[CALLERS];
    unsigned long stack = 0;
    const int count = backtrace(callers, CALLERS);
    for (int i = count - 1; i >= 2; i--)
        stack = stack * 1000003 + (unsigned long)callers[i];
    log_line("call %s %s %lx\n", kind_names[kind], caller_name(callers, count), stack);
}

__attribute__((constructor)) static void prepare(void) {
    const char *fail = getenv("FAULTS_FAIL"), *log = getenv("FAULTS_LOG");
    unsetenv("LD_PRELOAD"); /* not for a symbolizer */
    char kind[16], later[2] = "";
    if (fail) {
        if (sscanf(fail, "%15[a-z]:%ld%1[+]:%d", kind, &plan.at, later, &plan.error) != 4 &&
            sscanf(fail, "%15[a-z]:%ld:%d", kind, &plan.at, &plan.error) != 3)
            abort();
        plan.and_later = later[0] == '+';
        while (plan.kind < KIND_COUNT && strcmp(kind, kind_names[plan.kind]) != 0)
            plan.kind++;
        if (plan.kind == KIND_COUNT)
            abort();
    }
    if (log) {
        REAL(open);
        int fd = real_open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0666);
        if (fd < 0 || dup3(fd, LOG_DESCRIPTOR, O_CLOEXEC) < 0)
            abort();
        close(fd);
        logging = true;
    }
    log_calls = logging && getenv("FAULTS_CALLS");
    void *caller;
    backtrace(&caller, 1); /* loads what it needs */
}

/* Whether this call is the one; then errno is set. */
static bool fails(enum kind kind, const char *function, const char *what) {
    if (!armed || inside)
        return false;
    const long now = ++counts[kind];
    if (log_calls) {
        inside = true;
        log_call(kind);
        inside = false;
    }
    if (kind != plan.kind || !plan.at || (plan.and_later ? now < plan.at : now != plan.at))
        return false;
    if (now == plan.at) {
        inside = true;
        log_line("failed %s %s\n", function, what);
        log_callers();
        inside = false;
    }
    errno = plan.error;
    return true;
}

static bool fails_of(enum kind kind, const char *function, int fd) {
    char what[32];
    snprintf(what, sizeof what, "descriptor %d", fd);
    return fails(kind, function, what);
}

static bool fails_sized(enum kind kind, const char *function, size_t size) {
    char what[32];
    snprintf(what, sizeof what, "%zu bytes", size);
    return fails(kind, function, what);
}

static int (*program_main)(int, char **, char **);

static int counted_main(int argc, char **argv, char **environment) {
    armed = true;
    int code = program_main(argc, argv, environment);
    armed = false;
    for (int i = 0; i < KIND_COUNT; i++)
        log_line("count %s %ld\n", kind_names[i], (long)counts[i]);
    return code;
}

int __libc_start_main(int (*main_function)(int, char **, char **), int argc, char **argv,
                      int (*start)(int, char **, char **), void (*end)(void), void (*loader_end)(void),
                      void *stack_end);
int __libc_start_main(int (*main_function)(int, char **, char **), int argc, char **argv,
                      int (*start)(int, char **, char **), void (*end)(void), void (*loader_end)(void),
                      void *stack_end) {
    REAL(__libc_start_main);
    program_main = main_function;
    return real___libc_start_main(counted_main, argc, argv, start, end, loader_end, stack_end);
}

/* ---- open ---- */

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    REAL(open);
    return fails(KIND_open, "open", path) ? -1 : real_open(path, flags, mode);
}
int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int openat(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    REAL(openat);
    return fails(KIND_open, "openat", path) ? -1 : real_openat(folder, path, flags, mode);
}

/* A call that has the arguments of its last parameter, and fails with this value. */
#define FAILING(kind, result, failed, name, parameters, told, first, ...)                                              \
    result name parameters {                                                                                           \
        REAL(name);                                                                                                    \
        return told(KIND_##kind, #name, first) ? (failed) : real_##name(first __VA_OPT__(, ) __VA_ARGS__);             \
    }

FAILING(open, FILE *, NULL, fopen, (const char *path, const char *mode), fails, path, mode)
FILE *fopen64(const char *path, const char *mode) __attribute__((alias("fopen")));
FAILING(open, FILE *, NULL, fdopen, (int fd, const char *mode), fails_of, fd, mode)
FAILING(open, DIR *, NULL, opendir, (const char *path), fails, path)
FAILING(open, int, -1, mkstemp, (char *path), fails, path)
FAILING(open, int, -1, mkostemp, (char *path, int flags), fails, path, flags)
FAILING(open, void *, NULL, dlopen, (const char *path, int flags), fails, path, flags)
FAILING(open, int, -1, scandir,
        (const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
         int (*compare)(const struct dirent **, const struct dirent **)),
        fails, path, list, filter, compare)

/* ---- read ---- */

/* Half of it, if this call is to be short. */
static size_t shortened(size_t size, const char *function, int fd) {
    return size > 1 && fails_of(KIND_short, function, fd) ? size / 2 : size;
}

ssize_t read(int fd, void *bytes, size_t size) {
    REAL(read);
    return fails_of(KIND_read, "read", fd) ? -1 : real_read(fd, bytes, shortened(size, "read", fd));
}
ssize_t pread(int fd, void *bytes, size_t size, off_t offset) {
    REAL(pread);
    return fails_of(KIND_read, "pread", fd) ? -1 : real_pread(fd, bytes, shortened(size, "pread", fd), offset);
}

static bool stream_fails(enum kind kind, const char *function, FILE *stream) {
    if (!fails_of(kind, function, fileno(stream)))
        return false;
    stream->_flags |= _IO_ERR_SEEN;
    return true;
}

size_t fread(void *bytes, size_t size, size_t count, FILE *stream) {
    REAL(fread);
    return stream_fails(KIND_read, "fread", stream) ? 0 : real_fread(bytes, size, count, stream);
}
char *fgets(char *line, int size, FILE *stream) {
    REAL(fgets);
    return stream_fails(KIND_read, "fgets", stream) ? NULL : real_fgets(line, size, stream);
}
struct dirent *readdir(DIR *folder) {
    REAL(readdir);
    return fails_of(KIND_read, "readdir", dirfd(folder)) ? NULL : real_readdir(folder);
}
struct dirent64 *readdir64(DIR *folder) __attribute__((alias("readdir")));

/* ---- write ---- */

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL(write);
    return fails_of(KIND_write, "write", fd) ? -1 : real_write(fd, bytes, shortened(size, "write", fd));
}
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
    REAL(pwrite);
    return fails_of(KIND_write, "pwrite", fd) ? -1 : real_pwrite(fd, bytes, shortened(size, "pwrite", fd), offset);
}

size_t fwrite(const void *bytes, size_t size, size_t count, FILE *stream) {
    REAL(fwrite);
    return stream_fails(KIND_write, "fwrite", stream) ? 0 : real_fwrite(bytes, size, count, stream);
}
int fputs(const char *text, FILE *stream) {
    REAL(fputs);
    return stream_fails(KIND_write, "fputs", stream) ? EOF : real_fputs(text, stream);
}
int puts(const char *text) {
    REAL(puts);
    return stream_fails(KIND_write, "puts", stdout) ? EOF : real_puts(text);
}
int fputc(int byte, FILE *stream) {
    REAL(fputc);
    return stream_fails(KIND_write, "fputc", stream) ? EOF : real_fputc(byte, stream);
}
int(putc)(int byte, FILE *stream) {
    REAL(fputc);
    return stream_fails(KIND_write, "putc", stream) ? EOF : real_fputc(byte, stream);
}
int vfprintf(FILE *stream, const char *format, va_list arguments) {
    REAL(vfprintf);
    return stream_fails(KIND_write, "vfprintf", stream) ? -1 : real_vfprintf(stream, format, arguments);
}
int fprintf(FILE *stream, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(stream, format, arguments);
    va_end(arguments);
    return written;
}
int printf(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(stdout, format, arguments);
    va_end(arguments);
    return written;
}
int fflush(FILE *stream) {
    REAL(fflush);
    return stream && stream_fails(KIND_write, "fflush", stream) ? EOF : real_fflush(stream);
}
int fclose(FILE *stream) {
    REAL(fclose);
    const bool failed = __fwritable(stream) && stream_fails(KIND_write, "fclose", stream);
    const int error = errno, closed = real_fclose(stream);
    if (failed)
        errno = error;
    return failed ? EOF : closed;
}

/* ---- files and folders ---- */

FAILING(sync, int, -1, fsync, (int fd), fails_of, fd)
FAILING(sync, int, -1, fdatasync, (int fd), fails_of, fd)
FAILING(rename, int, -1, rename, (const char *from, const char *to), fails, from, to)
FAILING(size, int, -1, ftruncate, (int fd, off_t size), fails_of, fd, size)
FAILING(size, int, -1, truncate, (const char *path, off_t size), fails, path, size)
FAILING(size, int, -1, fallocate, (int fd, int mode, off_t from, off_t size), fails_of, fd, mode, from, size)
FAILING(size, int, errno, posix_fallocate, (int fd, off_t from, off_t size), fails_of, fd, from, size)
FAILING(make, int, -1, mkdir, (const char *path, mode_t mode), fails, path, mode)
FAILING(make, char *, NULL, mkdtemp, (char *path), fails, path)
FAILING(make, int, -1, symlink, (const char *target, const char *path), fails, target, path)
FAILING(remove, int, -1, unlink, (const char *path), fails, path)
FAILING(remove, int, -1, unlinkat, (int folder, const char *path, int flags), fails_of, folder, path, flags)
FAILING(remove, int, -1, rmdir, (const char *path), fails, path)
FAILING(look, int, -1, stat, (const char *path, struct stat *out), fails, path, out)
FAILING(look, int, -1, lstat, (const char *path, struct stat *out), fails, path, out)
FAILING(look, int, -1, fstat, (int fd, struct stat *out), fails_of, fd, out)
FAILING(look, int, -1, fstatat, (int folder, const char *path, struct stat *out, int flags), fails_of, folder, path,
        out, flags)
FAILING(look, int, -1, statvfs, (const char *path, struct statvfs *space), fails, path, space)
FAILING(look, int, -1, fstatvfs, (int fd, struct statvfs *space), fails_of, fd, space)
FAILING(look, int, -1, access, (const char *path, int mode), fails, path, mode)

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument) {
    REAL(pthread_create);
    return fails(KIND_thread, "pthread_create", "") ? errno
                                                    : real_pthread_create(thread, attributes, function, argument);
}

/* ---- memory ---- */

void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t offset) {
    REAL(mmap);
    return fails_sized(KIND_mmap, "mmap", size) ? MAP_FAILED : real_mmap(where, size, protection, flags, fd, offset);
}
void *mmap64(void *where, size_t size, int protection, int flags, int fd, off_t offset) __attribute__((alias("mmap")));
int mprotect(void *where, size_t size, int protection) {
    REAL(mprotect);
    return fails_sized(KIND_mmap, "mprotect", size) ? -1 : real_mprotect(where, size, protection);
}

/* Of the sanitizer where there is one, else of libc. dlsym may want memory itself, so these are bound when it is linked. */
#define ALLOCATOR(result, name, ...)                                                                                   \
    result __interceptor_##name(__VA_ARGS__) __attribute__((weak));                                                    \
    result __libc_##name(__VA_ARGS__) __attribute__((weak));
ALLOCATOR(void *, malloc, size_t)
ALLOCATOR(void *, calloc, size_t, size_t)
ALLOCATOR(void *, realloc, void *, size_t)
ALLOCATOR(void *, memalign, size_t, size_t)
#define ALLOCATE(name, ...) (__interceptor_##name ? __interceptor_##name(__VA_ARGS__) : __libc_##name(__VA_ARGS__))

void *malloc(size_t size) { return fails_sized(KIND_malloc, "malloc", size) ? NULL : ALLOCATE(malloc, size); }
void *calloc(size_t count, size_t size) {
    return fails_sized(KIND_malloc, "calloc", count * size) ? NULL : ALLOCATE(calloc, count, size);
}
void *realloc(void *bytes, size_t size) {
    return size && fails_sized(KIND_malloc, "realloc", size) ? NULL : ALLOCATE(realloc, bytes, size);
}
void *reallocarray(void *bytes, size_t count, size_t size) {
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(bytes, total);
}
void *memalign(size_t alignment, size_t size) {
    return fails_sized(KIND_malloc, "memalign", size) ? NULL : ALLOCATE(memalign, alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void **bytes, size_t alignment, size_t size) {
    void *made = memalign(alignment, size);
    if (!made)
        return ENOMEM;
    *bytes = made;
    return 0;
}
char *strndup(const char *text, size_t most) {
    size_t length = strnlen(text, most);
    char *copy = malloc(length + 1);
    if (copy) {
        memcpy(copy, text, length);
        copy[length] = '\0';
    }
    return copy;
}
char *strdup(const char *text) { return strndup(text, strlen(text)); }
