/*
 * Files that hold weights, in any form, by their names: for choosing those of a checkpoint among the forms that a
 * repository has them in.
 */
#ifndef QSTREAM_COMMON_WEIGHT_FILES_H
#define QSTREAM_COMMON_WEIGHT_FILES_H

#include <stdbool.h>

/* A file's own name, without its folders: weights, or an index of weights. */
bool weight_file_is(const char *name);

/* The name of a folder that holds a model's weights in the form of another framework, or of another program. */
bool weight_folder_is(const char *name);

#endif
