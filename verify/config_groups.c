#include "verify/config_groups.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "common/array.h"
#include "common/name_table.h"
#include "common/pattern.h"
#include "common/text.h"

enum { LITERAL_MAX = 128 };

#define IGNORE UINT32_MAX   /* in place of a group */
#define NO_ENTRY UINT32_MAX /* the end of a chain */

/* A target, or an entry of `ignore`, that is a pattern. */
struct regex {
    const char *text;
    uint32_t group;
    struct pattern *pattern; /* NULL: it does not work */
    char *problem;           /* why */
    char *literal;           /* what a name has to hold for it to match, "" when that is not known */
    bool floats;             /* anywhere; else the name has to begin with it */
    uint32_t next;           /* the next one whose names have to begin in the same way */
};

/* The plain names: entries of the same name are a chain. */
struct plain {
    uint32_t group, next;
};

/* The answer of the patterns that do not look at particular numbers, for all names with digits in the same places. */
struct remembered {
    char *name; /* with its digits replaced */
    uint32_t *groups;
    size_t count;
};

struct config_groups {
    struct name_table plain_names; /* to positions in `plain` */
    struct plain *plain;
    size_t plain_count;
    struct regex *regexes; /* those that look at particular numbers last */
    size_t regex_count, free_count;
    struct name_table starts;        /* of those that do not float, to the first of a chain */
    bool has_start[LITERAL_MAX + 1]; /* by length */
    uint32_t *floating;
    size_t floating_count;
    uint32_t *classes; /* groups with a class as target, and IGNORE */
    size_t class_count;
    struct name_table remembered_names;
    struct remembered *remembered;
    size_t remembered_count, remembered_capacity;
    struct text name, shape; /* of the module that is looked at */
    uint32_t *found;
    size_t found_count, found_capacity;
};

/* ---- entries ---- */

static bool is_class(const char *entry) { return isupper((unsigned char)*entry) && !strchr(entry, '.'); }

/* Whether the pattern may tell one digit from another: a digit in it, but as "0-9", or a reference to what it matched. */
static bool looks_at_numbers(const char *pattern) {
    if (strstr(pattern, "\\k") || strstr(pattern, "\\g") || strstr(pattern, "(?P") || strstr(pattern, "(?("))
        return true;
    for (const char *c = pattern; *c; c++) {
        if (strncmp(c, "[0-9]", 5) == 0)
            c += 4;
        else if (isdigit((unsigned char)*c))
            return true;
    }
    return false;
}

/* Whether the pattern has alternatives as a whole; true when that is not easily told. */
static bool has_alternatives(const char *pattern) {
    int depth = 0;
    if (strchr(pattern, '[') && strchr(pattern, '|'))
        return true;
    for (const char *c = pattern; *c; c++) {
        if (*c == '\\' && c[1])
            c++;
        else if (*c == '|' && depth == 0)
            return true;
        else
            depth += (*c == '(') - (*c == ')');
    }
    return false;
}

/* The text that a match of the pattern begins with, or contains if the pattern begins with ".*". */
static char *literal_of(const char *pattern, bool *floats) {
    char literal[LITERAL_MAX + 1];
    size_t length = 0;
    *floats = strncmp(pattern, ".*", 2) == 0 && !strchr("?+", pattern[2]);
    const char *c = pattern + (*floats ? 2 : *pattern == '^');
    bool whole = !has_alternatives(pattern);
    while (whole && length < LITERAL_MAX) {
        bool escaped = *c == '\\' && ispunct((unsigned char)c[1]);
        if (!escaped && !isalnum((unsigned char)*c) && (!*c || !strchr("_-/:", *c)))
            break;
        const char *behind = c + 1 + escaped;
        if (*behind && strchr("?*+{", *behind)) /* maybe not there, or more than once */
            break;
        literal[length++] = c[escaped];
        c = behind;
    }
    return strndup(literal, length);
}

/* Has the pattern looked at for names that begin with its literal only. */
static enum status start_add(struct config_groups *groups, uint32_t number, struct error *error) {
    struct regex *regex = &groups->regexes[number];
    if (regex->floats) {
        groups->floating[groups->floating_count++] = number;
        return STATUS_OK;
    }
    size_t length = strlen(regex->literal);
    uint32_t *first = name_table_add(&groups->starts, regex->literal, length, number, NULL);
    if (!first)
        return error_set_memory(error);
    regex->next = *first == number ? NO_ENTRY : *first;
    *first = number;
    groups->has_start[length] = true;
    return STATUS_OK;
}

static enum status entry_add(struct config_groups *groups, const char *text, uint32_t group, bool numbers,
                             struct error *error) {
    if (strncmp(text, "re:", 3) == 0) {
        if (looks_at_numbers(text + 3) != numbers)
            return STATUS_OK; /* its turn comes, or was */
        struct regex *regex = &groups->regexes[groups->regex_count++];
        struct error why;
        *regex = (struct regex){.text = text, .group = group};
        enum status status = pattern_new(text, &regex->pattern, &why);
        if (status == STATUS_BAD_INPUT)
            regex->problem = strdup(why.message);
        regex->literal = literal_of(text + 3, &regex->floats);
        if (!regex->literal || (!regex->pattern && !regex->problem))
            return error_set_memory(error);
        return numbers ? start_add(groups, (uint32_t)groups->regex_count - 1, error) : STATUS_OK;
    }
    if (numbers)
        return STATUS_OK;
    if (is_class(text)) {
        if (group != IGNORE || strcmp(text, "Linear") == 0) /* other classes hold no weights that are quantized */
            groups->classes[groups->class_count++] = group;
        return STATUS_OK;
    }
    uint32_t number = (uint32_t)groups->plain_count;
    uint32_t *first = name_table_add(&groups->plain_names, text, strlen(text), number, NULL);
    if (!first)
        return error_set_memory(error);
    groups->plain[number] = (struct plain){group, *first == number ? NO_ENTRY : *first};
    *first = number;
    groups->plain_count++;
    return STATUS_OK;
}

static enum status entries_add(struct config_groups *groups, const struct quant_config *config, bool numbers,
                               struct error *error) {
    enum status status = STATUS_OK;
    for (size_t i = 0; i < config->ignore_count && status == STATUS_OK; i++)
        status = entry_add(groups, config->ignore[i], IGNORE, numbers, error);
    for (size_t g = 0; g < config->group_count; g++)
        for (size_t i = 0; i < config->groups[g].target_count && status == STATUS_OK; i++)
            status = entry_add(groups, config->groups[g].targets[i], (uint32_t)g, numbers, error);
    return status;
}

enum status config_groups_make(const struct quant_config *config, struct config_groups **out, struct error *error) {
    *out = NULL;
    struct config_groups *groups = calloc(1, sizeof *groups);
    if (!groups)
        return error_set_memory(error);
    size_t count = config->ignore_count;
    for (size_t g = 0; g < config->group_count; g++)
        count += config->groups[g].target_count;
    groups->plain = calloc(count + 1, sizeof *groups->plain);
    groups->regexes = calloc(count + 1, sizeof *groups->regexes);
    groups->classes = calloc(count + 1, sizeof *groups->classes);
    groups->floating = calloc(count + 1, sizeof *groups->floating);
    bool good = groups->plain && groups->regexes && groups->classes && groups->floating;
    enum status status = good ? STATUS_OK : error_set_memory(error);
    if (status == STATUS_OK)
        status = entries_add(groups, config, false, error);
    groups->free_count = groups->regex_count;
    if (status == STATUS_OK)
        status = entries_add(groups, config, true, error);
    if (status == STATUS_OK)
        *out = groups;
    else
        config_groups_free(groups);
    return status;
}

void config_groups_free(struct config_groups *groups) {
    if (!groups)
        return;
    for (size_t i = 0; i < groups->regex_count; i++) {
        pattern_free(groups->regexes[i].pattern);
        free(groups->regexes[i].problem);
        free(groups->regexes[i].literal);
    }
    for (size_t i = 0; i < groups->remembered_count; i++) {
        free(groups->remembered[i].name);
        free(groups->remembered[i].groups);
    }
    name_table_free(&groups->plain_names);
    name_table_free(&groups->starts);
    name_table_free(&groups->remembered_names);
    text_free(&groups->name);
    text_free(&groups->shape);
    free(groups->plain);
    free(groups->regexes);
    free(groups->classes);
    free(groups->floating);
    free(groups->remembered);
    free(groups->found);
    free(groups);
}

const char *config_groups_problem(const struct config_groups *groups, size_t number, const char **text) {
    for (size_t i = 0; i < groups->regex_count; i++)
        if (groups->regexes[i].problem && number-- == 0) {
            *text = groups->regexes[i].text;
            return groups->regexes[i].problem;
        }
    return NULL;
}

/* ---- matching ---- */

static enum status found_add(struct config_groups *groups, uint32_t group, struct error *error) {
    for (size_t i = 0; i < groups->found_count; i++)
        if (groups->found[i] == group)
            return STATUS_OK;
    if (!array_reserve(groups->found, groups->found_count + 1, &groups->found_capacity))
        return error_set_memory(error);
    groups->found[groups->found_count++] = group;
    return STATUS_OK;
}

static enum status regex_match(struct config_groups *groups, struct regex *regex, struct error *error) {
    struct error why;
    bool matches = false;
    if (!regex->pattern)
        return STATUS_OK;
    if (pattern_match(regex->pattern, groups->name.bytes, &matches, &why) == STATUS_OK)
        return matches ? found_add(groups, regex->group, error) : STATUS_OK;
    regex->problem = strdup(why.message);
    pattern_free(regex->pattern);
    regex->pattern = NULL;
    return regex->problem ? STATUS_OK : error_set_memory(error);
}

/* The patterns that look at particular numbers; there may be one for each layer and expert. */
static enum status bound_regexes_match(struct config_groups *groups, struct error *error) {
    enum status status = STATUS_OK;
    const char *name = groups->name.bytes;
    for (size_t length = 0; length <= LITERAL_MAX && length <= groups->name.length; length++) {
        if (!groups->has_start[length])
            continue;
        uint32_t at = name_table_find(&groups->starts, name, length);
        for (; at != NAME_UNKNOWN && at != NO_ENTRY && status == STATUS_OK; at = groups->regexes[at].next)
            status = regex_match(groups, &groups->regexes[at], error);
    }
    for (size_t i = 0; i < groups->floating_count && status == STATUS_OK; i++) {
        struct regex *regex = &groups->regexes[groups->floating[i]];
        if (strstr(name, regex->literal))
            status = regex_match(groups, regex, error);
    }
    return status;
}

static enum status remember(struct config_groups *groups, struct error *error) {
    if (!array_reserve(groups->remembered, groups->remembered_count + 1, &groups->remembered_capacity))
        return error_set_memory(error);
    struct remembered *new = &groups->remembered[groups->remembered_count];
    *new = (struct remembered){strdup(groups->shape.bytes), malloc((groups->found_count + 1) * sizeof *new->groups),
                               groups->found_count};
    groups->remembered_count++;
    if (!new->name || !new->groups)
        return error_set_memory(error);
    for (size_t i = 0; i < groups->found_count; i++)
        new->groups[i] = groups->found[i];
    if (!name_table_add(&groups->remembered_names, new->name, strlen(new->name),
                        (uint32_t)(groups->remembered_count - 1), NULL))
        return error_set_memory(error);
    return STATUS_OK;
}

/* The patterns that take any number: asked once for names that differ in nothing else. */
static enum status free_regexes_match(struct config_groups *groups, struct error *error) {
    const struct text *shape = &groups->shape;
    uint32_t known = name_table_find(&groups->remembered_names, shape->bytes, shape->length);
    enum status status = STATUS_OK;
    if (known != NAME_UNKNOWN) {
        const struct remembered *remembered = &groups->remembered[known];
        for (size_t i = 0; i < remembered->count && status == STATUS_OK; i++)
            status = found_add(groups, remembered->groups[i], error);
        return status;
    }
    for (size_t i = 0; i < groups->free_count && status == STATUS_OK; i++)
        status = regex_match(groups, &groups->regexes[i], error);
    return status == STATUS_OK ? remember(groups, error) : status;
}

static enum status plain_match(struct config_groups *groups, struct error *error) {
    uint32_t at = name_table_find(&groups->plain_names, groups->name.bytes, groups->name.length);
    enum status status = STATUS_OK;
    for (; at != NAME_UNKNOWN && at != NO_ENTRY && status == STATUS_OK; at = groups->plain[at].next)
        status = found_add(groups, groups->plain[at].group, error);
    return status;
}

enum status config_groups_match(struct config_groups *groups, const char *name, size_t length, bool quantized,
                                struct group_match *match, struct error *error) {
    groups->found_count = groups->name.length = groups->shape.length = 0;
    text_append(&groups->name, name, length);
    text_append(&groups->shape, name, length);
    if (groups->name.failed || groups->shape.failed)
        return error_set_memory(error);
    for (size_t i = 0; i < length; i++)
        if (isdigit((unsigned char)groups->shape.bytes[i]))
            groups->shape.bytes[i] = '0';
    enum status status = free_regexes_match(groups, error);
    if (status == STATUS_OK)
        status = bound_regexes_match(groups, error);
    if (status == STATUS_OK)
        status = plain_match(groups, error);
    bool named = groups->found_count > 0;
    for (size_t i = 0; quantized && !named && i < groups->class_count && status == STATUS_OK; i++)
        status = found_add(groups, groups->classes[i], error);
    *match = (struct group_match){.groups = groups->found};
    for (size_t i = 0; i < groups->found_count; i++) {
        match->ignored = match->ignored || groups->found[i] == IGNORE;
        if (groups->found[i] != IGNORE)
            groups->found[match->count++] = groups->found[i];
    }
    return status;
}
