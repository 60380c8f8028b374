/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints against power cuts, full disks, failing calls and damaged bytes, on a simulated file
 * system; what they contain against the safetensors reader. */
#include "tests/support/checkpoint_case.h"
#include "tests/support/vfs_fault.h"
#include "tests/support/vfs_sim.h"
#include "workers/manifest.h"
#include "workers/safetensors.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct vfs_sim *new_disk(void) {
    struct vfs_sim *sim = vfs_sim_create();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    cr_assert_eq(nnc_vfs_make_dirs(vfs, "run", 0700), 0);
    cr_assert_eq(nnc_vfs_sync_path(vfs, "."), 0, "%s", nnc_error_text());
    return sim;
}

static void save_step(struct checkpoint_case *checkpoint, struct nnc_vfs *vfs, uint64_t step,
                      uint32_t keep, bool is_best) {
    checkpoint_case_set(checkpoint, step);
    cr_assert_eq(checkpoint_case_save(checkpoint, vfs, keep, is_best), 0, "%s", nnc_error_text());
}

static size_t count_checkpoints(struct nnc_vfs *vfs, uint64_t *ret_newest) {
    struct nnc_checkpoint_entry *entries;
    size_t count;
    cr_assert_eq(nnc_checkpoint_list(vfs, "run", &entries, &count), 0);
    *ret_newest = count > 0 ? entries[0].step : 0;
    free(entries);
    return count;
}

static int count_name(void *context, const char *name) {
    *(int *)context += strstr(name, ".tmp") != NULL;
    return 0;
}

static int count_temporaries(struct nnc_vfs *vfs) {
    int count = 0;
    cr_assert_eq(vfs->ops->list(vfs, "run", count_name, &count), 0);
    return count;
}

Test(checkpoint, what_was_saved_is_loaded_bit_for_bit) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 33);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    cr_assert_eq(checkpoint_case_find(&checkpoint, vfs), -1);
    static const uint64_t steps[] = {7, 100, 250, 123456789012u};
    for (size_t row = 0; row < sizeof(steps) / sizeof(steps[0]); row++) {
        save_step(&checkpoint, vfs, steps[row], 10, false);
        int64_t found = checkpoint_case_find(&checkpoint, vfs);
        cr_assert_eq(found, (int64_t)steps[row], "found %lld", (long long)found);
    }
    cr_assert_eq(vfs_sim_open_count(sim), 0);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, its_tensors_carry_torchvisions_names_and_batch_counters) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    save_step(&checkpoint, vfs, 42, 1, false);
    struct nnc_safetensors *file;
    cr_assert_eq(nnc_safetensors_open(vfs, "run/ckpt-000000000042/model.safetensors", &file), 0,
                 "%s", nnc_error_text());
    cr_assert_eq(file->count, checkpoint.graph->param_count + 1);
    for (uint32_t number = 0; number < checkpoint.graph->param_count; number++) {
        cr_assert_geq(nnc_safetensors_find(file, checkpoint.graph->params[number].name), 0);
    }
    int32_t counter = nnc_safetensors_find(file, "1.num_batches_tracked");
    cr_assert_geq(counter, 0);
    cr_assert_eq(file->tensors[counter].dtype, NNC_DTYPE_I64);
    cr_assert_eq(file->tensors[counter].offset % 8, 0);
    int64_t steps = 0;
    cr_assert_eq(nnc_safetensors_read_bytes(file, (uint32_t)counter, &steps), 0);
    cr_assert_eq(steps, 42);
    nnc_safetensors_close(file);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, the_hash_of_the_weights_is_that_of_names_and_values) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    const struct nnc_checkpoint_save_params params = {.vfs = vfs_sim_vfs(sim),
                                                      .run_dir = "run",
                                                      .graph = checkpoint.graph,
                                                      .state = &checkpoint.state,
                                                      .tensors = checkpoint.tensors};
    struct nnc_checkpoint_saved saved;
    char want[65];
    cr_assert_eq(nnc_checkpoint_save(&params, &saved), 0);
    cr_assert_eq(nnc_state_weights_sha256(checkpoint.graph, checkpoint.tensors, want), 0);
    cr_assert_str_eq(saved.weights_sha256, want);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, old_ones_go_but_never_the_best) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    for (uint64_t step = 1; step <= 6; step++) {
        save_step(&checkpoint, vfs, step, 2, step == 2);
    }
    uint64_t newest;
    cr_assert_eq(count_checkpoints(vfs, &newest), 3);
    cr_assert_eq(newest, 6);
    cr_assert(nnc_checkpoint_is_one(vfs, "run/ckpt-000000000002"));
    cr_assert_not(nnc_checkpoint_is_one(vfs, "run/ckpt-000000000004"));
    cr_assert_eq(count_temporaries(vfs), 0);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, saving_a_step_again_makes_a_newer_revision) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    save_step(&checkpoint, vfs, 5, 3, false);
    save_step(&checkpoint, vfs, 5, 3, false);
    struct nnc_checkpoint found;
    cr_assert_eq(nnc_checkpoint_find(vfs, "run", &found), 1);
    cr_assert_str_eq(found.path, "run/ckpt-000000000005-1");
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, only_names_of_checkpoints_are_taken_for_one) {
    static const struct {
        const char *name;
        int is_one;
        uint64_t step;
        uint32_t revision;
    } rows[] = {{"ckpt-000000012800", 1, 12800, 0},
                {"ckpt-000000012800-3", 1, 12800, 3},
                {"ckpt-1000000000000", 1, 1000000000000u, 0},
                {"ckpt-12800", 0, 0, 0},
                {"ckpt-000000012800.tmp.1.2", 0, 0, 0},
                {"ckpt-000000012800-", 0, 0, 0},
                {"ckpt-000000012800-0", 0, 0, 0},
                {"discarded-ckpt-000000012800", 0, 0, 0},
                {"ckpt-00000001280x", 0, 0, 0},
                {"best", 0, 0, 0}};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        uint64_t step = 0;
        uint32_t revision = 0;
        int is_one = nnc_checkpoint_parse_name(rows[row].name, &step, &revision);
        cr_assert_eq(is_one, rows[row].is_one, "%s", rows[row].name);
        cr_assert(step == rows[row].step && revision == rows[row].revision, "%s", rows[row].name);
    }
}

Test(checkpoint, fresh_puts_old_ones_aside) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    for (int again = 0; again < 2; again++) {
        save_step(&checkpoint, vfs, 3, 3, true);
        save_step(&checkpoint, vfs, 4, 3, false);
        cr_assert_eq(nnc_checkpoint_discard(vfs, "run"), 0, "%s", nnc_error_text());
        cr_assert_eq(checkpoint_case_find(&checkpoint, vfs), -1);
        cr_assert(nnc_checkpoint_is_one(vfs, "run/discarded-ckpt-000000000003"));
    }
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

/* ---- power cuts ---- */

enum {
    SAVES = 5,
    RANDOM_SEEDS = 40,
};

/* One disk after a cut: the newest checkpoint must load and be one that was saved, not older than
 * the last one that was reported durable; a save afterwards must work and leave no temporaries. */
static void check_cut(struct checkpoint_case *checkpoint, struct vfs_sim *after, int64_t durable,
                      int64_t newest, const char *what) {
    struct nnc_vfs *vfs = vfs_sim_vfs(after);
    int64_t found = checkpoint_case_find(checkpoint, vfs);
    cr_assert(found >= durable && found <= newest && found != 0, "%s: found %lld, durable %lld: %s",
              what, (long long)found, (long long)durable, nnc_error_text());
    vfs_sim_destroy(after);
}

static void check_next_save(struct checkpoint_case *checkpoint, struct vfs_sim *after,
                            const char *what) {
    struct nnc_vfs *vfs = vfs_sim_vfs(after);
    checkpoint_case_set(checkpoint, 77);
    cr_assert_eq(checkpoint_case_save(checkpoint, vfs, 2, false), 0, "%s: %s", what,
                 nnc_error_text());
    cr_assert_eq(checkpoint_case_find(checkpoint, vfs), 77, "%s", what);
    cr_assert_leq(count_temporaries(vfs), 2, "%s", what); /* LATEST.tmp, best.tmp at most */
    vfs_sim_destroy(after);
}

Test(checkpoint, a_power_cut_anywhere_leaves_a_checkpoint_as_new_as_reported) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 30); /* the weights take several 4 KiB blocks */
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    size_t durable_at[SAVES + 1] = {vfs_sim_trace_length(sim)};
    for (uint64_t step = 1; step <= SAVES; step++) {
        save_step(&checkpoint, vfs, step, 2, step == 2);
        durable_at[step] = vfs_sim_trace_length(sim);
    }
    size_t states = 0;
    for (size_t length = durable_at[0]; length <= durable_at[SAVES]; length++) {
        int64_t durable = SAVES;
        while (durable > 0 && durable_at[durable] > length) {
            durable--;
        }
        int64_t newest = durable < SAVES ? durable + 1 : SAVES;
        for (int cut = 0; cut < 2 + RANDOM_SEEDS; cut++) {
            enum vfs_sim_cut kind = cut < 2 ? (enum vfs_sim_cut)cut : VFS_SIM_KEEP_RANDOM;
            uint64_t seed = length * 100 + (uint64_t)cut;
            char what[64];
            snprintf(what, sizeof(what), "prefix %zu, cut %d", length, cut);
            check_cut(&checkpoint, vfs_sim_power_cut(sim, length, kind, seed),
                      durable == 0 ? -1 : durable, newest, what);
            if (cut == 2) {
                check_next_save(&checkpoint, vfs_sim_power_cut(sim, length, kind, seed), what);
            }
            states++;
        }
    }
    cr_assert_gt(states, 5000, "only %zu states: the trace is too short to mean anything", states);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

/* ---- failing calls ---- */

/* Step 1 is safe; every call of saving step 2 fails once, or from then on. */
static void fail_each_call(uint32_t ops, int error, uint64_t fail_count) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    uint64_t faults = 1;
    unsigned saved = 0, lost = 0;
    for (uint64_t call = 1; faults > 0; call++) {
        struct vfs_sim *sim = new_disk();
        save_step(&checkpoint, vfs_sim_vfs(sim), 1, 3, false);
        struct vfs_fault fault;
        vfs_fault_init(&fault, vfs_sim_vfs(sim));
        vfs_fault_arm(&fault, ops, call, error);
        fault.fail_count = fail_count;
        checkpoint_case_set(&checkpoint, 2);
        int code = checkpoint_case_save(&checkpoint, &fault.base, 3, false);
        faults = fault.faults;
        int64_t found = checkpoint_case_find(&checkpoint, vfs_sim_vfs(sim));
        cr_assert(code == 0 || code == -NNC_E_CHECKPOINT, "call %llu: code %d",
                  (unsigned long long)call, code);
        /* A save that was not reported may have happened all the same: its last sync failed. */
        cr_assert(found == 2 || (code < 0 && found == 1), "call %llu: code %d, found %lld",
                  (unsigned long long)call, code, (long long)found);
        if (code == 0) { /* reported: safe against the next power cut too */
            struct vfs_sim *after =
                vfs_sim_power_cut(sim, vfs_sim_trace_length(sim), VFS_SIM_KEEP_NONE, 0);
            cr_assert_eq(checkpoint_case_find(&checkpoint, vfs_sim_vfs(after)), 2,
                         "call %llu: reported, but not durable", (unsigned long long)call);
            vfs_sim_destroy(after);
        }
        saved += code == 0;
        lost += code < 0;
        /* The disk recovers: the next save works and cleans up. */
        save_step(&checkpoint, vfs_sim_vfs(sim), 3, 3, false);
        cr_assert_eq(checkpoint_case_find(&checkpoint, vfs_sim_vfs(sim)), 3);
        cr_assert_eq(vfs_sim_open_count(sim), 0, "call %llu leaves descriptors open",
                     (unsigned long long)call);
        vfs_sim_destroy(sim);
    }
    cr_assert_gt(saved, 0);
    cr_assert(fail_count == 1 || lost > 0);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, one_full_disk_at_any_write_is_survived_by_the_second_attempt) {
    fail_each_call(VFS_FAULT_ONLY(VFS_FAULT_PWRITE) | VFS_FAULT_ONLY(VFS_FAULT_ALLOCATE) |
                       VFS_FAULT_ONLY(VFS_FAULT_MKDIR) | VFS_FAULT_ONLY(VFS_FAULT_OPEN),
                   ENOSPC, 1);
}

Test(checkpoint, a_disk_that_stays_full_from_any_write_on_keeps_what_was_there) {
    fail_each_call(VFS_FAULT_ONLY(VFS_FAULT_PWRITE) | VFS_FAULT_ONLY(VFS_FAULT_ALLOCATE) |
                       VFS_FAULT_ONLY(VFS_FAULT_MKDIR),
                   ENOSPC, UINT64_MAX);
}

Test(checkpoint, any_single_failing_call_is_survived) {
    fail_each_call(VFS_FAULT_ALL, EIO, 1);
}

Test(checkpoint, when_nothing_opens_any_more_what_was_reported_is_durable) {
    fail_each_call(VFS_FAULT_ONLY(VFS_FAULT_OPEN), EIO, UINT64_MAX);
}

Test(checkpoint, a_failed_sync_is_never_repeated_on_the_same_file) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct vfs_fault fault;
    vfs_fault_init(&fault, vfs_sim_vfs(sim));
    vfs_fault_arm(&fault, VFS_FAULT_ONLY(VFS_FAULT_SYNC), 1, EIO);
    checkpoint_case_set(&checkpoint, 1);
    cr_assert_eq(checkpoint_case_save(&checkpoint, &fault.base, 3, false), 0);
    uint64_t opened_twice = fault.op_calls[VFS_FAULT_ALLOCATE];
    cr_assert_eq(fault.faults, 1);
    /* model once more in a new file: 1 + 4 files reserved. */
    cr_assert_eq(opened_twice, 5, "%llu files", (unsigned long long)opened_twice);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, a_small_disk_makes_room_by_deleting_old_ones_but_not_the_newest) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 60);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    uint64_t bytes = checkpoint.floats * sizeof(float);
    for (uint64_t step = 1; step <= 3; step++) {
        save_step(&checkpoint, vfs, step, 10, false);
    }
    vfs_sim_set_capacity(sim, 3 * bytes + bytes / 2 + 16384);
    save_step(&checkpoint, vfs, 4, 10, false);
    uint64_t newest;
    size_t count = count_checkpoints(vfs, &newest);
    cr_assert_eq(count, 2, "%zu are left", count);
    cr_assert_eq(checkpoint_case_find(&checkpoint, vfs), 4);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

/* ---- damage ---- */

static const char *const files[] = {"model.safetensors", "state.safetensors", "run.json",
                                    "MANIFEST"};

static uint64_t size_of(struct nnc_vfs *vfs, const char *path) {
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    cr_assert_geq(fd, 0, "%s", path);
    int64_t size = vfs->ops->size(vfs, fd);
    vfs->ops->close(vfs, fd);
    return (uint64_t)size;
}

static void flip_bit(struct nnc_vfs *vfs, const char *path, uint64_t offset, unsigned bit) {
    int fd = vfs->ops->open(vfs, path, O_RDWR, 0);
    cr_assert_geq(fd, 0);
    uint8_t byte;
    cr_assert_eq(vfs->ops->pread(vfs, fd, &byte, 1, offset), 1);
    byte ^= (uint8_t)(1u << bit);
    cr_assert_eq(vfs->ops->pwrite(vfs, fd, &byte, 1, offset), 1);
    vfs->ops->close(vfs, fd);
}

/* Replace a file by its first `bytes` bytes. */
static void truncate_to(struct nnc_vfs *vfs, const char *path, uint64_t bytes) {
    uint8_t *copy = malloc(bytes + 1);
    int fd = vfs->ops->open(vfs, path, O_RDONLY, 0);
    cr_assert_eq(nnc_vfs_read_all(vfs, fd, copy, bytes, 0), 0);
    vfs->ops->close(vfs, fd);
    fd = vfs->ops->open(vfs, path, O_WRONLY | O_TRUNC, 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(nnc_vfs_write_all(vfs, fd, copy, bytes, 0), 0);
    vfs->ops->close(vfs, fd);
    free(copy);
}

Test(checkpoint, every_flipped_bit_is_noticed_and_the_older_one_is_loaded) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    save_step(&checkpoint, vfs, 1, 3, false);
    save_step(&checkpoint, vfs, 2, 3, false);
    for (uint32_t round = 0; round < 2000; round++) {
        char path[128];
        uint32_t hash = round * 2654435761u;
        snprintf(path, sizeof(path), "run/ckpt-000000000002/%s", files[round % 4]);
        uint64_t offset = hash % size_of(vfs, path);
        flip_bit(vfs, path, offset, (hash >> 20) % 8);
        struct nnc_checkpoint found;
        cr_assert_eq(nnc_checkpoint_find(vfs, "run", &found), 1);
        cr_assert(found.skipped == 1 && nnc_state_global_step(&found.state) == 1,
                  "%s, byte %llu, bit %u was not noticed", path, (unsigned long long)offset,
                  (hash >> 20) % 8);
        cr_assert_not_null(strstr(found.why, "ckpt-000000000002"), "%s", found.why);
        flip_bit(vfs, path, offset, (hash >> 20) % 8);
    }
    cr_assert_eq(checkpoint_case_find(&checkpoint, vfs), 2);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, every_truncation_is_noticed) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    save_step(&checkpoint, vfs_sim_vfs(sim), 1, 3, false);
    save_step(&checkpoint, vfs_sim_vfs(sim), 2, 3, false);
    size_t length = vfs_sim_trace_length(sim);
    for (uint32_t round = 0; round < 200; round++) {
        struct vfs_sim *copy = vfs_sim_power_cut(sim, length, VFS_SIM_KEEP_ALL, 0);
        struct nnc_vfs *vfs = vfs_sim_vfs(copy);
        char path[128];
        snprintf(path, sizeof(path), "run/ckpt-000000000002/%s", files[round % 4]);
        truncate_to(vfs, path, round * 2654435761u % size_of(vfs, path));
        cr_assert_eq(checkpoint_case_find(&checkpoint, vfs), 1, "round %u: %s", round, path);
        vfs_sim_destroy(copy);
    }
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, a_run_whose_checkpoints_are_all_damaged_does_not_start_from_zero) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    save_step(&checkpoint, vfs, 1, 3, false);
    flip_bit(vfs, "run/ckpt-000000000001/run.json", 3, 0);
    struct nnc_checkpoint found;
    cr_assert_eq(nnc_checkpoint_find(vfs, "run", &found), -NNC_E_CHECKPOINT);
    cr_assert_eq(nnc_error_exit_status(-NNC_E_CHECKPOINT), 74);
    cr_assert_not_null(strstr(nnc_error_text(), "run.json"), "%s", nnc_error_text());
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, another_models_checkpoint_is_not_loaded) {
    struct checkpoint_case checkpoint, other;
    checkpoint_case_init(&checkpoint, 8);
    checkpoint_case_init(&other, 9);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    save_step(&checkpoint, vfs, 1, 3, false);
    struct nnc_checkpoint found;
    cr_assert_eq(nnc_checkpoint_find(vfs, "run", &found), 1);
    cr_assert_eq(nnc_checkpoint_load(vfs, &found, other.graph, other.tensors), -NNC_E_CHECKPOINT);
    cr_assert_not_null(strstr(nnc_error_text(), "shape"), "%s", nnc_error_text());
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
    checkpoint_case_finish(&other);
}

/* ---- a source that changes while it is saved ---- */

static int refuse(void *context, uint64_t hash) {
    *(uint64_t *)context = hash;
    return nnc_fail(-NNC_E_FORMAT, "overwritten");
}

Test(checkpoint, a_refused_confirmation_leaves_nothing) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct vfs_sim *sim = new_disk();
    struct nnc_vfs *vfs = vfs_sim_vfs(sim);
    uint64_t hash = 0;
    const struct nnc_checkpoint_save_params params = {.vfs = vfs,
                                                      .run_dir = "run",
                                                      .graph = checkpoint.graph,
                                                      .state = &checkpoint.state,
                                                      .tensors = checkpoint.tensors,
                                                      .confirm = refuse,
                                                      .context = &hash};
    struct nnc_checkpoint_saved saved;
    cr_assert_eq(nnc_checkpoint_save(&params, &saved), -NNC_E_FORMAT);
    cr_assert_neq(hash, 0);
    cr_assert_eq(checkpoint_case_find(&checkpoint, vfs), -1);
    cr_assert_eq(count_temporaries(vfs), 0);
    vfs_sim_destroy(sim);
    checkpoint_case_finish(&checkpoint);
}

/* ---- run.json and the rules of resuming ---- */

Test(checkpoint, a_resume_with_other_numbers_names_both) {
    struct checkpoint_case checkpoint;
    checkpoint_case_init(&checkpoint, 8);
    struct nnc_train_state run = checkpoint.state;
    cr_assert_eq(nnc_state_check(&checkpoint.state, &run), 0);
    run.global_batch = 256;
    cr_assert_eq(nnc_state_check(&checkpoint.state, &run), -NNC_E_USAGE);
    cr_assert_not_null(strstr(nnc_error_text(), "128"), "%s", nnc_error_text());
    cr_assert_not_null(strstr(nnc_error_text(), "256"), "%s", nnc_error_text());
    run = checkpoint.state;
    run.seed = 3;
    cr_assert_eq(nnc_state_check(&checkpoint.state, &run), -NNC_E_USAGE);
    cr_assert_not_null(strstr(nnc_error_text(), "seed"), "%s", nnc_error_text());
    run = checkpoint.state;
    run.param_hash++;
    cr_assert_eq(nnc_state_check(&checkpoint.state, &run), -NNC_E_USAGE);
    checkpoint_case_finish(&checkpoint);
}

Test(checkpoint, broken_run_records_are_refused) {
    static const char *const rows[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"format\": \"nncoord-run 2\"}",
        "{\"format\":\"nncoord-run "
        "1\",\"epoch\":-1,\"step\":0,\"steps_per_epoch\":1,\"seed\":\"1\","
        "\"train_samples\":1,\"global_batch\":1,\"parameters_hash\":\"0\",\"acc1\":0,\"best_acc1\":"
        "0,"
        "\"epoch_so_far\":[]}",
        "{\"format\":\"nncoord-run 1\",\"epoch\":1,\"step\":0,\"steps_per_epoch\":1,\"seed\":\"x\","
        "\"train_samples\":1,\"global_batch\":1,\"parameters_hash\":\"0\",\"acc1\":0,\"best_acc1\":"
        "0,"
        "\"epoch_so_far\":[]}",
        "{\"format\":\"nncoord-run 1\",\"epoch\":1,\"step\":0,\"steps_per_epoch\":1,\"seed\":\"1\","
        "\"train_samples\":1,\"global_batch\":1,\"parameters_hash\":\"0\",\"acc1\":0,\"best_acc1\":"
        "0,\"loss_scale\":-1,"
        "\"epoch_so_far\":[{\"loss_sum\":0,\"count\":0,\"correct1\":0,\"correct5\":0,"
        "\"left_out\":0,\"seconds\":0,\"wait_seconds\":0}]}"};
    for (size_t row = 0; row < sizeof(rows) / sizeof(rows[0]); row++) {
        struct nnc_train_state state;
        cr_assert_eq(nnc_checkpoint_state_parse(rows[row], strlen(rows[row]), &state),
                     -NNC_E_FORMAT, "row %zu", row);
    }
}
