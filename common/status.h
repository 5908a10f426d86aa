/*
 * Errors as values.
 *
 * Every fallible function returns an enum status and, unless it returns STATUS_OK, fills the struct error it
 * was given with one line for a person: what failed, where (file, tensor, offset) and what to do about it.
 * Libraries neither print nor exit; the program prints `error.message` and exits with `error_exit_code`.
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
 * Formats a message into *error and returns `status`, so that a failing function can end in
 * `return error_set(error, STATUS_IO, ...)`. Control characters (names come from strangers' files) are
 * written as \xNN: a message never moves the cursor or changes the colours of a terminal.
 * `error` may be NULL.
 */
enum status error_set(struct error *error, enum status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set, with ": " and strerror(error_number) at the end. */
enum status error_set_errno(struct error *error, enum status status, int error_number, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The error of a failed allocation: STATUS_IO. */
enum status error_set_memory(struct error *error);

#endif
