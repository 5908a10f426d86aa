/*
 * Commands: one function each, called with argv[0] = the command's name. They return the process's exit code
 * (enum status), print results to stdout, and errors, each one line that begins with "qstream: ", to stderr.
 */
#ifndef QSTREAM_QSTREAM_COMMAND_H
#define QSTREAM_QSTREAM_COMMAND_H

#include "common/status.h"

int command_fetch(int argc, char **argv);
int command_audit(int argc, char **argv);
int command_quantize(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_ppl(int argc, char **argv);
int command_push(int argc, char **argv);
int command_report(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_version(int argc, char **argv);

/* Prints an error and returns its exit code. */
int command_fail(enum status status, const struct error *error);

#endif
