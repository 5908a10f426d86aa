/*
 * Where the running program lies: what comes with it, recipes and plug-ins, is looked for from there.
 */
#ifndef QSTREAM_COMMON_PROGRAM_FOLDER_H
#define QSTREAM_COMMON_PROGRAM_FOLDER_H

#include <limits.h>

/* The folder, without a slash at its end and without links; "" when it is not known. */
void program_folder(char folder[PATH_MAX]);

#endif
