#include "infer/hidden.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/file_bytes.h"
#include "common/text.h"

static enum status file_open(struct hidden *hidden, struct error *error) {
    char path[4096];
    if (snprintf(path, sizeof path, "%s/qstream-hidden-XXXXXX", hidden->folder) >= (int)sizeof path)
        return error_set(error, STATUS_USAGE, "the name of the spill folder is too long");
    hidden->file = mkostemp(path, O_CLOEXEC);
    if (hidden->file < 0)
        return error_set_errno(error, STATUS_IO, errno, "'%s': the file for hidden states could not be made",
                               hidden->folder);
    unlink(path);
    const uint64_t bytes = (hidden->slots - hidden->in_memory) * hidden->slot_bytes;
    char size[TEXT_SIZE_MAX];
    const int failed = posix_fallocate(hidden->file, 0, (off_t)bytes);
    if (failed)
        return error_set_errno(error, STATUS_IO, failed,
                               "'%s': hidden states take %s there; choose another folder with --spill-folder, or "
                               "give more --memory",
                               hidden->folder, text_size(bytes, size));
    return STATUS_OK;
}

enum status hidden_open(struct hidden *hidden, size_t slots, size_t in_memory, uint64_t slot_bytes, unsigned works,
                        const char *folder, struct error *error) {
    *hidden = (struct hidden){.slots = slots,
                              .in_memory = in_memory,
                              .slot_bytes = (slot_bytes + 63) / 64 * 64,
                              .file = -1,
                              .folder = folder};
    if (in_memory > 0) {
        hidden->memory = aligned_alloc(64, in_memory * hidden->slot_bytes);
        if (!hidden->memory)
            return error_set_memory(error);
    }
    if (in_memory == slots)
        return STATUS_OK;
    for (unsigned i = 0; i < works; i++) {
        hidden->work[i] = aligned_alloc(64, hidden->slot_bytes);
        if (!hidden->work[i])
            return error_set_memory(error);
    }
    return file_open(hidden, error);
}

void hidden_close(struct hidden *hidden) {
    free(hidden->memory);
    free(hidden->work[0]);
    free(hidden->work[1]);
    if (hidden->file >= 0)
        close(hidden->file);
    *hidden = (struct hidden){.file = -1};
}

static uint64_t slot_offset(const struct hidden *hidden, size_t slot) {
    return (slot - hidden->in_memory) * hidden->slot_bytes;
}

enum status hidden_get(struct hidden *hidden, size_t slot, unsigned work, int fresh, float **values,
                       struct error *error) {
    if (slot < hidden->in_memory) {
        *values = hidden->memory + slot * (hidden->slot_bytes / sizeof(float));
        return STATUS_OK;
    }
    *values = hidden->work[work];
    if (!fresh && !file_bytes_read(hidden->file, hidden->work[work], hidden->slot_bytes, slot_offset(hidden, slot)))
        return error_set_errno(error, STATUS_IO, errno, "'%s': hidden states could not be read back", hidden->folder);
    return STATUS_OK;
}

enum status hidden_put(struct hidden *hidden, size_t slot, unsigned work, struct error *error) {
    if (slot < hidden->in_memory)
        return STATUS_OK;
    if (!file_bytes_write(hidden->file, hidden->work[work], hidden->slot_bytes, slot_offset(hidden, slot)))
        return error_set_errno(error, STATUS_IO, errno, "'%s': hidden states could not be written", hidden->folder);
    return STATUS_OK;
}
