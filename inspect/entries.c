#include "inspect/entries.h"

#include <stdlib.h>
#include <string.h>

/* \m and \M, a word's start and end in the regex module that vLLM uses, as PCRE2 writes them. */
static void word_boundaries_write(const char *pattern, struct text *out) {
    for (; *pattern; pattern++) {
        if (*pattern != '\\' || !pattern[1]) {
            text_append(out, pattern, 1);
            continue;
        }
        pattern++;
        if (*pattern == 'm' || *pattern == 'M')
            text_append_string(out, *pattern == 'm' ? "\\b(?=\\w)" : "\\b(?<=\\w)");
        else
            text_append(out, pattern - 1, 2);
    }
}

static enum status entry_compile(struct config_entry *entry, struct error *error) {
    struct error why;
    entry->is_regex = strncmp(entry->text, "re:", 3) == 0;
    if (!entry->is_regex)
        return STATUS_OK;
    struct text translated = {0};
    word_boundaries_write(entry->text, &translated);
    if (translated.failed) {
        text_free(&translated);
        return error_set_memory(error);
    }
    enum status status = pattern_new(translated.bytes, &entry->pattern, &why);
    text_free(&translated);
    if (status == STATUS_BAD_INPUT) {
        entry->problem = strdup(why.message);
        return entry->problem ? STATUS_OK : error_set_memory(error);
    }
    char *inside = text_format("re:[\\s\\S]*(?:%s)", entry->text + 3);
    if (status != STATUS_OK || !inside) {
        free(inside);
        return error_set_memory(error);
    }
    if (pattern_new(inside, &entry->anywhere, &why) != STATUS_OK)
        entry->anywhere = NULL; /* (*VERB) at the start, for example: then nobody looks inside names */
    free(inside);
    return STATUS_OK;
}

enum status entry_make(const struct architecture *architecture, const char *text, uint32_t group,
                       struct config_entry *entry, struct error *error) {
    struct text mapped = {0};
    *entry = (struct config_entry){.text = text, .group = group};
    architecture_map_entry(architecture, text, &mapped);
    if (mapped.failed) {
        text_free(&mapped);
        return error_set_memory(error);
    }
    entry->mapped = mapped.bytes;
    return entry_compile(entry, error);
}

bool entry_matches(struct config_entry *entry, struct pattern *pattern, const char *name) {
    struct error why;
    bool matches = false;
    if (!pattern)
        return false;
    if (pattern_match(pattern, name, &matches, &why) != STATUS_OK && !entry->problem)
        entry->problem = strdup(why.message);
    return matches;
}

enum status entry_list_make(const struct config_entry *entries, size_t count, bool mapped, const uint32_t *order,
                            struct entry_list *list, struct error *error) {
    list->order = malloc((count + 1) * sizeof *list->order);
    list->group = malloc((count + 1) * sizeof *list->group);
    list->regexes = malloc((count + 1) * sizeof *list->regexes);
    if (!list->order || !list->group || !list->regexes)
        return error_set_memory(error);
    for (size_t i = 0; i < count; i++) {
        uint32_t entry = order ? order[i] : (uint32_t)i;
        const char *text = mapped ? entries[entry].mapped : entries[entry].text;
        bool added = false;
        uint32_t *place = name_table_add(&list->plain, text, strlen(text), (uint32_t)list->count, &added);
        if (!place)
            return error_set_memory(error);
        if (!added) { /* a dict: the place of the first, the value of the last */
            list->group[*place] = entries[entry].group;
            continue;
        }
        if (entries[entry].is_regex)
            list->regexes[list->regex_count++] = (uint32_t)list->count;
        list->order[list->count] = entry;
        list->group[list->count++] = entries[entry].group;
    }
    return STATUS_OK;
}

void entry_list_free(struct entry_list *list) {
    free(list->order);
    free(list->group);
    free(list->regexes);
    name_table_free(&list->plain);
}

bool entry_search_fails(const struct config_entry *entry, bool *failed) {
    bool fails = entry->is_regex && !entry->pattern;
    if (fails && failed)
        *failed = true;
    return fails;
}

uint32_t entry_list_match(const struct entry_list *list, struct config_entry *entries, const char *name, uint32_t place,
                          bool *failed) {
    uint32_t plain = name_table_find(&list->plain, name, strlen(name));
    if (plain != NAME_UNKNOWN && (plain < place || entries[list->order[plain]].is_regex))
        plain = NAME_UNKNOWN;
    for (size_t i = 0; i < list->regex_count && (plain == NAME_UNKNOWN || list->regexes[i] < plain); i++) {
        struct config_entry *entry = &entries[list->order[list->regexes[i]]];
        if (entry_search_fails(entry, failed))
            return NO_ENTRY;
        if (list->regexes[i] >= place && entry_matches(entry, entry->pattern, name))
            return list->regexes[i];
    }
    return plain == NAME_UNKNOWN ? (uint32_t)NO_ENTRY : plain;
}

void entries_free(struct config_entry *entries, size_t count) {
    for (size_t i = 0; i < count; i++) {
        pattern_free(entries[i].pattern);
        pattern_free(entries[i].anywhere);
        free(entries[i].mapped);
        free(entries[i].problem);
    }
    free(entries);
}
