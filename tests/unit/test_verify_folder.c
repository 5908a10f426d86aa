/*
 * verify: the files of an output besides weights and config.json: those that go along with the source's, and what the
 * manifest says of all.
 */
#include "tests/unit/verify_folders.h"

/* ---- files that go along ---- */

static void files_setup(struct folders *f) {
    both(f, "config.json", "{}");
    fixture_shard(f->fixture, "source/model.safetensors", "a.weight BF16 2x2\n");
    fixture_shard(f->fixture, "output/model.safetensors", "a.weight BF16 2x2\n");
}

static void given_all_files_of_the_source_then_nothing_is_found(void **state) {
    struct folders *f = *state;
    char path[256], target[256];
    files_setup(f);
    both(f, "tokenizer.json", "{\"a\": 1}");
    both(f, "LICENSE", "text");
    both(f, "empty.txt", "");
    mkdir(fixture_path(f->fixture, "source/chat_templates", path), 0777);
    mkdir(fixture_path(f->fixture, "output/chat_templates", path), 0777);
    both(f, "chat_templates/tool.jinja", "x");
    fixture_file(f->fixture, "blob", "linked"); /* as in the cache of huggingface_hub */
    assert_int_equal(
        symlink(fixture_path(f->fixture, "blob", target), fixture_path(f->fixture, "source/merges.txt", path)), 0);
    fixture_file(f->fixture, "output/merges.txt", "linked");
    fixture_file(f->fixture, "output/extra.txt", "mine");
    folders_open(f);
    assert_lines(findings_of(f, sidecar_files_check), "");
}

static void given_files_that_need_not_go_along_then_nobody_asks_for_them(void **state) {
    struct folders *f = *state;
    static const char *const files[] = {"README.md",
                                        "README",
                                        "README_zh.md",
                                        "qstream.json",
                                        ".gitattributes",
                                        "pytorch_model.bin",
                                        "x.pt",
                                        "x.pth",
                                        "x.gguf",
                                        "tf_model.h5",
                                        "flax_model.msgpack",
                                        "x.onnx",
                                        "rust_model.ot",
                                        "x.npz",
                                        "x.ckpt",
                                        "params.json",
                                        "consolidated.safetensors",
                                        "consolidated.00.json",
                                        "hf_quant_config.json",

                                        "pytorch_model.bin.index.json",
                                        "x.tflite",
                                        "extra.safetensors"};
    static const char *const folders[] = {"original", "onnx", "openvino", "metal", "coreml", "flax", "gguf", ".git"};
    char path[256], file[64];
    files_setup(f);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(file, sizeof file, "source/%s", files[i]);
        fixture_file(f->fixture, file, "x");
    }
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        snprintf(file, sizeof file, "source/%s", folders[i]);
        assert_int_equal(mkdir(fixture_path(f->fixture, file, path), 0777), 0);
        snprintf(file, sizeof file, "source/%s/tokenizer.json", folders[i]);
        fixture_file(f->fixture, file, "x");
    }
    assert_int_equal(symlink("/usr", fixture_path(f->fixture, "source/linked", path)), 0);
    assert_int_equal(symlink("nowhere", fixture_path(f->fixture, "source/dangling.txt", path)), 0);
    assert_int_equal(mkfifo(fixture_path(f->fixture, "source/fifo.txt", path), 0600), 0);
    folders_open(f);
    assert_lines(findings_of(f, sidecar_files_check), "");
}

static void given_files_that_are_missing_then_it_is_a_warning_and_with_a_manifest_an_error(void **state) {
    struct folders *f = *state;
    char path[256];
    files_setup(f);
    fixture_file(f->fixture, "source/tokenizer.json", "{}");
    assert_int_equal(mkdir(fixture_path(f->fixture, "source/chat_templates", path), 0777), 0);
    fixture_file(f->fixture, "source/chat_templates/README.md", "x");
    fixture_file(f->fixture, "source/merges.txt", "x");
    assert_int_equal(mkdir(fixture_path(f->fixture, "output/merges.txt", path), 0777), 0); /* a folder is no file */
    folders_open(f);
    assert_lines(findings_of(f, sidecar_files_check),
                 "warning file-missing chat_templates/README.md: the source has this file, the folder does not\n"
                 "warning file-missing merges.txt: the source has this file, the folder does not\n"
                 "warning file-missing tokenizer.json: the source has this file, the folder does not\n");
    f->check.manifest = &f->manifest;
    assert_contains(findings_of(f, sidecar_files_check), "error file-missing tokenizer.json: ");
}

static void given_files_that_differ_then_the_first_byte_is_told(void **state) {
    struct folders *f = *state;
    enum { SIZE = 600000 };
    char *bytes = malloc(SIZE);
    assert_non_null(bytes);
    memset(bytes, 'a', SIZE);
    files_setup(f);
    fixture_bytes(f->fixture, "source/large.txt", bytes, SIZE);
    bytes[SIZE - 7] = 'b';
    fixture_bytes(f->fixture, "output/large.txt", bytes, SIZE);
    free(bytes);
    fixture_file(f->fixture, "source/LICENSE", "abc");
    fixture_file(f->fixture, "output/LICENSE", "abcd");
    fixture_file(f->fixture, "source/merges.txt", "abc");
    fixture_file(f->fixture, "output/merges.txt", "");
    folders_open(f);
    assert_lines(findings_of(f, sidecar_files_check),
                 "error file-changed LICENSE: it is not the source's file: they differ from byte 3 on (4 bytes, in the "
                 "source 3)\n"
                 "error file-changed large.txt: it is not the source's file: they differ from byte 599993 on (600000 "
                 "bytes, in the source 600000)\n"
                 "error file-changed merges.txt: it is not the source's file: they differ from byte 0 on (0 bytes, in "
                 "the source 3)\n");
}

static void given_json_files_of_the_same_meaning_then_they_are_the_same_file(void **state) {
    struct folders *f = *state;
    files_setup(f);
    fixture_file(f->fixture, "source/tokenizer.json",
                 "{\"version\": \"1.0\", \"vocab\": {\"\\u0000\": 0, \"\xc4\xa0\": 1}}");
    fixture_file(f->fixture, "output/tokenizer.json",
                 "{\n\"vocab\": {\"\\u0120\": 1, \"\\u0000\": 0}, \"version\": \"1.0\"}\n");
    fixture_file(f->fixture, "source/a.json", "{\"a\": 1}");
    fixture_file(f->fixture, "output/a.json", "{\"a\": 2}");
    fixture_file(f->fixture, "source/b.json", "[1, 2");
    fixture_file(f->fixture, "output/b.json", "[1,2");
    fixture_file(f->fixture, "source/c.txt", "{\"a\": 1}");
    fixture_file(f->fixture, "output/c.txt", "{\"a\":1}");
    folders_open(f);
    const char *found = findings_of(f, sidecar_files_check);
    assert_contains(found, "error file-changed a.json: ");
    assert_contains(found, "error file-changed b.json: ");
    assert_contains(found, "error file-changed c.txt: ");
    assert_null(strstr(found, "tokenizer"));
}

static void given_json_files_with_members_more_then_it_is_a_warning(void **state) {
    struct folders *f = *state;
    files_setup(f);
    fixture_file(f->fixture, "source/generation_config.json", "{\"a\": 1, \"transformers_version\": \"4\"}");
    fixture_file(f->fixture, "output/generation_config.json", "{\"a\": 1, \"transformers_version\": \"5\"}");
    fixture_file(f->fixture, "source/more.json", "{\"a\": {\"b\": 1}}");
    fixture_file(f->fixture, "output/more.json", "{\"c\": 2, \"a\": {\"b\": 1}}");
    fixture_file(f->fixture, "source/deeper.json", "{\"a\": {\"b\": 1}}");
    fixture_file(f->fixture, "output/deeper.json", "{\"a\": {\"b\": 1, \"c\": 2}}");
    fixture_file(f->fixture, "source/list.json", "[1]");
    fixture_file(f->fixture, "output/list.json", "[1, 2]");
    folders_open(f);
    const char *found = findings_of(f, sidecar_files_check);
    assert_contains(found, "error file-changed deeper.json: ");
    assert_contains(found, "error file-changed list.json: ");
    assert_contains(found, "warning file-changed more.json: ");
    assert_null(strstr(found, "generation_config"));
    f->check.memory = 60; /* too little to look at what they mean */
    assert_contains(findings_of(f, sidecar_files_check), "error file-changed generation_config.json: ");
}

static void given_an_output_inside_the_source_then_its_own_files_are_not_asked_for(void **state) {
    struct folders *f = *state;
    char path[256];
    files_setup(f);
    assert_int_equal(rename(f->output_path, fixture_path(f->fixture, "source/quantized", path)), 0);
    memcpy(f->output_path, path, sizeof path);
    fixture_file(f->fixture, "source/quantized/notes.txt", "x");
    folders_open(f);
    assert_lines(findings_of(f, sidecar_files_check), "");
}

/* ---- the manifest ---- */

/* Writes a manifest of the output's files as they are now, and of the source's shard. */
static void manifest_write(struct folders *f, const char *const *files, size_t count) {
    struct text out = {0};
    struct stat source;
    char path[256], hex[SHA256_HEX];
    assert_int_equal(stat(fixture_path(f->fixture, "source/model.safetensors", path), &source), 0);
    text_printf(
        &out,
        "{\"schema\": \"qstream.manifest/1\", \"rule\": \"mse\", \"gamma\": \"none\", \"rounding\": \"nearest\", "
        "\"ties\": \"even\", \"tensor_bytes\": 8, \"source\": {\"files\": [{\"name\": \"model.safetensors\", \"size\": "
        "%lld}]}, \"recipe\": {\"schema\": \"qstream.recipe/1\", \"name\": \"r\", \"rules\": [{\"match\": \"*\", "
        "\"format\": "
        "\"keep\"}]}, \"files\": [",
        (long long)source.st_size);
    for (size_t i = 0; i < count; i++) {
        char file[128], *bytes;
        size_t length;
        uint8_t digest[SHA256_SIZE];
        snprintf(file, sizeof file, "output/%s", files[i]);
        assert_ok(file_read(fixture_path(f->fixture, file, path), (size_t)1 << 30, &bytes, &length, &f->fixture->error),
                  f->fixture->error);
        assert_ok(sha256_of(bytes, length, digest, &f->fixture->error), f->fixture->error);
        free(bytes);
        text_printf(&out, "%s{\"name\": \"%s\", \"size\": %zu, \"sha256\": \"%s\"}", i ? ", " : "", files[i], length,
                    sha256_hex(digest, hex));
    }
    text_append_string(&out, "]}");
    fixture_file(f->fixture, "output/qstream.json", out.bytes);
    text_free(&out);
}

static const char *const manifest_files[] = {"model.safetensors", "config.json", "README.md", "chat_templates/a.jinja"};

static void manifest_setup(struct folders *f) {
    char path[256];
    files_setup(f);
    fixture_file(f->fixture, "output/README.md", "card");
    mkdir(fixture_path(f->fixture, "output/chat_templates", path), 0777);
    fixture_file(f->fixture, "output/chat_templates/a.jinja", "template");
    manifest_write(f, manifest_files, 4);
    folders_open(f);
}

static void given_a_folder_as_its_manifest_says_then_nothing_is_found(void **state) {
    struct folders *f = *state;
    manifest_setup(f);
    for (unsigned jobs = 0; jobs < 9; jobs += 4) {
        f->check.jobs = jobs;
        f->check.hash = jobs > 0;
        assert_lines(findings_of(f, manifest_files_check), "");
    }
    f->check.manifest = NULL;
    fixture_file(f->fixture, "output/config.json", "{\"a\": 1}");
    assert_lines(findings_of(f, manifest_files_check), "");
}

static void given_files_that_are_missing_or_of_another_size_then_they_are_named(void **state) {
    struct folders *f = *state;
    char path[256];
    manifest_setup(f);
    assert_int_equal(unlink(fixture_path(f->fixture, "output/config.json", path)), 0);
    assert_int_equal(unlink(fixture_path(f->fixture, "output/chat_templates/a.jinja", path)), 0);
    assert_int_equal(rmdir(fixture_path(f->fixture, "output/chat_templates", path)), 0);
    fixture_file(f->fixture, "output/chat_templates", "no folder");
    assert_int_equal(mkdir(fixture_path(f->fixture, "output/config.json", path), 0777), 0);
    fixture_file(f->fixture, "output/README.md", "edited");
    assert_int_equal(truncate(fixture_path(f->fixture, "output/model.safetensors", path), 20), 0);
    const char *found = findings_of(f, manifest_files_check);
    assert_contains(found, "error manifest-size model.safetensors: it has 20 bytes, the manifest says ");
    assert_contains(found,
                    "error file-missing config.json: the manifest lists this file, but it is not a regular file\n");
    assert_contains(found, "warning manifest-size README.md: it has 6 bytes, the manifest says 4\n");
    assert_contains(
        found,
        "error file-missing chat_templates/a.jinja: the manifest lists this file, the folder does not have it\n");
    assert_contains(found, "note file-not-in-manifest chat_templates: the manifest does not list this file\n");
    assert_int_equal(f->findings.count, 5);
}

static void given_files_with_another_digest_then_small_ones_are_always_found_and_shards_with_hash(void **state) {
    struct folders *f = *state;
    char path[256];
    manifest_setup(f);
    fixture_file(f->fixture, "output/config.json", "[]");
    fixture_file(f->fixture, "output/README.md", "cord");
    FILE *shard = fopen(fixture_path(f->fixture, "output/model.safetensors", path), "r+b");
    assert_non_null(shard);
    assert_int_equal(fseek(shard, -1, SEEK_END), 0);
    assert_int_not_equal(fputc('!', shard), EOF);
    assert_int_equal(fclose(shard), 0);
    const char *found = findings_of(f, manifest_files_check);
    assert_contains(found,
                    "error manifest-hash config.json: its SHA-256 is "
                    "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945, the manifest says 44136fa3");
    assert_contains(found, "warning manifest-hash README.md: ");
    assert_int_equal(f->findings.count, 2);
    f->check.hash = true;
    found = findings_of(f, manifest_files_check);
    assert_contains(found, "error manifest-hash model.safetensors: ");
    assert_int_equal(f->findings.count, 3);
}

static void given_files_that_the_manifest_does_not_list_then_shards_are_warned_of(void **state) {
    struct folders *f = *state;
    char path[256];
    manifest_setup(f);
    fixture_file(f->fixture, "output/notes.txt", "x");
    fixture_file(f->fixture, "output/chat_templates/b.jinja", "x");
    fixture_file(f->fixture, "output/stray.safetensors", "x");
    fixture_file(f->fixture, "output/.hidden", "x");
    assert_int_equal(mkdir(fixture_path(f->fixture, "output/.cache", path), 0777), 0);
    fixture_file(f->fixture, "output/.cache/x", "x");
    assert_lines(findings_of(f, manifest_files_check),
                 "note file-not-in-manifest chat_templates/b.jinja: the manifest does not list this file\n"
                 "note file-not-in-manifest notes.txt: the manifest does not list this file\n"
                 "warning file-not-in-manifest stray.safetensors: the manifest does not list this file\n");
    for (int i = 0; i < 150; i++) {
        char file[64];
        snprintf(file, sizeof file, "output/many%03d.txt", i);
        fixture_file(f->fixture, file, "x");
    }
    assert_contains(findings_of(f, manifest_files_check),
                    "note file-not-in-manifest qstream.json: it does not list 53 files more\n");
}

static void given_a_manifest_of_another_source_then_its_shards_are_named(void **state) {
    struct folders *f = *state;
    manifest_setup(f);
    fixture_shard(f->fixture, "source/model.safetensors", "a.weight BF16 2x4\n");
    folders_open(f);
    assert_contains(findings_of(f, manifest_files_check), "error manifest-source model.safetensors: it has ");
    manifest_setup(f);
    free(f->manifest.sources[0].name);
    f->manifest.sources[0].name = strdup("other.safetensors");
    assert_lines(
        findings_of(f, manifest_files_check),
        "error manifest-source other.safetensors: the manifest names this shard, the source does not have it: "
        "the folder was not made from this source\n"
        "error manifest-source model.safetensors: the source has this shard, the manifest does not name it: the "
        "folder was not made from this source\n");
}

static void given_more_files_than_threads_then_each_gets_its_own_digest(void **state) {
    struct folders *f = *state;
    enum { FILES = 60 };
    char names[FILES][32], file[64];
    const char *list[FILES + 3];
    files_setup(f);
    char *bytes = malloc(3 << 20);
    assert_non_null(bytes);
    for (int i = 0; i < 3 << 20; i++)
        bytes[i] = (char)(i * 31 >> 3);
    for (int i = 0; i < FILES; i++) {
        snprintf(names[i], sizeof names[i], "file%02d.txt", i);
        snprintf(file, sizeof file, "output/file%02d.txt", i);
        fixture_bytes(f->fixture, file, bytes + i, i % 20 == 0 ? (3 << 20) - 100 : (size_t)i * 1000);
        list[i] = names[i];
    }
    free(bytes);
    list[FILES] = "model.safetensors";
    list[FILES + 1] = "config.json";
    manifest_write(f, list, FILES + 2);
    folders_open(f);
    for (unsigned jobs = 1; jobs < 8; jobs += 3) {
        f->check.jobs = jobs;
        f->check.hash = true;
        assert_lines(findings_of(f, manifest_files_check), "");
    }
    fixture_file(f->fixture, "output/file01.txt", "");
    fixture_bytes(f->fixture, "output/file02.txt", list, 0);
    assert_contains(findings_of(f, manifest_files_check),
                    "error manifest-size file01.txt: it has 0 bytes, the manifest says 1000\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        FOLDERS_TEST(given_all_files_of_the_source_then_nothing_is_found),
        FOLDERS_TEST(given_files_that_need_not_go_along_then_nobody_asks_for_them),
        FOLDERS_TEST(given_files_that_are_missing_then_it_is_a_warning_and_with_a_manifest_an_error),
        FOLDERS_TEST(given_files_that_differ_then_the_first_byte_is_told),
        FOLDERS_TEST(given_json_files_of_the_same_meaning_then_they_are_the_same_file),
        FOLDERS_TEST(given_json_files_with_members_more_then_it_is_a_warning),
        FOLDERS_TEST(given_an_output_inside_the_source_then_its_own_files_are_not_asked_for),
        FOLDERS_TEST(given_a_folder_as_its_manifest_says_then_nothing_is_found),
        FOLDERS_TEST(given_files_that_are_missing_or_of_another_size_then_they_are_named),
        FOLDERS_TEST(given_files_with_another_digest_then_small_ones_are_always_found_and_shards_with_hash),
        FOLDERS_TEST(given_files_that_the_manifest_does_not_list_then_shards_are_warned_of),
        FOLDERS_TEST(given_a_manifest_of_another_source_then_its_shards_are_named),
        FOLDERS_TEST(given_more_files_than_threads_then_each_gets_its_own_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
