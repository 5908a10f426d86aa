/*
 * Errors as values.
 *
 * Every fallible function returns an enum status and, unless it returns STATUS_OK, fills the struct error it
 * was given with one line for a person: what failed, where (file, tensor, offset) and what to do about it.
 * Libraries neither print nor exit (but for common/library_memory.h); the program prints `error.message` and exits with `error_exit_code`.
 *
 * The values of enum status are the exit codes of every qstream command.
 */
#ifndef QSTREAM_COMMON_STATUS_H
#define QSTREAM_COMMON_STATUS_H

enum status {
    STATUS_OK = 0,
    STATUS_CHECK_FAILED = 1, /* the command ran; what it checked did not hold */
    STATUS_USAGE = 2,        /* the command line cannot be carried out */
    STATUS_BAD_INPUT = 3,    /* a file does not hold what its format promises */
    STATUS_IO = 4,           /* the machine failed: disk, memory, device, network */
    STATUS_INTERRUPTED = 130 /* SIGINT or SIGTERM */
};

enum { ERROR_MESSAGE_MAX = 1024 };

struct error {
    char message[ERROR_MESSAGE_MAX]; /* printable, NUL-terminated, no newline at the end */
};

/*
 * Formats a message into *error; its value is `code`, so that a failing function can end in
 * `return error_set(error, STATUS_IO, ...)`. (Macros, so that analyzers see which status it is.) Control characters
 * (names come from strangers' files) are written as \xNN: a message never moves the cursor or changes the colours of
 * a terminal. `error` may be NULL.
 */
#define error_set(error, code, ...) (error_write((error), 0, __VA_ARGS__), (enum status)(code))

/* As error_set, with ": " and strerror(error_number) at the end. */
#define error_set_errno(error, code, error_number, ...)                                                                \
    (error_write((error), (error_number), __VA_ARGS__), (enum status)(code))

/* The error of a failed allocation. */
#define error_set_memory(error) (error_write((error), 0, "out of memory"), (enum status)STATUS_IO)

void error_write(struct error *error, int error_number, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
