/*
 * Files that come with the program: recipes, thresholds and expectations, by path or by name.
 */
#ifndef QSTREAM_COMMON_CONFIG_FILE_H
#define QSTREAM_COMMON_CONFIG_FILE_H

#include "common/status.h"

enum config_kind { CONFIG_RECIPE, CONFIG_THRESHOLDS, CONFIG_EXPECTATION };

/*
 * The path of `name`: itself if it is one (it has a '/', ends in .json, or exists), else the file of that name in the folder
 * configs beside the program, as built or as installed. STATUS_BAD_INPUT when it is neither: the error lists what there is,
 * *path is `name`. The caller frees *path, also after an error.
 */
enum status config_file_find(enum config_kind kind, const char *name, char **path, struct error *error);

#endif
