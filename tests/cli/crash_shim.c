/*
 * A preloaded library that makes a run of qstream meet with an accident at a chosen operation.
 *
 * Operations are the calls that change the output folder: open (when it creates or cuts a file), write, pwrite, ftruncate,
 * fsync, fdatasync, rename, mkdir, unlink and rmdir, numbered from 1 in the order in which they begin. The environment says
 * what happens:
 *
 *   SHIM_OUTPUT=DIR           the output folder, absolute, as on qstream's command line
 *   SHIM_SOURCE=DIR           the source folder; only SHIM_FAIL looks at it
 *   SHIM_KILL=K               SIGKILL instead of operation K; of a write, half of it is done before
 *   SHIM_TERM=K               SIGTERM before operation K, which then goes on
 *   SHIM_POWER=K              power loss instead of operation K (at the end of the process when there are fewer):
 *                             everything that no sync made durable is undone, then SIGKILL
 *   SHIM_POWER_SEED=S         not everything: a random choice of the unsynced writes stays, and the first few of the
 *                             unsynced creations, renames and removals, as disks do
 *   SHIM_FAIL=CALL:K:ERRNO    the K-th CALL (open, pread, pwrite, ...) on a file of either folder fails with EIO, ENOSPC, ...;
 *                             K+ instead of K: that one and all later ones
 *   SHIM_SHORT=1              pread, pwrite and write transfer at most half of what they are asked to
 *   SHIM_TOUCH=K:PATH         the modification time of PATH becomes now before operation K
 *   SHIM_HOLD=K:PATH          before operation K makes PATH.held, then waits until PATH is there
 *   SHIM_SLOW=US              every pwrite takes this many microseconds longer
 *   SHIM_HASTE=1              a clock that runs a thousand times too fast: what happens every few seconds, a commit of the
 *                             journal above all, happens every few milliseconds
 *   SHIM_COUNT=FILE           at the end, the number of operations and of each call, one per line
 *
 * Power loss follows POSIX: fsync and fdatasync make a file's bytes and size durable but not its name; names are durable
 * when the folder that holds them was synced. For each operation the bytes before and after it are kept; a loss first takes
 * everything that is not durable back, last first, then repeats in order what is chosen to stay.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FDS = 4096, CALLS = 11 };

static const char *const call_names[CALLS] = {"open",      "pread",  "write", "pwrite", "ftruncate", "fsync",
                                              "fdatasync", "rename", "mkdir", "unlink", "rmdir"};
enum call { OPEN, PREAD, WRITE, PWRITE, FTRUNCATE, FSYNC, FDATASYNC, RENAME, MKDIR, UNLINK, RMDIR };

static struct {
    const char *output, *source, *count, *touch_path, *hold_path;
    long kill_at, term_at, power_at, touch_at, hold_at, fail_at, slow;
    bool power, choose, shorten, haste, fail_on;
    enum call fail_call;
    int fail_errno;
    char scratch[PATH_MAX];
} plan;

static long operations, calls[CALLS];
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static uint64_t random_state;

/* What a descriptor refers to: 0 nothing of ours, 'o' the output, 's' the source. */
static char fd_side[FDS];

#define REAL(result, name, ...)                                                                                        \
    static result (*real_##name)(__VA_ARGS__);                                                                         \
    if (!real_##name)                                                                                                  \
    *(void **)&real_##name = dlsym(RTLD_NEXT, #name)

/* ---- the real calls ---- */

static int do_open(const char *path, int flags, mode_t mode) {
    REAL(int, open, const char *, int, ...);
    return real_open(path, flags, mode);
}
static ssize_t do_pread(int fd, void *bytes, size_t size, off_t at) {
    REAL(ssize_t, pread, int, void *, size_t, off_t);
    return real_pread(fd, bytes, size, at);
}
static ssize_t do_pwrite(int fd, const void *bytes, size_t size, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    return real_pwrite(fd, bytes, size, at);
}
static ssize_t do_write(int fd, const void *bytes, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    return real_write(fd, bytes, size);
}
static int do_ftruncate(int fd, off_t size) {
    REAL(int, ftruncate, int, off_t);
    return real_ftruncate(fd, size);
}
static int do_rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return real_rename(from, to);
}
static int do_mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return real_mkdir(path, mode);
}
static int do_rmdir(const char *path) {
    REAL(int, rmdir, const char *);
    return real_rmdir(path);
}

/* ---- setting up ---- */

static long number_of(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static long number_and_path(const char *name, const char **path) {
    const char *text = getenv(name), *colon = text ? strchr(text, ':') : NULL;
    *path = colon ? colon + 1 : NULL;
    return colon ? atol(text) : 0;
}

static void fail_read(const char *text) {
    static const struct {
        const char *name;
        int number;
    } errors[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EINTR", EINTR}, {"EACCES", EACCES}, {"EDQUOT", EDQUOT}};
    char call[32], error[32], behind[32] = "";
    if (sscanf(text, "%31[^:]:%ld%31[^:]", call, &plan.fail_at, behind) < 2)
        abort();
    plan.fail_on = behind[0] == '+';
    snprintf(error, sizeof error, "%s", strrchr(text, ':') + 1);
    int found = -1;
    for (int i = 0; i < CALLS; i++)
        if (strcmp(call, call_names[i]) == 0)
            found = i;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (strcmp(error, errors[i].name) == 0)
            plan.fail_errno = errors[i].number;
    if (found < 0 || !plan.fail_errno)
        abort();
    plan.fail_call = (enum call)found;
}

__attribute__((constructor)) static void prepare(void) {
    plan.output = getenv("SHIM_OUTPUT");
    plan.source = getenv("SHIM_SOURCE");
    plan.count = getenv("SHIM_COUNT");
    plan.kill_at = number_of("SHIM_KILL");
    plan.term_at = number_of("SHIM_TERM");
    plan.power_at = number_of("SHIM_POWER");
    plan.power = plan.power_at > 0;
    plan.choose = getenv("SHIM_POWER_SEED") != NULL;
    random_state = (uint64_t)number_of("SHIM_POWER_SEED") * 2654435761u + 88172645463325252u;
    plan.shorten = number_of("SHIM_SHORT");
    plan.haste = number_of("SHIM_HASTE");
    plan.slow = number_of("SHIM_SLOW");
    plan.touch_at = number_and_path("SHIM_TOUCH", &plan.touch_path);
    plan.hold_at = number_and_path("SHIM_HOLD", &plan.hold_path);
    if (getenv("SHIM_FAIL"))
        fail_read(getenv("SHIM_FAIL"));
    if (plan.power && plan.output) {
        snprintf(plan.scratch, sizeof plan.scratch, "%s.lost.%d", plan.output, (int)getpid());
        do_mkdir(plan.scratch, 0777);
    }
}

static char side_of(const char *path) {
    size_t output = plan.output ? strlen(plan.output) : 0, source = plan.source ? strlen(plan.source) : 0;
    if (output && strncmp(path, plan.output, output) == 0 && (path[output] == '/' || !path[output]))
        return 'o';
    if (source && strncmp(path, plan.source, source) == 0 && (path[source] == '/' || !path[source]))
        return 's';
    return 0;
}

static char side_of_fd(int fd) { return fd >= 0 && fd < FDS ? fd_side[fd] : 0; }

/* ---- power loss: what was done ---- */

struct file { /* an inode, through a descriptor of our own */
    dev_t device;
    ino_t inode;
    int fd;
};

struct step {
    enum call call;
    bool durable;
    int file; /* bytes: index into files */
    off_t at, size_before, size_after;
    size_t length_before, length_after;
    uint8_t *before, *after;
    dev_t folder_device; /* names: the folder that must be synced */
    ino_t folder_inode;
    char *path, *to, *kept; /* kept: where the thing that disappeared lies */
};

static struct file *files;
static struct step *steps;
static size_t file_count, step_count, step_capacity;

static char *scratch_name(void) {
    static int number;
    char *name = NULL;
    if (asprintf(&name, "%s/%d", plan.scratch, number++) < 0)
        abort();
    return name;
}

static struct step *step_add(enum call call) {
    if (step_count == step_capacity) {
        step_capacity = step_capacity ? 2 * step_capacity : 1024;
        steps = realloc(steps, step_capacity * sizeof *steps);
        if (!steps)
            abort();
    }
    steps[step_count] = (struct step){.call = call, .file = -1};
    return &steps[step_count++];
}

static int file_of(int fd) {
    struct stat stat;
    char path[64];
    if (fstat(fd, &stat) != 0)
        abort();
    for (size_t i = 0; i < file_count; i++)
        if (files[i].device == stat.st_dev && files[i].inode == stat.st_ino)
            return (int)i;
    files = realloc(files, (file_count + 1) * sizeof *files);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int own = do_open(path, O_RDWR | O_CLOEXEC, 0);
    if (!files || own < 0)
        abort();
    files[file_count] = (struct file){stat.st_dev, stat.st_ino, own};
    return (int)file_count++;
}

/* Notes that [at, at + length) of a file is about to change, or with length 0 its size. */
static struct step *bytes_step(enum call call, int fd, off_t at, size_t length, off_t size_after) {
    int file = file_of(fd);
    struct stat stat;
    fstat(files[file].fd, &stat);
    struct step *step = step_add(call);
    step->file = file;
    step->at = at;
    step->size_before = stat.st_size;
    step->size_after = size_after > 0 || call == FTRUNCATE ? size_after : stat.st_size;
    off_t end = call == FTRUNCATE ? stat.st_size : at + (off_t)length;
    if (end > stat.st_size)
        end = stat.st_size;
    if (end > at) {
        step->length_before = (size_t)(end - at);
        step->before = malloc(step->length_before);
        if (!step->before || do_pread(files[file].fd, step->before, step->length_before, at) != end - at)
            abort();
    }
    return step;
}

static void name_step(struct step *step, const char *path) {
    char *above = strdup(path), *slash = above ? strrchr(above, '/') : NULL;
    struct stat stat = {0};
    if (!slash)
        abort();
    *slash = '\0';
    lstat(above, &stat);
    free(above);
    step->folder_device = stat.st_dev;
    step->folder_inode = stat.st_ino;
    step->path = strdup(path);
}

static void synced(int fd) {
    struct stat stat;
    fstat(fd, &stat);
    for (size_t i = 0; i < step_count; i++) {
        struct step *step = &steps[i];
        if (S_ISDIR(stat.st_mode))
            step->durable |= step->file < 0 && step->folder_device == stat.st_dev && step->folder_inode == stat.st_ino;
        else
            step->durable |=
                step->file >= 0 && files[step->file].device == stat.st_dev && files[step->file].inode == stat.st_ino;
    }
}

/* ---- power loss: undoing ---- */

static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state >> 11;
}

static void undo(struct step *step) {
    if (step->file >= 0) {
        do_ftruncate(files[step->file].fd, step->size_before);
        if (step->length_before)
            do_pwrite(files[step->file].fd, step->before, step->length_before, step->at);
        return;
    }
    switch (step->call) {
    case OPEN:
    case MKDIR:
        step->kept = scratch_name();
        do_rename(step->path, step->kept);
        break;
    case RENAME:
        do_rename(step->to, step->path);
        if (step->kept)
            do_rename(step->kept, step->to);
        break;
    case UNLINK:
        do_rename(step->kept, step->path);
        break;
    default:
        do_mkdir(step->path, 0777);
    }
}

static void redo(struct step *step) {
    if (step->file >= 0) {
        if (step->call == FTRUNCATE)
            do_ftruncate(files[step->file].fd, step->size_after);
        else if (step->length_after)
            do_pwrite(files[step->file].fd, step->after, step->length_after, step->at);
        return;
    }
    switch (step->call) {
    case OPEN:
    case MKDIR:
        do_rename(step->kept, step->path);
        break;
    case RENAME:
        if (step->kept)
            do_rename(step->to, step->kept);
        do_rename(step->path, step->to);
        break;
    case UNLINK:
        do_rename(step->path, step->kept);
        break;
    default:
        do_rmdir(step->path);
    }
}

static void power_loss(void) {
    bool *undone = calloc(step_count + 1, sizeof *undone);
    size_t names_left = 0;
    for (size_t i = step_count; i-- > 0;)
        if (!steps[i].durable) {
            undo(&steps[i]);
            undone[i] = true;
            names_left += steps[i].file < 0;
        }
    size_t names_kept = plan.choose ? random_next() % (names_left + 1) : 0;
    for (size_t i = 0; plan.choose && i < step_count; i++) {
        if (!undone[i])
            continue;
        bool keep = steps[i].file < 0 ? names_kept > 0 : random_next() % 2 == 0;
        if (steps[i].file < 0 && names_kept > 0)
            names_kept--;
        if (keep)
            redo(&steps[i]);
    }
    raise(SIGKILL);
}

/* ---- the accidents ---- */

static void counted(void) {
    if (!plan.count)
        return;
    FILE *out = fopen(plan.count, "w");
    if (!out)
        abort();
    fprintf(out, "operations %ld\n", operations);
    for (int i = 0; i < CALLS; i++)
        fprintf(out, "%s %ld\n", call_names[i], calls[i]);
    fclose(out);
}

__attribute__((destructor)) static void finish(void) {
    counted();
    if (plan.power)
        power_loss();
}

/* Whether this call has to fail, with errno set. Under the lock. */
static bool failing(enum call call) {
    calls[call]++;
    bool now = plan.fail_at && plan.fail_call == call &&
               (plan.fail_on ? calls[call] >= plan.fail_at : calls[call] == plan.fail_at);
    if (now)
        errno = plan.fail_errno;
    return now;
}

/* An operation begins. Under the lock. Returns true when the process is to die here. */
static bool operation(void) {
    long now = ++operations;
    if (now == plan.term_at)
        raise(SIGTERM);
    if (now == plan.touch_at)
        utimensat(AT_FDCWD, plan.touch_path, NULL, 0);
    if (now == plan.hold_at) {
        char held[PATH_MAX];
        snprintf(held, sizeof held, "%s.held", plan.hold_path);
        close(do_open(held, O_WRONLY | O_CREAT, 0666));
        while (access(plan.hold_path, F_OK) != 0)
            usleep(2000);
    }
    if (plan.power && now == plan.power_at)
        power_loss();
    return plan.kill_at && now == plan.kill_at;
}

static void die(void) { raise(SIGKILL); }

/* ---- the calls ---- */

static int shim_open(const char *path, int flags, mode_t mode) {
    char side = side_of(path);
    if (!side)
        return do_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = -1;
    struct stat before;
    bool there = lstat(path, &before) == 0;
    if (failing(OPEN))
        goto out;
    bool creates = side == 'o' && (flags & O_CREAT) && !there, cuts = side == 'o' && (flags & O_TRUNC) && there;
    if ((creates || cuts) && operation())
        die();
    fd = do_open(path, cuts ? flags & ~O_TRUNC : flags, mode);
    if (fd >= 0 && fd < FDS)
        fd_side[fd] = side;
    if (fd >= 0 && plan.power && creates)
        name_step(step_add(OPEN), path);
    if (fd >= 0 && cuts) {
        if (plan.power)
            bytes_step(FTRUNCATE, fd, 0, 0, 0);
        do_ftruncate(fd, 0);
    }
out:
    pthread_mutex_unlock(&lock);
    return fd;
}

int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return shim_open(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    return shim_open(path, flags, mode);
}

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < FDS)
        fd_side[fd] = 0;
    return real_close(fd);
}

static size_t shortened(size_t size) { return plan.shorten && size > 1 ? size / 2 : size; }

ssize_t pread(int fd, void *bytes, size_t size, off_t at) {
    if (side_of_fd(fd)) {
        pthread_mutex_lock(&lock);
        bool fails = failing(PREAD);
        pthread_mutex_unlock(&lock);
        if (fails)
            return -1;
        size = shortened(size);
    }
    return do_pread(fd, bytes, size, at);
}

ssize_t pread64(int fd, void *bytes, size_t size, off_t at) { return pread(fd, bytes, size, at); }

static ssize_t shim_write(enum call call, int fd, const void *bytes, size_t size, off_t at) {
    ssize_t done = -1;
    if (plan.slow)
        usleep((useconds_t)plan.slow);
    pthread_mutex_lock(&lock);
    if (failing(call))
        goto out;
    bool dies = operation();
    size = dies ? size / 2 : shortened(size);
    if (call == WRITE)
        at = lseek(fd, 0, SEEK_CUR);
    struct step *step = NULL;
    if (plan.power)
        step = bytes_step(call, fd, at, size, 0);
    done = call == WRITE ? do_write(fd, bytes, size) : do_pwrite(fd, bytes, size, at);
    if (step && done > 0) {
        step->length_after = (size_t)done;
        step->after = malloc((size_t)done);
        if (!step->after)
            abort();
        memcpy(step->after, bytes, (size_t)done);
    }
    if (dies)
        die();
out:
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    return side_of_fd(fd) == 'o' ? shim_write(PWRITE, fd, bytes, size, at) : do_pwrite(fd, bytes, size, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off_t at) { return pwrite(fd, bytes, size, at); }

ssize_t write(int fd, const void *bytes, size_t size) {
    return side_of_fd(fd) == 'o' ? shim_write(WRITE, fd, bytes, size, 0) : do_write(fd, bytes, size);
}

int ftruncate(int fd, off_t size) {
    if (side_of_fd(fd) != 'o')
        return do_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!failing(FTRUNCATE)) {
        if (operation())
            die();
        if (plan.power)
            bytes_step(FTRUNCATE, fd, size, 0, size);
        result = do_ftruncate(fd, size);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

static int shim_sync(enum call call, int fd) {
    REAL(int, fsync, int);
    REAL(int, fdatasync, int);
    if (side_of_fd(fd) != 'o')
        return call == FSYNC ? real_fsync(fd) : real_fdatasync(fd);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!failing(call)) {
        if (operation())
            die();
        result = 0; /* the test machine does not lose its power: no need to wait for its disk */
        if (plan.power)
            synced(fd);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return shim_sync(FSYNC, fd); }
int fdatasync(int fd) { return shim_sync(FDATASYNC, fd); }

int rename(const char *from, const char *to) {
    if (side_of(to) != 'o')
        return do_rename(from, to);
    pthread_mutex_lock(&lock);
    int result = -1;
    struct stat stat;
    if (failing(RENAME))
        goto out;
    if (operation())
        die();
    if (plan.power && lstat(from, &stat) == 0) {
        char *kept = NULL;
        if (lstat(to, &stat) == 0)
            do_rename(to, kept = scratch_name());
        struct step *step = step_add(RENAME);
        name_step(step, from);
        step->to = strdup(to);
        step->kept = kept;
    }
    result = do_rename(from, to);
out:
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    if (side_of(path) != 'o')
        return do_mkdir(path, mode);
    pthread_mutex_lock(&lock);
    int result = -1;
    struct stat stat;
    bool there = lstat(path, &stat) == 0;
    if (failing(MKDIR))
        goto out;
    if (!there && operation())
        die();
    result = do_mkdir(path, mode);
    if (result == 0 && plan.power &&
        strcmp(path, plan.output) != 0) /* its own name is the business of who runs qstream */
        name_step(step_add(MKDIR), path);
out:
    pthread_mutex_unlock(&lock);
    return result;
}

static int shim_unlink(const char *path) {
    REAL(int, unlink, const char *);
    if (side_of(path) != 'o')
        return real_unlink(path);
    pthread_mutex_lock(&lock);
    int result = -1;
    struct stat stat;
    if (failing(UNLINK))
        goto out;
    if (operation())
        die();
    if (plan.power && lstat(path, &stat) == 0) {
        struct step *step = step_add(UNLINK);
        name_step(step, path);
        step->kept = scratch_name();
        result = do_rename(path, step->kept);
    } else {
        result = real_unlink(path);
    }
out:
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) { return shim_unlink(path); }

int rmdir(const char *path) {
    if (side_of(path) != 'o')
        return do_rmdir(path);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!failing(RMDIR)) {
        if (operation())
            die();
        result = do_rmdir(path);
        if (result == 0 && plan.power)
            name_step(step_add(RMDIR), path);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlinkat(int folder, const char *name, int flags) {
    char link[64], above[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t length = folder == AT_FDCWD ? -1 : readlink(link, above, sizeof above - 1);
    if (length < 0 || name[0] == '/')
        return flags & AT_REMOVEDIR ? rmdir(name) : shim_unlink(name);
    above[length] = '\0';
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", above, name);
    return flags & AT_REMOVEDIR ? rmdir(path) : shim_unlink(path);
}

int remove(const char *path) {
    struct stat stat;
    return lstat(path, &stat) == 0 && S_ISDIR(stat.st_mode) ? rmdir(path) : shim_unlink(path);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int result = real_clock_gettime(clock, now);
    if (!plan.haste || result != 0)
        return result;
    if (clock == CLOCK_MONOTONIC) {
        now->tv_sec = now->tv_sec % 100000 * 1000 + now->tv_nsec / 1000000;
        now->tv_nsec = now->tv_nsec % 1000000 * 1000;
    } else if (clock == CLOCK_REALTIME) { /* "100 ms from now" is 1 ms from now */
        now->tv_nsec -= 99000000;
        if (now->tv_nsec < 0) {
            now->tv_nsec += 1000000000;
            now->tv_sec--;
        }
    }
    return result;
}
