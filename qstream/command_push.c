#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/hub/upload_target.h"
#include "common/thread_team.h"
#include "common/utf8.h"
#include "common/version.h"
#include "qstream/command.h"
#include "qstream/option_values.h"
#include "qstream/push_files.h"
#include "qstream/push_gate.h"
#include "qstream/push_report.h"

static const char usage[] =
    "usage: qstream push DST org/name [OPTIONS]\n"
    "\n"
    "Uploads a finished checkpoint, the folder DST, to the model repository org/name on the Hub: all files but hidden\n"
    "ones, in one commit. It audits the folder, compares it with its manifest and verifies it against its source "
    "first, and\n"
    "sends nothing when one of these fails. What the Hub has already is not sent again.\n"
    "\n"
    "  --source SRC        what DST was made from, a folder or hf://org/name[@revision]. Default: what the manifest\n"
    "                      qstream.json names, if that is on the Hub\n"
    "  --verified REPORT   in place of verifying: what 'qstream verify SRC DST --hash --json' printed before\n"
    "  --revision BRANCH   push to this branch (default main); made where main is if it is not there\n"
    "  --private           if the repository is not there yet, make one that only its owners see\n"
    "  --message TEXT      first line of the commit's message\n"
    "  --create-pr         propose the files by a pull request\n"
    "  --dry-run           check everything and tell what would be pushed\n"
    "  --connections N     files or parts that are sent at a time, 1 to 32 (default 8)\n"
    "  --json              print one JSON object (schema qstream.push/1)\n"
    "  --quiet             no progress; print the URL only\n"
    "  --help              print this text\n"
    "\n"
    "The token, which must be allowed to write, comes from HF_TOKEN or from 'hf auth login'.\n"
    "Exit codes: 0 the repository has the files, 1 a check failed and nothing was sent, 2 wrong usage, 3 the Hub "
    "refuses, or\n"
    "a file was changed meanwhile, 4 network failure, or the branch was changed meanwhile.\n";

/* ---- the command line ---- */

static enum status message_parse(const char *value, void *place, struct error *error) {
    *(const char **)place = value;
    if (!*value || !utf8_is_valid(value, strlen(value)) || strchr(value, '\n'))
        return error_set(error, STATUS_USAGE, "--message takes one line of UTF-8");
    return STATUS_OK;
}

static enum status target_parse(const char *name, const char *revision, struct hub_reference *target,
                                struct error *error) {
    char *text = revision ? text_format("%s@%s", name, revision) : strdup(name);
    enum status status = text ? hub_reference_parse(text, target, error) : error_set_memory(error);
    free(text);
    if (status != STATUS_OK)
        return status;
    if (target->dataset || !strchr(target->repository, '/'))
        return error_set(error, STATUS_USAGE, "push takes a model repository as org/name, not '%s'", name);
    if (hub_is_commit(target->revision))
        return error_set(error, STATUS_USAGE, "--revision takes a branch, not a commit");
    return STATUS_OK;
}

static enum status arguments_parse(int argc, char **argv, struct push_options *options, struct hub_reference *target,
                                   bool *help, struct error *error) {
    enum { CONNECTIONS_MOST = 32 };
    const struct command_option known[] = {
        {"source", .text = &options->source},
        {"verified", .text = &options->verified},
        {"revision", .text = &options->revision},
        {"private", .flag = &options->private},
        {"message", .parse = message_parse, .place = &options->message},
        {"create-pr", .flag = &options->create_pull_request},
        {"dry-run", .flag = &options->dry_run},
        {"connections", .number = &options->connections, .least = 1, .most = CONNECTIONS_MOST},
        {"json", .flag = &options->json},
        {"quiet", .flag = &options->quiet},
        {0},
    };
    *options = (struct push_options){.connections = 8, .message = "Upload of qstream " QSTREAM_VERSION};
    enum status status = options_read("push", argc, argv, known, help, error);
    if (status != STATUS_OK || *help)
        return status;
    if (argc - optind != 2)
        return error_set(error, STATUS_USAGE,
                         "push takes a folder, DST, and a repository, org/name; see 'qstream push --help'");
    options->folder = argv[optind];
    if (hub_reference_is(options->folder))
        return error_set(error, STATUS_USAGE, "DST, the folder that is pushed, is a local one, not '%s'",
                         options->folder);
    if (options->source && options->verified)
        return error_set(error, STATUS_USAGE, "--verified tells the source: --source does not go with it");
    return target_parse(argv[optind + 1], options->revision, target, error);
}

/* ---- before anything else: what a later failure would be a waste of hours for ---- */

static enum status source_choose(struct push *push, struct error *error) {
    const char *named = push->has_manifest ? push->manifest.source : NULL;
    const char *chosen = push->options.source;
    struct hub_reference reference = {0};
    if (push->options.verified && push->has_manifest)
        return STATUS_OK;
    if (push->options.verified)
        return error_set(error, STATUS_USAGE,
                         "--verified: without qstream.json nothing says that the report is of '%s'",
                         push->options.folder);
    if (!chosen && named && hub_reference_is(named) && hub_reference_parse(named, &reference, error) == STATUS_OK &&
        hub_is_commit(reference.revision))
        chosen = named;
    hub_reference_free(&reference);
    if (!chosen)
        return error_set(error, STATUS_USAGE,
                         "%s: give what '%s' was made from as --source SRC, so that it can be verified",
                         push->has_manifest ? "qstream.json names no source on the Hub" : "there is no qstream.json",
                         push->options.folder);
    push->source = strdup(chosen);
    return push->source ? STATUS_OK : error_set_memory(error);
}

static enum status token_require(const struct hub *hub, struct error *error) {
    if (hub->environment.offline)
        return error_set(error, STATUS_IO, "HF_HUB_OFFLINE is set: nothing can be pushed");
    if (hub->environment.token)
        return STATUS_OK;
    return error_set(error, STATUS_USAGE,
                     "push needs a token that may write: make one at %s/settings/tokens, then set HF_TOKEN or run 'hf "
                     "auth login'",
                     hub->environment.endpoint);
}

static enum status repository_look(struct push *push, struct error *error) {
    enum status status = hub_target_find(push->hub, &push->target, &push->repository, error);
    if (status == STATUS_OK && push->options.private && push->repository.found && !push->repository.private)
        return error_set(error, STATUS_USAGE, "'%s' is there, and everybody sees it: --private is for a new one",
                         push->target.repository);
    if (status == STATUS_OK && push->options.create_pull_request && !push->repository.branch)
        return error_set(error, STATUS_USAGE, "--create-pr: there is no '%s@%s' to propose something to",
                         push->target.repository, push->target.revision);
    return status;
}

static enum status push_open(struct push *push, struct error *error) {
    const struct push_options *options = &push->options;
    enum status status = folder_open(options->folder, &push->folder, error);
    if (status == STATUS_OK)
        status = push_files_open(push->folder, &push->upload, error);
    if (status == STATUS_OK)
        status = manifest_read(push->folder, &push->manifest, &push->has_manifest, error);
    if (status == STATUS_OK)
        status = source_choose(push, error);
    if (status == STATUS_OK)
        status = hub_shared(&push->hub, error);
    if (status == STATUS_OK && !options->dry_run)
        status = token_require(push->hub, error);
    if (status == STATUS_OK)
        status = repository_look(push, error);
    if (status == STATUS_OK && !options->dry_run)
        status =
            hub_target_check(push->hub, &push->target, push->repository.found && !options->create_pull_request, error);
    push->upload.hub = push->hub;
    push->upload.reference = &push->target;
    push->upload.create_pull_request = options->create_pull_request;
    return status;
}

/* ---- the checks ---- */

static enum status verify(struct push *push, struct error *error) {
    const struct push_options *options = &push->options;
    enum status status = options->verified
                             ? gate_verified(options->verified, &push->manifest, &push->verify, &push->source, error)
                             : gate_verify(push->source, options->folder, options->quiet, &push->verify, error);
    push_tell_gate(push, &push->verify, status);
    return status;
}

/* The cheap ones first: verifying against a source on the Hub may take hours. */
static enum status push_check(struct push *push, struct error *error) {
    const struct push_options *options = &push->options;
    enum status status = gate_audit(options->folder, options->quiet, &push->audit, error);
    push_tell_gate(push, &push->audit, status);
    if (status == STATUS_OK && options->verified)
        status = verify(push, error);
    if (status == STATUS_OK)
        status = upload_hash(&push->upload, processor_count(), options->quiet, error);
    if (status == STATUS_OK && push->has_manifest)
        status = push_files_compare(&push->upload, &push->manifest, error);
    if (status == STATUS_OK)
        status = upload_card_check(&push->upload, error);
    if (status == STATUS_OK && !options->verified)
        status = verify(push, error);
    for (size_t i = 0; i < push->upload.count && status == STATUS_OK; i++)
        status = byte_source_check_unchanged(push->upload.files[i].source, error);
    return status;
}

/* ---- pushing ---- */

static enum status repository_make(struct push *push, struct error *error) {
    enum status status = STATUS_OK;
    if (!push->repository.found) {
        status = hub_target_create(push->hub, &push->target, push->options.private, error);
        if (status == STATUS_OK)
            status = repository_look(push, error);
        if (status == STATUS_OK && !push->repository.found)
            status =
                error_set(error, STATUS_IO, "'%s' was made, but the Hub does not show it", push->target.repository);
    }
    if (status == STATUS_OK && !push->repository.branch) {
        status = hub_target_branch(push->hub, &push->target, error);
        if (status == STATUS_OK)
            status = repository_look(push, error);
        if (status == STATUS_OK && !push->repository.branch)
            status = error_set(error, STATUS_IO, "the branch '%s' of '%s' was made, but the Hub does not show it",
                               push->target.revision, push->target.repository);
    }
    return status;
}

/* What the branch has; nothing where there is none. */
static enum status branch_read(struct push *push, struct error *error) {
    if (!push->repository.branch)
        return STATUS_OK;
    enum status status = upload_listing(&push->upload, push->repository.commit, &push->listing, error);
    if (status == STATUS_OK)
        upload_compare(&push->upload, &push->listing);
    return status;
}

static bool all_there(const struct push *push) {
    return upload_sum(&push->upload, UPLOAD_SAME).files == push->upload.count;
}

static enum status files_send(struct push *push, struct error *error) {
    enum status status = upload_ask(&push->upload, error);
    if (status != STATUS_OK)
        return status;
    push_tell_orders(push);
    status = upload_send(&push->upload, push->options.connections, push->options.quiet, error);
    if (status == STATUS_INTERRUPTED)
        return error_set(error, status, "interrupted; files that are whole on the Hub stay there: push again to go on");
    if (status == STATUS_OK)
        status = upload_commit(&push->upload, push->repository.commit, push->options.message, &push->result, error);
    return status == STATUS_OK ? upload_check(&push->upload, push->result.commit, error) : status;
}

static enum status push_run(struct push *push, struct error *error) {
    enum status status = push_open(push, error);
    if (status == STATUS_OK)
        status = push_check(push, error);
    if (status == STATUS_OK && !push->options.dry_run)
        status = repository_make(push, error);
    if (status == STATUS_OK)
        status = branch_read(push, error);
    if (status != STATUS_OK)
        return status;
    push_tell_branch(push);
    return push->options.dry_run || all_there(push) ? STATUS_OK : files_send(push, error);
}

static void push_close(struct push *push) {
    upload_result_free(&push->result);
    hub_listing_free(&push->listing);
    gate_result_free(&push->audit);
    gate_result_free(&push->verify);
    manifest_free(&push->manifest);
    upload_free(&push->upload);
    folder_close(push->folder);
    hub_reference_free(&push->target);
    free(push->source);
}

int command_push(int argc, char **argv) {
    struct push push = {0};
    struct error error = {0};
    bool help = false;
    enum status status = arguments_parse(argc, argv, &push.options, &push.target, &help, &error);
    if (status == STATUS_OK && help)
        fputs(usage, stdout);
    else if (status == STATUS_OK)
        status = push_run(&push, &error);
    if (!help && (status == STATUS_OK || status == STATUS_CHECK_FAILED)) {
        const enum status told = push_tell_result(&push, status, &error);
        status = told == STATUS_OK ? status : told;
    }
    push_close(&push);
    return status == STATUS_OK ? STATUS_OK : command_fail(status, &error);
}
