/*
 * What the tests of verify's checks of folders share: a source and an output, opened, and findings as text.
 */
#ifndef QSTREAM_TESTS_UNIT_VERIFY_FOLDERS_H
#define QSTREAM_TESTS_UNIT_VERIFY_FOLDERS_H

#include "tests/unit/fixtures.h"
#include "verify/folder_check.h"

struct folders {
    struct fixture *fixture;
    char source_path[256], output_path[256];
    struct checkpoint source, output;
    struct modules modules;
    struct manifest manifest;
    bool has_manifest;
    struct verify_findings findings;
    struct folder_check check;
};

static inline void folders_forget(struct folders *f) {
    verify_findings_free(&f->findings);
    manifest_free(&f->manifest);
    modules_free(&f->modules);
    checkpoint_close(&f->source);
    checkpoint_close(&f->output);
    f->modules = (struct modules){0};
}

static inline int folders_setup(void **state) {
    void *fixture = NULL;
    struct folders *f = calloc(1, sizeof *f);
    if (!f || fixture_setup(&fixture) != 0)
        return -1;
    f->fixture = fixture;
    snprintf(f->source_path, sizeof f->source_path, "%s/source", f->fixture->path);
    snprintf(f->output_path, sizeof f->output_path, "%s/output", f->fixture->path);
    *state = f;
    return mkdir(f->source_path, 0777) || mkdir(f->output_path, 0777);
}

static inline int folders_teardown(void **state) {
    struct folders *f = *state;
    void *fixture = f->fixture;
    folders_forget(f);
    fixture_teardown(&fixture);
    free(f);
    return 0;
}

#define FOLDERS_TEST(name) cmocka_unit_test_setup_teardown(name, folders_setup, folders_teardown)

static inline void folders_open(struct folders *f) {
    struct error *error = &f->fixture->error;
    folders_forget(f);
    assert_ok(checkpoint_open(f->source_path, &f->source, error), *error);
    assert_ok(checkpoint_open(f->output_path, &f->output, error), *error);
    assert_ok(modules_collect(&f->output, &f->modules, error), *error);
    assert_ok(manifest_read(f->output.folder, &f->manifest, &f->has_manifest, error), *error);
    f->check = (struct folder_check){.source = &f->source,
                                     .output = &f->output,
                                     .output_modules = &f->modules,
                                     .manifest = f->has_manifest ? &f->manifest : NULL,
                                     .memory = (uint64_t)256 << 20,
                                     .jobs = 2,
                                     .quiet = true};
}

static inline void both(struct folders *f, const char *file, const char *text) {
    char path[128];
    snprintf(path, sizeof path, "source/%s", file);
    fixture_file(f->fixture, path, text);
    snprintf(path, sizeof path, "output/%s", file);
    fixture_file(f->fixture, path, text);
}

/* Each finding is "severity id subject: message"; all of them, a line each, in f->fixture->text. */
static inline const char *findings_text(struct folders *f) {
    struct text *text = &f->fixture->text;
    text_free(text);
    text_append_string(text, "");
    for (size_t i = 0; i < f->findings.count; i++) {
        const struct verify_finding *finding = &f->findings.items[i];
        text_printf(text, "%s %s %s: %s\n", verify_severity_name(finding->severity), finding->id, finding->subject,
                    finding->message);
    }
    return text->bytes;
}

typedef enum status check_function(const struct folder_check *check, struct verify_findings *findings,
                                   struct error *error);

static inline const char *findings_of(struct folders *f, check_function *check) {
    verify_findings_free(&f->findings);
    assert_ok(check(&f->check, &f->findings, &f->fixture->error), f->fixture->error);
    return findings_text(f);
}

static inline void assert_lines(const char *text, const char *wanted) {
    if (strcmp(text, wanted) != 0)
        fail_msg("these findings:\n%sinstead of:\n%s", text, wanted);
}

#endif
