/*
 * Windows that are computed together: their tokens lie one after another in the buffers, and are divided into blocks that
 * never reach over a window's end, so that results do not depend on how windows are grouped.
 */
#ifndef QSTREAM_INFER_TOKEN_GROUP_H
#define QSTREAM_INFER_TOKEN_GROUP_H

#include <stdint.h>

#include "common/status.h"

enum { TOKEN_BLOCK = 256 };

/* Tokens that are computed together: a run of them inside one window. */
struct token_block {
    uint32_t first;    /* in the buffers */
    uint32_t count;    /* at most TOKEN_BLOCK */
    uint32_t window;   /* number of its window */
    uint32_t position; /* of its first token in the window */
};

struct attention_window {
    uint32_t first, tokens; /* in the buffers */
};

struct group {
    const struct attention_window *windows;
    uint32_t window_count;
    uint32_t tokens;
    struct token_block *blocks;
    uint32_t block_count;
};

/* The windows are the caller's. Free with group_free, also after an error. */
enum status group_make(const struct attention_window *windows, uint32_t window_count, struct group *group,
                       struct error *error);
void group_free(struct group *group);

#endif
