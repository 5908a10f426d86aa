#include "infer/token_group.h"

#include <stdlib.h>

enum status group_make(const struct attention_window *windows, uint32_t window_count, struct group *group,
                       struct error *error) {
    *group = (struct group){.windows = windows, .window_count = window_count};
    for (uint32_t i = 0; i < window_count; i++)
        group->block_count += (windows[i].tokens + TOKEN_BLOCK - 1) / TOKEN_BLOCK;
    group->blocks = malloc(group->block_count * sizeof *group->blocks);
    if (!group->blocks)
        return error_set_memory(error);
    struct token_block *block = group->blocks;
    for (uint32_t i = 0; i < window_count; i++) {
        for (uint32_t at = 0; at < windows[i].tokens; at += TOKEN_BLOCK) {
            const uint32_t rest = windows[i].tokens - at;
            *block++ = (struct token_block){.first = windows[i].first + at,
                                            .count = rest < TOKEN_BLOCK ? rest : TOKEN_BLOCK,
                                            .window = i,
                                            .position = at};
        }
        group->tokens += windows[i].tokens;
    }
    return STATUS_OK;
}

void group_free(struct group *group) {
    free(group->blocks);
    *group = (struct group){0};
}
