#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

uint64_t header_data_size(const uint8_t *header, size_t size) {
    static const char key[] = "data_offsets";
    enum { KEY = sizeof key - 1 };
    uint64_t largest = 0;
    for (size_t at = 0; at + KEY < size;) {
        if (memcmp(header + at, key, KEY) != 0) {
            at++;
            continue;
        }
        at += KEY;
        for (int number = 0; number < 2; number++) {
            while (at < size && (header[at] < '0' || header[at] > '9') && header[at] != ']')
                at++;
            uint64_t value = 0;
            bool fits = true;
            for (; at < size && header[at] >= '0' && header[at] <= '9'; at++)
                fits = fits && !__builtin_mul_overflow(value, 10, &value) &&
                       !__builtin_add_overflow(value, (uint64_t)(header[at] - '0'), &value);
            if (number == 1 && fits && value > largest)
                largest = value;
        }
    }
    return largest;
}

static char folder[64];

static void folder_remove(void) {
    folder_clear();
    rmdir(folder);
}

const char *fuzz_folder(void) {
    if (!*folder) {
        const char *memory = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        snprintf(folder, sizeof folder, "%s/qstream-fuzz-XXXXXX", memory);
        REQUIRE(mkdtemp(folder));
        atexit(folder_remove);
    }
    return folder;
}

void folder_clear(void) {
    DIR *list = opendir(fuzz_folder());
    REQUIRE(list);
    struct dirent *entry;
    while ((entry = readdir(list)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            unlinkat(dirfd(list), entry->d_name, 0);
    closedir(list);
}

void folder_write(const char *name, const void *bytes, size_t length, uint64_t size) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", fuzz_folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return; /* a name that no file can have */
    REQUIRE(write(fd, bytes, length) == (ssize_t)length);
    if (size > length && size < (uint64_t)INT64_MAX)
        (void)!ftruncate(fd, (off_t)size); /* too large for the file system: stays short */
    close(fd);
}

static void section_write(const char *title, size_t title_length, const uint8_t *bytes, size_t length,
                          struct folder_input *input) {
    static const char shard[] = "shard ", file_title[] = "file ";
    char name[128];
    snprintf(name, sizeof name, "%.*s", (int)title_length, title);
    if (strcmp(name, "config") == 0) {
        folder_write("config.json", bytes, length, 0);
    } else if (strcmp(name, "index") == 0) {
        folder_write("model.safetensors.index.json", bytes, length, 0);
    } else if (strcmp(name, "recipe") == 0) {
        input->recipe = (const char *)bytes;
        input->recipe_length = length;
    } else if (strncmp(name, file_title, sizeof file_title - 1) == 0 && !strchr(name, '/')) {
        folder_write(name + sizeof file_title - 1, bytes, length, 0);
    } else if (strncmp(name, shard, sizeof shard - 1) == 0 && !strchr(name, '/')) {
        uint8_t *file = malloc(length + 8);
        REQUIRE(file);
        for (int i = 0; i < 8; i++)
            file[i] = (uint8_t)((uint64_t)length >> (8 * i));
        memcpy(file + 8, bytes, length);
        folder_write(name + sizeof shard - 1, file, length + 8, length + 8 + header_data_size(bytes, length));
        free(file);
    }
}

void folder_from_sections(const uint8_t *data, size_t size, struct folder_input *input) {
    const uint8_t *end = data + size;
    while (data < end) {
        const uint8_t *line_end = memchr(data, '\n', (size_t)(end - data));
        if (!line_end)
            return;
        const uint8_t *body = line_end + 1, *next = body;
        while (next < end && !(end - next > 2 && memcmp(next, "@@", 2) == 0 && next[-1] == '\n'))
            next++;
        if (line_end - data > 2 && memcmp(data, "@@", 2) == 0)
            section_write((const char *)data + 2, (size_t)(line_end - data) - 2, body, (size_t)(next - body), input);
        data = next;
    }
}
