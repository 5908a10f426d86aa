/*
 * Memory for libraries that do not survive a refusal of it. jansson takes it for an error in the text, leaves members out of
 * what it builds, or fails an assertion; OpenSSL 3.0 dies of it when it is first used; oneDNN throws C++ exceptions where
 * only C is. Nothing that returns from there can be trusted, so the process ends, with a message and STATUS_IO as its exit
 * code. On the disk it is as after a kill.
 */
#ifndef QSTREAM_COMMON_LIBRARY_MEMORY_H
#define QSTREAM_COMMON_LIBRARY_MEMORY_H

/* Gives jansson and OpenSSL such memory. For programs, before either is used. */
void library_memory_set(void);

/* Ends the process: for libraries that call a function when memory is refused. */
_Noreturn void library_memory_end(void);

#endif
