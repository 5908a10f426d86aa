#include "common/weight_files.h"

#include <stddef.h>
#include <string.h>

#include "common/text.h"

bool weight_file_is(const char *name) {
    static const char *const endings[] = {".safetensors", ".safetensors.index.json",
                                          ".bin",         ".bin.index.json",
                                          ".pt",          ".pth",
                                          ".ckpt",        ".gguf",
                                          ".h5",          ".msgpack",
                                          ".onnx",        ".onnx_data",
                                          ".tflite"};
    static const char consolidated[] = "consolidated"; /* Mistral's and Meta's own form, in whatever pieces */
    if (strncmp(name, consolidated, sizeof consolidated - 1) == 0)
        return true;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (text_ends_with(name, endings[i]))
            return true;
    return false;
}

bool weight_folder_is(const char *name) {
    static const char *const folders[] = {"original", "onnx", "openvino", "metal", "coreml", "flax", "gguf"};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        if (strcmp(name, folders[i]) == 0)
            return true;
    return false;
}
