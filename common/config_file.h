/*
 * Files that come with the program: recipes and thresholds, by path or by name.
 */
#ifndef QSTREAM_COMMON_CONFIG_FILE_H
#define QSTREAM_COMMON_CONFIG_FILE_H

/*
 * The path of `name`: itself if it is one (it has a '/', ends in .json, or exists), else NAME + `ending` in the folder
 * configs beside the program, as built or as installed; `name` where there is none. The caller frees; NULL without memory.
 */
char *config_file_find(const char *name, const char *ending);

#endif
