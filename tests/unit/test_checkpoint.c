/*
 * Checkpoints: which files are shards, and that the index and the shards agree.
 */
#include "tests/unit/fixtures.h"

#include <signal.h>
#include <sys/types.h>

static const char index_name[] = "model.safetensors.index.json";

static void refused(struct fixture *fixture, enum status wanted, const char *part) {
    enum status status = checkpoint_open(fixture->path, &fixture->checkpoint, &fixture->error);
    checkpoint_close(&fixture->checkpoint);
    assert_refused(status, wanted, fixture->error, part);
}

/* What must not hang ends the test by SIGALRM when it does. */
static void refused_soon(struct fixture *fixture, const char *part) {
    alarm(20);
    refused(fixture, STATUS_BAD_INPUT, part);
    alarm(0);
}

static void given_one_file_without_an_index_then_its_tensors_are_the_checkpoint(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{\"a\": NaN}");
    fixture_shard(fixture, "model.safetensors", "b BF16 2x3\na F32 -\n");
    fixture_shard(fixture, "other.safetensors", "c BF16 2\n"); /* not looked at: model.safetensors exists */
    fixture_open(fixture);
    const struct checkpoint *checkpoint = &fixture->checkpoint;
    assert_false(checkpoint->has_index);
    assert_string_equal(checkpoint->config, "{\"a\": NaN}");
    assert_int_equal(checkpoint->config_length, 10);
    assert_int_equal(checkpoint->shard_count, 1);
    assert_string_equal(checkpoint->shards[0].file, "model.safetensors");
    assert_int_equal(checkpoint->tensor_count, 2);
    assert_string_equal(checkpoint->tensors[0].info.name, "b");
    assert_string_equal(checkpoint->tensors[checkpoint->by_name[0]].info.name, "a");
    assert_int_equal(checkpoint->tensors[0].info.offset, checkpoint->shards[0].data_offset);
}

static void given_many_files_without_an_index_then_all_but_consolidated_ones_count(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "b.safetensors", "y BF16 2\n");
    fixture_shard(fixture, "a.safetensors", "z BF16 2\n");
    fixture_file(fixture, "consolidated.safetensors", "garbage");
    fixture_file(fixture, "consolidated-00001-of-00002.safetensors", "garbage");
    fixture_file(fixture, ".hidden.safetensors", "garbage");
    fixture_file(fixture, "model.safetensors.part", "garbage");
    fixture_open(fixture);
    assert_int_equal(fixture->checkpoint.shard_count, 2);
    assert_string_equal(fixture->checkpoint.shards[0].file, "a.safetensors");
    assert_string_equal(fixture->checkpoint.shards[1].file, "b.safetensors");
    assert_int_equal(checkpoint_find(&fixture->checkpoint, "y")->shard, 1);
    assert_int_equal(checkpoint_find(&fixture->checkpoint, "z")->shard, 0);
}

static void given_an_index_then_only_the_files_it_names_count(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_file(fixture, index_name,
                 "{\"metadata\": {\"total_size\": 1e400, \"n\": 123456789012345678901234567890}, \"weight_map\": "
                 "{\"b\": \"s2.safetensors\", \"a\": \"s1.safetensors\", \"c\": \"s2.safetensors\"}}");
    fixture_shard(fixture, "s2.safetensors", "c BF16 4\nb BF16 2\n");
    fixture_shard(fixture, "s1.safetensors", "a BF16 2\n");
    fixture_file(fixture, "model.safetensors", "garbage");
    fixture_file(fixture, "consolidated.safetensors", "garbage");
    enum status status = checkpoint_open(fixture->path, &fixture->checkpoint, &fixture->error);
    if (status != STATUS_OK) /* 1e400 may be too much for a JSON library, but must not crash it */
        assert_contains(fixture->error.message, index_name);
    checkpoint_close(&fixture->checkpoint);
    fixture_file(fixture, index_name,
                 "{\"metadata\": {\"total_size\": 123456789012345678901234567890}, \"weight_map\": "
                 "{\"b\": \"s2.safetensors\", \"a\": \"s1.safetensors\", \"c\": \"s2.safetensors\"}}");
    fixture_open(fixture);
    const struct checkpoint *checkpoint = &fixture->checkpoint;
    assert_true(checkpoint->has_index);
    assert_int_equal(checkpoint->shard_count, 2);
    assert_string_equal(checkpoint->shards[0].file, "s1.safetensors");
    assert_int_equal(checkpoint->tensor_count, 3);
    assert_string_equal(checkpoint->tensors[0].info.name, "a"); /* by shard, then by data */
    assert_string_equal(checkpoint->tensors[1].info.name, "c");
    assert_string_equal(checkpoint->tensors[2].info.name, "b");
}

static void given_many_tensors_then_each_is_found_and_no_other_name_is(void **state) {
    struct fixture *fixture = *state;
    struct text names = {0};
    for (int i = 0; i < 300; i++)
        text_printf(&names, "m.%d.weight U8 %d\nm.%d U8 1\n\xc3\xa9%d U8 1\n", i, i, i, i);
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", names.bytes);
    text_free(&names);
    fixture_open(fixture);
    const struct checkpoint *checkpoint = &fixture->checkpoint;
    for (size_t i = 0; i < checkpoint->tensor_count; i++) {
        const char *name = checkpoint->tensors[i].info.name;
        assert_ptr_equal(checkpoint_find(checkpoint, name), &checkpoint->tensors[i]);
        for (size_t cut = 0; cut <= strlen(name); cut++)
            assert_ptr_equal(checkpoint_find_joined(checkpoint, name, cut, name + cut), &checkpoint->tensors[i]);
    }
    static const char *const absent[] = {"", "m", "m.", "m.1.", "m.1.weightx", "m.300", "zzz", "\xff", "m.1.weigh"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        assert_null(checkpoint_find(checkpoint, absent[i]));
    assert_null(checkpoint_find_joined(checkpoint, "m.1", 3, ".bias"));
    assert_non_null(checkpoint_find_joined(checkpoint, "m.1zzz", 3, ".weight"));
}

static void given_a_tensor_then_any_range_of_its_bytes_can_be_read(void **state) {
    struct fixture *fixture = *state;
    uint8_t wanted[600], got[600];
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", "first U8 10\nx BF16 300\nlast U8 3\n");
    fixture_open(fixture);
    const struct tensor *tensor = checkpoint_find(&fixture->checkpoint, "x");
    fixture_fill(wanted, &tensor->info);
    assert_ok(checkpoint_read(&fixture->checkpoint, tensor, 0, got, 600, &fixture->error), fixture->error);
    assert_memory_equal(got, wanted, 600);
    assert_ok(checkpoint_read(&fixture->checkpoint, tensor, 123, got, 77, &fixture->error), fixture->error);
    assert_memory_equal(got, wanted + 123, 77);
    assert_ok(checkpoint_read(&fixture->checkpoint, tensor, 600, got, 0, &fixture->error), fixture->error);
    assert_refused(checkpoint_read(&fixture->checkpoint, tensor, 500, got, 600, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "truncated");
    assert_refused(checkpoint_read(&fixture->checkpoint, tensor, 599, got, 2, &fixture->error), STATUS_BAD_INPUT,
                   fixture->error, "'x' has 600 bytes"); /* the next tensor's byte */
}

static void given_a_shard_that_changes_while_open_then_it_is_noticed(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "model.safetensors", "x BF16 300\n");
    fixture_open(fixture);
    struct byte_source *source = fixture->checkpoint.shards[0].source;
    assert_ok(byte_source_check_unchanged(source, &fixture->error), fixture->error);
    assert_int_equal(truncate(fixture_path(fixture, "model.safetensors", path), 100), 0);
    assert_refused(byte_source_check_unchanged(source, &fixture->error), STATUS_BAD_INPUT, fixture->error,
                   "was changed while it was being read");
}

static void given_an_index_that_disagrees_with_its_shards_then_it_is_refused_by_name(void **state) {
    struct fixture *fixture = *state;
    static const struct {
        const char *map, *first, *second, *part;
    } cases[] = {
        {"\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"", "a U8 1\n", NULL,
         "2.safetensors' is missing, but 'model.safetensors.index.json' places tensors in it"},
        {"\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"", "a U8 1\nb U8 1\n", "",
         "tensor 'b' lies in '1.safetensors', but 'model.safetensors.index.json' says '2.safetensors'"},
        {"\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"", "a U8 1\n", "b U8 1\nc U8 1\n",
         "holds tensor 'c', which 'model.safetensors.index.json' does not name"},
        {"\"a\": \"1.safetensors\", \"b\": \"2.safetensors\", \"d\": \"2.safetensors\"", "a U8 1\n", "b U8 1\n",
         "places tensor 'd' in '2.safetensors', which does not hold it"},
        {"\"a\": \"1.safetensors\", \"b\": \"2.safetensors\"", "a U8 1\n", "a U8 1\nb U8 1\n",
         "tensor 'a' lies in '2.safetensors', but"},
        {"", "a U8 1\n", NULL, "no weight_map object"},
        {"\"a\": 1", "a U8 1\n", NULL, "the shard of tensor 'a' is not a string"},
        {"\"a\": null", "a U8 1\n", NULL, "the shard of tensor 'a' is not a string"},
        {"\"a\": \"1.safetensors\", \"a\": \"2.safetensors\"", "a U8 1\n", "a U8 1\n", "duplicate object key"},
        {"\"a\": \"../1.safetensors\"", "a U8 1\n", NULL, "'../1.safetensors', which is not a plain"},
        {"\"a\": \"/etc/x.safetensors\"", "a U8 1\n", NULL, "not a plain *.safetensors file name"},
        {"\"a\": \"sub/1.safetensors\"", "a U8 1\n", NULL, "not a plain *.safetensors file name"},
        {"\"a\": \".safetensors\"", "a U8 1\n", NULL, "not a plain *.safetensors file name"},
        {"\"a\": \"..safetensors\"", "a U8 1\n", NULL, "not a plain *.safetensors file name"},
        {"\"a\": \"\"", "a U8 1\n", NULL, "not a plain *.safetensors file name"},
        {"\"a\": \"config.json\"", "a U8 1\n", NULL, "'config.json', which is not a plain"},
        {"\"a\": \"pytorch_model.bin\"", "a U8 1\n", NULL, "not a plain *.safetensors file name"},
        {"\"a\": \"x\\u001b[2J/1.safetensors\"", "a U8 1\n", NULL, "'x\\x1b[2J/1.safetensors'"},
        {"\"a\": \"1.safetensors", "a U8 1\n", NULL, "is not valid JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char index[400];
        fixture_clear(fixture);
        snprintf(index, sizeof index, "{\"weight_map\": {%s}}", cases[i].map);
        fixture_file(fixture, "config.json", "{}");
        fixture_file(fixture, index_name, index);
        fixture_shard(fixture, "1.safetensors", cases[i].first);
        if (cases[i].second)
            fixture_shard(fixture, "2.safetensors", cases[i].second);
        refused(fixture, STATUS_BAD_INPUT, cases[i].part);
    }
    static const char *const indices[] = {"{}", "{\"weight_map\": []}", "{\"weight_map\": \"x\"}"};
    for (size_t i = 0; i < sizeof indices / sizeof *indices; i++) {
        fixture_file(fixture, index_name, indices[i]);
        refused(fixture, STATUS_BAD_INPUT, "no weight_map object");
    }
}

static void given_a_name_in_two_shards_then_both_are_named(void **state) {
    struct fixture *fixture = *state;
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "a U8 1\nx.weight U8 1\n");
    fixture_shard(fixture, "2.safetensors", "b U8 1\nx.weight U8 1\n");
    refused(fixture, STATUS_BAD_INPUT, "tensor 'x.weight' exists twice, in '1.safetensors' and in '2.safetensors'");
}

static void given_no_checkpoint_then_the_error_says_what_is_missing(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    refused(fixture, STATUS_BAD_INPUT, "config.json");
    fixture_file(fixture, "config.json", "{}");
    refused(fixture, STATUS_BAD_INPUT, "holds no checkpoint");
    fixture_file(fixture, "consolidated.safetensors", "garbage");
    refused(fixture, STATUS_BAD_INPUT, "holds no checkpoint");
    fixture_file(fixture, "config.json", "{\n\"a\": }");
    refused(fixture, STATUS_BAD_INPUT, "line 2");
    fixture_file(fixture, "config.json", "[]");
    refused(fixture, STATUS_BAD_INPUT, "config.json' is not valid JSON: an object was expected");

    struct checkpoint checkpoint;
    enum status status = checkpoint_open(fixture_path(fixture, "config.json", path), &checkpoint, &fixture->error);
    checkpoint_close(&checkpoint);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "is not a folder");
    status = checkpoint_open(fixture_path(fixture, "nothing", path), &checkpoint, &fixture->error);
    checkpoint_close(&checkpoint);
    assert_refused(status, STATUS_BAD_INPUT, fixture->error, "No such file");
}

static void given_a_fifo_or_a_folder_in_place_of_a_file_then_it_is_refused_at_once(void **state) {
    struct fixture *fixture = *state;
    static const char *const files[] = {"config.json", "model.safetensors.index.json", "1.safetensors",
                                        "model.safetensors"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        for (int folder = 0; folder < 2; folder++) {
            char path[256];
            fixture_clear(fixture);
            fixture_file(fixture, "config.json", "{}");
            if (i == 2)
                fixture_file(fixture, index_name, "{\"weight_map\": {\"a\": \"1.safetensors\"}}");
            unlink(fixture_path(fixture, files[i], path));
            assert_int_equal(folder ? mkdir(path, 0777) : mkfifo(path, 0666), 0);
            refused_soon(fixture, "is not a regular file");
            assert_contains(fixture->error.message, files[i]);
        }
}

static void given_a_cut_shard_then_its_file_is_named(void **state) {
    struct fixture *fixture = *state;
    char path[256];
    fixture_file(fixture, "config.json", "{}");
    fixture_shard(fixture, "1.safetensors", "a U8 1\n");
    fixture_shard(fixture, "2.safetensors", "b U8 100\n");
    assert_int_equal(truncate(fixture_path(fixture, "2.safetensors", path), 80), 0);
    refused(fixture, STATUS_BAD_INPUT, "2.safetensors'");
    assert_contains(fixture->error.message, "truncated");
}

static void given_tensor_names_then_their_role_is_told(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum role role;
    } cases[] = {
        {"model.language_model.layers.3.self_attn.q_proj.weight", ROLE_ATTENTION},
        {"model.layers.3.mlp.gate_proj.weight", ROLE_MLP},
        {"model.layers.3.mlp.gate.weight", ROLE_ROUTER},
        {"model.layers.3.mlp.experts.12.gate_proj.weight", ROLE_EXPERT},
        {"model.layers.3.mlp.shared_expert.gate_proj.weight", ROLE_MLP},
        {"model.layers.3.mlp.shared_expert_gate.weight", ROLE_ROUTER},
        {"model.layers.3.input_layernorm.weight", ROLE_NORM},
        {"model.layers.3.self_attn.q_norm.weight", ROLE_NORM},
        {"model.norm.weight", ROLE_NORM},
        {"model.embed_tokens.weight", ROLE_EMBEDDING},
        {"lm_head.weight", ROLE_HEAD},
        {"model.vision_tower.transformer.layers.0.attention.q_proj.weight", ROLE_VISION},
        {"model.multi_modal_projector.norm.weight", ROLE_VISION},
        {"something.else", ROLE_OTHER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_string_equal(role_name(role_of(cases[i].name)), role_name(cases[i].role));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(given_one_file_without_an_index_then_its_tensors_are_the_checkpoint),
        TEST(given_many_files_without_an_index_then_all_but_consolidated_ones_count),
        TEST(given_an_index_then_only_the_files_it_names_count),
        TEST(given_many_tensors_then_each_is_found_and_no_other_name_is),
        TEST(given_a_tensor_then_any_range_of_its_bytes_can_be_read),
        TEST(given_a_shard_that_changes_while_open_then_it_is_noticed),
        TEST(given_an_index_that_disagrees_with_its_shards_then_it_is_refused_by_name),
        TEST(given_a_name_in_two_shards_then_both_are_named),
        TEST(given_no_checkpoint_then_the_error_says_what_is_missing),
        TEST(given_a_fifo_or_a_folder_in_place_of_a_file_then_it_is_refused_at_once),
        TEST(given_a_cut_shard_then_its_file_is_named),
        TEST(given_tensor_names_then_their_role_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
